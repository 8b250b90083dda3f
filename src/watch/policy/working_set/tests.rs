use super::*;

const M: u64 = 1 << 20;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Estimate {
    fn record(&mut self, now: Duration, usage: u64) {
        self.settle(now, Knee::settled(usage, 1.0));
    }
}

fn estimated(knees: &[u64]) -> WorkingSet {
    let mut estimate = Estimate::default();
    for (time, knee) in knees.iter().enumerate() {
        estimate.record(at(time as u64), knee * M);
    }
    estimate.working_set(at(knees.len() as u64)).expect("there was a knee")
}

#[test]
fn confidence_grows_with_each_knee_and_fades() {
    assert_eq!(Estimate::default().working_set(at(1)), None);
    let (once, often) = (estimated(&[60]), estimated(&[60; 12]));
    assert_eq!((once.bytes, often.bytes, often.age), (60 * M, 60 * M, at(1)));
    assert!((0.45..0.5).contains(&once.confidence) && (0.85..0.9).contains(&often.confidence));
    assert!(
        estimated(&[50, 60, 60, 60]).confidence < estimated(&[60; 4]).confidence,
        "the nearer the better"
    );
    let mut estimate = Estimate::default();
    estimate.record(at(0), 60 * M);
    let later = estimate.working_set(at(600)).expect("there was a knee");
    assert!((0.24..0.26).contains(&later.confidence), "{later:?}");
}

#[test]
fn a_limit_has_room_for_idle_memory_that_left_since_it_was_taken_first() {
    let mut estimate = Estimate::default();
    for (second, idle, limit) in [(1, 30, 110), (2, 20, 99)] {
        estimate.settle(at(second), Knee { alone: idle * M, ..Knee::settled(70 * M, 1.0) });
        let set = estimate.working_set(at(second)).expect("there was a knee");
        assert_eq!((set.bytes, set.idle_anon), (70 * M, idle * M), "not in use");
        assert_eq!(set.suggested, Some(limit * M));
    }
    estimate.meet(at(3), Knee::met(200 * M));
    assert_eq!(
        estimate.working_set(at(3)).map(|set| set.idle_anon),
        Some(20 * M),
        "that isn't known to be another"
    );
}

#[test]
fn a_limit_leaves_a_margin_above_the_largest_usage() {
    assert_eq!(estimated(&[60]).suggested, Some(66 * M));
    assert_eq!(estimated(&[60, 64, 60]).suggested, Some(75 * M), "70.4, and 4 for the spread");
    let mut estimate = Estimate::default();
    estimate.used(at(0), 500 * M);
    estimate.record(at(0), 60 * M);
    estimate.used(at(0), 80 * M);
    assert_eq!(estimate.working_set(at(1)).and_then(|set| set.suggested), Some(88 * M));
}

#[test]
fn another_working_set_begins_anew() {
    let changed = estimated(&[60, 60, 60, 120]);
    assert_eq!((changed.bytes, changed.suggested), (120 * M, Some(132 * M)));
    assert!(changed.confidence < 0.5);
    assert_eq!(estimated(&[60, 62, 64, 66, 68]).bytes, 64 * M, "a drift is none");
}

#[test]
fn a_smaller_working_set_takes_several_knees() {
    assert_eq!(estimated(&[300, 60]).bytes, 60 * M, "a single knee is no working set yet");
    let once = estimated(&[148, 148, 148, 48]);
    assert_eq!((once.bytes, once.suggested), (148 * M, Some(163 * M)));
    assert!(once.confidence < 0.3, "but there is doubt: {once:?}");
    assert_eq!(estimated(&[148, 148, 48, 93, 45]).bytes, 148 * M, "they contradict each other");
    assert_eq!(estimated(&[120, 120, 60, 120, 60, 60]).bytes, 120 * M);
    let shrunk = estimated(&[120, 120, 120, 60, 62, 58]);
    assert_eq!((shrunk.bytes, shrunk.suggested), (60 * M, Some(136 * M)), "it may need them again");
}

#[test]
fn a_limit_is_above_what_grew_back_by_itself() {
    let mut estimate = Estimate::default();
    estimate.used(at(0), 500 * M);
    for (second, knee) in [(0, 60), (10, 60), (20, 60)] {
        estimate.record(at(second), knee * M);
        estimate.used(at(second), if second == 10 { 90 * M } else { 61 * M });
    }
    let suggested = |second| estimate.working_set(at(second)).map(|set| (set.bytes, set.suggested));
    assert_eq!(suggested(31), Some((60 * M, Some(99 * M))));
    assert_eq!(suggested(311), Some((60 * M, Some(99 * M))), "the peak of this set");
}

#[test]
fn a_limit_is_above_what_was_needed_within_the_last_hour() {
    let mut estimate = Estimate::default();
    for (second, knee) in [(0, 100), (600, 260), (660, 100), (720, 100), (1200, 40)] {
        estimate.record(at(second), knee * M);
    }
    let suggested = |second| estimate.working_set(at(second)).map(|set| (set.bytes, set.suggested));
    assert_eq!(suggested(720), Some((100 * M, Some(286 * M))), "a job that runs now and then");
    assert_eq!(suggested(660 + 3599), Some((100 * M, Some(286 * M))));
    assert_eq!(suggested(660 + 3600), Some((100 * M, Some(110 * M))));
    // A smaller need doesn't put off the end of a larger one.
    estimate.record(at(1260), 40 * M);
    estimate.record(at(1320), 40 * M);
    let suggested = |second| estimate.working_set(at(second)).map(|set| (set.bytes, set.suggested));
    assert_eq!(suggested(660 + 3599), Some((40 * M, Some(286 * M))));
    assert_eq!(suggested(660 + 3600), Some((40 * M, Some(110 * M))), "the next largest");
    assert_eq!(suggested(1320 + 3600), Some((40 * M, Some(44 * M))));
}

#[test]
fn what_a_smaller_working_set_grew_to_counts_beside_a_larger_one() {
    let mut estimate = Estimate::new(at(60));
    (0..4).for_each(|minute| estimate.record(at(60 * minute), 100 * M));
    estimate.used(at(200), 300 * M);
    (4..15).for_each(|minute| {
        estimate.record(at(60 * minute), if minute < 12 { 100 * M } else { 130 * M });
        let suggested = estimate.working_set(at(60 * minute)).and_then(|set| set.suggested);
        assert!(suggested >= Some(330 * M), "{suggested:?} at {minute}");
    });
}

#[test]
fn usage_that_it_grew_to_since_the_approach_counts() {
    let mut estimate = Estimate::new(at(60));
    estimate.used(at(0), 500 * M);
    estimate.approached(100 * M);
    estimate.approached(120 * M);
    estimate.used(at(10), 101 * M);
    estimate.used(at(20), 400 * M);
    estimate.record(at(60), 110 * M);
    assert_eq!(estimate.working_set(at(60)).and_then(|set| set.suggested), Some(440 * M));
}

/// Records the usage, and that it settled there with this share, of a minute later each time.
fn settling(estimate: &mut Estimate, minute: &mut u64, usage: u64, share: f64) -> WorkingSet {
    *minute += 1;
    estimate.used(at(*minute * 60), usage * M);
    estimate.settle(at(*minute * 60), Knee::settled(usage * M, share));
    estimate.working_set(at(*minute * 60)).expect("it settled")
}

#[test]
fn a_bound_gives_way_to_the_next() {
    let (mut estimate, mut minute) = (Estimate::new(at(60)), 0);
    let mut settle = |usage, share| settling(&mut estimate, &mut minute, usage, share);
    let first = settle(299, 0.22);
    assert!(first.confidence < 0.12 && first.is_bound, "{first:?}");
    assert_eq!(first.suggested, Some(329 * M), "some of what is left is in use");
    for usage in [245, 201, 168, 190] {
        let set = settle(usage, 0.05);
        assert_eq!((set.bytes, set.range, set.is_bound), (usage * M, (usage * M, usage * M), true));
        assert!(set.confidence < 0.05 && set.suggested.is_none(), "a quiet service: {set:?}");
    }
    let confirmed = settle(142, 0.9);
    assert_eq!((confirmed.bytes, confirmed.is_bound), (142 * M, false));
    assert_eq!(confirmed.suggested, Some(209 * M), "it grew to 190 MiB by itself");
    assert!(confirmed.confidence > 0.4, "{confirmed:?}");
}

#[test]
fn bounds_neither_confirm_nor_enlarge_a_working_set() {
    let (mut estimate, mut minute) = (Estimate::new(at(60)), 0);
    let mut settle = |usage, share| settling(&mut estimate, &mut minute, usage, share);
    settle(142, 0.9);
    let twice = settle(142, 0.7);
    assert!((0.53..0.54).contains(&twice.confidence), "{twice:?}");
    // Some of what is confirmed stays away now and then.
    let set = settle(136, 0.1);
    assert_eq!((set.bytes, set.range, set.is_bound), (142 * M, (142 * M, 142 * M), false));
    assert!(
        (0.85..0.96).contains(&(set.confidence / twice.confidence)),
        "a little doubt, a minute on: {set:?}"
    );
    let again = settle(140, 1.0);
    assert!(
        (again.bytes, again.range) == (142 * M, (140 * M, 142 * M)) && again.confidence > 0.6,
        "{again:?}"
    );
    // Memory that isn't in use arrives.
    let set = settle(400, 0.2);
    assert_eq!((set.bytes, set.suggested), (142 * M, Some(442 * M)), "it grew to 400 MiB");
    assert_eq!(settle(400, 0.5).bytes, 400 * M, "it is in use");
    // What came back is known, but not whether what is new is in use.
    estimate.settle(at(900), Knee::settled(900 * M, 1.0).as_bound());
    assert_eq!(estimate.working_set(at(900)).map(|set| set.bytes), Some(400 * M));
}

#[test]
fn what_stays_away_three_times_refutes_a_working_set() {
    let (mut estimate, mut minute) = (Estimate::new(at(60)), 0);
    let mut settle = |usage, share| settling(&mut estimate, &mut minute, usage, share);
    settle(1000, 1.0);
    let before = settle(1000, 1.0);
    for usage in [700, 560] {
        let set = settle(usage, 0.0);
        assert!(set.bytes == 1000 * M && set.confidence < 0.8 * before.confidence, "{set:?}");
        assert_eq!(set.suggested, before.suggested, "a quiet moment, maybe");
    }
    let set = settle(450, 0.0);
    assert_eq!((set.bytes, set.is_bound, set.suggested), (450 * M, true, None));
    let set = settle(400, 1.0);
    assert_eq!((set.bytes, set.is_bound, set.suggested), (400 * M, false, Some(1100 * M)), "needed before");
    // Of a single one, the first that is smaller, near or not.
    let set = settle(370, 0.2);
    assert_eq!((set.bytes, set.is_bound, set.suggested), (370 * M, true, Some(1100 * M)));
    assert_eq!(settle(200, 0.0).bytes, 200 * M);
}

/// Swap was full, or there was none for a while.
#[test]
fn memory_that_cannot_leave_makes_a_bound() {
    let mut estimate = Estimate::new(at(60));
    let mut settle = |minute: u64, usage: u64, spares| {
        let knee = Knee::settled(usage * M, 1.0).sparing(spares);
        assert!(estimate.knee(at(60 * minute), knee, Activity::default()));
        let set = estimate.working_set(at(60 * minute)).expect("it settled");
        (set.bytes / M, set.is_bound, set.spares, set.suggested.map(|limit| limit / M))
    };
    for minute in 1..4 {
        assert_eq!(settle(minute, 300, true), (300, false, true, Some(330)));
    }
    // Among themselves, such knees confirm each other: a single one that is smaller refutes nothing.
    assert_eq!(settle(4, 200, true), (300, false, true, Some(330)));
    assert_eq!(settle(5, 60, false), (60, false, false, Some(66)), "the first that says more");
    assert_eq!(settle(6, 58, true), (60, false, false, Some(66)), "as before");
    assert_eq!(settle(7, 300, true), (300, false, true, Some(330)), "it may be in use");
}

#[test]
fn what_comes_back_without_use_raises_no_suggestion() {
    let mut estimate = Estimate::new(at(60));
    let suggested = |estimate: &Estimate| estimate.working_set(at(100)).and_then(|set| set.suggested);
    estimate.knee(at(0), Knee::settled(60 * M, 1.0), Activity::default());
    // swapoff(2), and a knee before anything could leave again.
    for usage in [200, 300] {
        estimate.disturbed(usage * M);
        estimate.used(at(10), usage * M);
    }
    estimate.knee(at(20), Knee::met(300 * M), Activity::default());
    estimate.used(at(21), 302 * M);
    assert_eq!(suggested(&estimate), Some(66 * M));
    estimate.used(at(22), 400 * M);
    assert_eq!(suggested(&estimate), Some(440 * M), "beyond that it grew by itself");
}

#[test]
fn a_burst_between_bounds_is_remembered() {
    let (mut estimate, mut minute) = (Estimate::new(at(60)), 0);
    settling(&mut estimate, &mut minute, 200, 0.3);
    estimate.used(at(90), 400 * M);
    for usage in [190, 170, 150] {
        settling(&mut estimate, &mut minute, usage, 0.2);
    }
    let set = settling(&mut estimate, &mut minute, 142, 0.9);
    estimate.used(at(900), 143 * M);
    assert_eq!((set.bytes, set.suggested), (142 * M, Some(440 * M)));
    let later = estimate.working_set(at(900)).expect("it settled");
    assert_eq!(later.suggested, Some(440 * M), "for as long as the set stays");
}

#[test]
fn copies_are_no_working_set_but_need_room() {
    let mut estimate = Estimate::new(at(60));
    let knee = |has_settled, usage, copies| Knee {
        usage: usage * M,
        copies: copies * M,
        has_settled,
        ..Knee::met(0)
    };
    estimate.knee(at(0), knee(false, 88, 27), Activity::default());
    let met = estimate.working_set(at(0)).expect("a knee");
    assert_eq!((met.bytes, met.copies), (61 * M, 27 * M));
    estimate.knee(at(60), knee(true, 90, 28), Activity::default());
    let set = estimate.working_set(at(60)).expect("it settled");
    assert_eq!((set.bytes, set.copies, set.suggested), (62 * M, 28 * M, Some(99 * M)));
    // All copies were written to the device meanwhile: the same working set.
    estimate.knee(at(120), knee(true, 62, 0), Activity::default());
    let set = estimate.working_set(at(120)).expect("it settled");
    assert_eq!((set.bytes, set.copies, set.range), (62 * M, 0, (62 * M, 62 * M)));
    assert_eq!(Knee::met(M).with_copies(2 * M).set(), 0, "two files that were read one after the other");
}

#[test]
fn before_the_reuse_time_is_over_no_limit_is_suggested() {
    let activity = Activity::default();
    let mut estimate = Estimate::new(at(60));
    assert!(estimate.knee(at(0), Knee::met(40 * M), activity));
    let met = estimate.working_set(at(0)).expect("a knee");
    assert_eq!((met.bytes, met.suggested, met.reuse), (40 * M, None, at(60)));
    assert!(met.confidence < 0.3, "{met:?}");
    estimate.used(at(30), 125 * M);
    estimate.knee(at(60), Knee::settled(120 * M, 1.0), activity);
    let set = estimate.working_set(at(60)).expect("it settled");
    assert_eq!((set.bytes, set.range, set.suggested), (120 * M, (120 * M, 120 * M), Some(138 * M)));
    // Less may be pressed out for a moment; more is a larger working set.
    estimate.knee(at(70), Knee::met(40 * M), activity);
    assert_eq!(estimate.working_set(at(60)), Some(set));
    estimate.knee(at(80), Knee::met(200 * M), activity);
    let larger = estimate.working_set(at(80)).expect("a knee");
    assert_eq!((larger.bytes, larger.suggested), (120 * M, Some(220 * M)), "a burst, maybe");
    assert!(larger.confidence < 0.5 * set.confidence, "{larger:?}");
    estimate.knee(at(120), Knee::settled(200 * M, 1.0), activity);
    let larger = estimate.working_set(at(120)).expect("it settled");
    assert_eq!((larger.bytes, larger.suggested), (200 * M, Some(220 * M)));
    estimate.adopt(at(3600));
    assert_eq!(estimate.working_set(at(121)), None, "another question");
}

#[test]
fn silence_is_no_evidence() {
    let running = |cpu| Activity { is_frozen: false, cpu: Some(at(cpu)) };
    let mut estimate = Estimate::default();
    estimate.observe(running(5));
    assert!(!estimate.knee(at(1), Knee::settled(60 * M, 1.0), running(5)));
    assert_eq!((estimate.working_set(at(1)), estimate.idle()), (None, Some(Idle::NoCpu)));
    let frozen = Activity { is_frozen: true, ..running(6) };
    assert!(
        !estimate.knee(at(2), Knee::settled(60 * M, 1.0), frozen),
        "it ran, and was frozen before the knee"
    );
    assert_eq!((estimate.working_set(at(2)), estimate.idle()), (None, Some(Idle::Frozen)));
    estimate.observe(running(6));
    assert_eq!(estimate.idle(), None);
    estimate.observe(frozen);
    assert_eq!(estimate.idle(), Some(Idle::Frozen), "without a knee as well");
    assert!(estimate.knee(at(3), Knee::settled(60 * M, 1.0), running(6)));
    let set = estimate.working_set(at(3)).expect("a knee");
    assert_eq!(estimate.idle(), None);
    // Knees of an idle cgroup neither confirm nor move the estimate.
    assert!(
        !estimate.knee(at(4), Knee::settled(10 * M, 1.0), running(6))
            && !estimate.knee(at(5), Knee::settled(10 * M, 1.0), frozen)
    );
    let later = estimate.working_set(at(5)).expect("a knee");
    assert!(later.bytes == set.bytes && later.confidence < set.confidence && later.age == at(2));
    // Where CPU time can't be read, nothing is known of it.
    assert!(Estimate::default().knee(at(1), Knee::settled(M, 1.0), Activity::default()));
}
