//! Huge pages of a cgroup, where the hugetlb controller counts them.
//!
//! Reclaim never touches huge pages. Unless cgroup2 is mounted with `memory_hugetlb_accounting`
//! (since 6.7), `memory.current` doesn't include them either.

use super::Cgroup;
use crate::host::proc::parse_number;

/// Returns the huge pages of all sizes that a cgroup and all below use, bytes; `None` without the
/// controller.
#[must_use]
pub(crate) fn used(cgroup: &Cgroup) -> Option<u64> {
    let names = std::fs::read_dir(cgroup.path()).ok()?.flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let usages = names.filter(|name| is_usage(name));
    let usages = usages.filter_map(|name| parse_number(&cgroup.read(&name).ok()?).ok()?);
    usages.reduce(u64::saturating_add)
}

/// Returns whether a file gives usage: `hugetlb.2MB.current`, but not `hugetlb.2MB.rsvd.current`,
/// which counts reservations.
fn is_usage(name: &str) -> bool {
    let size = name.strip_prefix("hugetlb.").and_then(|rest| rest.strip_suffix(".current"));
    size.is_some_and(|size| !size.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_told_from_what_is_promised() {
        assert!(is_usage("hugetlb.2MB.current") && is_usage("hugetlb.1GB.current"));
        for other in ["hugetlb.2MB.rsvd.current", "hugetlb.2MB.max", "hugetlb.current", "memory.current"] {
            assert!(!is_usage(other), "{other}");
        }
    }
}
