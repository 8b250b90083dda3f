//! Whose memory a request is for.

/// Whose memory a request is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetKind {
    /// A cgroup's.
    #[default]
    Cgroup,
    /// That of the NUMA node of this number.
    Node(u32),
}

impl TargetKind {
    /// The name of the file that is written to.
    #[must_use]
    pub fn file(self) -> &'static str {
        match self {
            Self::Cgroup => crate::cgroup::reclaim::FILE,
            Self::Node(_) => crate::node::FILE,
        }
    }
}
