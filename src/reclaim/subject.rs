//! The kind of a request's target.

/// Kind of a request's target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetKind {
    /// A cgroup.
    #[default]
    Cgroup,
    /// The NUMA node of this number.
    Node(u32),
}

impl TargetKind {
    /// Returns the name of the file that is written to.
    #[must_use]
    pub fn file(self) -> &'static str {
        match self {
            Self::Cgroup => crate::cgroup::reclaim::FILE,
            Self::Node(_) => crate::node::FILE,
        }
    }
}
