//! Tests of the loop beside a slow swap: what the device, the kernel's counters and the application
//! do to it.

use super::*;

/// A cgroup of anonymous memory beside a device that writes `speed` pages a second.
fn beside(speed: u64, anon_bytes: u64) -> Sim {
    let anon = anon_bytes / PAGE;
    let swap_speed = Some(speed);
    Sim { anon, swap_room: 8 * anon, swap_speed, submit_speed: 64, is_interruptible: true, ..Sim::new(0) }
}

fn alarmed(bytes: u64) -> Request {
    Request { alarm: Some(sim::alarm), ..request(bytes) }
}

#[test]
fn a_device_that_keeps_up_needs_no_rest() {
    // 30 and 100 MiB a second, page by page and 1 MiB at a time.
    for (speed, step) in [(7680, 1), (7680, 256), (25_600, 1), (25_600, 256)] {
        let mut sim = beside(speed, 400 * M);
        sim.device.step = step;
        let report = bounded(&mut sim, &alarmed(200 * M));
        assert_eq!((report.stopped_by, report.verdict()), (StoppedBy::Reached, Some(Verdict::Exact)));
        let ideal = 200 * M / PAGE * 1000 / speed;
        let elapsed = report.elapsed.as_millis() as u64;
        assert!(elapsed < ideal * 8 / 5, "{speed} {step}: {elapsed} ms instead of {ideal}");
    }
}

/// The device makes progress all the time, and the request doesn't.
#[test]
fn memory_that_comes_back_as_fast_is_not_swapped_out_for_ever() {
    for (speed, touch_speed) in [(25_600, 102_400), (7680, 30_720), (1024, 400_000)] {
        for swap_accounting in [SwapAccounting::On, SwapAccounting::Off] {
            let mut sim = Sim { touch_speed, swap_accounting, ..beside(speed, 80 * M) };
            let report = bounded(&mut sim, &alarmed(40 * M));
            assert_eq!((report.stopped_by, report.verdict()), (StoppedBy::Exhausted, Some(Verdict::Under)));
            assert_eq!(report.obstacles, [Obstacle::Growing]);
            // Where swap isn't accounted for, writes may take longer, and submit more.
            let most = if swap_accounting == SwapAccounting::On { 300 * M } else { 1200 * M };
            assert!(sim.swapped * PAGE < most, "{swap_accounting:?}: {} MiB", sim.swapped * PAGE / M);
        }
    }
}
