//! User namespace of this process (`user_namespaces(7)`).

use super::proc::read_system_file;

/// Mapping of user IDs into this process's user namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct UserNamespace {
    /// ID that stands for all users without one in this namespace, the host's root among them.
    pub overflow: u32,
    /// Lines of `/proc/self/uid_map`, none in a namespace without a mapping yet; `None` if it can't
    /// be read.
    ranges: Option<Vec<Range>>,
}

/// User IDs that follow each other, inside and outside of the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    inside: u32,
    outside: u32,
    count: u32,
}

impl UserNamespace {
    /// Returns the user namespace of this process.
    #[must_use]
    pub(crate) fn of_self() -> Self {
        let read = |path: &str| read_system_file(path).ok();
        Self::parse(read("/proc/self/uid_map").as_deref(), read("/proc/sys/kernel/overflowuid").as_deref())
    }

    /// Parses the texts of `uid_map` and `overflowuid`; `None` for one that can't be read.
    pub(crate) fn parse(map: Option<&str>, overflow: Option<&str>) -> Self {
        /// `DEFAULT_OVERFLOWUID`, include/linux/highuid.h.
        const OVERFLOW: u32 = 65534;
        let range = |line: &str| {
            let mut numbers = line.split_whitespace().map(str::parse);
            let mut next = || numbers.next()?.ok();
            Some(Range { inside: next()?, outside: next()?, count: next()? })
        };
        let overflow = overflow.and_then(|text| text.trim().parse().ok()).unwrap_or(OVERFLOW);
        Self { overflow, ranges: map.map(|map| map.lines().filter_map(range).collect()) }
    }

    /// Returns whether every user has an ID here, as in the host's own namespace. If the mapping
    /// can't be read, every user is taken to have one.
    #[must_use]
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.ranges.as_deref(), None | Some([Range { inside: 0, outside: 0, count: u32::MAX }]))
    }

    /// Returns whether an ID stands for users without one in this namespace. Where the namespace
    /// maps that ID, too, it may also be the one user's who has it.
    #[must_use]
    pub(crate) fn is_unmapped(&self, uid: u32) -> bool {
        uid == self.overflow && !self.is_whole()
    }

    /// Returns the ID outside of the namespace of a user in it.
    #[must_use]
    pub(crate) fn outside(&self, uid: u32) -> Option<u32> {
        let offset = |range: &Range| uid.checked_sub(range.inside).filter(|offset| *offset < range.count);
        self.ranges.iter().flatten().find_map(|range| range.outside.checked_add(offset(range)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_namespace_of_its_own_has_users_without_an_id() {
        let of = |map| UserNamespace::parse(Some(map), Some("65534\n"));
        let host = of("         0          0 4294967295\n");
        assert!(!host.is_unmapped(65534) && host.outside(1000) == Some(1000));
        let rootless = of("         0       1000          1\n         1     100000      65536\n");
        assert!(rootless.is_unmapped(65534) && !rootless.is_unmapped(0));
        assert_eq!([0, 1, 70000].map(|uid| rootless.outside(uid)), [Some(1000), Some(100_000), None]);
        assert!(of("").is_unmapped(65534), "a namespace without a mapping");
        assert_eq!(of("").outside(65534), None);
        let hidden = UserNamespace::parse(None, None);
        assert!(hidden.overflow == 65534 && !hidden.is_unmapped(65534));
        assert!(UserNamespace::parse(Some("0 1000 1\n"), Some("99")).is_unmapped(99));
    }
}
