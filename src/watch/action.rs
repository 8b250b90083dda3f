//! One action: writes to the kernel until the usage is where it should be.
//!
//! It is judged by `memory.current` alone: reading the counters costs more than a small write. The application may take
//! more meanwhile, so the whole is bounded by some times what was missing at first.

use std::time::Duration;

use rustix::io::Errno;

use crate::host::proc::page_size;
use crate::kind::Swappiness;
use crate::reclaim::{Pace, Target};

/// So often nothing may come of a write in a row.
const RETRIES: u32 = 3;

/// An action reclaims no more than that much of what was missing at first, in percent: the application may take more
/// meanwhile, and pages on their way to swap stay in use until they are written.
const PERCENT: u64 = 150;

/// Why an action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The usage is where it should be, or as much was reclaimed as was missing one and a half times over.
    Done,
    /// Nothing more was to be had.
    Exhausted,
    /// A write took too long, and was interrupted: it waits for a device.
    Late,
    /// It was told to stop.
    Stopped,
    /// Another memctl is at it.
    Locked,
    /// The cgroup is gone.
    Removed,
    /// The kernel refused in a way that it shouldn't.
    Failed(Errno),
}

/// What came of an action. Amounts are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActionResult {
    /// What was missing at first.
    pub requested: u64,
    /// What was reclaimed: the kernel's word for each write, and the fall of the usage where there is no word.
    pub reclaimed: u64,
    /// How many writes it took.
    pub writes: u32,
    /// How long the writes took.
    pub writing: Duration,
    /// The thread's CPU time in its writes.
    pub cpu: Duration,
    /// `memory.current` afterwards.
    pub current: u64,
    /// Why it ended.
    pub end: EndReason,
}

impl ActionResult {
    /// Nothing was done, for that reason.
    #[must_use]
    pub fn nothing(end: EndReason) -> Self {
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

/// A press that anonymous memory leaves by takes no longer than that where swap is a device. As long as that has not written
/// what it has, nothing is freed, so the kernel goes on to more and more: 100 MiB for a request of 128 KiB, to a disk of
/// 4 MB/s (Linux 7.3). From 7.2 on it ends amid a batch then, before that after one.
pub const WAITS: Duration = Duration::from_millis(5);

/// Interrupts the system call that the calling thread is in after that time; `None` for no longer.
pub type Alarm = fn(Option<Duration>);

/// What can end an action early.
pub struct Interrupt<'a> {
    /// It is to stop.
    pub stop: &'a dyn Fn() -> bool,
    /// No write may take longer than [`WAITS`].
    pub alarm: Option<Alarm>,
}

/// Reclaims until no more than `down_to` is used, or something ends it early.
pub fn reclaim_down_to(
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
