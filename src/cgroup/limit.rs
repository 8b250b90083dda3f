//! Limit that binds a cgroup, its own or an ancestor's, and the distance to it.

/// File that sets a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitFile {
    /// `memory.high`: beyond it the kernel throttles and reclaims.
    High,
    /// `memory.max`: beyond it the kernel kills.
    Max,
}

impl LimitFile {
    /// Returns the file's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::High => "memory.high",
            Self::Max => "memory.max",
        }
    }
}

/// Value of a limit's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ceiling {
    /// No limit.
    Max,
    /// Limit in bytes.
    Bytes(u64),
}

impl Ceiling {
    /// Returns the limit in bytes, if there is one.
    #[must_use]
    pub fn bytes(self) -> Option<u64> {
        match self {
            Self::Max => None,
            Self::Bytes(bytes) => Some(bytes),
        }
    }
}

/// Limit that binds a cgroup: of its own and all ancestors' limits, the limit that leaves least.
/// Amounts are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingLimit {
    /// Limit in bytes.
    pub limit: u64,
    /// Limit minus the usage of the level that sets it, which for an ancestor includes siblings'
    /// usage.
    pub headroom: u64,
    /// Name of the level that sets the limit, from the mount point.
    pub cgroup: String,
    /// File that sets the limit.
    pub file: LimitFile,
}

impl BindingLimit {
    /// Returns the limit of one level alone, if it has one: from its name, `memory.high`,
    /// `memory.max` and `memory.current`.
    #[must_use]
    pub(crate) fn of(
        name: &str,
        high: Option<Ceiling>,
        max: Option<Ceiling>,
        current: Option<u64>,
    ) -> Option<Self> {
        let of = |limit: Option<Ceiling>, file| Some((limit?.bytes()?, file));
        let (high, max) = (of(high, LimitFile::High), of(max, LimitFile::Max));
        // Prefer memory.max of equal limits, since usage can't exceed it.
        let (limit, file) = [max, high].into_iter().flatten().min_by_key(|(limit, _)| *limit)?;
        let headroom = limit.saturating_sub(current?);
        Some(Self { limit, headroom, cgroup: name.to_owned(), file })
    }

    /// Returns the limit of the two that leaves less; of equals the nearer one, which is `own`.
    #[must_use]
    pub(crate) fn tighter(own: Option<Self>, above: Option<&Self>) -> Option<Self> {
        match (own, above) {
            (Some(own), Some(above)) if above.headroom < own.headroom => Some(above.clone()),
            (None, above) => above.cloned(),
            (own, _) => own,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, high: Option<u64>, max: Option<u64>, current: u64) -> Option<BindingLimit> {
        BindingLimit::of(name, high.map(Ceiling::Bytes), max.map(Ceiling::Bytes), Some(current))
    }

    #[test]
    fn the_level_that_leaves_least_binds() {
        let own = of("/a/b", None, Some(100), 40);
        let above = of("/a", Some(200), Some(300), 190).unwrap();
        assert_eq!((above.headroom, above.file), (10, LimitFile::High));
        let bound = BindingLimit::tighter(own.clone(), Some(&above)).unwrap();
        assert_eq!((bound.cgroup.as_str(), bound.limit, bound.headroom), ("/a", 200, 10));
        let roomy = of("/a", None, Some(1000), 190);
        assert_eq!(BindingLimit::tighter(own.clone(), roomy.as_ref()), own);
        assert_eq!(BindingLimit::tighter(None, None), None);
        assert_eq!(of("/a", None, None, 1), None);
        assert_eq!(of("/a", None, Some(10), 20).unwrap().headroom, 0, "above the limit already");
        assert_eq!(of("/a", Some(10), Some(10), 0).unwrap().file, LimitFile::Max);
    }
}
