//! The end of a request: the last stock, and the report.

use std::time::Duration;

use super::obstacle::obstacles;
use super::{Event, LOOK, Measure, Obstacle, Report, Run, StoppedBy, Target, Verdict, lost};

/// How long to wait for lagging counters: the kernel folds them every 2 s, by a timer that may be late.
const PATIENCE: Duration = Duration::from_millis(2500);

impl<T: Target> Run<'_, T> {
    /// Takes the last stock: bounded in time, and not at all patient after a signal.
    pub(super) fn reconcile(&mut self, why: StoppedBy) -> StoppedBy {
        if matches!(why, StoppedBy::Removed) {
            return why;
        }
        let patient = !matches!(why, StoppedBy::Interrupted | StoppedBy::Timeout | StoppedBy::Failed(_));
        let mut waited = Duration::ZERO;
        loop {
            let looked = self.look_at_usage().and_then(|_| self.target.stat(true).map_err(lost));
            match looked {
                Ok(stat) => self.book.enter_stat(stat),
                // Removed at the last moment: what was seen until then stands.
                Err(lost) => return if why == StoppedBy::Reached { why } else { lost },
            };
            if self.book.doubt() == 0 || !patient || waited >= PATIENCE || (self.stop)() {
                return why;
            }
            if waited.is_zero() {
                (self.tell)(Event::AwaitingCounters);
            }
            self.target.pause(LOOK);
            waited += LOOK;
        }
    }

    pub(super) fn report(mut self, stopped_by: StoppedBy) -> Report {
        let elapsed = self.target.now().saturating_sub(self.began);
        let stalled = self.stalled();
        let swap_now = self.target.swap_usage();
        let taken = self.book.taken();
        let ((before, start), end) = (self.book.start(), self.book.stat());
        let pages = |from: Option<u64>, to: Option<u64>| Some(to?.saturating_sub(from?) * self.page);
        let swapped =
            pages(start.pswpout, end.pswpout).or_else(|| Some(swap_now?.saturating_sub(self.swap_before?)));
        let freed = |from: Option<u64>, to: Option<u64>| Some(from?.saturating_sub(to?));
        let by_usage = self.down_to.is_some();
        let mut report = Report {
            requested: self.requested,
            down_to: self.down_to,
            reclaimed: if by_usage { self.book.fell() } else { taken.reclaimed },
            measured_by: if by_usage { Measure::MemoryCurrent } else { taken.measured_by },
            counted: self.book.counted(),
            unconfirmed: taken.unconfirmed,
            tolerance: self.request.tolerance,
            stopped_by,
            obstacles: Vec::new(),
            current_before: before,
            current_after: self.book.usage(),
            anon_freed: freed(start.anon, end.anon),
            file_freed: freed(start.file, end.file),
            slab_freed: freed(start.slab, end.slab),
            swapped_out: swapped,
            zswapped: pages(start.zswpout, end.zswpout),
            demoted: self.book.tells_demotions().then(|| self.book.demoted()),
            chunks: self.chunks,
            elapsed,
            writing: self.writing,
            cpu: self.cpu,
            stalled,
        };
        let all_there_is = report.requested.is_none();
        if stopped_by == StoppedBy::Exhausted && (all_there_is || report.verdict() == Some(Verdict::Under)) {
            report.obstacles = if self.growing {
                vec![Obstacle::Growing]
            } else {
                obstacles(self.request.kind, self.book.stat(), &self.target.conditions())
            };
        }
        report
    }
}
