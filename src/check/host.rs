//! Checks of the host that are the same for every cgroup. None of them keeps reclaim from working.

use super::finding::{Finding, State};
use crate::host::swap_areas::SwapDevice;
use crate::host::zswap::ZswapPool;
use crate::host::{Host, Mglru, Rights};

/// Checks the host, one property after the other; with `watchable` also properties that only a
/// watch needs.
pub(super) fn around(host: &Host, watchable: bool) -> Vec<Finding> {
    let mut findings = vec![if host.psi {
        Finding::new("pressure", State::Good, "PSI is on")
    } else {
        Finding::new(
            "pressure",
            State::Note,
            "PSI is off: no stall figures, and --max-pressure has no effect",
        )
        .todo("boot with psi=1")
    }];
    findings.push(swaps(host));
    findings.extend(host.zswap.as_ref().map(|pool| zswap(pool, &host.swaps)));
    findings.extend(host.mglru.map(lru));
    if watchable {
        findings.push(locking(host.rights));
        findings.extend(host.psi.then(|| triggers(host.rights)));
    }
    if host.hugetlb > 0 {
        let words = "of huge pages are allocated on this host and never reclaimed";
        findings.push(Finding::bytes("hugetlb", State::Note, host.hugetlb, words));
    }
    // Pins for the length of one direct write come and go.
    if let Some(pinned) = host.pinned.filter(|&bytes| bytes >= 1 << 20) {
        let words =
            "are pinned on this host (a VM's devices, RDMA, io_uring): counted as evictable, never reclaimed";
        findings.push(Finding::bytes("pinned", State::Note, pinned, words));
    }
    findings
}

fn swaps(host: &Host) -> Finding {
    let Some(first) = host.swaps.first() else {
        let words = "none: only page cache can be reclaimed";
        return Finding::new("swap", State::Note, words).todo("add swap (zram is enough)");
    };
    if host.swappiness == Some(0) {
        let words = "vm.swappiness is 0: anonymous memory isn't reclaimed by default (see --swappiness)";
        return Finding::new("swap", State::Note, words).todo("sysctl vm.swappiness=60");
    }
    let names: Vec<_> = host
        .swaps
        .iter()
        .map(|swap| format!("{} (priority {})", swap.path.display(), swap.priority))
        .collect();
    let free = host.swaps.iter().map(SwapDevice::free).sum();
    let finding = Finding::bytes("swap", State::Good, free, format!("free: {}", names.join(", then ")));
    if free == 0 {
        let finding = Finding { state: State::Note, ..finding };
        return finding.todo("add swap: without free swap, only page cache can be reclaimed");
    }
    if !first.is_zram() && host.swaps.iter().any(SwapDevice::is_zram) {
        let finding = Finding { state: State::Note, ..finding };
        return finding.todo("give zram the higher priority (swapon -p): the disk is filled first");
    }
    finding
}

/// Checks zswap, which lies in front of all swaps, whatever their priority.
fn zswap(pool: &ZswapPool, swaps: &[SwapDevice]) -> Finding {
    if !pool.enabled {
        return Finding::new("zswap", State::Good, "off");
    }
    if swaps.is_empty() {
        let words = "on, but unused without a swap device";
        return Finding::new("zswap", State::Note, words).todo("add swap, which zswap requires");
    }
    let percent =
        pool.max_percent.map_or_else(String::new, |percent| format!(" ({percent}% of memory at most)"));
    let finding = match pool.room() {
        Some(0) => {
            let words = format!("on, but the pool is full{percent}: pages go to swap");
            Finding::new("zswap", State::Note, words)
        }
        Some(room) => {
            let words = format!("are free in the pool{percent}, which fills up before any swap");
            Finding::bytes("zswap", State::Good, room, words)
        }
        None => {
            let words = format!("on{percent}: swapped-out pages are compressed in memory first");
            Finding::new("zswap", State::Good, words)
        }
    };
    if swaps.iter().any(SwapDevice::is_zram) {
        let finding = Finding { state: State::Note, ..finding };
        return finding
            .todo("use either zswap or zram: pages that zswap writes to zram are compressed twice");
    }
    finding
}

fn lru(lru: Mglru) -> Finding {
    let words = match (lru.on, lru.min_ttl_ms) {
        (false, _) => {
            let words =
                "the multi-generational LRU is off: a watch can't distinguish cyclic access from streaming";
            return Finding::new("lru", State::Note, words).todo("echo y >/sys/kernel/mm/lru_gen/enabled");
        }
        (true, 0) => "the multi-generational LRU is on".to_owned(),
        (true, ttl) => {
            format!(
                "the multi-generational LRU is on; min_ttl_ms={ttl} applies to kswapd, not to memory.reclaim"
            )
        }
    };
    Finding::new("lru", State::Good, words)
}

fn locking(rights: Rights) -> Finding {
    let good = |words| Finding::new("locking", State::Good, words);
    match rights {
        Rights { ipc_lock: true, .. } => {
            good("this user may lock memory (CAP_IPC_LOCK), so a watch isn't reclaimed itself")
        }
        Rights { memlock: None, .. } => {
            good("this user may lock memory (no RLIMIT_MEMLOCK), so a watch isn't reclaimed itself")
        }
        Rights { sys_resource: true, .. } => {
            good("this user may raise RLIMIT_MEMLOCK (CAP_SYS_RESOURCE), so a watch isn't reclaimed itself")
        }
        Rights { memlock: Some(limit), .. } => {
            let words = "may be locked by this user (RLIMIT_MEMLOCK): a watch could be reclaimed itself";
            Finding::bytes("locking", State::Note, limit, words)
                .todo("grant CAP_IPC_LOCK, or raise LimitMEMLOCK=")
        }
    }
}

/// Checks for the right to privileged PSI triggers: the kernel makes a thread of real-time priority
/// for a privileged trigger, and checks other triggers every 2 s.
fn triggers(rights: Rights) -> Finding {
    if rights.sys_resource {
        return Finding::new(
            "triggers",
            State::Good,
            "this user may set PSI triggers with any window (CAP_SYS_RESOURCE)",
        );
    }
    let words = "without CAP_SYS_RESOURCE, PSI triggers require Linux 6.4 and windows in multiples of 2 s";
    Finding::new("triggers", State::Note, words).todo("grant CAP_SYS_RESOURCE for a watch to wake up sooner")
}

#[cfg(test)]
mod tests {
    use super::super::{CheckReport, Fact};
    use super::*;

    fn host() -> Host {
        let rights = Rights { ipc_lock: true, sys_resource: true, memlock: Some(0) };
        Host { psi: true, swappiness: Some(60), rights, ..Host::default() }
    }

    fn swap(name: &str, priority: i32, used: u64) -> SwapDevice {
        SwapDevice { path: name.into(), size: 10, used, priority }
    }

    #[test]
    fn zram_behind_a_disk_is_told() {
        let wrong = Host { swaps: vec![swap("/dev/sda", 5, 0), swap("/dev/zram0", -2, 0)], ..host() };
        let finding = swaps(&wrong);
        assert!(
            finding.state == State::Note && finding.todo.is_some_and(|todo| todo.contains("higher priority"))
        );
        let right = Host { swaps: vec![swap("/dev/zram0", 100, 4), swap("/dev/sda", 5, 0)], ..host() };
        let words = "free: /dev/zram0 (priority 100), then /dev/sda (priority 5)";
        assert_eq!(swaps(&right), Finding::bytes("swap", State::Good, 16, words));
        assert_eq!(swaps(&host()).state, State::Note);
        assert_eq!(swaps(&Host { swappiness: Some(0), ..right }).state, State::Note);
        assert_eq!(swaps(&Host { swaps: vec![swap("/dev/sda", 5, 10)], ..host() }).state, State::Note);
    }

    #[test]
    fn zswap_needs_swap_behind_it_and_no_zram() {
        let on = ZswapPool { enabled: true, max_percent: Some(20), limit: Some(100), used: Some(30) };
        let (disk, zram) = ([swap("/dev/sda", 5, 0)], [swap("/dev/zram0", 5, 0)]);
        let words = "are free in the pool (20% of memory at most), which fills up before any swap";
        assert_eq!(zswap(&on, &disk), Finding::bytes("zswap", State::Good, 70, words));
        assert_eq!((zswap(&on, &[]).state, zswap(&on, &zram).state), (State::Note, State::Note));
        assert_eq!(zswap(&ZswapPool { used: Some(100), ..on }, &disk).state, State::Note);
        assert_eq!(zswap(&ZswapPool { used: None, ..on }, &disk).state, State::Good);
        assert_eq!(zswap(&ZswapPool::default(), &zram).fact, Fact::Words("off".into()));
    }

    #[test]
    fn any_one_of_three_lets_a_watch_lock_its_memory() {
        let none = Rights { ipc_lock: false, sys_resource: false, memlock: Some(65536) };
        assert_eq!(locking(none).state, State::Note);
        for rights in [
            Rights { ipc_lock: true, ..none },
            Rights { sys_resource: true, ..none },
            Rights { memlock: None, ..none },
        ] {
            assert_eq!(locking(rights).state, State::Good);
        }
        assert_eq!(triggers(none).state, State::Note);
        assert_eq!(triggers(Rights { sys_resource: true, ..none }).state, State::Good);
    }

    #[test]
    fn what_is_missing_around_is_no_obstacle() {
        let rights = Rights { memlock: Some(65536), ..Rights::default() };
        let bare = Host { psi: false, rights, hugetlb: 1 << 30, pinned: Some(1 << 30), ..host() };
        let checked = CheckReport { name: "/".into(), findings: around(&bare, true), reclaimable: None };
        assert!(checked.works());
        assert_eq!(checked.findings.iter().filter(|finding| finding.state == State::Note).count(), 5);
        let busy = Host { pinned: Some(8192), mglru: Some(Mglru { on: true, min_ttl_ms: 5 }), ..host() };
        let findings = around(&busy, false);
        assert!(findings.iter().all(|finding| !matches!(finding.about, "locking" | "triggers")));
        assert!(findings.iter().all(|finding| finding.about != "pinned"));
        assert!(findings.iter().any(|finding| finding.about == "lru" && finding.state == State::Good));
    }
}
