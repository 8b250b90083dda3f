//! Tests with slab that is freed along uncounted, and with an application that frees memory
//! meanwhile.

use super::*;

/// Creates a cgroup of mostly dentries, on a kernel whose loop doesn't count them.
fn dentries(slab: u64) -> Sim {
    Sim { slab: slab / PAGE, slab_along: 64, ..Sim::new(M / 8) }
}

#[test]
fn slab_counts_as_reclaimed_and_ends_the_request() {
    for counters in [Counters::Proactive, Counters::Direct, Counters::Total] {
        let mut sim = Sim { counters, ..dentries(50 * M) };
        let report = reclaim(&mut sim, &request(8 * M));
        assert_eq!((report.stopped_by, report.verdict()), (StoppedBy::Reached, Some(Verdict::Over)));
        assert_eq!((report.reclaimed, report.slab_reclaimed), (sim.truth(), sim.slab_freed * PAGE));
        assert_eq!((report.left(), report.measure_doubtful), (Some(0), false));
        assert_eq!(sim.asked.len(), 2, "the page cache, and one write too much: it can't be stopped");
        let overshot = report.overshot.expect("one write took it");
        assert!(overshot.fell > 20 * M && overshot.asked <= 4 * M, "{overshot:?}");
    }
}

#[test]
fn a_kernel_whose_loop_counts_slab_is_asked_in_small_chunks() {
    let mut sim =
        Sim { loop_counts_slab: true, overshoot: 2, counters: Counters::Direct, ..dentries(50 * M) };
    let report = reclaim(&mut sim, &request(8 * M));
    assert_eq!(
        (report.stopped_by, report.verdict()),
        (StoppedBy::Reached, Some(Verdict::Exact)),
        "{report:?}"
    );
    assert_eq!((report.reclaimed, report.measure()), (sim.truth(), "pgsteal_direct + slab"));
}

#[test]
fn slab_on_its_way_is_not_asked_for_again() {
    let grace = Duration::from_millis(30);
    let mut sim = Sim { grace, slab_along: 8, loop_counts_slab: true, ..dentries(50 * M) };
    let report = reclaim(&mut sim, &request(8 * M));
    assert_eq!(
        (report.stopped_by, report.verdict()),
        (StoppedBy::Reached, Some(Verdict::Exact)),
        "{report:?}"
    );
    assert_eq!((report.reclaimed, report.slab_reclaimed), (sim.truth(), sim.slab_freed * PAGE));
    assert!(!report.waited_for_slab.is_zero());
}

#[test]
fn slab_on_its_way_is_no_exhaustion() {
    let mut sim = Sim { grace: Duration::from_millis(150), slab_along: 8, ..dentries(50 * M) };
    let report = reclaim(&mut sim, &Request { goal: Goal::Reclaim(Amount::Max), ..request(M) });
    assert_eq!((report.stopped_by, report.reclaimed), (StoppedBy::Exhausted, sim.truth()), "{report:?}");
    assert_eq!(sim.slab, 0);
}

#[test]
fn dentries_alone_are_reclaimed_to_the_end() {
    for loop_counts_slab in [false, true] {
        for root in [false, true] {
            let mut sim = Sim { loop_counts_slab, root, ..dentries(50 * M) };
            let report = reclaim(&mut sim, &Request { goal: Goal::Reclaim(Amount::Max), ..request(M) });
            assert_eq!((report.stopped_by, report.reclaimed), (StoppedBy::Exhausted, 50 * M + M / 8));
            assert!(sim.asked.len() < 300, "{}", sim.asked.len());
        }
    }
}

#[test]
fn down_to_a_usage_slab_counts_too() {
    let mut sim = Sim { loop_counts_slab: true, overshoot: 2, ..dentries(50 * M) };
    let report = reclaim(&mut sim, &Request { goal: Goal::DownTo(Amount::Bytes(30 * M)), ..request(M) });
    assert_eq!((report.stopped_by, report.measure()), (StoppedBy::Reached, "memory.current"));
    assert!(report.slab_reclaimed > 15 * M && report.slab_reclaimed <= report.reclaimed, "{report:?}");
}

#[test]
fn what_no_counter_shows_ends_it_all_the_same() {
    let mut sim = Sim { hidden: 100 * M / PAGE, hidden_along: 512, lag: 128, ..Sim::new(100 * M) };
    let report = reclaim(&mut sim, &request(8 * M));
    assert_eq!((report.stopped_by, report.measured_by), (StoppedBy::Reached, Measure::MemoryCurrent));
    assert!(report.measure_doubtful && report.verdict() == Some(Verdict::Over), "{report:?}");
    assert_eq!(Some(report.reclaimed as i64), report.net_freed());
    assert_eq!(sim.asked.len(), 2, "half of the request was found by then");
    assert_eq!(report.left(), Some(0));
}

#[test]
fn an_application_that_frees_meanwhile_is_no_reason_to_stop() {
    let anon = 60 * M / PAGE;
    let mut sim =
        Sim { anon, frees: Some((Duration::from_micros(300), anon)), lag: 128, ..Sim::new(400 * M) };
    let report = reclaim(&mut sim, &request(30 * M));
    assert_eq!(
        (report.stopped_by, report.verdict()),
        (StoppedBy::Reached, Some(Verdict::Exact)),
        "{report:?}"
    );
    assert!(report.measure_doubtful && report.slab_reclaimed == 0);
    assert!(report.reclaimed.abs_diff(sim.truth()) <= 128 * PAGE);
    assert_eq!(report.net_freed(), Some((sim.truth() + 60 * M) as i64));
}

#[test]
fn a_request_without_slab_is_measured_as_ever() {
    let report = super::report();
    assert_eq!((report.measure(), report.slab_reclaimed), ("pgsteal_proactive", 0));
    assert!(!report.measure_doubtful && report.overshot.is_none());
}

#[test]
fn some_slab_beside_much_page_cache_costs_no_time() {
    let mut sim = Sim { slab: 4 * M / PAGE, slab_along: 1, counters: Counters::Direct, ..Sim::new(100 * M) };
    let report = reclaim(&mut sim, &request(8 * M));
    assert_eq!((report.stopped_by, report.waited()), (StoppedBy::Reached, Duration::ZERO));
}

/// Generates kernels with slab that is freed along, hidden memory, and an application that frees
/// some.
fn any_company() -> impl Strategy<Value = Sim> {
    let slab = (0u64..50_000, 0u64..200, 0u64..40, any::<bool>());
    let hidden = (0u64..50_000, 0u64..64);
    let frees = proptest::option::of((0u64..30_000, 0u64..50_000));
    (any_sim(), slab, hidden, frees).prop_map(|(sim, (slab, slab_along, grace, counts), hidden, frees)| Sim {
        slab,
        slab_along,
        grace: Duration::from_millis(grace),
        loop_counts_slab: counts,
        hidden: hidden.0,
        hidden_along: hidden.1,
        frees: frees.map(|(micros, pages)| (Duration::from_micros(micros), pages)),
        ..sim
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, max_global_rejects: 400_000, ..ProptestConfig::default() })]

    #[test]
    fn it_never_asks_on_once_the_usage_fell_beyond_the_bound(
        mut sim in any_company(), bytes in 4096u64..512 << 20,
    ) {
        prop_assume!(!sim.root);
        let (start, lag) = (sim.usage_bytes() / PAGE, sim.lag);
        let report = bounded(&mut sim, &request(bytes));
        let most = bytes.div_ceil(PAGE) + LARGE_FOLIO / PAGE + lag;
        for &(usage, by_app) in &sim.at_ask {
            let fell = start.saturating_sub(usage).saturating_sub(by_app);
            prop_assert!(fell <= most + lag, "asked on after a fall of {} of {} pages", fell, most);
        }
        let fell = start.saturating_sub(sim.usage_bytes() / PAGE).saturating_sub(sim.freed_by_app);
        if fell > most + lag {
            prop_assert_ne!(report.verdict(), Some(Verdict::Under), "{:?}", report);
        }
    }

    #[test]
    fn with_slab_it_ends_as_well_and_tells_no_more_than_is_true(mut sim in any_company(), goal in any_goal()) {
        prop_assume!(!(sim.root && matches!(goal, Goal::DownTo(_))));
        let report = bounded(&mut sim, &Request { goal, ..request(M) });
        let known = sim.counters != Counters::Missing && report.down_to.is_none();
        if known && sim.hidden_freed == 0 {
            prop_assert!(report.reclaimed <= sim.visible_truth() + sim.lag * PAGE, "more than was reclaimed");
        }
        prop_assert!(report.slab_reclaimed <= sim.slab_freed * PAGE);
    }
}
