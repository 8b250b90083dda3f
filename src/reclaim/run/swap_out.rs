//! Anonymous memory on its way out: swap-out is asynchronous, and the loop has to wait for it.

use std::time::Duration;

use super::{POLL_INTERVAL, RequestEvent, Run, StoppedBy, Target, chunk};

/// Maximum wait, over the whole request, for pages on their way to swap.
const SWAP_OUT_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes on their way to swap that show a slow swap. With zram there are next to none.
const MIN_SLOW_SWAP: u64 = 512 << 10;

impl<T: Target + ?Sized> Run<'_, T> {
    /// Returns whether so much is on its way to swap that requests must follow it, not run ahead.
    pub(super) fn swap_is_slow(&self) -> bool {
        let before = self.ledger.start().1.swapcached.unwrap_or(0);
        self.request.kind.takes_anon()
            && (self.in_flight() >= MIN_SLOW_SWAP
                || self.on_its_way().saturating_sub(before) >= MIN_SLOW_SWAP)
    }

    /// Returns the bytes that went to swap and are still charged: being written, or written and not
    /// yet visited again.
    fn on_its_way(&self) -> u64 {
        self.ledger.stat().swapcached.unwrap_or(0)
    }

    /// Returns the bytes on their way that are being written.
    fn in_flight(&self) -> u64 {
        self.on_its_way().min(self.ledger.stat().file_writeback.unwrap_or(0))
    }

    /// Returns the bytes on their way that are written: the next request takes them at once.
    fn written(&self) -> u64 {
        self.on_its_way() - self.in_flight()
    }

    /// Returns the bytes that the next request may ask for without writing ever more to swap.
    ///
    /// Pages on their way count only once they are written and visited again. As long as they are
    /// less than what is `missing`, they will be needed; after that the rest is to be taken from
    /// them, and from nothing else.
    pub(super) fn await_swap(&mut self, missing: u64) -> Result<u64, StoppedBy> {
        if !self.slow_swap || self.on_its_way() < missing / 2 {
            return Ok(u64::MAX);
        }
        self.sample_counters(false)?;
        if self.on_its_way() >= missing && self.written() < chunk::SMALLEST {
            self.await_writeback()?;
        }
        Ok(self.written())
    }

    /// Waits until some of the pages in flight are written, bounded over the whole request, and
    /// returns whether that was so. Swap-out is asynchronous: pages leave `anon` and stay charged
    /// until they are written, and then until reclaim visits them again. Further requests meanwhile
    /// would push ever more to swap (Linux 7.3 was observed to write 60 MiB for the first one).
    /// Pages that are written already, and stay all the same, are no reason to wait.
    pub(super) fn await_writeback(&mut self) -> Result<bool, StoppedBy> {
        let enough = self.written() + chunk::SMALLEST.min(self.in_flight());
        while self.in_flight() > 0 && self.writeback_waited < SWAP_OUT_TIMEOUT {
            let bytes = self.in_flight();
            (self.emit)(RequestEvent::AwaitingWriteback { bytes });
            self.target.pause(POLL_INTERVAL);
            self.writeback_waited += POLL_INTERVAL;
            self.may_go_on()?;
            self.sample_usage()?;
            self.sample_counters(false)?;
            if self.written() >= enough {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
