//! What a host offers around reclaim: swap devices and their order, zswap, MGLRU, PSI, huge pages, our own capabilities.

use super::read_system_file;

/// What was found. What can't be told is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// `uname -r`.
    pub release: Option<String>,
    /// Whether the kernel keeps PSI.
    pub psi: bool,
    /// The swaps, those that are filled first in front.
    pub swaps: Vec<SwapDevice>,
    /// Whether zswap is on; `None` where it isn't built in.
    pub zswap: Option<bool>,
    /// Whether the multi-generational LRU is on; `None` where it isn't built in.
    pub mglru: Option<bool>,
    /// `vm.swappiness`.
    pub swappiness: Option<u8>,
    /// Huge pages set aside, bytes: never reclaimed.
    pub hugetlb: u64,
    /// Whether this process may lock as much memory as it likes (`CAP_SYS_RESOURCE`, or `CAP_IPC_LOCK`).
    pub may_lock: bool,
}

/// A line of `/proc/swaps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwapDevice {
    /// Its path.
    pub name: String,
    /// Its size, bytes.
    pub size: u64,
    /// The higher, the earlier it is filled.
    pub priority: i32,
}

impl SwapDevice {
    /// Whether it is memory itself, compressed.
    #[must_use]
    pub fn is_zram(&self) -> bool {
        self.name.starts_with("/dev/zram")
    }
}

impl Host {
    /// Looks at this host.
    #[must_use]
    pub fn look() -> Self {
        let read = |path: &str| read_system_file(path).ok();
        let flag = |path: &str| Some(matches!(read(path)?.trim(), "Y" | "1"));
        let mglru = read("/sys/kernel/mm/lru_gen/enabled");
        let meminfo = read("/proc/meminfo").unwrap_or_default();
        let status = read("/proc/self/status").unwrap_or_default();
        Self {
            release: super::kernel_release(),
            psi: read("/proc/pressure/memory").is_some(),
            swaps: swaps(&read("/proc/swaps").unwrap_or_default()),
            zswap: flag("/sys/module/zswap/parameters/enabled"),
            mglru: mglru.map(|text| text.trim() != "0x0000"),
            swappiness: read("/proc/sys/vm/swappiness").and_then(|text| text.trim().parse().ok()),
            hugetlb: kib(&meminfo, "Hugetlb:").unwrap_or(0) * 1024,
            may_lock: capable(&status),
        }
    }
}

fn swaps(text: &str) -> Vec<SwapDevice> {
    let lines = text.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let name = fields.next()?.to_owned();
        let size = fields.nth(1)?.parse::<u64>().ok()? * 1024;
        Some(SwapDevice { name, size, priority: fields.nth(1)?.parse().ok()? })
    });
    let mut swaps: Vec<_> = lines.collect();
    swaps.sort_by_key(|swap| std::cmp::Reverse(swap.priority));
    swaps
}

/// A line of `/proc/meminfo`, KiB.
pub(super) fn kib(meminfo: &str, key: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// Either capability lifts the limit on locked memory: 14 is `CAP_IPC_LOCK`, 24 `CAP_SYS_RESOURCE`.
fn capable(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0);
    bits & (1 << 14 | 1 << 24) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swaps_come_in_the_order_of_filling() {
        let text = "Filename Type Size Used Priority\n/dev/sda2 partition 1024 0 -2\n/dev/zram0 partition 2048 5 100\n";
        let found = swaps(text);
        assert_eq!((found[0].name.as_str(), found[0].size, found[0].priority), ("/dev/zram0", 2 << 20, 100));
        assert!(found[0].is_zram() && !found[1].is_zram());
        assert!(swaps("").is_empty());
    }

    #[test]
    fn capabilities_are_read() {
        assert!(capable("Name:\tx\nCapEff:\t000001ffffffffff\n"));
        assert!(!capable("CapEff:\t0000000000000000\n") && !capable(""));
        assert_eq!(kib("MemTotal: 5 kB\nHugetlb:        2048 kB\n", "Hugetlb:"), Some(2048));
    }
}
