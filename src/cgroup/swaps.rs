//! The host's swap areas: how much is free, and whether they are quick.

use std::path::{Path, PathBuf};

use super::read_system_file;

/// All swap areas together. Amounts are bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swaps {
    /// How large they are.
    pub total: u64,
    /// What is free of that.
    pub free: u64,
    /// Whether none of them lies on a rotating disk, or zswap stands before them all.
    pub quick: bool,
    /// Whether what goes there wears out a disk: not zram, nor zswap.
    pub wears: bool,
}

impl Swaps {
    /// Looks at them.
    #[must_use]
    pub fn look() -> Self {
        let text = read_system_file("/proc/swaps").unwrap_or_default();
        let zswap =
            read_system_file("/sys/module/zswap/parameters/enabled").is_ok_and(|on| on.starts_with('Y'));
        Self::from_areas(&text, zswap, rotates)
    }

    /// What is free of all, without a look at what they are.
    #[must_use]
    pub fn free() -> u64 {
        let info = rustix::system::sysinfo();
        // The kernel's word is as wide as a pointer.
        #[allow(clippy::unnecessary_cast)]
        let free = info.freeswap as u64;
        free.saturating_mul(u64::from(info.mem_unit))
    }

    fn from_areas(text: &str, zswap: bool, rotates: impl Fn(&Path) -> bool) -> Self {
        let mut swaps = Self { quick: true, ..Self::default() };
        for line in text.lines().skip(1) {
            let fields: Vec<_> = line.split_whitespace().collect();
            let [name, _, size, used, ..] = fields[..] else { continue };
            let (size, used) = (size.parse().unwrap_or(0u64), used.parse().unwrap_or(0u64));
            swaps.total += size * 1024;
            swaps.free += size.saturating_sub(used) * 1024;
            if !name.starts_with("/dev/zram") && !zswap {
                swaps.wears = true;
                swaps.quick &= !rotates(Path::new(name));
            }
        }
        swaps
    }
}

/// What went to swap since the host was started, bytes.
#[must_use]
pub fn swapped_out() -> u64 {
    let text = read_system_file("/proc/vmstat").unwrap_or_default();
    let pages = text.lines().find_map(|line| line.strip_prefix("pswpout ")?.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

/// Whether a swap area lies on a rotating disk, as the kernel says. What it says nothing of is taken for one.
fn rotates(area: &Path) -> bool {
    let device = std::fs::metadata(area).map(|meta| {
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        if meta.file_type().is_block_device() { meta.rdev() } else { meta.dev() }
    });
    let Ok(device) = device else { return true };
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let sysfs = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    // A partition has no queue of its own: its disk, the directory above, does.
    let queue = ["queue/rotational", "../queue/rotational"];
    let said = queue.iter().find_map(|file| std::fs::read_to_string(sysfs.join(file)).ok());
    said.is_none_or(|said| said.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SWAPS: &str = "Filename\t\t\tType\t\tSize\t\tUsed\t\tPriority\n\
        /dev/zram0 partition\t1000\t400\t100\n/dev/sda2 partition\t3000\t0\t-2\n";

    #[test]
    fn areas_add_up_and_the_slowest_counts() {
        let slow = Swaps::from_areas(SWAPS, false, |_| true);
        let expected = Swaps { total: 4000 * 1024, free: 3600 * 1024, quick: false, wears: true };
        assert_eq!(slow, expected);
        assert!(Swaps::from_areas(SWAPS, false, |_| false).quick, "an SSD");
        let zswap = Swaps::from_areas(SWAPS, true, |_| true);
        assert!(zswap.quick && !zswap.wears);
        let none = Swaps::from_areas("Filename\n", false, |_| true);
        assert_eq!((none.total, none.quick, none.wears), (0, true, false));
    }
}
