//! Anonymous memory on its way out: swap-out to a device is asynchronous, and the loop has to
//! follow the device.
//!
//! Pages submitted to the device stay charged until they are written, and then until reclaim visits
//! them again. As long as nothing was freed, the kernel raises its priority and submits ever more:
//! up to all anonymous memory for a request of 128 KiB, to a disk of 4 MB/s (Linux 6.1 to 7.3). It
//! ends early only if the device has written `SWAP_CLUSTER_MAX` pages of it meanwhile. So the loop
//! alternates: it submits, by a small request, only while nothing is being written; it waits as
//! long as the device makes progress; and it collects what was written, by requests for no more
//! than that.

use std::time::Duration;

use super::{POLL_INTERVAL, RequestEvent, Run, StoppedBy, Target, chunk};
use crate::cgroup::stat::MemoryStat;
use crate::reclaim::swap_out::{MIN_FAST_SWAP, Speed};

/// Maximum wait while nothing is reclaimed or written. The counters can be 2 s old, and a disk of
/// 4 MB/s takes 1 s for the 4 MiB that Linux 7.3 submits as one request.
const NO_PROGRESS_TIMEOUT: Duration = Duration::from_secs(6);

/// Shortest interval between samples while waiting.
const FIRST_INTERVAL: Duration = Duration::from_millis(2);

/// Bytes on their way to swap that show a slow swap. With zram there are next to none.
const MIN_SLOW_SWAP: u64 = 512 << 10;

impl<T: Target + ?Sized> Run<'_, T> {
    /// Returns the bytes that went to swap and are still charged: being written, or written and not
    /// yet visited again.
    fn on_its_way(&self) -> u64 {
        self.ledger.stat().swapcached.unwrap_or(0)
    }

    /// Returns the bytes under writeback, to swap and to files.
    pub(super) fn writeback(&self) -> u64 {
        self.ledger.stat().file_writeback.unwrap_or(0)
    }

    /// Returns the bytes on their way that are being written.
    fn in_flight(&self) -> u64 {
        self.on_its_way().min(self.writeback().saturating_sub(self.swap.foreign))
    }

    /// Returns the bytes on their way that are written: the next request takes them at once.
    fn written(&self) -> u64 {
        (self.on_its_way() - self.in_flight()).saturating_sub(self.swap.kept)
    }

    /// Concludes the speed of swap from the counters.
    pub(super) fn judge_swap(&mut self) {
        self.swap.sampled(self.on_its_way(), self.in_flight(), self.writeback());
        // The application's own swap cache and its writes to files say nothing about swap.
        let waits = self.on_its_way() - self.swap.lowest >= MIN_SLOW_SWAP;
        if self.request.kind.takes_anon() && waits {
            self.swap.speed = Speed::Slow;
        } else if self.swap.speed == Speed::Unknown && self.swapped() >= MIN_FAST_SWAP {
            self.swap.speed = Speed::Fast;
        }
    }

    /// Returns the bytes of page cache that a request is met by before it needs anonymous memory.
    fn cache(&self) -> u64 {
        if self.request.kind.takes_file() { self.ledger.stat().cache_beside_anon() / 2 } else { 0 }
    }

    /// Returns the bytes swapped out since the start. For the root, a node, and without accounting,
    /// swap usage isn't known: it is what was reclaimed then, as far as anonymous memory shrank.
    fn swapped(&self) -> u64 {
        let anon = |stat: &MemoryStat| stat.anon.unwrap_or(0);
        let shrank = anon(self.ledger.start().1).saturating_sub(anon(self.ledger.stat()));
        self.swap.swapped().unwrap_or_else(|| self.ledger.estimate().min(shrank))
    }

    /// Returns the time limit for a write that asks for this many bytes; `None` for no limit.
    pub(super) fn write_timeout(&self, chunk: u64) -> Option<Duration> {
        let may_wait = match self.swap.speed {
            Speed::Fast => false,
            Speed::Slow => true,
            // A size that was given is kept as long as nothing speaks against it.
            Speed::Unknown => {
                self.request.chunk.is_none() && self.request.kind.takes_anon() && chunk > self.cache()
            }
        };
        may_wait.then_some(self.swap.timeout)
    }

    /// Samples the usage of swap before a write to a slow one: the application may have freed some
    /// since the write before, which would hide what this one submits.
    pub(super) fn prepare_swap(&mut self) {
        if self.swap.is_slow() && self.swap.usage.is_some() {
            self.swap.usage = self.target.swap_usage();
        }
    }

    /// Samples the usage of swap after a write, and the counters if it rose: while the speed of swap
    /// isn't known, one write can fill a slow device's queue.
    pub(super) fn sample_swap(&mut self) -> Result<(), StoppedBy> {
        self.swap.has_moved = false;
        if self.swap.speed == Speed::Fast || !self.request.kind.takes_anon() {
            return Ok(());
        }
        let before = self.swap.usage;
        self.swap.usage = self.target.swap_usage();
        let rose = self.swap.usage.zip(before).map(|(now, before)| now.saturating_sub(before));
        if rose == Some(0) {
            return Ok(());
        }
        self.swap.has_moved = rose.is_some();
        let cached = self.on_its_way();
        self.sample_counters(self.swap.is_slow())?;
        let submitted = rose.unwrap_or(self.on_its_way().saturating_sub(cached));
        self.swap.submitted = self.swap.submitted.saturating_add(submitted);
        if submitted > 0 {
            // The kernel submitted, so it found no more that was written. What is written now was
            // written while the kernel held it: such pages aren't moved to where it looks next.
            self.swap.kept += self.written();
            self.swap.has_submitted = true;
        }
        Ok(())
    }

    /// Returns the bytes that the next request may ask for without writing ever more to swap.
    ///
    /// Pages on their way count only once they are written and visited again. As long as they are
    /// less than what is `missing`, they will be needed; after that the rest is to be taken from
    /// them, and from nothing else.
    ///
    /// # Errors
    /// The reason to end: nothing more gets to swap, or one of those of the loop.
    pub(super) fn await_swap(&mut self, missing: u64) -> Result<u64, StoppedBy> {
        match self.swap.speed {
            Speed::Fast => return Ok(u64::MAX),
            Speed::Unknown if !self.request.kind.takes_anon() => return Ok(u64::MAX),
            Speed::Unknown => return Ok(chunk::SMALLEST.max(self.cache()).max(2 * self.swapped())),
            Speed::Slow => {}
        }
        self.sample_counters(true)?;
        // Page cache needs no wait for the device, and what goes to swap beside it is needed.
        let needed = missing.saturating_sub(self.on_its_way());
        let beside = self.cache().min(needed);
        if beside > self.written().max(chunk::SMALLEST) {
            return Ok(beside);
        }
        let enough = 2 * chunk::SMALLEST;
        if self.written() < enough && self.in_flight() > 0 && !self.await_writeback(enough)? {
            if std::mem::replace(&mut self.swap.has_probed, true) {
                return Err(StoppedBy::Exhausted);
            }
            // Perhaps all is written, and the application writes files.
            return Ok(chunk::SMALLEST);
        }
        // If the kernel found less than it is asked for, it would submit more. A huge page that is
        // written leaves as a whole.
        let written = self.written();
        if written >= enough {
            return Ok(written / 2);
        }
        self.give_up_on_swap()?;
        self.await_device()?;
        Ok(self.swap.next_submit())
    }

    /// Gives up on a cgroup that takes back what is swapped out before it leaves memory: the device
    /// makes progress, and the request doesn't.
    fn give_up_on_swap(&mut self) -> Result<(), StoppedBy> {
        let left = self.ledger.most().saturating_add(self.on_its_way());
        if self.swap.submitted.saturating_sub(left) < self.excessive() {
            return Ok(());
        }
        self.growing = true;
        Err(StoppedBy::Exhausted)
    }

    /// Waits until some of the pages in flight are written, and returns whether there were any, and
    /// the device made progress.
    pub(super) fn await_some_writeback(&mut self) -> Result<bool, StoppedBy> {
        let was_in_flight = self.in_flight() > 0;
        let enough = self.written() + chunk::SMALLEST;
        Ok(self.await_writeback(enough)? && was_in_flight)
    }

    /// Waits as long as a slow device took for its latest step: a device whose rate is limited can't
    /// begin earlier, and the kernel submits ever more until the first page is written.
    fn await_device(&mut self) -> Result<(), StoppedBy> {
        let mut left = self.swap.pause();
        while !left.is_zero() {
            let interval = left.min(POLL_INTERVAL);
            self.target.pause(interval);
            self.swap.waited += interval;
            self.may_go_on()?;
            left -= interval;
        }
        Ok(())
    }

    /// Waits until `enough` bytes are written, or all that are in flight. Returns false if nothing
    /// was reclaimed or written for too long.
    fn await_writeback(&mut self, enough: u64) -> Result<bool, StoppedBy> {
        let (mut interval, mut told) = (FIRST_INTERVAL, None);
        let mut least = self.in_flight();
        while self.in_flight() > 0 && self.written() < enough {
            if self.swap.idle >= NO_PROGRESS_TIMEOUT {
                return Ok(false);
            }
            let bytes = self.in_flight();
            if told.replace(bytes) != Some(bytes) {
                (self.emit)(RequestEvent::AwaitingWriteback { bytes });
            }
            self.target.pause(interval);
            self.swap.add_wait(interval);
            interval = (2 * interval).min(POLL_INTERVAL);
            self.may_go_on()?;
            self.sample_usage()?;
            self.sample_counters(true)?;
            // The device works, perhaps for others first.
            if self.in_flight() < least {
                least = self.in_flight();
                self.swap.idle = Duration::ZERO;
                self.swap.progressed();
            }
        }
        Ok(true)
    }
}
