//! One action: writes to the kernel until the usage is down to its target.
//!
//! Progress is measured by `memory.current` alone: reading the counters costs more than a small
//! write. The application may allocate more meanwhile, so the whole is bounded by a multiple of the
//! bytes missing at first.

use std::time::Duration;

use rustix::io::Errno;

use crate::host::proc::page_size;
use crate::kind::Swappiness;
use crate::reclaim::{Pace, Target};

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
    /// Another memctl is reclaiming from the cgroup.
    Locked,
    /// The cgroup was removed.
    Removed,
    /// The kernel returned an unexpected error.
    Failed(Errno),
}

/// Result of an action. Amounts are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActionResult {
    /// Bytes missing at first.
    pub requested: u64,
    /// Bytes reclaimed: the kernel's answer to each write, or the fall of the usage where there is
    /// no answer.
    pub reclaimed: u64,
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
    /// Creates the result of an action that did nothing, with the reason.
    #[must_use]
    pub(crate) fn nothing(end: EndReason) -> Self {
        Self {
            requested: 0,
            reclaimed: 0,
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
pub(crate) const WAITS: Duration = Duration::from_millis(5);

/// Function that interrupts the calling thread's system call after a time; `None` cancels it.
pub(crate) type Alarm = fn(Option<Duration>);

/// Conditions that end an action early.
pub(crate) struct Interrupt<'a> {
    /// Returns true once the action must stop.
    pub stop: &'a dyn Fn() -> bool,
    /// Alarm that limits each write to [`WAITS`]; `None` for no limit.
    pub alarm: Option<Alarm>,
}

/// Reclaims until at most `down_to` bytes are used, or until it is interrupted.
pub(crate) fn reclaim_down_to(
    target: &mut impl Target,
    pace: &mut Pace,
    down_to: u64,
    swappiness: Option<Swappiness>,
    early: &Interrupt<'_>,
) -> ActionResult {
    let smallest = page_size();
    let mut acted = ActionResult::nothing(EndReason::Done);
    acted.current = match target.usage() {
        Ok(current) => current,
        Err(errno) => return ActionResult { end: lost(errno), ..acted },
    };
    acted.requested = acted.current.saturating_sub(down_to);
    let enough = acted.requested.saturating_mul(PERCENT) / 100;
    let mut failed = 0;
    while acted.current > down_to && acted.reclaimed < enough {
        if (early.stop)() {
            acted.end = EndReason::Stopped;
            break;
        }
        let chunk = pace.chunk(acted.current - down_to, u64::MAX, smallest);
        let (began, cpu) = (target.now(), target.cpu());
        early.alarm.iter().for_each(|alarm| alarm(Some(WAITS)));
        let answer = target.reclaim(chunk, swappiness);
        early.alarm.iter().for_each(|alarm| alarm(None));
        acted.cpu += target.cpu().saturating_sub(cpu);
        let took = target.now().saturating_sub(began);
        acted.writing += took;
        acted.writes += 1;
        pace.record(chunk, took);
        let current = match target.usage() {
            Ok(current) => current,
            Err(errno) => {
                acted.end = lost(errno);
                break;
            }
        };
        let fell = acted.current.saturating_sub(current);
        acted.current = current;
        match answer {
            Ok(()) => {
                acted.reclaimed += chunk.max(fell);
                failed = 0;
            }
            Err(Errno::INTR) if early.alarm.is_some() && !(early.stop)() => {
                acted.reclaimed += fell;
                acted.end = EndReason::Late;
                break;
            }
            Err(Errno::AGAIN | Errno::INTR | Errno::BUSY) => {
                acted.reclaimed += fell;
                failed = if fell > chunk / 8 { 0 } else { failed + 1 };
                if failed >= RETRIES {
                    acted.end = EndReason::Exhausted;
                    break;
                }
            }
            Err(errno) => {
                acted.end = lost(errno);
                break;
            }
        }
    }
    acted
}

pub(super) fn lost(errno: Errno) -> EndReason {
    match errno {
        Errno::NODEV | Errno::NOENT => EndReason::Removed,
        errno => EndReason::Failed(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reclaim::sim::Sim;

    fn acted(interrupted: bool, alarm: Option<Alarm>) -> ActionResult {
        let mut sim = Sim::new(64 << 20);
        sim.signal_at = interrupted.then_some(Duration::ZERO);
        let early = Interrupt { stop: &|| false, alarm };
        reclaim_down_to(&mut sim, &mut Pace::new(true, 0), 32 << 20, None, &early)
    }

    #[test]
    fn down_to_where_the_usage_should_be() {
        let acted = acted(false, Some(|_| {}));
        assert_eq!((acted.end, acted.current, acted.requested), (EndReason::Done, 32 << 20, 32 << 20));
    }

    #[test]
    fn a_write_that_takes_too_long_is_no_end_of_what_there_is() {
        assert_eq!(acted(true, Some(|_| {})).end, EndReason::Late);
        assert_eq!(acted(true, None).end, EndReason::Exhausted);
    }
}
