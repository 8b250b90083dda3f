//! One action: writes to the kernel until the usage is down to its target.
//!
//! Progress is measured by `memory.current` alone: reading the counters costs more than a small
//! write. The application may allocate more meanwhile, so the whole is bounded by a multiple of the
//! bytes missing at first, and by a slice of time.

use std::time::Duration;

use rustix::io::Errno;

use super::courtesy::{Courtesy, Write};
use super::hurry::Hurry;
use crate::host::proc::page_size;
use crate::kind::Swappiness;
use crate::reclaim::{Alarm, Pace, Target};

/// Number of consecutive writes that may reclaim nothing.
const RETRIES: u32 = 3;

/// Maximum bytes reclaimed in an action, in percent of the bytes missing at first: the application
/// may allocate more meanwhile, and pages on their way to swap stay in use until they are written.
const PERCENT: u64 = 150;

/// Reason for the end of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Usage is at its target, or one and a half times the missing bytes were reclaimed.
    Done,
    /// Nothing more could be reclaimed.
    Exhausted,
    /// A write took too long, waiting for a device, and was interrupted.
    Late,
    /// A stop was requested.
    Stopped,
    /// The time slice is used up, and more is missing.
    Slice,
    /// Another process holds the lock on the cgroup.
    Locked(LockedBy),
    /// The cgroup was removed.
    Removed,
    /// The kernel returned an unexpected error.
    Failed(Errno),
}

/// Holder of the lock on a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockedBy {
    /// Process, where it is known.
    pub pid: Option<u32>,
    /// True if it may hold reclaim back: it belongs to root, or to the user of this process.
    pub is_honoured: bool,
}

/// Result of an action. Amounts are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActionResult {
    /// Bytes missing at first.
    pub requested: u64,
    /// Bytes reclaimed: the kernel's answer to each write, or the fall of the usage where there is
    /// no answer, or where a bit more was freed.
    pub reclaimed: u64,
    /// Bytes of these that neither the usage nor the counters show.
    pub unconfirmed: u64,
    /// Bytes reclaimed at most: with a large folio freed by each write, or all of the fall of the
    /// usage.
    pub at_most: u64,
    /// Number of writes.
    pub writes: u32,
    /// Duration of the writes.
    pub writing: Duration,
    /// CPU time of the thread in its writes.
    pub cpu: Duration,
    /// `memory.current` afterwards.
    pub current: u64,
    /// Reason for its end.
    pub end: EndReason,
}

impl ActionResult {
    /// Returns the time of the writes that wasn't spent on the CPU.
    #[must_use]
    pub(crate) fn waited(&self) -> Duration {
        self.writing.saturating_sub(self.cpu)
    }

    /// Creates the result of an action that did nothing, with the reason.
    #[must_use]
    pub(crate) fn nothing(end: EndReason) -> Self {
        Self {
            requested: 0,
            reclaimed: 0,
            unconfirmed: 0,
            at_most: 0,
            writes: 0,
            writing: Duration::ZERO,
            cpu: Duration::ZERO,
            current: 0,
            end,
        }
    }
}

/// Time limit for a write that may swap to a block device. Nothing is freed until the device has
/// written what is queued, so the kernel queues ever more: 100 MiB for a request of 128 KiB, to a
/// disk of 4 MB/s (Linux 7.3). From 7.2 on an interrupted write ends amid a batch, before that
/// after one.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_millis(5);

/// Duration of the writes after which an action ends, so that others get their turn, and the longest
/// with pauses: it goes on in a later one. What is missing below a limit above is shared anew then,
/// so that who pauses much would give too little.
pub(crate) const SLICE: Duration = Duration::from_millis(50);
pub(crate) const LONGEST: Duration = Duration::from_millis(500);

/// Bytes that one write may free beyond its request: a large folio is reclaimed as a whole.
const MAX_FOLIO: u64 = 2 << 20;

/// Conditions that end an action early.
pub(crate) struct Interrupt<'a> {
    /// Returns true once the action must stop.
    pub stop: &'a dyn Fn() -> bool,
    /// Alarm that limits each write to [`WRITE_TIMEOUT`]; `None` for no limit.
    pub alarm: Option<Alarm>,
    /// Set while others wait: then it ends instead of pausing.
    pub hurry: &'a Hurry,
}

/// Consecutive writes that the kernel called a success while the usage didn't fall. The application
/// may have allocated as much meanwhile; or the kernel does nothing and reports success, as 6.17
/// and 6.18 do without `CONFIG_NUMA`. Then no page is counted as reclaimed, either.
#[derive(Debug, Default)]
struct Idle {
    /// Bytes that the kernel claims to have reclaimed.
    claimed: u64,
    /// Pages reclaimed by any process according to the counters, and bytes requested since then.
    counted: Option<(u64, u64)>,
}

impl Idle {
    /// Records a write. Returns whether the writes have an effect, once the counters show that.
    fn has_effect(&mut self, chunk: u64, target: &mut impl Target) -> Option<bool> {
        self.claimed += chunk;
        if let Some((_, requested)) = &mut self.counted {
            *requested += chunk;
            // The counters may lag.
            if *requested <= 2 * target.blind_spot() {
                return None;
            }
        }
        let stat = target.stat(true).ok()?;
        let counted = stat.pgsteal.or(stat.pgsteal_proactive)?;
        let (before, _) = self.counted.replace((counted, 0))?;
        Some(counted > before)
    }
}

/// An action in progress.
#[derive(Debug)]
pub(crate) struct Action {
    result: ActionResult,
    down_to: u64,
    swappiness: Option<Swappiness>,
    /// Maximum bytes to reclaim.
    enough: u64,
    /// Number of consecutive writes that reclaimed too little.
    failed: u32,
    idle: Idle,
    began: Duration,
    is_over: bool,
}

impl Action {
    /// Begins to reclaim down to at most `down_to` bytes of usage, and `most` bytes.
    pub(crate) fn begin(
        target: &mut impl Target,
        down_to: u64,
        most: u64,
        swappiness: Option<Swappiness>,
    ) -> Self {
        let (usage, began) = (target.usage(), target.now());
        let mut result = ActionResult::nothing(EndReason::Done);
        match usage {
            Ok(current) => {
                result.current = current;
                result.requested = current.saturating_sub(down_to).min(most);
            }
            Err(errno) => result.end = lost(errno),
        }
        let enough = result.requested.saturating_mul(PERCENT) / 100;
        let is_over = result.requested == 0;
        let down_to = result.current - result.requested;
        Self { result, down_to, swappiness, enough, failed: 0, idle: Idle::default(), began, is_over }
    }

    /// Returns the result so far.
    #[must_use]
    pub(crate) fn result(&self) -> ActionResult {
        self.result
    }

    /// Writes once, unless the action is over. Returns false if it is over afterwards.
    pub(crate) fn write(
        &mut self,
        target: &mut impl Target,
        tempo: (&mut Pace, &mut Courtesy),
        early: &Interrupt<'_>,
    ) -> bool {
        if !self.is_over {
            let end = if (early.stop)() { Some(EndReason::Stopped) } else { self.ask(target, tempo, early) };
            self.is_over = end.is_some();
            self.result.end = end.unwrap_or(self.result.end);
        }
        !self.is_over
    }

    /// Asks the kernel once. Returns the reason to end, if there is one.
    fn ask(
        &mut self,
        target: &mut impl Target,
        (pace, courtesy): (&mut Pace, &mut Courtesy),
        early: &Interrupt<'_>,
    ) -> Option<EndReason> {
        if courtesy.is_look_due(target.now()) {
            courtesy.look(target.now(), target.waited());
        }
        let pause = courtesy.pause(target.now());
        let mut before = self.result.current;
        let left_at = before;
        if self.result.writes > 0 && !pause.is_zero() {
            if early.hurry.is_set() {
                return Some(self.slice());
            }
            target.pause(pause);
            // What tasks freed, allocated or reclaimed meanwhile isn't the next write's.
            before = match target.usage() {
                Ok(current) => current,
                Err(errno) => return Some(lost(errno)),
            };
            self.result.current = before;
            if before <= self.down_to {
                return Some(EndReason::Done);
            }
        }
        let chunk = pace.chunk(before - self.down_to, courtesy.most(target.now()), page_size());
        let (began, cpu) = (target.now(), target.cpu());
        early.alarm.iter().for_each(|alarm| alarm(Some(WRITE_TIMEOUT)));
        let answer = target.reclaim(chunk, self.swappiness);
        early.alarm.iter().for_each(|alarm| alarm(None));
        let now = target.now();
        let took = now.saturating_sub(began);
        let cpu = target.cpu().saturating_sub(cpu);
        self.result.cpu += cpu;
        self.result.writing += took;
        self.result.writes += 1;
        pace.record(chunk, took);
        let usage = target.usage();
        let current = usage.unwrap_or(before);
        let fell = before.saturating_sub(current);
        self.result.current = current;
        // What the cgroup allocated in the pause counts as well.
        let fell_in_all = left_at.cast_signed().saturating_sub(current.cast_signed());
        courtesy.record(now, Write { bytes: chunk, took, cpu, fell: fell_in_all });
        // The application may free memory, and allocate some, during the write: an amount that the
        // kernel granted was reclaimed, however the usage moved. A fall beyond that is the
        // application's, except for the folio that the kernel frees as a whole.
        let claimed = if answer.is_ok() { chunk } else { 0 };
        self.result.reclaimed += fell.min(chunk + MAX_FOLIO).max(claimed);
        self.result.at_most += fell.max(chunk + MAX_FOLIO);
        let end = match answer {
            Ok(()) => {
                self.failed = 0;
                let has_effect = if fell > 0 { Some(true) } else { self.idle.has_effect(chunk, target) };
                if has_effect == Some(false) {
                    self.result.reclaimed = self.result.reclaimed.saturating_sub(self.idle.claimed);
                }
                if has_effect.is_some() {
                    self.idle = Idle::default();
                }
                self.result.unconfirmed = self.idle.claimed;
                (has_effect == Some(false)).then_some(EndReason::Exhausted)
            }
            Err(Errno::INTR) if early.alarm.is_some() && !(early.stop)() => Some(EndReason::Late),
            Err(Errno::AGAIN | Errno::INTR | Errno::BUSY) => {
                self.failed = if fell > chunk / 8 { 0 } else { self.failed + 1 };
                (self.failed >= RETRIES).then_some(EndReason::Exhausted)
            }
            Err(errno) => Some(lost(errno)),
        };
        let missing = current > self.down_to && self.result.reclaimed < self.enough;
        match (end, usage) {
            (None, Err(errno)) => Some(lost(errno)),
            (None, Ok(_)) if !missing => Some(EndReason::Done),
            (None, Ok(_)) if self.result.writing >= SLICE || now.saturating_sub(self.began) >= LONGEST => {
                Some(self.slice())
            }
            (None, Ok(_)) => None,
            (end, _) => end,
        }
    }

    /// Ends the action before it is done. What is left is requested anew.
    fn slice(&mut self) -> EndReason {
        let left = self.result.current.saturating_sub(self.down_to);
        self.result.requested = self.result.requested.saturating_sub(left);
        EndReason::Slice
    }
}

/// Returns the end of an action for which the kernel returned an error. Only `ENODEV` says that the
/// cgroup was removed.
pub(super) fn lost(errno: Errno) -> EndReason {
    match errno {
        Errno::NODEV => EndReason::Removed,
        errno => EndReason::Failed(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reclaim::sim::{Manners, PAGE, Sim};

    fn run(sim: &mut Sim, down_to: u64, alarm: Option<Alarm>) -> ActionResult {
        let early = Interrupt { stop: &|| false, alarm, hurry: &Hurry::default() };
        let (mut pace, mut courtesy) = (Pace::new(true, 0), calm());
        let mut action = Action::begin(sim, down_to, u64::MAX, None);
        while action.write(sim, (&mut pace, &mut courtesy), &early) {}
        action.result()
    }

    /// Courtesy where no task waits for a processor.
    fn calm() -> Courtesy {
        let mut calm = Courtesy::default();
        let now = Sim::new(64 << 20).now();
        calm.look(now, Some(Duration::ZERO));
        calm.look(now + Duration::from_millis(1), Some(Duration::ZERO));
        calm
    }

    /// Courtesy after a write that waited for the processor.
    fn crowded() -> Courtesy {
        let mut crowded = Courtesy::default();
        let cpu = Duration::from_millis(1);
        let write = Write { bytes: 1 << 20, took: 8 * cpu, cpu, fell: 1 << 20 };
        crowded.record(Sim::new(64 << 20).now(), write);
        crowded
    }

    fn result(interrupted: bool, alarm: Option<Alarm>) -> ActionResult {
        let mut sim = Sim::new(64 << 20);
        sim.signal_at = interrupted.then_some(Duration::ZERO);
        run(&mut sim, 32 << 20, alarm)
    }

    #[test]
    fn an_action_is_courteous_where_a_write_waited_for_the_processor() {
        let run = |courtesy: &mut Courtesy| {
            let mut sim = Sim::new(64 << 20);
            let began = sim.now();
            let early = Interrupt { stop: &|| false, alarm: None, hurry: &Hurry::default() };
            let (mut pace, mut action) =
                (Pace::new(true, 0), Action::begin(&mut sim, 32 << 20, u64::MAX, None));
            while action.write(&mut sim, (&mut pace, courtesy), &early) {}
            (action.result(), sim.now().saturating_sub(began))
        };
        let (alone, took) = run(&mut calm());
        assert!(took < 2 * alone.writing, "{took:?}, {alone:?}");
        let (result, took) = run(&mut crowded());
        assert!(result.writes > alone.writes && took > 2 * result.writing, "{took:?}, {result:?}, {alone:?}");
    }

    #[test]
    fn what_tasks_free_in_a_pause_was_not_reclaimed() {
        let mut sim = Sim::new(64 << 20);
        let mut crowded = crowded();
        let early = Interrupt { stop: &|| false, alarm: None, hurry: &Hurry::default() };
        let (mut pace, mut action) = (Pace::new(true, 0), Action::begin(&mut sim, 32 << 20, u64::MAX, None));
        assert!(action.write(&mut sim, (&mut pace, &mut crowded), &early), "more is missing");
        let first = action.result();
        // All that is missing leaves by itself during the pause.
        sim.file -= (first.current - (30 << 20)) / PAGE;
        assert!(!action.write(&mut sim, (&mut pace, &mut crowded), &early));
        let last = action.result();
        assert_eq!((last.end, last.writes, last.reclaimed), (EndReason::Done, 1, first.reclaimed));
        assert_eq!(last.current, 30 << 20);
    }

    #[test]
    fn an_action_ends_instead_of_pausing_while_others_wait() {
        let hurry = Hurry::default();
        hurry.set(true);
        let early = Interrupt { stop: &|| false, alarm: None, hurry: &hurry };
        let run = |mut courtesy: Courtesy| {
            let mut sim = Sim::new(64 << 20);
            let (mut pace, mut action) =
                (Pace::new(true, 0), Action::begin(&mut sim, 32 << 20, u64::MAX, None));
            while action.write(&mut sim, (&mut pace, &mut courtesy), &early) {}
            action.result()
        };
        assert_eq!(run(calm()).end, EndReason::Done, "it wouldn't pause");
        let result = run(crowded());
        assert_eq!((result.end, result.writes), (EndReason::Slice, 1), "the first write is due");
        assert_eq!(result.requested, (64 << 20) - result.current, "the rest is requested anew");
    }

    #[test]
    fn an_action_reaches_its_target() {
        let result = result(false, Some(|_| {}));
        assert_eq!((result.end, result.current, result.requested), (EndReason::Done, 32 << 20, 32 << 20));
    }

    #[test]
    fn a_write_that_takes_too_long_is_late_not_exhausted() {
        assert_eq!(result(true, Some(|_| {})).end, EndReason::Late);
        assert_eq!(result(true, None).end, EndReason::Exhausted);
    }

    #[test]
    fn an_action_ends_after_its_slice() {
        let mut sim = Sim { batch_time: Duration::from_millis(20), ..Sim::new(64 << 20) };
        let result = run(&mut sim, 0, None);
        assert_eq!(result.end, EndReason::Slice);
        assert!(result.current > 0 && result.writing < 4 * SLICE, "{result:?}");
    }

    #[test]
    fn a_success_without_effect_reclaims_nothing() {
        let mut sim = Sim { manners: Manners::Idle, ..Sim::new(64 << 20) };
        let result = run(&mut sim, 32 << 20, None);
        assert_eq!((result.end, result.reclaimed), (EndReason::Exhausted, 0));
        assert!(result.writes < 100, "{}", result.writes);
    }

    #[test]
    fn bytes_freed_by_the_application_were_not_reclaimed() {
        let mut sim = Sim::new(512 << 20);
        sim.frees = Some((Duration::from_micros(60), (256 << 20) / PAGE));
        sim.anon = (256 << 20) / PAGE;
        let result = run(&mut sim, 740 << 20, None);
        assert!(result.reclaimed < 12 << 20 && result.at_most >= 256 << 20, "{result:?}");
    }
}
