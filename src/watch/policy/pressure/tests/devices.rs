//! Swap on a device: what was submitted, and is waited for.

use super::*;

#[test]
fn what_was_swapped_out_to_a_device_was_taken() {
    let knees = |submits: bool| {
        let decided = of_anon(&[32 << 20; 12], |sample| {
            sample.on_device = Some(if submits { sample.scanned / 2 } else { 0 });
        });
        decided.iter().filter(|one| matches!(one, PressureDecision::Knee(_))).count()
    };
    assert_eq!((knees(true), knees(false)), (0, 1));
}

#[test]
fn only_the_writeback_of_what_was_swapped_out_is_waited_for() {
    let steps = |on_device: fn(u64) -> Option<u64>| {
        let decided = of_anon(&[0; 12], |sample| {
            (sample.writeback, sample.unwritten) = (8 << 20, 30 << 20);
            sample.on_device = on_device(sample.at.as_secs());
        });
        decided.iter().filter(|one| matches!(one, PressureDecision::Reclaim(_))).count()
    };
    assert_eq!(steps(|_| Some(40 << 20)), 12, "files that it writes");
    assert_eq!(steps(|at| Some((8 << 20) * at)), 0, "a device that is behind");
    assert_eq!(steps(|at| Some((16 << 20) * (at / 10))), 8, "4 s after each 16 MiB");
    assert_eq!(steps(|_| None), 0, "unknown");
}

#[test]
fn a_device_slower_than_expected_is_waited_for() {
    // 16 MiB are submitted after the first second, and written at 1 MiB/s. Of files, `dirty` MiB are
    // dirty at first.
    let steps = |dirty: u64| {
        let decided = of_anon(&[0; 30], |sample| {
            let second = sample.at.as_secs();
            sample.on_device = Some(if second < 2 { 0 } else { 16 << 20 });
            sample.writeback = if second < 2 { 0 } else { 18u64.saturating_sub(second) << 20 };
            sample.unwritten = sample.writeback + if second < 3 { dirty << 20 } else { 0 };
        });
        decided.iter().filter(|one| matches!(one, PressureDecision::Reclaim(_))).count()
    };
    // Some of the samples are pauses of the approach.
    let idle = of_anon(&[0; 30], |sample| sample.on_device = Some(0));
    let all = idle.iter().filter(|one| matches!(one, PressureDecision::Reclaim(_))).count();
    assert_eq!((steps(0), steps(100)), (all - 15, all - 3), "{all}");
}

#[test]
fn a_flood_of_the_device_is_waited_for_before_the_counters_show_it() {
    let flooded = |bytes: u64| {
        let decided = of_anon(&[0; 12], |sample| {
            sample.on_device = Some(if sample.at.as_secs() < 10 { 0 } else { bytes });
        });
        decided.iter().filter(|one| matches!(one, PressureDecision::Rest(_))).count()
    };
    assert_eq!((flooded(8 << 20), flooded(40 << 20)), (0, 3));
}

#[test]
fn nothing_to_be_had_is_no_knee_soon_after_a_device_was_waited_for() {
    let seconds = Duration::from_secs;
    let mut policy = PressurePolicy::new(0.001, REUSE);
    let sample = |at| PressureSample { at, current: 1 << 30, ..PressureSample::default() };
    policy.reclaimed(32 << 20, Duration::ZERO);
    policy.late(seconds(100));
    assert!(!policy.exhausted(sample(seconds(116))));
    assert_eq!(policy.due(), seconds(116) + FIRST_HOLD, "it is tried again before");
    assert!(policy.exhausted(sample(seconds(132))));
}

#[test]
fn a_wait_for_a_device_does_not_end_the_approach() {
    let mut run = Run::new(App::new(60.0, 440.0));
    run.run(8);
    let (pressed, rate) = (run.policy.reuse.pressed(), run.policy.rate);
    assert!(pressed > 8.0 * M && rate > 4.0 * MIN_RATE as f64, "{pressed} {rate}");
    run.policy.late(run.now);
    assert_eq!((run.policy.due(), run.policy.reuse.pressed()), (run.now + FIRST_HOLD, pressed));
    assert!(run.policy.reuse.approaches() && !run.policy.found);
    assert!((0.49..0.51).contains(&(run.policy.rate / rate)), "{} {rate}", run.policy.rate);
    // Nothing of it is under writeback: others keep the device busy.
    let pauses = [2, 2, 2, 2].map(|seconds| {
        run.run(seconds);
        run.policy.late(run.now);
        run.policy.due().saturating_sub(run.now).as_secs()
    });
    assert_eq!(pauses, [4, 8, 16, 16]);
    run.run(40);
    run.policy.late(run.now);
    assert_eq!(run.policy.due(), run.now + FIRST_HOLD, "after half a minute without");
    run.run(100);
    assert!(run.over() < 1.15, "{:?}", run.app);
}

#[test]
fn what_a_device_still_writes_halves_the_steps_once() {
    let mut policy = PressurePolicy::new(0.001, REUSE);
    let rates: Vec<_> = (1..40)
        .map(|quarter| {
            // 8 MiB are submitted after five seconds, at 4 MiB/s.
            let at = STEP_INTERVAL * quarter;
            let (is_out, is_written) = (quarter >= 20, quarter >= 28);
            policy.decide(PressureSample {
                at,
                current: 1 << 30,
                file: 1 << 30,
                stalled: Some(Duration::ZERO),
                on_device: Some(if is_out { 8 << 20 } else { 0 }),
                writeback: if is_out && !is_written { 8 << 20 } else { 0 },
                ..PressureSample::default()
            });
            policy.reclaimed((policy.rate * STEP_INTERVAL.as_secs_f64()) as u64, Duration::ZERO);
            policy.rate
        })
        .collect();
    let (before, during) = (rates[18], &rates[19..26]);
    assert!(during.iter().all(|&rate| (0.49..0.51).contains(&(rate / before))), "{rates:?}");
    assert!(rates[38] > before, "{rates:?}");
}

#[test]
fn a_device_that_is_known_to_keep_up_is_not_waited_for() {
    let steps = |room: Option<u64>| {
        let decided = of_anon(&[0; 12], |sample| {
            // Files are written all the time, and 16 MiB swapped out after 10 s.
            (sample.writeback, sample.unwritten) = (8 << 20, 30 << 20);
            sample.on_device = Some((16 << 20) * (sample.at.as_secs() / 10));
            sample.queue_room = room;
        });
        decided.iter().filter(|one| matches!(one, PressureDecision::Reclaim(_))).count()
    };
    assert_eq!(steps(None), 8, "it is taken to write 4 MiB/s");
    assert_eq!(steps(Some(20 << 20)), 12);
    assert_eq!(steps(Some(0)), 0, "others keep it busy");
}

#[test]
fn no_more_is_submitted_than_the_devices_write_soon() {
    let largest = |room: Option<u64>| {
        let (mut policy, mut largest) = (PressurePolicy::new(0.001, REUSE), 0);
        let mut sample = PressureSample {
            current: 1 << 30,
            stalled: Some(Duration::ZERO),
            on_device: Some(0),
            queue_room: room,
            ..PressureSample::default()
        };
        for _ in 0..40 {
            if let PressureDecision::Reclaim(bytes) = policy.decide(sample) {
                largest = largest.max(bytes);
                policy.reclaimed(bytes, Duration::ZERO);
                sample.current -= bytes;
            }
            sample.at = policy.due();
        }
        largest
    };
    let free = largest(None);
    assert!(free > 2 << 20, "{free}");
    assert_eq!((largest(Some(1 << 20)), largest(Some(64 << 20))), (1 << 20, free));
    // Never so little that the kernel has nothing to do.
    assert_eq!(largest(Some(1)), 128 << 10);
}
