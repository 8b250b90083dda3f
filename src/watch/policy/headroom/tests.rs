use proptest::prelude::*;

use super::*;

const M: u64 = 1 << 20;
const LIMIT: u64 = 256 * M;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Simulates an application (its allocations by a time in ms) under the policy. Reclaim takes 1 ms
/// for 2 MiB. Returns the number of samples, the least free memory, and the bytes reclaimed in all.
fn play(law: &mut HeadroomPolicy, from: u64, until: u64, arrived: impl Fn(u64) -> u64) -> (u32, u64, u64) {
    let (mut now, mut looks, mut freed, mut least) = (from, 0, law.reclaimed, u64::MAX);
    while now < until {
        let current = |now: u64, freed: u64| arrived(now).saturating_sub(freed);
        let look = HeadroomSample { at: ms(now), current: current(now, freed), limit: LIMIT };
        looks += 1;
        let next = match law.decide(look) {
            Decision::Rest { until } | Decision::NoRoom { until } => until.as_millis() as u64,
            Decision::Reclaim { down_to } => {
                let bytes = look.current.saturating_sub(down_to);
                let took = bytes.div_ceil(2 * M).max(1);
                // The memory is freed only at the end of the reclaim.
                (now..now + took).for_each(|at| least = least.min(LIMIT.saturating_sub(current(at, freed))));
                freed += bytes;
                law.reclaimed(bytes);
                now + took
            }
        };
        assert!(next > now, "time goes on");
        (now..next.min(until)).for_each(|at| least = least.min(LIMIT.saturating_sub(current(at, freed))));
        now = next;
    }
    (looks, least, freed)
}

fn law() -> HeadroomPolicy {
    HeadroomPolicy::new(Headroom::Share(0.1), true)
}

#[test]
fn a_stream_never_comes_near_the_limit() {
    let mut law = law();
    let (looks, least, freed) = play(&mut law, 0, 20_000, |at| at * 60 * M / 1000);
    assert!(least > LIMIT / 10 * 8 / 10, "{least}");
    assert!(looks < 700, "{looks} looks in 20 s");
    assert!(freed > 950 * M);
    // Near the headroom, not more: the rest belongs to the application.
    assert!(law.low(LIMIT) < LIMIT / 10 + 2 * M, "{}", law.low(LIMIT));
}

#[test]
fn bursts_outrun_it_only_until_they_are_learned() {
    let mut law = law();
    // A burst of 40M every 3 s, and a stream.
    let arrived = |at: u64| at / 3000 * 40 * M + at * 45 * M / 1000;
    let (_, first, _) = play(&mut law, 0, 7000, arrived);
    assert_eq!(first, 0, "the headroom is 25.6M");
    let (_, then, _) = play(&mut law, 7001, 60_000, arrived);
    assert!(then > 0, "{then}");
}

#[test]
fn nothing_happens_and_next_to_nothing_is_done() {
    let mut idle = law();
    let (looks, _, freed) = play(&mut idle, 0, 60_000, |_| LIMIT);
    assert!(looks < 80 && freed < LIMIT / 8, "{looks}, {freed}: once, and never again");
    // The same at the watermark.
    let mut near = law();
    let moves = |at: u64| LIMIT + at.min(200) * 512 * 1024;
    let (looks, _, _) = play(&mut near, 0, 30_200, moves);
    assert!(looks < 400, "{looks}");
    let (looks, _, _) = play(&mut near, 30_201, 90_200, moves);
    assert!(looks < 70, "{looks}");
}

#[test]
fn the_reserve_is_capped_and_fades() {
    let mut law = law();
    let _ = play(&mut law, 0, 9000, |at| at / 3000 * 200 * M);
    assert_eq!(law.reserve(LIMIT), LIMIT / MOST_RESERVED);
    let _ = play(&mut law, 9001, 3_600_000, |_| 600 * M);
    assert!(law.low(LIMIT) < LIMIT / 10 + M, "{}", law.low(LIMIT));
}

#[test]
fn a_ramp_is_followed() {
    // From nothing to 200 MB/s over 20 s.
    let (_, least, _) = play(&mut law(), 0, 20_000, |at| at * at * 5 * M / 1_000_000);
    assert!(least > LIMIT / 10 / 2, "{least}");
}

#[test]
fn a_leak_takes_no_more_looks_than_it_is_worth() {
    let mut law = law();
    let (looks, least, _) = play(&mut law, 0, 60_000, |at| at * 2 * M / 1000);
    assert!(least > LIMIT / 10 * 9 / 10, "{least}");
    assert!(looks < 700, "{looks}: some ten a second at most");
}

#[test]
fn a_step_is_met_once_and_then_it_rests() {
    let mut law = law();
    let (_, _, freed) = play(&mut law, 0, 60_000, |at| if at < 10_000 { 100 * M } else { 240 * M });
    assert!((5 * M..40 * M).contains(&freed), "{freed}");
    let (looks, _, more) = play(&mut law, 60_001, 120_000, |_| 240 * M);
    assert!(looks < 70 && more == freed, "{looks}, {more}");
}

#[test]
fn what_the_application_gives_back_by_itself_is_not_reclaimed() {
    // Growth to 200M within 5 s, then all of it freed at once: the limit is never near.
    let saw = |at: u64| at % 5000 * 200 * M / 5000;
    let (_, least, freed) = play(&mut law(), 0, 60_000, saw);
    assert_eq!((least >= LIMIT / 10, freed), (true, 0), "{least}");
}

#[test]
fn a_limit_that_shrinks_is_followed_at_the_next_look() {
    let mut law = law();
    let look = |at, limit| HeadroomSample { at: ms(at), current: 150 * M, limit };
    assert!(matches!(law.decide(look(0, LIMIT)), Decision::Rest { .. }));
    let Decision::Reclaim { down_to } = law.decide(look(5000, 100 * M)) else {
        panic!("it is above its limit")
    };
    assert!(down_to < 90 * M, "{down_to}");
}

#[test]
fn a_limit_below_the_headroom_is_left_alone() {
    let mut law = HeadroomPolicy::new(Headroom::Bytes(64 * M), true);
    for (second, limit) in [(1, 32 * M), (2, 0), (3, 64 * M)] {
        let look = HeadroomSample { at: ms(second * 1000), current: 30 * M, limit };
        assert!(matches!(law.decide(look), Decision::NoRoom { .. }), "{limit}");
        assert_eq!(law.down_to(30 * M, limit), None);
    }
    // Whatever the distance between the watermarks, something of a small limit is left.
    let look = HeadroomSample { at: ms(4000), current: 67 * M, limit: 65 * M };
    assert_eq!(law.decide(look), Decision::Reclaim { down_to: M / 2 });
    let mut share = HeadroomPolicy::new(Headroom::Share(0.1), true);
    let look = HeadroomSample { at: ms(1000), current: M, limit: M };
    assert!(matches!(share.decide(look), Decision::Reclaim { down_to } if down_to >= M * 2 / 5));
}

#[test]
fn samples_on_the_grid_are_in_time() {
    let mut law = law();
    let mut at = ms(1033);
    for _ in 0..100 {
        let Decision::Rest { until } = law.decide(HeadroomSample { at, current: M, limit: LIMIT }) else {
            panic!("nothing is missing")
        };
        assert!(until < at + FAR || until.as_millis().is_multiple_of(GRID.as_millis()), "{until:?}");
        at = until;
    }
    assert_eq!(law.late, Duration::ZERO);
}

proptest! {
    /// An application that allocates and frees arbitrary amounts at arbitrary times.
    #[test]
    fn whatever_happens_it_stays_within_its_bounds(
        steps in proptest::collection::vec((1u64..3000, 0u64..300 * M), 1..200),
        headroom in 1u64..120 * M,
    ) {
        let mut law = HeadroomPolicy::new(Headroom::Bytes(headroom), true);
        let mut at = 0;
        for (apart, current) in steps {
            at += apart;
            let most = headroom.max(LIMIT / MOST_RESERVED);
            match law.decide(HeadroomSample { at: ms(at), current, limit: LIMIT }) {
                Decision::Rest { until } => {
                    prop_assert!(until > ms(at) && until <= ms(at) + MAX_INTERVAL + GRID);
                    prop_assert!(current <= LIMIT && LIMIT - current >= headroom);
                }
                Decision::NoRoom { .. } => prop_assert!(false, "the limit is larger"),
                Decision::Reclaim { down_to } => {
                    prop_assert!(down_to < current);
                    prop_assert!(LIMIT - down_to <= most + most / BETWEEN + LEAST_BETWEEN);
                    prop_assert!(current > LIMIT || LIMIT - current < most);
                    law.reclaimed(current - down_to);
                }
            }
        }
    }
}
