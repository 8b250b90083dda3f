//! Tests of the brake.

use super::*;
use crate::watch::policy::refaults::Lru;

const M: u64 = 1 << 20;
const WANTED: Wanted = Wanted { full: 32 * M, asked: 32 * M, reserve: 12 * M };

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Counters of which `refaulted` MiB came back so far, and `restored` of these are known to be in
/// use.
fn counters(refaulted: u64, restored: u64) -> RefaultCounters {
    RefaultCounters {
        refaulted: refaulted * M,
        refaulted_file: refaulted * M,
        activated_file: refaulted * M,
        restored_file: restored * M,
        stalled: Some(Duration::ZERO),
        met: Some(0),
        lru: Lru::Generations,
        ..RefaultCounters::default()
    }
}

/// Creates a brake with a window that begins at 0 s.
fn opened() -> Brake {
    let mut brake = Brake::default();
    let opened = Checked { returned: Some(false), hold: None };
    assert_eq!(brake.check(at(0), counters(0, 0), WANTED), opened);
    brake
}

/// Reclaims 20 MiB, and checks.
fn check(brake: &mut Brake, now: u64, refaulted: u64, restored: u64) -> Option<f64> {
    brake.reclaimed(at(now), 20 * M);
    brake.check(at(now), counters(refaulted, restored), WANTED).hold
}

#[test]
fn usage_that_stays_below_the_limit_is_left_alone_longer_each_time() {
    let mut brake = opened();
    assert_eq!(check(&mut brake, 2, 16, 16), Some(0.8));
    assert_eq!((brake.holds(at(6)), brake.holds(at(7))), (Some(at(7)), None));
    assert_eq!(check(&mut brake, 8, 30, 30), None, "not due to reclaim");
    assert_eq!(check(&mut brake, 10, 46, 46), Some(0.8));
    assert_eq!(brake.holds(at(19)), Some(at(20)), "twice as long");
    assert_eq!(brake.kept, Some(4 * M), "a step, which may be free without reclaim");
}

#[test]
fn an_application_that_meets_its_limit_is_not_left_alone() {
    let mut brake = opened();
    check(&mut brake, 2, 16, 16);
    assert!(brake.met(at(3), WANTED), "the hold ends");
    assert_eq!((brake.holds(at(3)), brake.kept), (None, Some(12 * M)));
    check(&mut brake, 4, 16, 16);
    check(&mut brake, 5, 16, 16);
    assert_eq!(brake.kept, Some(16 * M), "a step more");
    assert_eq!((check(&mut brake, 6, 36, 36), brake.holds(at(6))), (None, None));
    assert_eq!(brake.kept, Some(8 * M), "half of it");
    for (now, refaulted) in (8..20).step_by(2).zip((52..).step_by(16)) {
        assert_eq!(check(&mut brake, now, refaulted, refaulted), None);
    }
    assert_eq!(brake.kept, Some(M), "never nothing");
    assert!(brake.returns(at(27)) && !brake.returns(at(28)), "the last check was at 18 s");
    assert!(!brake.met(at(21), WANTED));
    assert_eq!(brake.kept, Some(5 * M), "a step, or twice as much");
    assert!(!brake.met(at(21), WANTED));
    assert_eq!(brake.kept, Some(5 * M), "once a second");
    assert!(!brake.met(at(22), WANTED) && !brake.met(at(23), WANTED));
    assert_eq!(brake.kept, Some(14 * M), "10, and a step");
    brake.kept = Some(M);
    assert!(!brake.met(at(28), WANTED));
    assert_eq!(brake.kept, Some(12 * M), "what arrives at once: nothing came back lately");
    for now in (30..48).step_by(2) {
        check(&mut brake, now, 200, 200);
    }
    assert_eq!(brake.kept, None, "nothing comes back");
}

#[test]
fn a_stream_is_told_from_use_by_a_hold() {
    let mut brake = opened();
    assert_eq!(check(&mut brake, 2, 20, 0), Some(1.0));
    assert!(brake.met(at(3), WANTED));
    assert_eq!(brake.kept, None, "all of the headroom");
    for now in 2..30 {
        assert_eq!(check(&mut brake, 2 * now, 20 * now, 0), None, "{now}");
    }
    assert_eq!(check(&mut brake, 64, 20 * 30, 0), Some(1.0), "asked again");
    assert!(brake.met(at(65), WANTED));
    assert_eq!(check(&mut brake, 66, 20 * 41, 0), None);
    assert_eq!(check(&mut brake, 180, 20 * 42, 0), None, "known for twice as long");
}

#[test]
fn what_comes_back_makes_others_give_first() {
    let mut brake = opened();
    assert!(!brake.comes_back(at(1)));
    check(&mut brake, 2, 16, 0);
    assert!(brake.met(at(6), WANTED), "a stream, or others' memory that arrived");
    assert!(brake.comes_back(at(15)) && !brake.returns(at(15)) && !brake.comes_back(at(16)));
    // Window by window, as long as it does.
    brake.check(at(16), counters(16, 0), WANTED);
    assert_eq!(check(&mut brake, 18, 32, 0), None);
    assert!(brake.comes_back(at(27)), "it came back again");
    check(&mut brake, 28, 32, 0);
    assert!(!brake.comes_back(at(28)), "it stays away");
}

#[test]
fn no_more_than_asked_for_is_kept_until_reclaim_is_known_to_be_clean() {
    let wanted = Wanted { full: 32 * M, asked: 16 * M, reserve: 32 * M };
    let mut brake = opened();
    let check = |brake: &mut Brake, now: u64, refaulted: u64, restored: u64| {
        brake.reclaimed(at(now), 20 * M);
        brake.check(at(now), counters(refaulted, restored), wanted)
    };
    assert_eq!(brake.kept(at(0), wanted), Some(16 * M));
    assert_eq!(check(&mut brake, 2, 1, 0).returned, Some(false));
    assert_eq!(brake.kept(at(2), wanted), None);
    let checked = check(&mut brake, 4, 17, 16);
    assert_eq!((checked.returned, checked.hold), (Some(true), Some(0.8)));
    assert_eq!(brake.kept(at(4), wanted), Some(4 * M), "a step");
    assert!(brake.met(at(5), wanted));
    assert_eq!(brake.kept(at(5), wanted), Some(16 * M), "of the reserve, as much as asked for");
    // Without headroom, as with --keep, nothing else was asked for.
    let kept = Wanted { asked: 0, ..wanted };
    assert_eq!(Brake::default().kept(at(0), kept), None);
}

#[test]
fn the_reserve_is_bound_by_what_came_back_also_once_reclaim_is_clean() {
    let wanted = Wanted { full: 32 * M, asked: 4 * M, reserve: 32 * M };
    let mut brake = opened();
    let hold = |brake: &mut Brake, now: u64, refaulted: u64, restored: u64| {
        brake.reclaimed(at(now), 20 * M);
        brake.check(at(now), counters(refaulted, restored), wanted).hold
    };
    assert_eq!((hold(&mut brake, 2, 16, 16), brake.kept(at(2), wanted)), (Some(0.8), Some(M)));
    assert_eq!((hold(&mut brake, 8, 16, 16), hold(&mut brake, 10, 16, 16)), (None, None));
    assert_eq!(brake.kept(at(10), wanted), Some(2 * M), "a step more");
    assert_eq!((hold(&mut brake, 12, 32, 32), brake.holds(at(12))), (Some(0.8), Some(at(22))), "longer");
    assert_eq!(brake.kept(at(22), wanted), Some(4 * M), "an eighth, and no more than was asked for");
}

#[test]
fn a_trial_ends_as_the_limit_changes() {
    let mut brake = opened();
    check(&mut brake, 2, 16, 16);
    assert!(brake.met(at(3), WANTED));
    brake.limited_to(200 * M);
    let check = |brake: &mut Brake, now: u64, refaulted: u64| {
        brake.reclaimed(at(now), 20 * M);
        let counters = RefaultCounters { direct: Some(0), ..counters(refaulted, refaulted) };
        brake.check(at(now), counters, WANTED).hold
    };
    assert_eq!([check(&mut brake, 4, 16), check(&mut brake, 6, 36)], [None, Some(1.0)]);
    brake.limited_to(210 * M);
    assert_eq!((brake.holds(at(6)), brake.leaves_to_tasks(at(6))), (Some(at(8)), true));
    brake.limited_to(300 * M);
    assert_eq!((brake.holds(at(6)), brake.leaves_to_tasks(at(6))), (None, false));
}

#[test]
fn what_comes_back_for_some_time_without_use_is_a_stream() {
    let mut brake = opened();
    assert_eq!(check(&mut brake, 2, 20, 0), Some(1.0));
    assert!(brake.met(at(3), WANTED));
    brake.reclaimed(at(3), 20 * M);
    let mut returned = |now: u64| {
        brake.reclaimed(at(now), 20 * M);
        brake.check(at(now), counters(20 * now, 0), WANTED).returned
    };
    assert_eq!([4, 6, 8].map(&mut returned), [None, Some(false), Some(false)]);
    assert!(brake.is_known);
}

#[test]
fn what_is_left_alone_is_tried_again_by_and_by() {
    let mut brake = opened();
    check(&mut brake, 2, 16, 16);
    assert_eq!(brake.kept(at(66), WANTED), Some(4 * M), "a minute after the hold");
    assert_eq!(brake.kept(at(67), WANTED), Some(8 * M));
    assert_eq!(brake.kept(at(68), WANTED), Some(8 * M));
    let later: Vec<_> = (3..9).map(|minute| brake.kept(at(60 * minute), WANTED)).collect();
    assert_eq!(later.last(), Some(&None), "{later:?}");
}

#[test]
fn what_comes_back_of_a_press_holds_no_headroom() {
    let mut brake = opened();
    brake.pressed();
    assert_eq!(check(&mut brake, 30, 300, 300), None);
    assert_eq!(check(&mut brake, 32, 316, 316), Some(0.8));
}
