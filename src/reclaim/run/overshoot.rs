//! Memory that leaves beyond the request, slab above all: the conditions for ending a request early
//! or waiting, and the single write that overshot.
//!
//! The kernel's shrinkers free dentries and inodes in proportion to how hard the LRU lists are
//! scanned. With little on those lists, one write scans them at every priority, and frees all slab
//! that there is, whatever it was asked for: 27 MiB for 128 KiB on Linux 6.12 and 7.3, 2 to 10 MiB
//! on 6.1, whose loop counts slab (`do_try_to_free_pages`, mm/vmscan.c). A signal doesn't end that:
//! the kernel checks for signals between two calls of that function, and the first call takes it
//! all.

use std::time::Duration;

use super::{Flow, POLL_INTERVAL, RequestEvent, Run};
use crate::reclaim::overshoot::{COUNTER_TIMEOUT, MIN_FALL, MIN_SLAB, Overshot, is_much};
use crate::reclaim::{LARGE_FOLIO, Measure, Measured, StoppedBy, Target};

/// Maximum missing bytes for which slab that is being freed is waited for: it is a few MiB at a
/// time.
const MAX_AWAITED_SLAB: u64 = 8 << 20;

/// Time limit for slab to be freed after a write: dentries and inodes are freed after a grace
/// period of RCU, and a slab page goes back only with the last of its objects. Up to 4 MiB came 20
/// ms after a write, and up to 3 MiB after that; once 27 MiB were on their way for seconds, on a
/// guest whose callbacks were held up (6.1). For the whole request the limit is
/// [`COUNTER_TIMEOUT`].
const SLAB_TIMEOUT: Duration = Duration::from_secs(1);

/// Time in which slab that is on its way must show, before a request is called exhausted.
const LAST_SLAB_TIMEOUT: Duration = Duration::from_millis(200);

impl<T: Target + ?Sized> Run<'_, T> {
    /// Returns the decrease of the usage in bytes above which it alone stops a request: a large
    /// folio more than was requested, since the kernel frees folios as a whole, and the bytes that
    /// the CPUs' batches of charges hide.
    fn most_fall(&self, requested: u64) -> u64 {
        requested.saturating_add(LARGE_FOLIO).saturating_add(self.target.blind_spot())
    }

    /// Ends a request whose usage fell by more than was requested, whatever the counters show,
    /// unless the application is known to have freed it.
    ///
    /// The counters may not yet show where the memory went: then they are waited for, and no
    /// further write is issued until they do. What is unexplained in the end counts as reclaimed.
    pub(super) fn stop_beyond(&mut self, requested: u64) -> Flow {
        let most = self.most_fall(requested);
        if !self.target.has_current() || self.ledger.fell_by_reclaim() <= most {
            return Ok(());
        }
        self.sample_all()?;
        while self.ledger.fell_by_reclaim() > most && self.ledger.unexplained() > 0 {
            if self.counters_waited >= COUNTER_TIMEOUT {
                break;
            }
            if self.counters_waited.is_zero() {
                (self.emit)(RequestEvent::AwaitingCounters);
            }
            self.target.pause(POLL_INTERVAL);
            self.counters_waited += POLL_INTERVAL;
            self.may_go_on()?;
            self.sample_all()?;
        }
        if self.ledger.fell_by_reclaim() <= most {
            return Ok(());
        }
        self.writes.went_beyond = true;
        Err(StoppedBy::Reached)
    }

    /// Returns the reason why the request ended, once all that was on its way has left: its usage
    /// may have fallen beyond the bound by then.
    pub(super) fn judge_again(&mut self, why: StoppedBy) -> StoppedBy {
        let beyond = |requested| self.ledger.fell_by_reclaim() > self.most_fall(requested);
        let judged = self.down_to.is_none() && self.target.has_current();
        if judged && self.requested.is_some_and(beyond) {
            self.writes.went_beyond = true;
        }
        if self.writes.went_beyond && why == StoppedBy::Exhausted { StoppedBy::Reached } else { why }
    }

    /// Returns the final measurement: if the usage ended the request, the usage is the measure as
    /// well.
    pub(super) fn taken(&self) -> Measured {
        let taken = self.ledger.taken();
        let fell = self.ledger.fell_by_reclaim();
        if !self.writes.went_beyond || self.ledger.unexplained() == 0 || fell <= taken.reclaimed {
            return taken;
        }
        Measured { reclaimed: fell, unconfirmed: 0, measured_by: Measure::MemoryCurrent, ..taken }
    }

    /// Returns whether the usage fell by more than was requested, and the counters explain less:
    /// the application freed it, or the decrease is unexplained.
    pub(super) fn measure_is_doubtful(&self) -> bool {
        let beyond = |requested| self.ledger.fell() > self.most_fall(requested);
        let unexplained = || self.writes.went_beyond && self.ledger.unexplained() > 0;
        let applications = || self.ledger.given_back() > LARGE_FOLIO + self.target.blind_spot();
        self.down_to.is_none()
            && self.target.has_current()
            && self.requested.is_some_and(beyond)
            && (unexplained() || applications())
    }

    fn sample_all(&mut self) -> Flow {
        self.sample_usage()?;
        self.sample_counters(true)?;
        Ok(())
    }

    /// Returns the largest chunk where slab would be freed along: see
    /// [`crate::reclaim::Pace::beside_slab`].
    pub(super) fn slab_bound(&self, missing: u64) -> u64 {
        let (slab, cache) = self.ledger.slab_and_cache();
        self.pace.beside_slab(missing, slab, cache)
    }

    /// Waits until slab that a write freed is gone, so that nothing is requested in its place.
    pub(super) fn await_slab(&mut self) -> Flow {
        let missing = match (self.down_to, self.requested) {
            (Some(floor), _) => self.ledger.usage().saturating_sub(floor),
            (None, Some(requested)) => requested.saturating_sub(self.ledger.estimate()),
            (None, None) => return Ok(()),
        };
        if missing == 0 || missing > MAX_AWAITED_SLAB || !self.slab_matters() {
            return Ok(());
        }
        self.await_grace()
    }

    /// Returns whether slab that a write freed may be on its way: there is much of it beside page
    /// cache, or much went already. Where page cache abounds the kernel takes that, and waiting
    /// would only cost time.
    fn slab_matters(&self) -> bool {
        let fell = self.ledger.slab_fell();
        let (slab, cache) = self.ledger.slab_and_cache();
        fell >= MIN_SLAB || is_much(slab.saturating_add(fell), cache)
    }

    /// Waits for slab at the end of the request, to measure what the last write took.
    pub(super) fn await_grace(&mut self) -> Flow {
        let mut waited = Duration::ZERO;
        while waited < SLAB_TIMEOUT && self.waited_for_slab < COUNTER_TIMEOUT {
            let (usage, slab_fell) = (self.ledger.usage(), self.ledger.slab_fell());
            self.target.pause(POLL_INTERVAL);
            waited += POLL_INTERVAL;
            self.waited_for_slab += POLL_INTERVAL;
            self.may_go_on()?;
            self.sample_usage()?;
            self.sample_counters(false)?;
            let fell = usage.saturating_sub(self.ledger.usage());
            if fell.max(self.ledger.slab_fell().saturating_sub(slab_fell)) < MIN_FALL {
                break;
            }
        }
        Ok(())
    }

    /// Waits for slab to go before the request is called exhausted, and returns whether any did:
    /// the kernel finds no more slab while what it found is on its way.
    pub(super) fn await_last_slab(&mut self) -> Result<bool, StoppedBy> {
        let mut waited = Duration::ZERO;
        while self.slab_matters() && waited < LAST_SLAB_TIMEOUT && self.waited_for_slab < COUNTER_TIMEOUT {
            self.target.pause(POLL_INTERVAL);
            waited += POLL_INTERVAL;
            self.waited_for_slab += POLL_INTERVAL;
            self.may_go_on()?;
            let (fell, counted) = (self.sample_usage()?, self.sample_counters(false)?);
            if fell || counted {
                self.await_grace()?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Records the bytes that the previous write took, now that they show, and that the next write
    /// asks for `asked` bytes.
    pub(super) fn note_write(&mut self, asked: Option<u64>) {
        let fell = self.ledger.fell_by_reclaim();
        if let Some((bytes, before)) = self.writes.last.take() {
            let this = Overshot { asked: bytes, fell: fell.saturating_sub(before) };
            let notable =
                this.fell > bytes.saturating_add(LARGE_FOLIO).saturating_add(self.target.blind_spot());
            if notable && self.writes.worst.is_none_or(|worst| worst.fell < this.fell) {
                self.writes.worst = Some(this);
            }
        }
        self.writes.last = asked.map(|bytes| (bytes, fell));
    }

    /// Returns the write that overshot most.
    pub(super) fn overshot(&self) -> Option<Overshot> {
        self.writes.worst.filter(|_| self.target.has_current())
    }
}
