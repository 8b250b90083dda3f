//! Checks of the host that are the same for every cgroup. None of them keeps reclaim from working.

use super::finding::{Finding, State};
use crate::host::swap_areas::{SwapAreas, SwapDevice, SwapSpace};
use crate::host::zswap::ZswapPool;
use crate::host::{Host, Mglru, PsiState, Rights};

/// Checks the host, one property after the other; with `watchable` also properties that only a
/// watch needs. `psi` is the state of PSI for the target.
pub(super) fn around(host: &Host, psi: PsiState, watchable: bool) -> Vec<Finding> {
    let mut findings = vec![pressure(psi)];
    findings.extend(swaps(host));
    findings.extend(host.zswap.as_ref().map(|pool| zswap(pool, &host.swaps)));
    findings.extend(host.mglru.map(lru));
    if watchable {
        findings.push(locking(host.rights));
        findings.extend((psi == PsiState::On).then(|| triggers(host.rights)));
    }
    if let Some(hugetlb) = host.hugetlb.filter(|&bytes| bytes > 0) {
        let words = "of huge pages are allocated on this host and never reclaimed";
        findings.push(Finding::bytes("hugetlb", State::Note, hugetlb, words));
    }
    // Pins for the length of one direct write come and go.
    if let Some(pinned) = host.pinned.filter(|&bytes| bytes >= 1 << 20) {
        let words =
            "are pinned on this host (a VM's devices, RDMA, io_uring): counted as evictable, never reclaimed";
        findings.push(Finding::bytes("pinned", State::Note, pinned, words));
    }
    findings
}

fn pressure(psi: PsiState) -> Finding {
    let Some(why) = psi.reason() else { return Finding::new("pressure", State::Good, "PSI is on") };
    let words = format!("{why}: no stall figures, and --max-pressure can't be kept");
    let finding = Finding::new("pressure", State::Note, words);
    match psi {
        PsiState::On | PsiState::Off => finding.todo("boot with psi=1"),
        PsiState::OffHere => finding.todo("write 1 to its cgroup.pressure"),
        PsiState::Unknown => Finding { state: State::Unknown, ..finding },
    }
}

fn swaps(host: &Host) -> Vec<Finding> {
    let mut findings = vec![swap(host)];
    if let Some((total, free)) = host.swap_shown {
        let what = match (total, free) {
            (total, free) if free > total => {
                "impossible figures for swap (more free than there is)".to_owned()
            }
            (0, _) => "no swap".to_owned(),
            _ => "another amount of swap".to_owned(),
        };
        let words = format!(
            "/proc/meminfo shows {what}: another program writes it (lxcfs?), and the kernel's own figure counts"
        );
        findings.push(Finding::new("swap shown", State::Note, words));
    }
    findings
}

fn swap(host: &Host) -> Finding {
    let SwapAreas { visible, is_complete } = &host.swaps;
    if host.swap_space.map_or(visible.is_empty() && *is_complete, |space| space.total == 0) {
        let words = "none: only page cache can be reclaimed";
        return Finding::new("swap", State::Note, words).todo("add swap (zram is enough)");
    }
    if host.swappiness == Some(0) {
        let words = "vm.swappiness is 0: anonymous memory isn't reclaimed by default (see --swappiness)";
        return Finding::new("swap", State::Note, words).todo("sysctl vm.swappiness=60");
    }
    let names = visible.iter().map(|swap| {
        format!("{} ({}, priority {})", swap.path.display(), swap.medium().words(), swap.priority)
    });
    let hidden = (!is_complete).then(|| "an area that isn't visible here".to_owned());
    let names: Vec<_> = names.chain(hidden).collect();
    let Some(SwapSpace { free, .. }) = host.swap_space else {
        let words = format!("the amount of free swap is unknown: {}", names.join(", then "));
        return Finding::new("swap", State::Unknown, words);
    };
    let finding = Finding::bytes("swap", State::Good, free, format!("free: {}", names.join(", then ")));
    if free == 0 {
        let finding = Finding { state: State::Note, ..finding };
        return finding.todo("add swap: without free swap, only page cache can be reclaimed");
    }
    if host.swaps.may_hide_zram() {
        let finding = Finding { state: State::Unknown, ..finding };
        return finding
            .todo("show all of /proc and /sys here (no ProcSubset=pid): a watch can't tell slow swap");
    }
    if !visible.first().is_none_or(SwapDevice::is_zram) && host.swaps.has_zram() {
        let finding = Finding { state: State::Note, ..finding };
        return finding.todo("give zram the higher priority (swapon -p): the disk is filled first");
    }
    finding
}

/// Checks zswap, which lies in front of all swaps, whatever their priority.
fn zswap(pool: &ZswapPool, swaps: &SwapAreas) -> Finding {
    if !pool.enabled {
        return Finding::new("zswap", State::Good, "off");
    }
    if swaps.visible.is_empty() && swaps.is_complete {
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
    if swaps.has_zram() {
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
        Rights { raises_limits: true, .. } => {
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
    use crate::host::block::{Disk, Medium};

    fn host() -> Host {
        let rights = Rights { ipc_lock: true, sys_resource: true, memlock: Some(0), ..Rights::default() };
        Host {
            release: None,
            psi: PsiState::On,
            swaps: areas(&[]),
            swap_space: Some(SwapSpace { total: 0, free: 0 }),
            swap_shown: None,
            zswap: None,
            mglru: None,
            swappiness: Some(60),
            hugetlb: Some(0),
            pinned: None,
            rights,
        }
    }

    const ZRAM: (&str, Medium) = ("/dev/zram0", Medium::Zram);
    const DISK: (&str, Medium) = ("/dev/sda", Medium::Rotating);

    fn areas(all: &[(&str, Medium)]) -> SwapAreas {
        let area = |(path, medium): &(&str, Medium)| SwapDevice {
            path: path.into(),
            is_device: true,
            size: 10,
            used: 0,
            priority: 5,
            disks: vec![Disk { medium: *medium, dir: None }],
        };
        SwapAreas { visible: all.iter().map(area).collect(), is_complete: true }
    }

    fn on(all: &[(&str, Medium)], free: u64) -> Host {
        let swap_space = Some(SwapSpace { total: 20, free });
        Host { swaps: areas(all), swap_space, ..host() }
    }

    #[test]
    fn each_state_of_psi_is_told() {
        let of = |psi| (pressure(psi).state, pressure(psi).todo.is_some());
        assert_eq!((of(PsiState::On), of(PsiState::Off)), ((State::Good, false), (State::Note, true)));
        assert_eq!(of(PsiState::OffHere), (State::Note, true));
        assert_eq!(of(PsiState::Unknown), (State::Unknown, false));
    }

    #[test]
    fn zram_behind_a_disk_is_told() {
        let finding = swap(&on(&[DISK, ZRAM], 16));
        assert!(
            finding.state == State::Note && finding.todo.is_some_and(|todo| todo.contains("higher priority"))
        );
        let right = on(&[ZRAM, DISK], 16);
        let words = "free: /dev/zram0 (zram, priority 5), then /dev/sda (rotating disk, priority 5)";
        assert_eq!(swap(&right), Finding::bytes("swap", State::Good, 16, words));
        assert_eq!(swap(&host()).state, State::Note);
        assert_eq!(swap(&Host { swappiness: Some(0), ..right }).state, State::Note);
        assert_eq!(swap(&on(&[DISK], 0)).state, State::Note);
    }

    #[test]
    fn what_cannot_be_seen_of_swap_is_unknown() {
        let words = |host: &Host| match swap(host) {
            Finding { state, fact: Fact::Words(words) | Fact::Bytes(_, words), .. } => (state, words),
        };
        let hidden = Host { swaps: SwapAreas { is_complete: false, ..areas(&[]) }, ..on(&[], 16) };
        assert_eq!(words(&hidden), (State::Unknown, "free: an area that isn't visible here".into()));
        let odd = on(&[("/odd", Medium::Unknown)], 16);
        assert_eq!(words(&odd), (State::Unknown, "free: /odd (unknown device, priority 5)".into()));
        let impossible = Host { swap_space: None, ..on(&[ZRAM], 16) };
        let (state, words) = words(&impossible);
        assert!(
            state == State::Unknown && words.starts_with("the amount of free swap is unknown"),
            "{words}"
        );
        for (shown, word) in [((0, 0), "no swap"), ((0, u64::MAX), "impossible"), ((9, 5), "another amount")]
        {
            let findings = swaps(&Host { swap_shown: Some(shown), ..on(&[ZRAM], 16) });
            assert!(findings.len() == 2 && findings[1].state == State::Note);
            assert!(matches!(&findings[1].fact, Fact::Words(words) if words.contains(word)), "{findings:?}");
        }
    }

    #[test]
    fn zswap_needs_swap_behind_it_and_no_zram() {
        let on = ZswapPool { enabled: true, max_percent: Some(20), limit: Some(100), used: Some(30) };
        let (none, disk, zram) = (areas(&[]), areas(&[DISK]), areas(&[ZRAM]));
        let words = "are free in the pool (20% of memory at most), which fills up before any swap";
        assert_eq!(zswap(&on, &disk), Finding::bytes("zswap", State::Good, 70, words));
        assert_eq!((zswap(&on, &none).state, zswap(&on, &zram).state), (State::Note, State::Note));
        let hidden = SwapAreas { is_complete: false, ..none };
        assert_eq!(zswap(&on, &hidden).state, State::Good);
        assert_eq!(zswap(&ZswapPool { used: Some(100), ..on }, &disk).state, State::Note);
        assert_eq!(zswap(&ZswapPool { used: None, ..on }, &disk).state, State::Good);
        assert_eq!(zswap(&ZswapPool::default(), &zram).fact, Fact::Words("off".into()));
    }

    #[test]
    fn any_one_of_three_lets_a_watch_lock_its_memory() {
        let none = Rights { memlock: Some(65536), ..Rights::default() };
        assert_eq!(locking(none).state, State::Note);
        for rights in [
            Rights { ipc_lock: true, ..none },
            Rights { raises_limits: true, ..none },
            Rights { memlock: None, ..none },
        ] {
            assert_eq!(locking(rights).state, State::Good);
        }
        let inner = Rights { sys_resource: true, ..none };
        assert_eq!((locking(inner).state, triggers(none).state), (State::Note, State::Note));
        assert_eq!(triggers(inner).state, State::Good);
    }

    #[test]
    fn what_is_missing_around_is_no_obstacle() {
        let rights = Rights { memlock: Some(65536), ..Rights::default() };
        let bare = Host { rights, hugetlb: Some(1 << 30), pinned: Some(1 << 30), ..host() };
        let checked =
            CheckReport { name: "/".into(), findings: around(&bare, PsiState::Off, true), reclaimable: None };
        assert!(checked.works());
        assert_eq!(checked.findings.iter().filter(|finding| finding.state == State::Note).count(), 5);
        let busy = Host { pinned: Some(8192), mglru: Some(Mglru { on: true, min_ttl_ms: 5 }), ..host() };
        let findings = around(&busy, PsiState::On, false);
        assert!(findings.iter().all(|finding| !matches!(finding.about, "locking" | "triggers")));
        assert!(findings.iter().all(|finding| finding.about != "pinned"));
        assert!(findings.iter().any(|finding| finding.about == "lru" && finding.state == State::Good));
    }
}
