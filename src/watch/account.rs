//! Account of one watched cgroup: reclaimed bytes and their effect, reported once a second and
//! summarised at the end.

use std::time::Duration;

use rustix::io::Errno;

use super::action::ActionResult;
use super::event::{EventKind, ReclaimTally, Room, Summary, UsageSample};
use super::policy::guard::Guard;
use crate::cgroup::Sampler;
use crate::cgroup::stat::MemoryStat;
use crate::host::proc::page_size;

/// Interval between reports; reclaim within it is reported as one event.
const TOLD: Duration = Duration::from_secs(1);

/// Counters of reclaim since the cgroup's creation, bytes.
#[derive(Clone, Copy, Debug)]
struct Counters {
    direct: Option<u64>,
    proactive: Option<u64>,
}

impl Counters {
    fn of(stat: &MemoryStat) -> Self {
        let bytes = |pages: Option<u64>| Some(pages? * page_size());
        Self { direct: bytes(stat.pgsteal_direct), proactive: bytes(stat.pgsteal_proactive) }
    }
}

/// Work of a watch for one cgroup.
#[derive(Debug, Default)]
struct Work {
    /// Work since the last report.
    tally: ReclaimTally,
    /// Beginning of the unreported work, if there is any.
    began: Option<Duration>,
    total: ReclaimTally,
}

/// Account of one cgroup.
#[derive(Debug)]
pub(crate) struct Account {
    began: Duration,
    /// Counters at the beginning, as far as the kernel has them: the whole of `memory.stat` would
    /// take a kilobyte.
    first: Counters,
    first_stalled: Option<u64>,
    first_refaulted: u64,
    /// Allocated at the first reclaim: a thousand cgroups at rest would take a quarter of a
    /// megabyte for it.
    work: Option<Box<Work>>,
    /// See [`Summary`].
    stalled_before: Option<f64>,
    outrun: u32,
    held: u32,
    last_held: Option<Guard>,
    would: u64,
}

impl Account {
    /// Opens an account.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn open(gauge: &Sampler, now: Duration, text: &mut String) -> Result<Self, Errno> {
        let stat = gauge.stat(text)?;
        Ok(Self {
            began: now,
            first: Counters::of(&stat),
            first_refaulted: stat.refaulted().unwrap_or(0),
            first_stalled: gauge.stalled(text),
            work: None,
            stalled_before: gauge.pressure_before(text),
            outrun: 0,
            held: 0,
            last_held: None,
            would: 0,
        })
    }

    /// Returns the bytes reclaimed so far.
    #[must_use]
    pub(crate) fn reclaimed(&self) -> u64 {
        self.work.as_ref().map_or(0, |work| work.total.reclaimed)
    }

    /// Records that a guard held.
    pub(crate) fn held(&mut self, by: Guard) {
        self.held += 1;
        self.last_held = Some(by);
    }

    /// Records the bytes that would have been reclaimed, were it not for a dry run.
    pub(crate) fn would(&mut self, bytes: u64) {
        self.would = self.would.max(bytes);
    }

    /// Returns a usage sample with the fields that are counted here.
    ///
    /// # Errors
    /// `ENODEV` when the cgroup was removed.
    pub(crate) fn sample(&self, gauge: &Sampler, text: &mut String) -> Result<UsageSample, Errno> {
        let refaulted = gauge.stat(text)?.refaulted().unwrap_or(0);
        let stalled = gauge.stalled(text).zip(self.first_stalled);
        Ok(UsageSample {
            current: gauge.current(text)?,
            swapped: gauge.swapped(text),
            reclaimed: self.reclaimed(),
            refaulted: refaulted.saturating_sub(self.first_refaulted),
            stalled: stalled.map(|(now, before)| Duration::from_micros(now.saturating_sub(before))),
            ..UsageSample::default()
        })
    }

    /// Records that a limit that counts was met.
    pub(crate) fn outrun(&mut self) {
        self.outrun += 1;
    }

    /// Records an action, and the room left below the limit after it, if there is a limit.
    pub(crate) fn enter(&mut self, now: Duration, acted: &ActionResult, room: Option<Room>) {
        let work = self.work.get_or_insert_default();
        if work.began.is_none() {
            work.began = Some(now);
            work.tally =
                ReclaimTally { current_before: acted.current + acted.reclaimed, ..ReclaimTally::default() };
        }
        work.tally.add(acted);
        work.tally.room = room;
        work.total.add(acted);
    }

    /// Reports the work since the last report, if that is long enough ago, or at the `end`.
    pub(crate) fn flush(&mut self, now: Duration, end: bool, tell: &mut dyn FnMut(EventKind)) {
        let Some(work) = &mut self.work else { return };
        if work.began.take_if(|began| end || now.saturating_sub(*began) >= TOLD).is_some() {
            tell(EventKind::Reclaim(work.tally));
        }
    }

    /// Returns the time of the next report, if there is anything to report.
    #[must_use]
    pub(crate) fn to_tell(&self) -> Option<Duration> {
        Some(self.work.as_ref()?.began? + TOLD)
    }

    /// Returns the summary of the watch; `gone` if the cgroup was removed.
    pub(crate) fn close(&mut self, gauge: &Sampler, now: Duration, gone: bool, text: &mut String) -> Summary {
        let last = gauge.stat(text).ok().map(|stat| Counters::of(&stat));
        let since = |last: Option<u64>, first: Option<u64>| Some(last?.saturating_sub(first?));
        let direct = last.and_then(|last| {
            let both = since(last.direct, self.first.direct)?;
            // Before 6.15 the counter includes proactive reclaim.
            let ours = if last.proactive.is_some() { 0 } else { self.reclaimed() };
            Some(both.saturating_sub(ours))
        });
        let stalled = gauge.stalled(text).zip(self.first_stalled);
        Summary {
            cgroup: gauge.cgroup().name().clone(),
            rule: None,
            would: self.would,
            counted: last.and_then(|last| since(last.proactive, self.first.proactive)),
            at: Duration::ZERO,
            watched: now.saturating_sub(self.began),
            direct,
            stalled: stalled.map(|(now, before)| Duration::from_micros(now.saturating_sub(before))),
            above_blind: false,
            gone,
            total: self.work.as_ref().map_or_else(ReclaimTally::default, |work| work.total),
            stalled_before: self.stalled_before,
            outrun: self.outrun,
            found: None,
            swapped: gauge.swapped(text),
            held: self.held,
            last_held: self.last_held,
        }
    }
}

impl ReclaimTally {
    fn add(&mut self, acted: &ActionResult) {
        self.requested += acted.requested;
        self.reclaimed += acted.reclaimed;
        self.writes += acted.writes;
        self.writing += acted.writing;
        self.cpu += acted.cpu;
        self.current_after = acted.current;
    }
}
