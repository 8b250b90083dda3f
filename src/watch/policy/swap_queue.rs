//! Queue of the host's swap devices: bytes submitted to swap and not yet written. One queue for all
//! cgroups: each cgroup's own counters show its own writeback alone, and the device serves all of
//! them. A pure function of samples.

use std::time::Duration;

/// Maximum length of the queue, as the time to write it: a refault may wait as long.
const MAX_QUEUE: Duration = Duration::from_millis(100);

/// Assumed rate of a device until it is measured, bytes per second. Nothing is swapped out for a
/// measurement.
const FIRST_RATE: f64 = (4 << 20) as f64;

/// Busy time and bytes from which a rate is measured: the kernel counts the time in its ticks, of up
/// to 10 ms.
const MIN_BUSY: Duration = Duration::from_millis(50);
const MIN_WRITTEN: u64 = 256 << 10;

/// Weight of a measured rate below the current one: many small writes make a device slow for once.
const SLOWER_SHARE: f64 = 0.1;

/// State of the devices. Counters run since the host was started; of several devices their sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueSample {
    /// Bytes that all processes swapped out.
    pub submitted: u64,
    /// Bytes written, to swap or to files.
    pub written: u64,
    /// Time for which the devices were busy.
    pub busy: Duration,
    /// Requests that they haven't finished.
    pub in_flight: u64,
}

/// Queue of the swap devices.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SwapQueue {
    last: Option<QueueSample>,
    /// Sample since which the rate is measured.
    since: QueueSample,
    /// Bytes that a device writes per second while it is busy; `None` until it was measured.
    rate: Option<f64>,
    /// Bytes that were submitted and aren't written, at least.
    queued: f64,
}

impl SwapQueue {
    /// Records a sample.
    pub(crate) fn record(&mut self, sample: QueueSample) {
        let last = self.last.replace(sample);
        let Some(last) = last.filter(|last| sample.written >= last.written && sample.busy >= last.busy)
        else {
            // The first one, or other devices than before.
            *self = Self { last: Some(sample), since: sample, ..Self::default() };
            return;
        };
        let submitted = sample.submitted.saturating_sub(last.submitted);
        // At least: files may have been written instead.
        let left = self.queued + submitted as f64 - (sample.written - last.written) as f64;
        self.queued = if sample.in_flight == 0 { 0.0 } else { left.max(0.0) };
        self.measure(sample);
    }

    /// Returns the bytes that may be submitted now.
    #[must_use]
    pub(crate) fn room(&self) -> u64 {
        (self.rate.unwrap_or(FIRST_RATE) * MAX_QUEUE.as_secs_f64() - self.queued).max(0.0) as u64
    }

    fn measure(&mut self, sample: QueueSample) {
        let busy = sample.busy.saturating_sub(self.since.busy);
        if busy < MIN_BUSY {
            return;
        }
        let written = sample.written.saturating_sub(self.since.written);
        if written >= MIN_WRITTEN {
            let rate = written as f64 / busy.as_secs_f64();
            let before = self.rate.unwrap_or(rate);
            self.rate = Some(rate.max(before + SLOWER_SHARE * (rate - before)));
        }
        self.since = sample;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const M: u64 = 1 << 20;

    /// A device that writes so many bytes per second, with what it has to write.
    struct Disk {
        rate: u64,
        queue: u64,
        sample: QueueSample,
    }

    impl Disk {
        fn new(rate: u64) -> Self {
            Self { rate, queue: 0, sample: QueueSample::default() }
        }

        fn submit(&mut self, bytes: u64) {
            self.sample.submitted += bytes;
            self.queue += bytes;
        }

        fn pass(&mut self, time: Duration) -> QueueSample {
            let written = ((self.rate as f64 * time.as_secs_f64()) as u64).min(self.queue);
            self.queue -= written;
            self.sample.written += written;
            self.sample.busy += Duration::from_secs_f64(written as f64 / self.rate as f64);
            self.sample.in_flight = self.queue.div_ceil(128 << 10);
            self.sample
        }
    }

    /// Submits what there is room for, so many times a second. Returns the most that was queued, and
    /// what was written in the second half of the time.
    fn filled(rate: u64, seconds: u64, each: Duration) -> (u64, u64) {
        let (mut disk, mut queue) = (Disk::new(rate), SwapQueue::default());
        queue.record(disk.pass(each));
        let rounds = (Duration::from_secs(seconds).as_micros() / each.as_micros()) as u64;
        let (mut most, mut half) = (0, 0);
        for round in 0..rounds {
            disk.submit(queue.room().min(16 * M));
            most = most.max(disk.queue);
            queue.record(disk.pass(each));
            if round == rounds / 2 {
                half = disk.sample.written;
            }
        }
        (most, disk.sample.written - half)
    }

    #[test]
    fn a_device_is_kept_busy_for_a_tenth_of_a_second_at_most() {
        for rate in [M, 4 * M, 60 * M] {
            let (most, written) = filled(rate, 20, Duration::from_millis(125));
            assert!(most <= (rate / 8).max(420 << 10), "{rate}: {most}");
            assert!(written >= rate * 10 * 7 / 10, "{rate}: {written}");
        }
    }

    #[test]
    fn what_others_submitted_leaves_no_room() {
        let (mut disk, mut queue) = (Disk::new(4 * M), SwapQueue::default());
        let mut pass = |queue: &mut SwapQueue, bytes, seconds: f64| {
            disk.submit(bytes);
            queue.record(disk.pass(Duration::from_secs_f64(seconds)));
            queue.room()
        };
        assert_eq!(pass(&mut queue, 0, 1.0), (4 << 20) / 10);
        // One flood: until it is written, nobody submits more.
        assert_eq!(pass(&mut queue, 57 * M, 1.0), 0);
        for _ in 0..12 {
            assert_eq!(pass(&mut queue, 0, 1.0), 0);
        }
        assert!(pass(&mut queue, 0, 2.0) > 400 << 10);
    }

    #[test]
    fn writes_of_files_are_nobodys_queue() {
        let mut queue = SwapQueue::default();
        let mut sample = QueueSample::default();
        queue.record(sample);
        for _ in 0..10 {
            // A database writes all the time.
            sample.written += 30 * M;
            sample.busy += Duration::from_secs(1);
            sample.in_flight = 40;
            queue.record(sample);
        }
        assert_eq!(queue.room(), 3 * M, "its rate is known by that");
    }

    #[test]
    fn other_devices_begin_anew() {
        let (mut disk, mut queue) = (Disk::new(4 * M), SwapQueue::default());
        queue.record(disk.pass(Duration::from_secs(1)));
        disk.submit(8 * M);
        queue.record(disk.pass(Duration::from_secs(1)));
        assert_eq!(queue.room(), 0);
        // swapoff, and another disk.
        queue.record(QueueSample { submitted: 9 * M, in_flight: 3, ..QueueSample::default() });
        assert_eq!(queue.room(), (4 << 20) / 10, "not measured yet");
    }

    proptest! {
        #[test]
        fn no_counters_break_it(
            samples in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()), 0..20),
        ) {
            let mut queue = SwapQueue::default();
            for (submitted, written, busy, in_flight) in samples {
                queue.record(QueueSample { submitted, written, busy: Duration::from_millis(busy), in_flight });
                let _ = queue.room();
                prop_assert!(queue.queued >= 0.0 && queue.rate.is_none_or(|rate| rate > 0.0));
            }
        }
    }
}
