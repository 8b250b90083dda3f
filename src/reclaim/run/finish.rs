//! The end of a request: the last measurement, and the report.

use super::{BUSY_TIMEOUT, POLL_INTERVAL, RequestEvent, Run};
use crate::host::zram::Zram;
use crate::reclaim::obstacle::obstacles;
use crate::reclaim::overshoot::{COUNTER_TIMEOUT, MIN_FALL};
use crate::reclaim::{Obstacle, Report, StoppedBy, Target, Verdict};

impl<T: Target + ?Sized> Run<'_, T> {
    /// Makes the last measurement: bounded in time, also by the timeout, and without any wait after
    /// a signal.
    pub(super) fn reconcile(&mut self, why: StoppedBy) -> StoppedBy {
        if matches!(why, StoppedBy::Removed) {
            return why;
        }
        let patient = !matches!(why, StoppedBy::Interrupted | StoppedBy::Timeout | StoppedBy::Failed(_));
        // Slab that the last write freed may still be on its way. It is waited for if slab was
        // freed before.
        if patient
            && self.chunks > 0
            && self.ledger.slab() >= MIN_FALL
            && self.await_grace() == Err(StoppedBy::Removed)
        {
            return if why == StoppedBy::Reached { why } else { StoppedBy::Removed };
        }
        loop {
            if !self.stat_is_fresh {
                match self.sample_usage().and_then(|_| self.sample_counters(true)) {
                    Ok(_) => {}
                    // Removed at the last moment: the result until then stands.
                    Err(lost) => return if why == StoppedBy::Reached { why } else { lost },
                }
            }
            let settled = self.ledger.discrepancy() == 0 || !patient;
            if settled || self.counters_waited >= COUNTER_TIMEOUT || self.time_is_up() || (self.stop)() {
                return why;
            }
            if self.counters_waited.is_zero() {
                (self.emit)(RequestEvent::AwaitingCounters);
            }
            self.target.pause(POLL_INTERVAL);
            self.counters_waited += POLL_INTERVAL;
            self.stat_is_fresh = false;
        }
    }

    pub(super) fn report(mut self, stopped_by: StoppedBy) -> Report {
        self.note_write(None);
        let stopped_by = self.judge_again(stopped_by);
        let elapsed = self.target.now().saturating_sub(self.began);
        let stalled = self.stalled();
        let swap_now = self.swap_before.and_then(|_| self.target.swap_usage());
        let taken = self.taken();
        let ((before, start), end) = (self.ledger.start(), self.ledger.stat());
        let pages = |from: Option<u64>, to: Option<u64>| Some(to?.saturating_sub(from?) * self.page);
        let swapped =
            pages(start.pswpout, end.pswpout).or_else(|| Some(swap_now?.saturating_sub(self.swap_before?)));
        let zram_now = self.zram_before.and_then(|_| self.target.zram());
        // A node doesn't count pages that went to swap, but anonymous pages that were reclaimed.
        let left = swapped.or_else(|| pages(start.pgsteal_anon, end.pgsteal_anon));
        let zram_grown = self.zram_before.zip(zram_now).zip(left);
        let is_uncounted = match (self.zram_before, zram_now) {
            (Some(before), Some(now)) => left.is_none() && now.original > before.original,
            (Some(_), None) => left != Some(0),
            (None, _) => false,
        };
        let freed = |from: Option<u64>, to: Option<u64>| Some(from?.saturating_sub(to?));
        let (by_usage, has_current) = (self.down_to.is_some(), self.target.has_current());
        let usage = self.target.measures(end).usage;
        let mut report = Report {
            subject: self.target.subject(),
            requested: self.requested,
            down_to: self.down_to,
            reclaimed: if by_usage { self.ledger.fell() } else { taken.reclaimed },
            measured_by: if by_usage { usage } else { taken.measured_by },
            slab_reclaimed: if by_usage { taken.slab.min(self.ledger.fell()) } else { taken.slab },
            counted: self.ledger.counted(),
            measure_doubtful: self.measure_is_doubtful(),
            overshot: self.overshot(),
            unconfirmed: taken.unconfirmed,
            tolerance: self.request.tolerance,
            stopped_by,
            obstacles: Vec::new(),
            current_before: has_current.then_some(before),
            current_after: has_current.then(|| self.ledger.usage()),
            anon_freed: freed(start.anon, end.anon),
            file_freed: freed(start.file, end.file),
            shmem_freed: freed(start.shmem, end.shmem),
            slab_freed: freed(start.slab, end.slab),
            swap_cache_freed: freed(start.swapcached, end.swapcached),
            swapped_out: swapped,
            zswapped: pages(start.zswpout, end.zswpout),
            zswap_grown: end.zswap.zip(start.zswap).map(|(end, start)| end.saturating_sub(start)),
            copies_unknown: self.request.kind.takes_anon() && is_uncounted
                || left != Some(0) && !self.target.sees_zram(),
            zram_grown: zram_grown.map(|((before, now), swapped)| Zram::taken(before, now, swapped)),
            demoted: self.ledger.tells_demotions().then(|| self.ledger.demoted()),
            chunks: self.chunks,
            elapsed,
            writing: self.writing,
            cpu: self.cpu,
            stalled,
            waited_for_swap: self.swap.waited,
            waited_for_counters: self.counters_waited,
            waited_for_others: self.turns_waited,
            waited_for_slab: self.waited_for_slab,
            max_pressure: self.request.max_pressure,
            pressure_blind: self.request.bounds_pressure() && (self.unseen_stalls > 0 || stalled.is_none()),
            max_cost: self.request.max_cost,
            last_cost: self.recent_cost.last(),
            settled: None,
        };
        let all_there_is = report.requested.is_none();
        let fell_short =
            matches!(stopped_by, StoppedBy::Exhausted | StoppedBy::Timeout | StoppedBy::Pressure);
        if fell_short && (all_there_is || report.verdict() == Some(Verdict::Under)) {
            report.obstacles = if self.growing {
                vec![Obstacle::Growing]
            } else if self.busy >= BUSY_TIMEOUT {
                vec![Obstacle::Busy]
            } else {
                obstacles(
                    self.request.kind,
                    self.ledger.stat(),
                    &self.target.conditions(),
                    stopped_by == StoppedBy::Exhausted,
                )
            };
        }
        report
    }
}
