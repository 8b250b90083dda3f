use super::*;

const M: u64 = 1 << 20;

fn sample(at: u64, current: u64, refaulted: u64) -> ReuseSample {
    let (at, current, all) = (Duration::from_secs(at), current * M, refaulted * M);
    let refaulted = Refaulted { all, anon: 0 };
    ReuseSample { at, current, copies: 0, refaulted, taken_anon: None, in_swap: None, anon: Anon::None }
}

fn over(usage: u64, share: f64) -> Checked {
    Checked::Over(Some(Settled { usage: usage * M, copies: 0, alone: 0, share, is_bound: false }))
}

/// Returns a knee before which so many MiB were pressed out last, of which 1 MiB came back at
/// once.
fn knee(reclaimed: u64) -> Margin {
    Margin { reclaimed: (reclaimed * M) as f64, returned: M as f64, is_touched: true }
}

/// Returns a state that checks a press of 52 of 91 MiB, of 38 MiB that arrived meanwhile, and
/// of the 1 MiB that refaulted. It ended at 40 MiB after 3 s, at a knee if one is given.
fn checking(knee: Option<Margin>) -> Reuse {
    let mut reuse = Reuse::new(Duration::from_secs(60));
    assert_eq!(reuse.judge(sample(0, 91, 9)), None);
    assert_eq!(reuse.left(sample(0, 91, 9)), 38_168_166, "two fifths");
    reuse.approaches = knee.is_some();
    reuse.reclaimed(90 * M);
    assert_eq!(reuse.begin(sample(3, 40, 10), knee), Duration::from_secs(63));
    reuse
}

#[test]
fn what_comes_back_late_is_in_use() {
    let mut reuse = checking(Some(knee(20)));
    assert!(!reuse.peek(42 * M) && reuse.peek(60 * M));
    let waiting = Checked::Waiting(Duration::from_secs(63));
    assert_eq!(reuse.judge(sample(20, 60, 30)), Some(waiting), "refaults are no change");
    assert!(!reuse.peek(60 * M), "and no news");
    assert_eq!(reuse.judge(sample(63, 120, 91)), Some(over(120, 1.0)), "81 of 20");
    assert_eq!(reuse.left(sample(63, 120, 91)), 6 * M, "a twentieth");
}

#[test]
fn the_approach_goes_on_where_nothing_comes_back() {
    let mut reuse = checking(Some(knee(20)));
    assert_eq!(reuse.judge(sample(63, 40, 11)), Some(over(40, 0.1)));
    assert!(reuse.approaches());
    assert_eq!(reuse.left(sample(64, 40, 11)), 8 * M, "gently at first");
    reuse.reclaimed(8 * M);
    assert_eq!(reuse.begin(sample(66, 32, 11), None), Duration::from_secs(68), "a pause");
    assert_eq!(reuse.judge(sample(68, 32, 11)), Some(Checked::Waiting(Duration::from_secs(70))));
    assert_eq!(reuse.judge(sample(70, 32, 11)), Some(Checked::Over(None)));
    assert_eq!(reuse.left(sample(70, 32, 11)) / M, 12, "two fifths");
}

#[test]
fn what_stays_away_lets_the_next_press_go_deeper() {
    let mut reuse = checking(Some(knee(20)));
    assert_eq!(reuse.judge(sample(63, 42, 12)), Some(over(42, 0.15)), "3 of the last 20");
    let mut usage = 42;
    for (depth, size) in [(0.05, 2), (0.1, 4), (0.2, 8), (0.2, 8)] {
        let left = reuse.left(sample(64, usage, 12));
        assert_eq!(left, (depth * (usage * M) as f64).round() as u64);
        reuse.reclaimed(size * M);
        usage -= size;
        reuse.begin(sample(100, usage, 12), None);
        assert_eq!(reuse.judge(sample(160, usage, 12)), Some(over(usage, 0.0)), "a bound");
    }
}

#[test]
fn a_knee_is_judged_by_what_was_pressed_out_last() {
    let judged = |margin: Margin, current, refaulted| {
        let mut reuse = checking(Some(margin));
        let judged = reuse.judge(sample(63, current, refaulted));
        (judged, reuse.left(sample(63, current, refaulted)) * 100 / (current * M))
    };
    let margin = |reclaimed, returned| Margin { reclaimed: reclaimed * M as f64, returned, is_touched: true };
    // After a long approach, most of which was cold memory.
    assert_eq!(
        judged(margin(6.0, 1e6), 42, 12),
        (Some(over(42, (1e6 + 2.0 * M as f64) / (6.0 * M as f64))), 5)
    );
    // The kernel scanned much for little, because its lists weren't sorted: nothing comes back.
    assert_eq!(judged(margin(6.0, 0.0), 40, 10), (Some(over(40, 0.0)), 20));
    // It yielded nothing: all of it was touched once, but not lately.
    assert_eq!(judged(margin(0.1, 0.0), 40, 10), (Some(over(40, 0.0)), 20));
}

#[test]
fn what_the_kernel_does_not_take_was_touched_if_it_was_scanned() {
    for (is_touched, share, depth) in [(true, 1.0, 2), (false, 0.0, 4)] {
        let mut reuse = checking(Some(knee(20)));
        assert_eq!(reuse.judge(sample(63, 42, 12)), Some(over(42, 0.15)));
        assert_eq!(reuse.left(sample(63, 42, 12)) / M, 2);
        reuse.begin(sample(64, 42, 12), Some(Margin { reclaimed: 0.0, returned: 0.0, is_touched }));
        assert_eq!(reuse.judge(sample(124, 42, 12)), Some(over(42, share)), "{is_touched}");
        assert_eq!(reuse.left(sample(124, 42, 12)) / M, depth, "{is_touched}");
    }
}

#[test]
fn new_memory_that_was_accepted_is_a_bound_as_long_as_it_is_there() {
    for (end, has_new) in [(90, true), (45, false)] {
        let mut reuse = checking(Some(knee(20)));
        assert_eq!(reuse.judge(sample(10, 90, 10)), Some(Checked::New(5 * M)));
        reuse.begin(sample(12, 90, 10), Some(knee(2)));
        let settled = Settled { usage: end * M, copies: 0, alone: 0, share: 0.15, is_bound: has_new };
        assert_eq!(reuse.judge(sample(63, end, 12)), Some(Checked::Over(Some(settled))));
    }
}

#[test]
fn a_press_that_paused_for_long_says_nothing() {
    for (pause, told) in [(16, over(42, 1.0)), (17, Checked::Over(None))] {
        let mut reuse = checking(Some(knee(20)));
        assert_eq!(reuse.judge(sample(63, 42, 12)), Some(over(42, 0.15)));
        assert!(reuse.left(sample(63, 42, 12)) > 0);
        reuse.reclaimed(M);
        assert!(reuse.left(sample(64, 41, 12)) > 0);
        // A guard holds; meanwhile a batch job reads what is idle.
        reuse.interrupted();
        assert_eq!(reuse.left(sample(64 + pause, 43, 14)) > 0, pause == 16);
        reuse.reclaimed(if pause == 16 { M } else { 0 });
        reuse.begin(sample(100, 42, 14), None);
        assert_eq!(reuse.judge(sample(160, 42, 14)), Some(told));
        assert_eq!(reuse.left(sample(160, 42, 14)) / M, 2, "no deeper");
    }
}

#[test]
fn a_knee_in_new_memory_says_nothing_of_the_press_before() {
    let mut reuse = checking(None);
    assert_eq!(reuse.judge(sample(10, 60, 10)), Some(Checked::New(5 * M)));
    assert_eq!(reuse.begin(sample(12, 58, 11), Some(knee(2))), Duration::from_secs(63));
    let settled = Settled { usage: 60 * M, copies: 0, alone: 0, share: 4.0 / 52.0, is_bound: true };
    assert_eq!(reuse.judge(sample(63, 60, 13)), Some(Checked::Over(Some(settled))));
}

#[test]
fn the_approach_ends_where_memory_keeps_coming_back() {
    let seconds = |second| Some(Checked::Waiting(Duration::from_secs(second)));
    for (back, end) in [(0, Some(Checked::Over(None))), (1, seconds(64))] {
        let mut reuse = Reuse::new(Duration::from_secs(60));
        assert_eq!(reuse.left(sample(0, 300, 0)), 120 * M);
        reuse.reclaimed(100 * M);
        assert_eq!(reuse.begin(sample(0, 200, 0), None), Duration::from_secs(2));
        assert_eq!(reuse.judge(sample(1, 205, 5)), seconds(2));
        assert_eq!(reuse.judge(sample(2, 210, 10)), seconds(4), "at once: touched all the time");
        let after = sample(4, 210 + back, 10 + back);
        assert_eq!(reuse.judge(after), end, "a MiB in 2 s are 30 in a minute");
        if back == 0 {
            assert_eq!(reuse.left(sample(4, 210, 10)), 84 * M, "it goes on");
        } else {
            assert_eq!(reuse.judge(sample(64, 240, 40)), Some(over(240, 0.4)), "also what came at once");
        }
    }
}

#[test]
fn what_the_approach_shows_sets_the_depth_of_the_next_press() {
    // Of 52 MiB, apart from new memory; 1 MiB came back during the press.
    for (back, depth) in [(6, 20), (13, 20), (39, 9), (51, 5)] {
        let mut reuse = checking(None);
        reuse.check.as_mut().expect("one began").stage = Stage::First;
        let settled = over(40 + back, (back + 1) as f64 / 52.0);
        assert_eq!(reuse.judge(sample(63, 40 + back, 10 + back)), Some(settled));
        let left = reuse.left(sample(63, 40 + back, 10 + back));
        let share = left as f64 / ((40 + back) * M) as f64;
        assert_eq!((share * 100.0).round() as u64, depth, "{back} MiB");
    }
    let mut reuse = checking(None);
    reuse.depth = 0.4;
    assert_eq!(reuse.judge(sample(63, 53, 23)), Some(over(53, 14.0 / 52.0)));
    assert_eq!(reuse.left(sample(63, 53, 23)) / M, 2, "memory in use leaves last");
}

#[test]
fn what_shrank_before_its_first_press_is_pressed_gently() {
    let mut reuse = Reuse::new(Duration::from_secs(60));
    assert_eq!(reuse.left(sample(0, 100, 0)), 40 * M);
    assert_eq!(reuse.left(sample(0, 61, 0)), 0, "the application freed nearly as much itself");
    reuse.end_approach();
    assert_eq!(reuse.begin(sample(1, 61, 0), None), Duration::from_secs(61));
    assert_eq!(reuse.judge(sample(61, 61, 0)), Some(Checked::Over(None)));
    assert_eq!(reuse.left(sample(61, 61, 0)) / M, 12, "twice a tenth");
}

#[test]
fn a_change_is_pressed_at_once() {
    let mut reuse = checking(Some(knee(20)));
    let waiting = |second| Some(Checked::Waiting(Duration::from_secs(second)));
    assert_eq!(reuse.judge(sample(4, 80, 10)), waiting(7), "what comes back at once isn't known yet");
    // Slices of 5, 10, and 20 MiB.
    assert_eq!(reuse.judge(sample(10, 80, 10)), Some(Checked::New(5 * M)));
    reuse.reclaimed(5 * M);
    assert_eq!(reuse.judge(sample(11, 75, 10)), waiting(13));
    assert_eq!(reuse.judge(sample(13, 75, 10)), waiting(15));
    assert_eq!(reuse.judge(sample(15, 75, 10)), Some(Checked::New(10 * M)));
    reuse.reclaimed(4 * M);
    assert_eq!(reuse.judge(sample(16, 71, 10)), Some(Checked::New(6 * M)));
    reuse.reclaimed(6 * M);
    assert_eq!(reuse.judge(sample(17, 65, 10)), waiting(19));
    assert_eq!(reuse.judge(sample(19, 65, 10)), waiting(21));
    assert_eq!(reuse.judge(sample(21, 65, 10)), Some(Checked::New(20 * M)));
    reuse.reclaimed(20 * M);
    assert_eq!(reuse.judge(sample(22, 41, 10)), waiting(63), "the check goes on");
    assert_eq!(reuse.judge(sample(40, 60, 30)), waiting(63));
    assert_eq!(reuse.judge(sample(63, 115, 85)), Some(over(115, 1.0)), "75 came back");
    let mut reuse = checking(Some(knee(20)));
    assert_eq!(reuse.judge(sample(10, 20, 10)), Some(Checked::Void), "20 MiB were freed");
    assert_eq!(reuse.left(sample(10, 20, 10)), M);
}

#[test]
fn new_memory_is_accepted_where_the_kernel_takes_other_memory_for_it() {
    // 1 MiB a second comes back from the press before: usual, and no reason.
    for (refaulted, accepted) in [(19, false), (20, true)] {
        let mut reuse = checking(Some(knee(20)));
        assert_eq!(reuse.judge(sample(8, 85, 15)), Some(Checked::New(5 * M)));
        reuse.reclaimed(5 * M);
        let waiting = |second| Some(Checked::Waiting(Duration::from_secs(second)));
        assert_eq!(reuse.judge(sample(9, 81, 16)), waiting(11));
        assert_eq!(reuse.judge(sample(11, 81, 17)), waiting(13));
        let next = if accepted { waiting(63) } else { Some(Checked::New(10 * M)) };
        assert_eq!(reuse.judge(sample(13, 84, refaulted)), next);
        assert_eq!(reuse.presses_new(), !accepted);
        assert_eq!(reuse.judge(sample(14, 84, refaulted)), next, "no news");
    }
}

#[test]
fn what_arrived_since_the_last_check_leaves_first_and_says_nothing() {
    let mut reuse = checking(Some(knee(20)));
    assert_eq!(reuse.judge(sample(63, 120, 91)), Some(over(120, 1.0)));
    for (new, left) in [(0, 6), (6, 12)] {
        let mut reuse = reuse.clone();
        let begun = sample(64, 120 + new, 91);
        assert_eq!(reuse.left(begun) / M, left);
        reuse.reclaimed(left * M);
        reuse.begin(sample(70, 114, 91), None);
        assert_eq!(reuse.judge(sample(130, 119, 96)), Some(over(119, 5.0 / 6.0)), "{new}");
    }
    assert_eq!(reuse.left(sample(64, 126, 91)) / M, 12);
    reuse.reclaimed(6 * M);
    reuse.begin(sample(70, 120, 91), None);
    assert_eq!(reuse.judge(sample(130, 121, 92)), Some(Checked::Over(None)), "only what is new left");
}

/// Returns a state that rests from second 300 to 360 with 100 MiB, of which 50 MiB refaulted so far:
/// three presses of 5 MiB found the same.
fn resting() -> Reuse {
    let mut reuse = Reuse::new(Duration::from_secs(60));
    reuse.approaches = false;
    reuse.depth = LEAST_DEPTH;
    for press in 1..=rests::SAME_SETS {
        let (at, back) = (u64::from(press) * 100, 35 + u64::from(press) * 5);
        assert_eq!(reuse.left(sample(at - 65, 100, back - 5)), 5 * M, "no rest before it: {press}");
        reuse.reclaimed(5 * M);
        reuse.begin(sample(at - 60, 95, back - 5), None);
        assert_eq!(reuse.judge(sample(at, 100, back)), Some(over(100, 1.0)), "{press}");
    }
    reuse
}

#[test]
fn the_third_press_that_finds_the_same_is_followed_by_a_rest() {
    let waiting = |second| Some(Checked::Waiting(Duration::from_secs(second)));
    // What comes back late isn't new.
    let mut reuse = resting();
    assert_eq!(reuse.judge(sample(330, 103, 53)), waiting(360));
    assert_eq!(reuse.judge(sample(360, 104, 54)), Some(Checked::Over(None)));
    assert_eq!(reuse.left(sample(360, 104, 54)), (0.05 * (104 * M) as f64).round() as u64);
    reuse.reclaimed(5 * M);
    reuse.begin(sample(362, 99, 54), None);
    assert_eq!(reuse.judge(sample(422, 104, 59)), Some(over(104, 1.0)));
    assert_eq!(reuse.judge(sample(423, 104, 59)), waiting(422 + 120), "twice as long");
    // Memory that was freed ends it.
    let mut reuse = resting();
    assert_eq!(reuse.judge(sample(310, 80, 50)), Some(Checked::Void));
    assert_eq!(reuse.left(sample(310, 80, 50)), 4 * M);
    // So does more that is in use, within a reuse time; the next rest is a short one again.
    let mut reuse = resting();
    reuse.check.as_mut().expect("it rests").until = Duration::from_secs(800);
    assert_eq!(reuse.judge(sample(310, 115, 65)), waiting(370));
    assert_eq!(reuse.judge(sample(330, 130, 80)), waiting(370));
    let confirmed = [130, 130, 130].map(|mib| reuse.rests.confirm(Some(mib * M), reuse.time));
    assert_eq!(confirmed, [None, None, Some(reuse.time)]);
    // What is new is pressed out.
    let mut reuse = resting();
    assert_eq!(reuse.judge(sample(310, 130, 50)), Some(Checked::New(12 * M + M / 2)));
}

#[test]
fn neither_new_memory_nor_what_others_evicted_is_counted_as_back() {
    let mut reuse = checking(Some(knee(20)));
    assert_eq!(reuse.judge(sample(63, 44, 11)), Some(over(41, 0.1)), "3 MiB are new");
    for margin in [None, Some(knee(20))] {
        let mut reuse = checking(margin);
        assert_eq!(reuse.judge(sample(63, 40, 910)), Some(Checked::Over(None)), "a loop over a file");
        assert_eq!(reuse.left(sample(63, 40, 910)) / M, 2);
    }
}

#[test]
fn copies_in_zswap_are_neither_new_memory_nor_missing() {
    let with_copies = |sample: ReuseSample, copies| ReuseSample { copies: copies * M, ..sample };
    for copies in [0, 10, 18, 20] {
        let mut reuse = Reuse::new(Duration::from_secs(60));
        reuse.approaches = false;
        assert_eq!(reuse.left(sample(0, 100, 0)), 40 * M);
        reuse.reclaimed(20 * M);
        // 20 MiB left, and so much of them as copies stayed.
        reuse.begin(with_copies(sample(3, 80 + copies, 0), copies), None);
        // Half of it came back, and freed its copies.
        let after = with_copies(sample(63, 90 + copies / 2, 10), copies - copies / 2);
        let settled =
            Settled { usage: (90 + copies) * M, copies: copies * M, alone: 0, share: 0.5, is_bound: false };
        assert_eq!(reuse.judge(after), Some(Checked::Over(Some(settled))), "{copies}");
        assert_eq!(reuse.left(after) / M, (90 + copies / 2) / 20, "{copies}");
    }
}

#[test]
fn memory_that_is_freed_in_swap_has_no_room_in_a_limit() {
    // 40 MiB, and as much again each time: the application has freed what was there.
    let anon = |at, current| ReuseSample {
        anon: Anon::Alone,
        taken_anon: Some(0),
        in_swap: Some(40 * M),
        ..sample(at, current, 0)
    };
    let mut reuse = Reuse::new(Duration::from_secs(60));
    for at in (0..2000).step_by(100) {
        reuse.begin_anew();
        reuse.judge(anon(at, 100));
        let _ = reuse.left(anon(at, 100));
        assert!(reuse.goes_on_with_anon(anon(at, 100)));
        let _ = reuse.left(anon(at, 100));
        reuse.reclaimed(40 * M);
        reuse.end_approach();
        reuse.begin(anon(at + 1, 60), None);
        let judged = reuse.judge(anon(at + 61, 60));
        assert!(
            matches!(judged, Some(Checked::Over(Some(settled))) if settled.alone == 40 * M),
            "{judged:?}"
        );
    }
}
