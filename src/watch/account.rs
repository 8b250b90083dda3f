//! Account of one watched cgroup: reclaimed bytes and their effect, reported once a second, later
//! less often, and summarised at the end.
//!
//! Actions are measured by the fall of `memory.current` and the kernel's answers, which are cheap
//! and blurred by what the application does meanwhile. Once a second the account is reconciled with
//! the counters of `memory.stat`.

use std::time::Duration;

use rustix::io::Errno;

use super::action::ActionResult;
use super::blind::BlindGuards;
use super::context::Context;
use super::counters::Counters;
use super::event::{EventKind, ReclaimTally, Room, Summary, UsageSample};
use super::folding;
use super::policy::cache_seen::CacheSeen;
use super::policy::guard::Guard;
use super::system::{Sample, System};
use crate::cgroup::CgroupPath;
use crate::cgroup::stat::MemoryStat;
use crate::host::proc::page_size;

/// Interval between reports at first; reclaim within it is reported as one event. Later as well, the
/// account is reconciled that often.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// The kernel's counters of reclaim since the cgroup's creation, bytes.
#[derive(Clone, Copy, Debug, Default)]
struct KernelCounters {
    direct: Option<u64>,
    proactive: Option<u64>,
    demoted: u64,
    all: Option<u64>,
}

impl KernelCounters {
    fn of(stat: &MemoryStat) -> Self {
        let bytes = |pages: Option<u64>| pages?.checked_mul(page_size());
        Self {
            direct: bytes(stat.pgsteal_direct),
            proactive: bytes(stat.pgsteal_proactive),
            demoted: bytes(stat.pgdemote_proactive).unwrap_or(0),
            all: bytes(stat.pgsteal),
        }
    }

    /// Returns the bytes reclaimed since `first` according to the counters.
    fn counted(&self, first: &Self) -> Counted {
        let since = |now: Option<u64>, first: Option<u64>| Some(now?.saturating_sub(first?));
        match (since(self.proactive, first.proactive), since(self.all, first.all)) {
            (Some(proactive), _) => {
                Counted::Proactive(proactive.saturating_sub(self.demoted.saturating_sub(first.demoted)))
            }
            (None, Some(all)) => Counted::All(all),
            (None, None) => Counted::Unknown,
        }
    }
}

/// Bytes reclaimed according to the kernel's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    /// By processes that asked for it, without demotions (since Linux 6.15).
    Proactive(u64),
    /// By any process.
    All(u64),
    Unknown,
}

impl Counted {
    /// Corrects an estimate, of which `at_most` can be true. The counters lag by up to
    /// `blind_spot`. An estimate beyond that includes bytes that the application freed, so the
    /// counters are closer: at the limit of the blind spot, each of a thousand cgroups that free
    /// memory meanwhile would be overestimated by all of it.
    fn correct(self, estimate: u64, at_most: u64, blind_spot: u64) -> u64 {
        let credible = |counted: u64| {
            if estimate > counted.saturating_add(blind_spot) { counted } else { estimate }
        };
        match self {
            // Other processes may have asked as well.
            Self::Proactive(counted) => credible(counted).max(counted).min(at_most),
            Self::All(counted) => credible(counted),
            Self::Unknown => estimate,
        }
    }
}

/// Work of a watch for one cgroup.
#[derive(Debug, Default)]
struct Work {
    /// Work since it was reconciled last.
    tally: ReclaimTally,
    /// Beginning of that work, if there is any.
    began: Option<Duration>,
    /// Work that is reconciled, and not reported yet; and the time of the last report.
    folded: Option<ReclaimTally>,
    told_at: Duration,
    total: ReclaimTally,
    /// Bytes of `total` that are reconciled, and bytes reclaimed at most.
    reported: u64,
    at_most: u64,
}

/// Account of one cgroup.
#[derive(Debug)]
pub(crate) struct Account {
    began: Duration,
    /// Counters at the beginning, as far as the kernel has them: the whole of `memory.stat` would
    /// take a kilobyte.
    first: KernelCounters,
    /// Shortages at the beginning, where `first` doesn't tell who reclaimed.
    shortages: Option<u64>,
    first_stalled: Option<u64>,
    first_refaulted: Option<u64>,
    /// Allocated at the first reclaim: a thousand cgroups at rest would take a quarter of a
    /// megabyte for it.
    work: Option<Box<Work>>,
    /// See [`Summary`].
    stalled_before: Option<f64>,
    outrun: u32,
    /// Number of times that each guard held, by its word.
    held: Vec<(&'static str, u64)>,
    last_held: Option<Guard>,
    would: u64,
}

impl Account {
    /// Opens an account.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn open(
        sampler: &impl Sample,
        located: &CgroupPath,
        cx: &mut Context<'_, impl System>,
    ) -> Result<Self, Errno> {
        let mut stat = sampler.stat(&mut cx.text)?;
        let mut shortages = None;
        if stat.pgsteal_proactive.is_none() {
            shortages = cx.system.shortages(located);
            // Once more: what tasks reclaim in between counts as a shortage.
            stat = sampler.stat(&mut cx.text)?;
        }
        let text = &mut cx.text;
        Ok(Self {
            began: cx.now,
            first: KernelCounters::of(&stat),
            shortages,
            first_refaulted: stat.refaulted(),
            first_stalled: sampler.stalled(text),
            work: None,
            stalled_before: sampler.pressure_before(text),
            outrun: 0,
            held: Vec::new(),
            last_held: None,
            would: 0,
        })
    }

    /// Returns the bytes reclaimed so far.
    #[must_use]
    pub(crate) fn reclaimed(&self) -> u64 {
        self.work.as_ref().map_or(0, |work| work.total.reclaimed)
    }

    /// Returns the time since the watch of the cgroup began.
    #[must_use]
    pub(crate) fn watched(&self, now: Duration) -> Duration {
        now.saturating_sub(self.began)
    }

    /// Makes the next flush report all that is reconciled.
    pub(crate) fn hurry(&mut self) {
        if let Some(work) = &mut self.work {
            work.told_at = Duration::ZERO;
        }
    }

    /// Records that a guard held.
    pub(crate) fn held(&mut self, by: Guard) {
        match self.held.iter_mut().find(|one| one.0 == by.word()) {
            Some(one) => one.1 += 1,
            None => self.held.push((by.word(), 1)),
        }
        self.last_held = Some(by);
    }

    /// Records the bytes that would have been reclaimed, were it not for a dry run.
    pub(crate) fn would(&mut self, bytes: u64) {
        self.would = self.would.max(bytes);
    }

    /// Returns a usage sample with the fields that are counted here.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn sample(&self, sampler: &impl Sample, text: &mut String) -> Result<UsageSample, Errno> {
        let stat = sampler.stat(text)?;
        let stalled = sampler.stalled(text).zip(self.first_stalled);
        let own = self.first.proactive.and(KernelCounters::of(&stat).direct).zip(self.first.direct);
        let refaulted = stat.refaulted().zip(self.first_refaulted);
        Ok(UsageSample {
            current: sampler.current(text)?,
            swapped: sampler.swapped(text),
            reclaimed: self.reclaimed(),
            refaulted: refaulted.map(|(now, before)| now.saturating_sub(before)),
            direct: own.map(|(now, before)| now.saturating_sub(before)),
            stalled: stalled.map(|(now, before)| Duration::from_micros(now.saturating_sub(before))),
            ..UsageSample::default()
        })
    }

    /// Returns the counters that aren't the kernel's, if there is anything in them. What isn't
    /// reported yet may still be corrected, and doesn't count.
    pub(crate) fn counters(&self) -> Option<Counters> {
        if self.work.is_none() && self.outrun == 0 && self.held.is_empty() {
            return None;
        }
        let total = self.work.as_ref().map(|work| work.total).unwrap_or_default();
        Some(Counters {
            requested: total.requested,
            reclaimed: self.work.as_ref().map_or(0, |work| work.reported),
            writes: u64::from(total.writes),
            writing: total.writing,
            cpu: total.cpu,
            limit_hits: u64::from(self.outrun),
            held: self.held.clone(),
            ..Counters::default()
        })
    }

    /// Records that a limit that counts was met.
    pub(crate) fn outrun(&mut self) {
        self.outrun += 1;
    }

    /// Records an action, and the room left below the limit after it, if there is a limit.
    pub(crate) fn record(&mut self, now: Duration, result: &ActionResult, room: Option<Room>) {
        let work = self.work.get_or_insert_default();
        if work.began.is_none() {
            work.began = Some(now);
            work.tally =
                ReclaimTally { current_before: result.current + result.reclaimed, ..ReclaimTally::default() };
        }
        work.tally.add(result);
        work.tally.room = room;
        work.total.add(result);
        work.at_most += result.at_most;
    }

    /// Returns the report on the work since the last one, if that is long enough ago, or at the
    /// `end`. While a write is in progress, the counters contain a part of it: they correct no
    /// estimate upwards. While the counters can't be read, the report is put off, since an estimate
    /// in it could not be corrected any more. What they say of page cache is `seen`.
    pub(crate) fn flush(
        &mut self,
        sampler: &impl Sample,
        end: bool,
        is_writing: bool,
        seen: &mut CacheSeen,
        cx: &mut Context<'_, impl System>,
    ) -> Option<EventKind> {
        let (work, watched_since) = (self.work.as_mut()?, self.began);
        let is_due = |at: &mut Duration| end || cx.now >= next(*at, watched_since);
        if work.began.take_if(is_due).is_some() {
            let stat = sampler.stat(&mut cx.text).ok();
            if stat.is_none() && !end {
                work.began = Some(cx.now);
            } else {
                // A cgroup that is gone has no counters any more.
                work.reconcile(&self.first, stat.as_ref(), is_writing, cx.system.blind_spot());
            }
            seen.saw(cx.now, stat.map_or(u64::MAX, |stat| stat.cache_beside_anon()));
        }
        let due = work.told_next(self.began);
        let folded = work.folded.take_if(|_| end || cx.now >= due)?;
        work.told_at = cx.now;
        Some(EventKind::Reclaim(folded))
    }

    /// Reconciles the work so far with counters that were read for something else.
    pub(crate) fn counted(&mut self, stat: &MemoryStat, is_writing: bool, blind_spot: u64) {
        if let Some(work) = &mut self.work
            && work.began.take().is_some()
        {
            work.reconcile(&self.first, Some(stat), is_writing, blind_spot);
        }
    }

    /// Returns the time of the next report, if there is anything to report.
    #[must_use]
    pub(crate) fn report_due(&self) -> Option<Duration> {
        let work = self.work.as_ref()?;
        let reconciled = work.began.map(|at| next(at, self.began));
        let told = work.folded.map(|_| work.told_next(self.began));
        reconciled.into_iter().chain(told).min()
    }

    /// Returns the summary of the watch; `gone` if the cgroup was removed.
    pub(crate) fn close(
        &mut self,
        sampler: &impl Sample,
        located: &CgroupPath,
        gone: bool,
        cx: &mut Context<'_, impl System>,
    ) -> Summary {
        let last = sampler.stat(&mut cx.text).ok().map(|stat| KernelCounters::of(&stat));
        let since = |last: Option<u64>, first: Option<u64>| Some(last?.saturating_sub(first?));
        let mut direct = last.and_then(|last| since(last.direct, self.first.direct));
        let is_own = self.first.proactive.is_some();
        if !is_own {
            // Before 6.15 the counter includes proactive reclaim, of which some kernels do more than
            // they are asked for: as long as tasks lacked nothing, it is nothing else.
            let now = cx.system.shortages(located);
            let lacked = now.zip(self.shortages).is_none_or(|(now, before)| now > before);
            direct = direct.map(|both| if lacked { both.saturating_sub(self.reclaimed()) } else { 0 });
        }
        let direct_is_at_most = !is_own && direct > Some(0);
        let text = &mut cx.text;
        let stalled = sampler.stalled(text).zip(self.first_stalled);
        Summary {
            cgroup: sampler.name().clone(),
            rule: None,
            would: self.would,
            counted: last.and_then(|last| since(last.proactive, self.first.proactive)),
            at: cx.now.saturating_sub(cx.began),
            watched: cx.now.saturating_sub(self.began),
            direct,
            direct_is_at_most,
            stalled: stalled.map(|(now, before)| Duration::from_micros(now.saturating_sub(before))),
            blind: BlindGuards::default(),
            gone,
            unfinished: false,
            total: self.work.as_ref().map_or_else(ReclaimTally::default, |work| work.total),
            stalled_before: self.stalled_before,
            outrun: self.outrun,
            found: None,
            swapped: sampler.swapped(text),
            held: self.held.iter().map(|one| one.1 as u32).sum(),
            last_held: self.last_held,
        }
    }
}

/// Returns the time of what follows `at` after an interval, in a watch that `began` then.
fn next(at: Duration, began: Duration) -> Duration {
    at + folding::interval(at.saturating_sub(began), REPORT_INTERVAL)
}

impl Work {
    /// Returns the time from which work may be reported, of a watch that `began` then.
    fn told_next(&self, began: Duration) -> Duration {
        next(self.told_at, began)
    }

    /// Reconciles the work since the last time with the counters, if there are any.
    fn reconcile(
        &mut self,
        first: &KernelCounters,
        stat: Option<&MemoryStat>,
        is_writing: bool,
        blind_spot: u64,
    ) {
        if let Some(stat) = stat {
            let counted = KernelCounters::of(stat).counted(first);
            let estimate = self.total.reclaimed;
            let corrected = counted.correct(estimate, self.at_most, blind_spot);
            let corrected = if is_writing { corrected.min(estimate) } else { corrected };
            // Reports aren't taken back.
            self.total.reclaimed = corrected.max(self.reported);
            self.tally.is_counted = !is_writing && matches!(counted, Counted::Proactive(_));
        }
        self.tally.reclaimed = self.total.reclaimed.saturating_sub(self.reported);
        self.reported = self.total.reclaimed;
        match &mut self.folded {
            Some(folded) => folded.go_on(&self.tally),
            None => self.folded = Some(self.tally),
        }
    }
}

impl ReclaimTally {
    fn add(&mut self, result: &ActionResult) {
        self.requested += result.requested;
        self.reclaimed += result.reclaimed;
        self.writes += result.writes;
        self.writing += result.writing;
        self.cpu += result.cpu;
        self.current_after = result.current;
    }

    /// Adds what followed.
    fn go_on(&mut self, next: &Self) {
        self.add_total(next);
        self.is_counted &= next.is_counted;
        (self.current_after, self.room) = (next.current_after, next.room);
    }

    /// Adds the totals of another cgroup.
    pub(crate) fn add_total(&mut self, other: &Self) {
        self.requested += other.requested;
        self.reclaimed += other.reclaimed;
        self.writes = self.writes.saturating_add(other.writes);
        self.writing += other.writing;
        self.cpu += other.cpu;
    }
}

#[cfg(test)]
mod tests;
