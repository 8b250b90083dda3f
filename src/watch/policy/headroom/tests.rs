use proptest::prelude::*;

use super::*;

const M: u64 = 1 << 20;
const LIMIT: u64 = 256 * M;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Simulates an application (its allocations by a time in ms) under the policy. Reclaim takes 1 ms
/// for 2 MiB. Returns the number of samples, the least free memory, and the bytes reclaimed in all.
fn play(policy: &mut HeadroomPolicy, from: u64, until: u64, arrived: impl Fn(u64) -> u64) -> (u32, u64, u64) {
    let (mut now, mut samples, mut freed, mut least) = (from, 0, policy.reclaimed, u64::MAX);
    while now < until {
        let current = |now: u64, freed: u64| arrived(now).saturating_sub(freed);
        let sample = HeadroomSample { at: ms(now), current: current(now, freed), limit: LIMIT };
        samples += 1;
        let next = match policy.decide(sample) {
            Decision::Rest { until } | Decision::NoRoom { until } => until.as_millis() as u64,
            Decision::Reclaim { down_to } => {
                let bytes = sample.current.saturating_sub(down_to);
                let took = bytes.div_ceil(2 * M).max(1);
                // The memory is freed only at the end of the reclaim.
                (now..now + took).for_each(|at| least = least.min(LIMIT.saturating_sub(current(at, freed))));
                freed += bytes;
                policy.reclaimed(bytes);
                now + took
            }
        };
        assert!(next > now, "time goes on");
        (now..next.min(until)).for_each(|at| least = least.min(LIMIT.saturating_sub(current(at, freed))));
        now = next;
    }
    (samples, least, freed)
}

fn new_policy() -> HeadroomPolicy {
    HeadroomPolicy::new(Headroom::Share(0.1), true)
}

#[test]
fn a_stream_never_comes_near_the_limit() {
    let mut policy = new_policy();
    let (samples, least, freed) = play(&mut policy, 0, 20_000, |at| at * 60 * M / 1000);
    assert!(least > LIMIT / 10 * 8 / 10, "{least}");
    assert!(samples < 700, "{samples} samples in 20 s");
    assert!(freed > 950 * M);
    // Near the headroom, not more: the rest belongs to the application.
    assert!(policy.low(LIMIT) < LIMIT / 10 + 2 * M, "{}", policy.low(LIMIT));
}

#[test]
fn what_an_action_reclaims_in_steps_is_no_burst() {
    // A level above: 40 MiB leave during an action of 400 ms, and are recorded at its end.
    for is_told in [false, true] {
        let mut policy = HeadroomPolicy::new(Headroom::Bytes(M), true);
        let mut at = 0;
        let mut sample = |policy: &mut HeadroomPolicy, current: u64| {
            policy.decide(HeadroomSample { at: ms(at), current: current * M, limit: 1000 * M });
            at += 50;
        };
        (0..20).for_each(|_| sample(&mut policy, 900));
        policy.is_reclaimed_from = is_told;
        (1..=8).for_each(|step| sample(&mut policy, 900 - 5 * step));
        policy.reclaimed(40 * M);
        policy.is_reclaimed_from = false;
        (0..4).for_each(|_| sample(&mut policy, 860));
        assert_eq!(policy.low(1000 * M) > 10 * M, !is_told, "{}", policy.low(1000 * M));
    }
}

#[test]
fn bursts_outrun_the_policy_until_they_are_learned() {
    let mut policy = new_policy();
    // A burst of 40M every 3 s, and a stream.
    let arrived = |at: u64| at / 3000 * 40 * M + at * 45 * M / 1000;
    let (_, first, _) = play(&mut policy, 0, 7000, arrived);
    assert_eq!(first, 0, "the headroom is 25.6M");
    let (_, then, _) = play(&mut policy, 7001, 60_000, arrived);
    assert!(then > 0, "{then}");
}

#[test]
fn what_came_back_is_forgotten() {
    let mut policy = new_policy();
    let stream = |at: u64| 200 * M + at * 20 * M / 1000;
    let _ = play(&mut policy, 0, 5000, stream);
    let reserve = policy.reserve(LIMIT);
    policy.note_arrivals();
    let _ = play(&mut policy, 5001, 6000, |at| stream(at) + if at > 5500 { 60 * M } else { 0 });
    assert!(policy.reserve(LIMIT) > 60 * M, "{}", policy.reserve(LIMIT));
    policy.forget_arrivals();
    assert!(policy.reserve(LIMIT) <= reserve, "{}", policy.reserve(LIMIT));
    // Until the next sample, and not longer.
    let _ = play(&mut policy, 6050, 6051, |at| stream(at) + 120 * M);
    assert!(policy.reserve(LIMIT) < reserve + 4 * M, "{}", policy.reserve(LIMIT));
    let _ = play(&mut policy, 6100, 6101, |at| stream(at) + 180 * M);
    assert!(policy.reserve(LIMIT) > 60 * M, "{}", policy.reserve(LIMIT));
}

#[test]
fn an_idle_cgroup_is_sampled_rarely() {
    let mut idle = new_policy();
    let (samples, _, freed) = play(&mut idle, 0, 60_000, |_| LIMIT);
    assert!(samples < 80 && freed < LIMIT / 8, "{samples}, {freed}: once, and never again");
    // The same at the watermark.
    let mut near = new_policy();
    let moves = |at: u64| LIMIT + at.min(200) * 512 * 1024;
    let (samples, _, _) = play(&mut near, 0, 30_200, moves);
    assert!(samples < 400, "{samples}");
    let (samples, _, _) = play(&mut near, 30_201, 90_200, moves);
    assert!(samples < 70, "{samples}");
}

#[test]
fn a_batch_for_each_processor_is_kept_free_below_memory_high() {
    let batches = |batches: u64, arrived: u64| {
        let mut policy = HeadroomPolicy { batches, ..HeadroomPolicy::new(Headroom::Bytes(M), true) };
        play(&mut policy, 0, 5000, |at| at * arrived / 1000);
        policy.low(LIMIT)
    };
    assert_eq!((batches(0, 0), batches(16 * M, 0)), (M, 16 * M));
    let (without, with) = (batches(0, 60 * M), batches(16 * M, 60 * M));
    assert!(with >= without + 15 * M && with <= without + 17 * M, "{without} {with}");
    // Many processors don't take all of a small limit.
    assert_eq!(batches(128 * M, 0), LIMIT / RESERVE_DIVISOR);
}

#[test]
fn the_reserve_is_capped_and_fades() {
    let mut policy = new_policy();
    let _ = play(&mut policy, 0, 9000, |at| at / 3000 * 200 * M);
    assert_eq!(policy.reserve(LIMIT), LIMIT / RESERVE_DIVISOR);
    let _ = play(&mut policy, 9001, 3_600_000, |_| 600 * M);
    assert!(policy.low(LIMIT) < LIMIT / 10 + M, "{}", policy.low(LIMIT));
}

#[test]
fn a_ramp_is_followed() {
    // From nothing to 200 MB/s over 20 s.
    let (_, least, _) = play(&mut new_policy(), 0, 20_000, |at| at * at * 5 * M / 1_000_000);
    assert!(least > LIMIT / 10 / 2, "{least}");
}

#[test]
fn a_leak_is_followed_with_few_samples() {
    let mut policy = new_policy();
    let (samples, least, _) = play(&mut policy, 0, 60_000, |at| at * 2 * M / 1000);
    assert!(least > LIMIT / 10 * 9 / 10, "{least}");
    assert!(samples < 700, "{samples}: some ten a second at most");
}

#[test]
fn a_step_is_reclaimed_once() {
    let mut policy = new_policy();
    let (_, _, freed) = play(&mut policy, 0, 60_000, |at| if at < 10_000 { 100 * M } else { 240 * M });
    assert!((5 * M..40 * M).contains(&freed), "{freed}");
    let (samples, _, more) = play(&mut policy, 60_001, 120_000, |_| 240 * M);
    assert!(samples < 70 && more == freed, "{samples}, {more}");
}

#[test]
fn memory_that_the_application_frees_is_not_reclaimed() {
    // Growth to 200M within 5 s, then all of it freed at once: the limit is never near.
    let saw = |at: u64| at % 5000 * 200 * M / 5000;
    let (_, least, freed) = play(&mut new_policy(), 0, 60_000, saw);
    assert_eq!((least >= LIMIT / 10, freed), (true, 0), "{least}");
}

#[test]
fn a_lowered_limit_is_followed_at_the_next_sample() {
    let mut policy = new_policy();
    let sample = |at, limit| HeadroomSample { at: ms(at), current: 150 * M, limit };
    assert!(matches!(policy.decide(sample(0, LIMIT)), Decision::Rest { .. }));
    let Decision::Reclaim { down_to } = policy.decide(sample(5000, 100 * M)) else {
        panic!("it is above its limit")
    };
    assert!(down_to < 90 * M, "{down_to}");
}

#[test]
fn a_limit_below_the_headroom_is_left_alone() {
    let mut policy = HeadroomPolicy::new(Headroom::Bytes(64 * M), true);
    for (second, limit) in [(1, 32 * M), (2, 0), (3, 64 * M)] {
        let sample = HeadroomSample { at: ms(second * 1000), current: 30 * M, limit };
        assert!(matches!(policy.decide(sample), Decision::NoRoom { .. }), "{limit}");
        assert_eq!(policy.down_to(30 * M, limit), None);
    }
    // A part of a small limit is left in spite of the minimum distance of the watermarks.
    let sample = HeadroomSample { at: ms(4000), current: 67 * M, limit: 65 * M };
    assert_eq!(policy.decide(sample), Decision::Reclaim { down_to: M / 2 });
    let mut share = HeadroomPolicy::new(Headroom::Share(0.1), true);
    let sample = HeadroomSample { at: ms(1000), current: M, limit: M };
    assert!(matches!(share.decide(sample), Decision::Reclaim { down_to } if down_to >= M * 2 / 5));
}

#[test]
fn a_reclaim_that_goes_on_comes_down_to_the_upper_watermark() {
    let mut law = HeadroomPolicy::new(Headroom::Bytes(40 * M), false);
    let mut decide = |second: u64, current: u64, goes_on: bool| {
        if goes_on {
            law.go_on();
        }
        law.decide(HeadroomSample { at: ms(second * 1000), current, limit: 128 * M })
    };
    let down_to = Decision::Reclaim { down_to: 83 * M };
    assert_eq!(decide(1, 89 * M, false), down_to);
    assert!(matches!(decide(2, 86 * M, false), Decision::Rest { .. }));
    assert_eq!(decide(3, 86 * M, true), down_to);
    assert!(matches!(decide(4, 86 * M, false), Decision::Rest { .. }), "once");
    assert!(matches!(decide(5, 83 * M, true), Decision::Rest { .. }), "it is there");
}

#[test]
fn samples_on_the_grid_are_in_time() {
    let mut policy = new_policy();
    let mut at = ms(1033);
    for _ in 0..100 {
        let Decision::Rest { until } = policy.decide(HeadroomSample { at, current: M, limit: LIMIT }) else {
            panic!("nothing is missing")
        };
        assert!(
            until < at + GRID_DISTANCE || until.as_millis().is_multiple_of(GRID.as_millis()),
            "{until:?}"
        );
        at = until;
    }
    assert_eq!(policy.late, Duration::ZERO);
}

proptest! {
    /// An application that allocates and frees arbitrary amounts at arbitrary times.
    #[test]
    fn decisions_stay_within_their_bounds(
        steps in proptest::collection::vec((1u64..3000, 0u64..300 * M), 1..200),
        headroom in 1u64..120 * M,
    ) {
        let mut policy = HeadroomPolicy::new(Headroom::Bytes(headroom), true);
        let mut at = 0;
        for (apart, current) in steps {
            at += apart;
            let most = headroom.max(LIMIT / RESERVE_DIVISOR);
            match policy.decide(HeadroomSample { at: ms(at), current, limit: LIMIT }) {
                Decision::Rest { until } => {
                    prop_assert!(until > ms(at) && until <= ms(at) + MAX_INTERVAL + GRID);
                    prop_assert!(current <= LIMIT && LIMIT - current >= headroom);
                }
                Decision::NoRoom { .. } => prop_assert!(false, "the limit is larger"),
                Decision::Reclaim { down_to } => {
                    prop_assert!(down_to < current);
                    prop_assert!(LIMIT - down_to <= most + most / WATERMARK_DIVISOR + MIN_WATERMARK_DISTANCE);
                    prop_assert!(current > LIMIT || LIMIT - current < most);
                    policy.reclaimed(current - down_to);
                }
            }
        }
    }
}

#[test]
fn calm_cgroups_share_what_a_thousand_cost() {
    assert_eq!([0, 1999, 2000, 4000, 5000, 100_000].map(crowd), [1, 1, 2, 4, 5, 5]);
    let mut policy = new_policy();
    policy.crowd = crowd(10_000);
    let before_calm = CALM_TIME.as_millis() as u64 + 1000;
    let _ = play(&mut policy, 0, before_calm, |_| 100 * M);
    let (samples, _, _) = play(&mut policy, before_calm + 1, before_calm + 60_000, |_| 100 * M);
    assert!((10..15).contains(&samples), "{samples} in a minute");
    // A leak ends the calm at its first sample.
    let began = before_calm + 60_001;
    let leak = |at: u64| 100 * M + at.saturating_sub(began) * 4 * M / 1000;
    let (_, least, _) = play(&mut policy, began, began + 120_000, leak);
    assert!(least > LIMIT / 10 * 9 / 10, "{least}");
}

#[test]
fn what_is_due_to_the_headroom_is_known_between_the_watermarks_too() {
    let mut law = HeadroomPolicy::new(Headroom::Bytes(40 * M), false);
    let limits = (128 * M, 128 * M);
    for (second, current, missing) in [(1, 89 * M, 6 * M), (2, 86 * M, 3 * M)] {
        let decision = law.decide(HeadroomSample { at: ms(second * 1000), current, limit: limits.0 });
        assert_eq!(decision, Decision::Reclaim { down_to: current - missing });
        // An OOM killer above holds nothing of it back.
        assert_eq!(law.for_headroom(current, missing, limits), missing);
        law.go_on();
    }
    // Below a limit of the user's, the headroom may need less, or nothing.
    assert_eq!(law.for_headroom(89 * M, 30 * M, (60 * M, 128 * M)), 6 * M);
    assert_eq!(law.for_headroom(80 * M, 21 * M, (60 * M, 128 * M)), 0);
    assert_eq!(law.for_headroom(80 * M, 21 * M, (60 * M, u64::MAX)), 0);
    let none = HeadroomPolicy::new(Headroom::Bytes(0), false);
    assert_eq!(none.for_headroom(127 * M, 20 * M, limits), 0);
}
