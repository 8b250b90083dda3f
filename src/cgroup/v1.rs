//! Memory controllers that are still on a hierarchy of version 1.

use std::path::PathBuf;

use super::mount::{fields, halves, lines};
use crate::host::proc::{read_bytes, read_system_file, unescape};

/// Returns the mount point of the memory controller, if the bytes of a `/proc/self/mountinfo` show
/// it mounted as cgroup v1.
#[must_use]
pub(crate) fn memory_on_v1(mountinfo: &[u8]) -> Option<PathBuf> {
    lines(mountinfo).find_map(|line| {
        let [mount, file_system] = halves(line)?;
        let mut tail = fields(file_system);
        let is_v1 = tail.next()? == b"cgroup";
        let memory = tail.nth(1)?.split(|&byte| byte == b',').any(|option| option == b"memory");
        (is_v1 && memory).then(|| fields(mount).nth(4).map(unescape)).flatten()
    })
}

/// Returns the place of the memory controller, if it is on a hierarchy of version 1, mounted or
/// not.
pub(crate) fn controller_on_v1() -> Option<PathBuf> {
    let mountinfo = read_bytes("/proc/self/mountinfo").unwrap_or_default();
    memory_on_v1(&mountinfo).or_else(|| {
        let cgroups = read_system_file("/proc/cgroups").unwrap_or_default();
        let found = controller(&cgroups, "memory").filter(|found| found.enabled && found.hierarchy != 0)?;
        Some(PathBuf::from(format!("hierarchy {}", found.hierarchy)))
    })
}

/// Line of `/proc/cgroups`.
#[derive(Debug, PartialEq, Eq)]
struct Controller {
    hierarchy: u32,
    enabled: bool,
}

fn controller(text: &str, name: &str) -> Option<Controller> {
    let line = text.lines().map(str::split_whitespace).find_map(|mut f| (f.next()? == name).then_some(f))?;
    let mut fields = line;
    let hierarchy = fields.next()?.parse().ok()?;
    Some(Controller { hierarchy, enabled: fields.nth(1)? == "1" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UNIFIED: &[u8] =
        b"35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &[u8] = b"36 35 0:31 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n\
        40 35 0:35 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n";

    #[test]
    fn a_controller_on_v1_is_seen() {
        assert_eq!(memory_on_v1(HYBRID), Some(PathBuf::from("/sys/fs/cgroup/memory")));
        assert_eq!(memory_on_v1(UNIFIED), None);
    }

    #[test]
    fn proc_cgroups_tells_of_version_one_and_of_disabling() {
        let text =
            "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t3\t1\nmemory\t7\t9\t1\npids\t0\t1\t0\n";
        assert_eq!(controller(text, "memory"), Some(Controller { hierarchy: 7, enabled: true }));
        assert_eq!(controller(text, "pids"), Some(Controller { hierarchy: 0, enabled: false }));
        assert_eq!(controller(text, "hugetlb"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = memory_on_v1(&text);
        }
    }
}
