use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::cgroup::{CgroupPath, Mount};
use crate::watch::action::EndReason;
use crate::watch::kernel::Kernel;

const M: u64 = 1 << 20;

/// Makes files that imitate a cgroup, and returns it with its `memory.stat`.
fn cgroup_in(tree: &Path) -> (CgroupPath, PathBuf) {
    let path = tree.join("one");
    let stat = path.join("memory.stat");
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("memory.current"), "0\n").unwrap();
    std::fs::write(&stat, "pgsteal_proactive 0\n").unwrap();
    let id = std::fs::metadata(&path).unwrap().ino();
    let mount = Arc::new(Mount::whole(tree.to_owned(), true));
    (CgroupPath { path: path.into(), name: "/one".into(), mount, id }, stat)
}

#[test]
fn an_estimate_is_corrected_by_the_counters() {
    let correct = |counted: Counted, estimate, at_most| counted.correct(estimate * M, at_most * M, M / 2);
    assert_eq!(correct(Counted::Proactive(60 * M), 256, 300), 60 * M, "the application freed the rest");
    let half = 60 * M + M / 2;
    assert_eq!(Counted::Proactive(60 * M).correct(half, 300 * M, M / 2), half, "the counters may lag");
    assert_eq!(correct(Counted::Proactive(60 * M), 50, 300), 60 * M, "large folios");
    assert_eq!(correct(Counted::Proactive(60 * M), 50, 55), 55 * M, "another process asked as well");
    assert_eq!(correct(Counted::Proactive(0), 200, 300), 0, "nothing was done");
    assert_eq!(correct(Counted::All(60 * M), 50, 60), 50 * M);
    assert_eq!(correct(Counted::All(40 * M), 50, 60), 40 * M);
    assert_eq!(correct(Counted::Unknown, 50, 60), 50 * M);
}

#[test]
fn a_report_waits_while_the_counters_cant_be_read() {
    let tree = tempfile::tempdir().unwrap();
    let away = tree.path().join("away");
    let (located, stat) = cgroup_in(tree.path());
    let mut emit = |_: crate::watch::event::Event<'_>| {};
    let mut cx = Context::at_start(Kernel::new().unwrap(), &mut emit);
    let sampler = cx.system.open(&located).unwrap();
    let mut account = Account::open(&sampler, &located, &mut cx).unwrap();
    // The kernel claims it, and did nothing.
    let (reclaimed, at_most) = (M << 20, M << 20);
    let claimed = ActionResult { reclaimed, at_most, ..ActionResult::nothing(EndReason::Done) };
    account.record(cx.now, &claimed, None);
    let mut flush_at = |seconds, end| {
        cx.now = Duration::from_secs(seconds);
        account.flush(&sampler, end, false, &mut CacheSeen::default(), &mut cx)
    };
    std::fs::rename(&stat, &away).unwrap();
    assert_eq!(flush_at(2, false), None);
    std::fs::rename(&away, &stat).unwrap();
    assert_eq!(flush_at(2, false), None, "not before another interval");
    let Some(EventKind::Reclaim(tally)) = flush_at(3, false) else { panic!("no report") };
    assert_eq!((tally.reclaimed, tally.is_counted), (0, true));
    assert_eq!(flush_at(9, true), None, "there is nothing else to report");
}

#[test]
fn the_reports_of_a_while_are_folded_later() {
    let tree = tempfile::tempdir().unwrap();
    let (located, stat) = cgroup_in(tree.path());
    let mut emit = |_: crate::watch::event::Event<'_>| {};
    let mut cx = Context::at_start(Kernel::new().unwrap(), &mut emit);
    let sampler = cx.system.open(&located).unwrap();
    let mut account = Account::open(&sampler, &located, &mut cx).unwrap();
    let (mut told, mut pages) = (Vec::new(), 0);
    // A reclaim of 1 MiB each second, at first, and around the tenth minute.
    let mut late = Vec::new();
    for second in (0..8).chain(595..635) {
        cx.now = Duration::from_secs(second);
        let most = account.report_due().filter(|due| *due <= cx.now).map(|_| second);
        if let Some(EventKind::Reclaim(tally)) =
            account.flush(&sampler, false, false, &mut CacheSeen::default(), &mut cx)
        {
            assert_eq!(most, Some(second), "a wake-up for it");
            told.push((second, tally.reclaimed / M, tally.writes, tally.is_counted));
        }
        // Otherwise the loop would turn without end.
        late.extend(account.report_due().filter(|due| *due <= cx.now));
        pages += M / page_size();
        std::fs::write(&stat, format!("pgsteal_proactive {pages}\n")).unwrap();
        let done = ActionResult {
            reclaimed: M,
            at_most: M,
            writes: 1,
            current: second,
            ..ActionResult::nothing(EndReason::Done)
        };
        account.record(cx.now, &done, None);
        // The sum is known at once.
        assert_eq!(account.reclaimed(), pages * page_size());
    }
    let dense: Vec<_> = told.iter().filter(|one| one.0 < 10).map(|one| (one.0, one.1)).collect();
    assert_eq!(dense, [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (7, 1)]);
    let later: Vec<_> = told.iter().skip_while(|one| one.0 < 600).copied().collect();
    assert_eq!(later, [(600, 1, 1, true), (610, 10, 10, true), (620, 10, 10, true), (630, 10, 10, true)]);
    assert_eq!(late, []);
    let Some(EventKind::Reclaim(rest)) =
        account.flush(&sampler, true, false, &mut CacheSeen::default(), &mut cx)
    else {
        panic!("no report at the end")
    };
    assert_eq!((rest.reclaimed / M, rest.current_before, rest.current_after), (5, 630 + M, 634));
    assert_eq!(account.report_due(), None);
}

#[test]
fn demotions_are_no_reclaim() {
    let at = |proactive, demoted| KernelCounters {
        proactive: Some(proactive),
        demoted,
        ..KernelCounters::default()
    };
    assert_eq!(at(100, 30).counted(&at(10, 10)), Counted::Proactive(70));
    assert_eq!(KernelCounters::default().counted(&at(10, 10)), Counted::Unknown);
}
