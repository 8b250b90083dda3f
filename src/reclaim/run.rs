//! One request: the chunk loop, which mirrors the kernel's own (mm/memcontrol.c, `memory_reclaim`)
//! at a larger grain, and its measurements.
//!
//! ```text
//! while reclaimed < requested {
//!     if signal pending                                → interrupted
//!     ask for one chunk of what is missing, by what was measured, not by what was asked
//!     if it freed nothing, and no retries are left     → exhausted
//!     reclaimed += measured
//! }
//! ```

use std::time::Duration;

use rustix::io::Errno;

use super::cost::RecentCost;
use super::ledger::Ledger;
use super::overshoot::Writes;
use super::progress::Progress;
use super::swap_out::SwapOut;
use super::{Pace, RecentStalls, Report, Request, StoppedBy, Target, chunk};
use crate::host::proc::page_size;
use crate::host::zram::Zram;
use crate::kind::Swappiness;

mod finish;
mod overshoot;
mod progress;
mod swap_out;

/// Number of writes in a row without any progress that means exhaustion.
const RETRIES: u32 = 3;

/// Number of writes in a row that a stray signal, not meant for memctl, may end before they count
/// as no progress.
const STRAY_SIGNALS: u32 = 64;

/// Interval between samples while waiting.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Duration of a wait from which everything is sampled anew.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// Ratio of time in writes to the cost of reading the counters, from which they are read again.
const STAT_SHARE: u32 = 400;

/// Interval between checks of the cgroup's stalls.
const PRESSURE_INTERVAL: Duration = Duration::from_millis(100);

/// Maximum wait, over the whole request, for another writer that reclaims from the same node.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Events of the loop.
#[derive(Clone, Copy, Debug)]
pub enum RequestEvent {
    /// A write is about to be issued.
    Asking {
        /// Bytes asked for.
        bytes: u64,
    },
    /// A write has returned.
    Asked {
        /// Bytes asked for.
        bytes: u64,
        /// Result of write(2).
        answer: Result<(), Errno>,
        /// Duration of the write.
        took: Duration,
        /// Estimate of the bytes reclaimed since the start.
        reclaimed: u64,
        /// Bytes requested in all; `None` for all there is.
        requested: Option<u64>,
    },
    /// The loop waits for pages on their way to swap.
    AwaitingWriteback {
        /// Bytes being written.
        bytes: u64,
    },
    /// The loop waits for the kernel to fold its counters.
    AwaitingCounters,
}

/// Reclaims as requested until the request is met, or `stop` reports that a signal is pending.
/// `tell` receives every event.
///
/// Every outcome after the first write is a report, with the result until then.
///
/// # Errors
/// The kernel's, if the target can't even be sampled at the start; nothing was changed.
pub fn run(
    target: &mut (impl Target + ?Sized),
    request: &Request,
    stop: &dyn Fn() -> bool,
    tell: &mut dyn FnMut(RequestEvent),
) -> Result<Report, Errno> {
    run_after(target, request, &RecentStalls::default(), stop, tell)
}

/// Reclaims as [`run()`] does. The cgroup's stalls during earlier requests, if these were recent,
/// count towards [`Request::max_pressure`].
///
/// # Errors
/// As [`run()`].
pub(crate) fn run_after(
    target: &mut (impl Target + ?Sized),
    request: &Request,
    stalls: &RecentStalls,
    stop: &dyn Fn() -> bool,
    tell: &mut dyn FnMut(RequestEvent),
) -> Result<Report, Errno> {
    let run = Run::start(target, request, stalls.clone(), stop, tell)?;
    Ok(run.finish())
}

/// Effect of one write.
enum Step {
    /// The kernel claimed to have freed all that was asked.
    Full,
    /// The kernel freed less, but something.
    Partial,
    /// The kernel freed nothing.
    Nothing,
    /// The write was interrupted, since it might wait for a swap device, before it freed anything.
    Late,
    /// A stray signal, not meant for memctl, ended the write before it freed anything.
    Stray,
    /// The kernel freed nothing since another writer reclaims from the node at this moment (7.3).
    Busy,
}

/// Continuation of the loop after a step, or the reason why it ends.
type Flow = Result<(), StoppedBy>;

struct Run<'a, T: Target + ?Sized> {
    target: &'a mut T,
    request: &'a Request,
    stop: &'a dyn Fn() -> bool,
    emit: &'a mut dyn FnMut(RequestEvent),
    page: u64,
    requested: Option<u64>,
    down_to: Option<u64>,
    ledger: Ledger,
    pace: Pace,
    writes: Writes,
    began: Duration,
    swap_before: Option<u64>,
    zram_before: Option<Zram>,
    stalled_before: Option<Duration>,
    stalls: RecentStalls,
    /// Number of times that the stall counter couldn't be read.
    unseen_stalls: u32,
    /// Time and value of the latest stall counter that could be read.
    stall_sample: Option<(Duration, Duration)>,
    pressure_checked_at: Duration,
    writing: Duration,
    cpu: Duration,
    chunks: u32,
    retries: u32,
    strays: u32,
    /// Time spent waiting, in a row, for another writer at the node to finish.
    busy: Duration,
    turns_waited: Duration,
    /// Time in writes since the counters were read, and the cost of reading them.
    since_stat: Duration,
    stat_cost: Duration,
    /// True if nothing was written since the counters were folded, as far as the kernel does so,
    /// and read.
    stat_is_fresh: bool,
    /// Measures that moved since the latest write, and claims that none has proved yet.
    progress: Progress,
    swap: SwapOut,
    counters_waited: Duration,
    waited_for_slab: Duration,
    growing: bool,
    recent_cost: RecentCost,
    /// Bytes of memory at the start.
    all: u64,
}

impl<'a, T: Target + ?Sized> Run<'a, T> {
    fn start(
        target: &'a mut T,
        request: &'a Request,
        stalls: RecentStalls,
        stop: &'a dyn Fn() -> bool,
        tell: &'a mut dyn FnMut(RequestEvent),
    ) -> Result<Self, Errno> {
        let page = page_size();
        let began = target.now();
        let stalled_before = target.stalled();
        let before_stat = target.now();
        let stat = target.stat(true)?;
        let stat_cost = target.now().saturating_sub(before_stat);
        // Where the counters show what went to swap, they are more exact.
        let swap_before = stat.pswpout.is_none().then(|| target.swap_usage()).flatten();
        let zram_before = target.zram();
        let usage = target.usage()?;
        let blind = target.blind_spot();
        let measures = target.measures(&stat);
        // The LRU lists, which stand in for a usage, hold no slab.
        let beside = if target.has_current() { 0 } else { stat.shrinkable_slab().unwrap_or(0) };
        // The key exists since 6.11. Exact requests exist since 6.9, which can't be tested for
        // free.
        let requested = request.bytes(usage, page);
        let exactly = target.accepts(Swappiness::Value(60)).unwrap_or(false);
        let swap_usage = request.kind.takes_anon().then(|| target.swap_usage()).flatten();
        let swap = SwapOut::new(swap_usage, stat.swapcached.unwrap_or(0));
        Ok(Self {
            target,
            stop,
            emit: tell,
            page,
            requested,
            down_to: request.down_to(usage),
            request,
            ledger: Ledger::new(measures, usage, stat, blind, page),
            pace: Pace::new(exactly, requested.unwrap_or(0)),
            writes: Writes::default(),
            began,
            swap_before,
            zram_before,
            stalled_before,
            stalls,
            unseen_stalls: u32::from(stalled_before.is_none()),
            stall_sample: stalled_before.map(|stalled| (began, stalled)),
            pressure_checked_at: began,
            writing: Duration::ZERO,
            cpu: Duration::ZERO,
            chunks: 0,
            retries: 0,
            strays: 0,
            busy: Duration::ZERO,
            turns_waited: Duration::ZERO,
            since_stat: Duration::ZERO,
            stat_cost,
            stat_is_fresh: true,
            progress: Progress::default(),
            swap,
            counters_waited: Duration::ZERO,
            waited_for_slab: Duration::ZERO,
            growing: false,
            recent_cost: RecentCost::default(),
            all: usage.saturating_add(beside),
        })
    }

    fn finish(mut self) -> Report {
        let stopped_by = match self.reclaim() {
            Ok(never) => match never {},
            Err(why) => self.reconcile(why),
        };
        self.report(stopped_by)
    }

    /// Runs the loop.
    fn reclaim(&mut self) -> Result<std::convert::Infallible, StoppedBy> {
        loop {
            let missing = self.missing()?;
            self.may_go_on()?;
            let missing = missing.unwrap_or(u64::MAX);
            let before = self.target.now();
            let ready = self.await_swap(missing)?;
            let chunk = match self.request.chunk {
                Some(fixed) => {
                    let fixed =
                        if self.swap.is_slow() { fixed.min(ready.max(chunk::SMALLEST)) } else { fixed };
                    chunk::in_pages(fixed, missing, self.page)
                }
                None => self.pace.chunk(missing, ready.min(self.slab_bound(missing)), self.page),
            };
            let mut chunk = self.take_turn(chunk)?;
            if self.target.now().saturating_sub(before) >= SHORTEST_WAIT {
                // Memory that was on its way may have left during the wait.
                self.sample_usage()?;
                chunk = chunk::in_pages(chunk, self.missing()?.unwrap_or(u64::MAX), self.page);
            }
            self.note_write(Some(chunk));
            let step = self.ask(chunk)?;
            self.await_slab()?;
            match step {
                // All that was there at the start went once, and the kernel is short of more: the
                // rest was allocated since, and taking that too would only fight the application
                // for it.
                Step::Partial if self.ledger.moved_with_slab() >= self.all => {
                    return Err(StoppedBy::Exhausted);
                }
                Step::Full | Step::Partial => {
                    (self.retries, self.strays) = (0, 0);
                    self.swap.succeeded(self.writeback());
                    self.busy = Duration::ZERO;
                }
                Step::Busy if self.busy >= BUSY_TIMEOUT => return Err(StoppedBy::Exhausted),
                Step::Busy => {
                    self.target.pause(POLL_INTERVAL);
                    self.busy += POLL_INTERVAL;
                    self.turns_waited += POLL_INTERVAL;
                }
                Step::Stray if self.strays < STRAY_SIGNALS => self.strays += 1,
                Step::Late if self.swap.has_moved || self.swap.allow_more_time() => self.retries = 0,
                Step::Late | Step::Stray | Step::Nothing => {
                    self.retries += 1;
                    if self.retries == RETRIES {
                        if !self.await_some_writeback()? && !self.await_last_slab()? {
                            return Err(StoppedBy::Exhausted);
                        }
                        self.retries = 0;
                    }
                }
            }
        }
    }

    fn time_is_up(&self) -> bool {
        let elapsed = || self.target.now().saturating_sub(self.began);
        self.request.timeout.is_some_and(|timeout| elapsed() >= timeout)
    }

    fn may_go_on(&mut self) -> Flow {
        if (self.stop)() {
            return Err(StoppedBy::Interrupted);
        }
        let now = self.target.now();
        if self.time_is_up() {
            return Err(StoppedBy::Timeout);
        }
        if let Some(most) = self.request.max_cost
            && self.recent_cost.last().is_some_and(|price| price > most)
        {
            return Err(StoppedBy::Cost);
        }
        if let Some(most) = self.request.max_pressure
            && now.saturating_sub(self.pressure_checked_at) >= PRESSURE_INTERVAL
        {
            self.pressure_checked_at = now;
            if self.recent_stalls(now) > Some(most.ratio()) {
                return Err(StoppedBy::Pressure);
            }
        }
        Ok(())
    }

    /// Returns the share of the recent time in which the cgroup was stalled, once it is known.
    fn recent_stalls(&mut self, now: Duration) -> Option<f64> {
        // While the counter can't be read, nothing is recorded.
        let Some(stalled) = self.target.stalled() else {
            self.unseen_stalls = self.unseen_stalls.saturating_add(1);
            return None;
        };
        let (then, before) = self.stall_sample.replace((now, stalled))?;
        self.stalls.record(now.saturating_sub(then), stalled.saturating_sub(before));
        self.stalls.share()
    }

    /// Returns the bytes still missing; `None` where all there is was requested.
    fn missing(&mut self) -> Result<Option<u64>, StoppedBy> {
        if let Some(floor) = self.down_to {
            let usage = self.ledger.usage();
            if usage <= floor {
                return Err(StoppedBy::Reached);
            }
            self.give_up_on_growth()?;
            return Ok(Some(usage - floor));
        }
        let Some(requested) = self.requested else {
            // All there is: once as much as there was at the start.
            if self.chunks > 0 && self.ledger.moved_with_slab() >= self.all {
                return Err(StoppedBy::Exhausted);
            }
            self.give_up_on_growth()?;
            return Ok(None);
        };
        if self.ledger.estimate() >= requested {
            // An estimate from the usage may be due to the application: the counters decide.
            self.sample_counters(true)?;
        }
        match requested.saturating_sub(self.ledger.estimate()) {
            0 => Err(StoppedBy::Reached),
            missing => {
                self.stop_beyond(requested)?;
                self.give_up_on_growth()?;
                // The wait may have brought the missing bytes.
                Ok(Some(requested.saturating_sub(self.ledger.estimate()).max(self.page).min(missing)))
            }
        }
    }

    /// Returns the bytes beyond which the application gets back what is taken from it.
    fn excessive(&self) -> u64 {
        const TIMES: u64 = 4;
        const LEAST: u64 = 16 << 20;
        self.requested.unwrap_or(self.all).saturating_mul(TIMES).saturating_add(LEAST)
    }

    /// Gives up on a cgroup that grows as fast as it is reclaimed from: `--to` chases the usage,
    /// and so does any request where no counter shows what was reclaimed. Such a cgroup would keep
    /// the loop running for ever.
    fn give_up_on_growth(&mut self) -> Flow {
        let enough = self.excessive();
        if self.ledger.most() < enough {
            return Ok(());
        }
        self.sample_counters(false)?;
        if self.ledger.most() < enough {
            return Ok(());
        }
        self.growing = true;
        Err(StoppedBy::Exhausted)
    }

    /// Waits until a chunk is within the bound on the rate, if there is one. Returns the permitted
    /// part of the chunk.
    fn take_turn(&mut self, chunk: u64) -> Result<u64, StoppedBy> {
        let Some(rate) = self.request.rate.clone() else { return Ok(chunk) };
        let chunk = chunk::in_pages(chunk.min(rate.chunk()), chunk, self.page);
        let now = self.target.now();
        let until = now + rate.turn(chunk, now);
        loop {
            let left = until.saturating_sub(self.target.now());
            if left.is_zero() {
                return Ok(chunk);
            }
            self.target.pause(left.min(POLL_INTERVAL));
            self.may_go_on()?;
        }
    }

    /// Asks for one chunk and measures the effect.
    fn ask(&mut self, chunk: u64) -> Result<Step, StoppedBy> {
        (self.emit)(RequestEvent::Asking { bytes: chunk });
        self.prepare_swap();
        let before = self.ledger.estimate();
        // The CPU clock is read within the wall clock's interval, so that the CPU time never
        // exceeds the wall time.
        let alarm = self.request.alarm.zip(self.write_timeout(chunk));
        let (began, cpu) = (self.target.now(), self.target.cpu());
        if let Some((alarm, timeout)) = alarm {
            alarm(Some(timeout));
        }
        let answer = self.target.reclaim(chunk, self.request.kind.swappiness());
        if let Some((alarm, _)) = alarm {
            alarm(None);
        }
        let is_late = answer == Err(Errno::INTR) && alarm.is_some() && !(self.stop)();
        let cpu = self.target.cpu().saturating_sub(cpu);
        let took = self.target.now().saturating_sub(began);
        self.cpu += cpu;
        self.writing += took;
        self.since_stat += took;
        self.chunks += 1;
        self.stat_is_fresh = false;
        self.progress.begin();
        if !is_late {
            self.pace.record(chunk, took);
        }
        self.sample_swap()?;

        let step = match answer {
            Ok(()) => self.believe(chunk),
            Err(Errno::AGAIN) => self.progress_or(Step::Nothing),
            Err(Errno::BUSY) => self.progress_or(Step::Busy),
            Err(Errno::INTR) if is_late => self.progress_or(Step::Late),
            Err(Errno::INTR) => self.progress_or(Step::Stray),
            Err(Errno::NODEV | Errno::NOENT) => Err(StoppedBy::Removed),
            Err(errno) => Err(StoppedBy::Failed(errno)),
        };
        if self.since_stat >= self.stat_cost * STAT_SHARE {
            self.sample_counters(false)?;
        }
        if let Some(rate) = &self.request.rate {
            let freed = self.ledger.estimate().saturating_sub(before);
            rate.charge(freed.saturating_sub(chunk), self.target.now());
        }
        self.recent_cost.record(self.ledger.estimate().saturating_sub(before), cpu);
        (self.emit)(RequestEvent::Asked {
            bytes: chunk,
            answer,
            took,
            reclaimed: self.ledger.estimate(),
            requested: self.requested,
        });
        step
    }

    fn stalled(&mut self) -> Option<Duration> {
        Some(self.target.stalled()?.saturating_sub(self.stalled_before?))
    }
}
