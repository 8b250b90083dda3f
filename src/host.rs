//! Features of the host that matter to reclaim: swap devices and their order, zswap, MGLRU, PSI,
//! huge and pinned pages, and the rights of this process.

use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use kernel::kernel_release;
use proc::{meminfo_bytes, read_system_file};
use swap_areas::{SwapAreas, SwapSpace};
use user::UserNamespace;
use zswap::ZswapPool;

pub mod block;
pub(crate) mod disk_stat;
pub mod files;
pub mod kernel;
pub mod locks;
mod mounts;
pub mod proc;
pub mod psi;
pub mod reader;
pub mod swap_areas;
pub mod swap_summary;
pub mod user;
pub(crate) mod vmstat;
pub mod zram;
pub mod zswap;

pub use locks::LockHolder;
pub use psi::PsiState;
pub use reader::Reader;

/// Features of the host. Unknown values are `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// Release of the kernel, as in `uname -r`.
    pub release: Option<String>,
    /// State of PSI on the host.
    pub psi: PsiState,
    /// Swap areas.
    pub swaps: SwapAreas,
    /// Size of all swap; `None` if the system's figures can't be true.
    pub swap_space: Option<SwapSpace>,
    /// Total and free swap that `/proc/meminfo` shows instead, if it shows something else.
    pub swap_shown: Option<(u64, u64)>,
    /// Pool of zswap; `None` where zswap isn't built in.
    pub zswap: Option<ZswapPool>,
    /// Multi-generational LRU; `None` where it isn't built in.
    pub mglru: Option<Mglru>,
    /// `vm.swappiness`.
    pub swappiness: Option<u8>,
    /// Huge pages set aside, bytes: never reclaimed.
    pub hugetlb: Option<u64>,
    /// Pages pinned by a device, such as a virtual machine's, or by `io_uring`, bytes (`FOLL_PIN`,
    /// since 5.7).
    pub pinned: Option<u64>,
    /// Rights of this process.
    pub rights: Rights,
}

/// Multi-generational LRU (since 6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mglru {
    /// True if the LRU is on.
    pub on: bool,
    /// Minimum age of a generation before kswapd evicts it, milliseconds; 0 is off.
    /// `memory.reclaim` is not bound by this.
    pub min_ttl_ms: u64,
}

/// Rights of a process.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Right to lock any amount of memory (`CAP_IPC_LOCK`), which the root of another user
    /// namespace than the host's doesn't have (`capable()` of mm/mlock.c).
    pub ipc_lock: bool,
    /// Right to raise its own limits (`CAP_SYS_RESOURCE`), in the host's user namespace only.
    pub raises_limits: bool,
    /// Right to set PSI triggers with any window (`CAP_SYS_RESOURCE`, in any user namespace).
    pub sys_resource: bool,
    /// Right to write to a file whatever its owner and mode (`CAP_DAC_OVERRIDE`). In a user
    /// namespace, only if the file's owner and group have IDs there.
    pub dac_override: bool,
    /// Limit on locked memory (`RLIMIT_MEMLOCK`), bytes; `None` is no limit.
    pub memlock: Option<u64>,
}

impl Host {
    /// Reads the features of this host.
    #[must_use]
    pub(crate) fn read() -> Self {
        let read = |path: &str| read_system_file(path).ok();
        let meminfo = read("/proc/meminfo");
        let swap_space = SwapSpace::read();
        Self {
            release: kernel_release(),
            psi: PsiState::of_host(),
            swaps: SwapAreas::read(),
            swap_space,
            swap_shown: swap_space.and_then(SwapSpace::shown_otherwise),
            zswap: ZswapPool::of_host(),
            mglru: Mglru::read(),
            swappiness: proc::swappiness(),
            hugetlb: meminfo.as_deref().and_then(|meminfo| meminfo_bytes(meminfo, "Hugetlb")),
            pinned: vmstat::pinned(),
            rights: Rights::of_self(),
        }
    }
}

/// File with the state of the multi-generational LRU.
const LRU_GEN: &str = "/sys/kernel/mm/lru_gen/enabled";

impl Mglru {
    /// Reads the state of the LRU; `None` where the kernel doesn't have it.
    pub(crate) fn read() -> Option<Self> {
        let enabled = read_system_file(LRU_GEN).ok()?;
        let min_ttl = read_system_file("/sys/kernel/mm/lru_gen/min_ttl_ms").ok();
        Self::parse(&enabled, min_ttl.as_deref())
    }

    /// Returns whether the kernel uses this LRU now. Allocates nothing, since it is asked again and
    /// again.
    pub(crate) fn is_on() -> bool {
        let mut text = [0; 16];
        let file = rustix::fs::open(LRU_GEN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let length = file.and_then(|file| rustix::io::read(file, &mut text));
        let text = length.ok().and_then(|length| std::str::from_utf8(&text[..length]).ok());
        text.and_then(|text| Self::parse(text, None)).is_some_and(|lru| lru.on)
    }

    /// Parses the files of the LRU. The first bit of `enabled` is the LRU itself (`LRU_GEN_CORE`,
    /// mm/vmscan.c); the others are details of its operation.
    fn parse(enabled: &str, min_ttl: Option<&str>) -> Option<Self> {
        let bits = u32::from_str_radix(enabled.trim().strip_prefix("0x")?, 16).ok()?;
        let min_ttl_ms = min_ttl.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        Some(Self { on: bits & 1 != 0, min_ttl_ms })
    }
}

impl Rights {
    /// Returns the rights of this process.
    #[must_use]
    pub fn of_self() -> Self {
        // capget(2) fails only for another process.
        let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
        let memlock = getrlimit(Resource::Memlock).current;
        Self::new(effective, memlock, UserNamespace::of_self().is_whole())
    }

    fn new(effective: CapabilitySet, memlock: Option<u64>, is_host: bool) -> Self {
        Self {
            ipc_lock: is_host && effective.contains(CapabilitySet::IPC_LOCK),
            raises_limits: is_host && effective.contains(CapabilitySet::SYS_RESOURCE),
            sys_resource: effective.contains(CapabilitySet::SYS_RESOURCE),
            dac_override: effective.contains(CapabilitySet::DAC_OVERRIDE),
            memlock,
        }
    }
}

/// Returns the address ranges of this program's file that were mapped and never written to, its code
/// and its constants: the first address and the one after the last, for each mapping. Nothing where
/// the kernel doesn't tell (`CONFIG_PROC_PAGE_MONITOR`).
#[must_use]
pub fn file_of_self() -> Vec<(usize, usize)> {
    let Ok(program) = std::fs::read_link("/proc/self/exe") else { return Vec::new() };
    let maps = read_system_file("/proc/self/smaps").unwrap_or_default();
    unwritten(&program.to_string_lossy(), &maps)
}

/// Returns the resident memory of this process, bytes; `None` if it can't be read.
#[must_use]
pub fn resident_of_self() -> Option<u64> {
    let statm = read_system_file("/proc/self/statm").ok()?;
    statm.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(proc::page_size())
}

/// Returns the ranges of a text of `/proc/self/smaps` that are the file of `program`, read-only and
/// without a page of their own, be it in memory or in swap: such a page was written to, as those of
/// constants with addresses are when the program is loaded.
fn unwritten(program: &str, smaps: &str) -> Vec<(usize, usize)> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    // The mapping that the lines are about, and the number of its lines that say that it has none.
    let mut mapping = None;
    for line in smaps.lines() {
        if let Some(range) = range_of(line) {
            mapping = is_file_of(program, line).then_some((range, 0));
        } else if let Some((range, clean)) = &mut mapping
            && matches!(
                line.split_ascii_whitespace().collect::<Vec<_>>()[..],
                ["Anonymous:" | "Swap:", "0", "kB"]
            )
        {
            *clean += 1;
            if *clean == 2 {
                found.push(*range);
            }
        }
    }
    found
}

/// Returns the range of a mapping's first line; `None` for other lines.
fn range_of(line: &str) -> Option<(usize, usize)> {
    let (begin, end) = line.split_ascii_whitespace().next()?.split_once('-')?;
    let address = |digits| usize::from_str_radix(digits, 16).ok();
    Some((address(begin)?, address(end)?))
}

/// Returns whether a mapping's first line is of a file, private and read-only.
fn is_file_of(program: &str, line: &str) -> bool {
    let mut fields = line.split_ascii_whitespace();
    matches!(fields.nth(1), Some("r-xp" | "r--p")) && fields.nth(3) == Some(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read() {
        // As in CapEff of /proc/PID/status, which is where the kernel shows them to others.
        let new = |bits, is_host| Rights::new(CapabilitySet::from_bits_retain(bits), Some(1), is_host);
        let inner = Rights { sys_resource: true, dac_override: true, memlock: Some(1), ..Rights::default() };
        let all = Rights { ipc_lock: true, raises_limits: true, ..inner };
        assert_eq!([true, false].map(|is_host| new(0x0000_01ff_ffff_ffff, is_host)), [all, inner]);
        let of = |bits| new(bits, UserNamespace::of_self().is_whole());
        let none = Rights { memlock: Some(1), ..Rights::default() };
        assert_eq!(new(1 << 14, true), Rights { ipc_lock: true, ..none });
        assert_eq!(new(1 << 24, true), Rights { raises_limits: true, sys_resource: true, ..none });
        assert_eq!(new(1 << 1, true), Rights { dac_override: true, ..none });
        let status = read_system_file("/proc/self/status").unwrap();
        let shown = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
        let shown = u64::from_str_radix(shown.trim(), 16).unwrap();
        assert_eq!(Rights { memlock: Some(1), ..Rights::of_self() }, of(shown));
    }

    #[test]
    fn the_first_bit_is_the_lru() {
        let of = |enabled| Mglru::parse(enabled, Some("1000\n"));
        assert_eq!(of("0x0007\n"), Some(Mglru { on: true, min_ttl_ms: 1000 }));
        assert_eq!(of("0x0006\n").map(|lru| lru.on), Some(false));
        assert_eq!((of("y"), Mglru::parse("0x0001", None).map(|lru| lru.min_ttl_ms)), (None, Some(0)));
    }

    #[test]
    fn only_what_was_never_written_to_is_the_file() {
        let mapping = |mode: &str, file: &str, anonymous: u64, swapped: u64| {
            format!(
                "7f0000001000-7f0000003000 {mode} 000b2000 00:02 1234                       {file}\n\
                 Rss:                   8 kB\nAnonymous:      {anonymous:>8} kB\nAnonHugePages:         0 kB\n\
                 Swap:           {swapped:>8} kB\nSwapPss:               0 kB\nVmFlags: rd mr mw me\n"
            )
        };
        let (own, range) = ("/bin/memctl", (0x7f00_0000_1000, 0x7f00_0000_3000));
        let of = |smaps: &str| unwritten(own, smaps);
        assert_eq!(of(&(mapping("r-xp", own, 0, 0) + &mapping("r--p", own, 0, 0))), [range; 2]);
        for other in [
            mapping("rw-p", own, 0, 0),
            mapping("r--s", own, 0, 0),
            mapping("r-xp", "/lib/libc.so.6", 0, 0),
            // Constants with addresses, which the loader wrote, in memory or in swap.
            mapping("r--p", own, 92, 0),
            mapping("r--p", own, 0, 92),
            "7ffc000-7ffd000 r-xp 00000000 00:00 0  [vdso]\nAnonymous: 0 kB\nSwap: 0 kB\n".into(),
            "7f0000001000-7f0000003000 r-xp 000b2000 00:02 1234 /bin/memctl\nRss: 8 kB\n".into(),
            String::new(),
        ] {
            assert_eq!(of(&other), [], "{other}");
        }
        assert!(!file_of_self().is_empty());
    }
}
