//! One action: writes to the kernel until the usage is where it should be.
//!
//! It is judged by `memory.current` alone: reading the counters costs more than a small write. The application may take
//! more meanwhile, so the whole is bounded by some times what was missing at first.

use std::time::Duration;

use rustix::io::Errno;

use crate::cgroup::reclaim::Swappiness;
use crate::reclaim::{Pace, Target};

/// So often nothing may come of a write in a row.
const RETRIES: u32 = 3;

/// An action reclaims no more than that much of what was missing at first, in percent: the application may take more
/// meanwhile, and pages on their way to swap stay in use until they are written.
const PERCENT: u64 = 150;

/// Why an action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The usage is where it should be, or as much was reclaimed as was missing one and a half times over.
    Done,
    /// Nothing more was to be had.
    Exhausted,
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
pub struct Acted {
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
    pub end: End,
}

impl Acted {
    /// Nothing was done, for that reason.
    #[must_use]
    pub fn nothing(end: End) -> Self {
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

/// Reclaims until no more than `down_to` is used, or `stop` says so.
pub fn act(
    target: &mut impl Target,
    pace: &mut Pace,
    down_to: u64,
    swappiness: Option<Swappiness>,
    stop: &dyn Fn() -> bool,
) -> Acted {
    let page_size = rustix::param::page_size() as u64;
    let mut acted = Acted::nothing(End::Done);
    acted.current = match target.usage() {
        Ok(current) => current,
        Err(errno) => return Acted { end: lost(errno), ..acted },
    };
    acted.requested = acted.current.saturating_sub(down_to);
    let enough = acted.requested.saturating_mul(PERCENT) / 100;
    let mut failed = 0;
    while acted.current > down_to && acted.reclaimed < enough {
        if stop() {
            acted.end = End::Stopped;
            break;
        }
        let chunk = pace.chunk(acted.current - down_to, u64::MAX, page_size);
        let (began, cpu) = (target.now(), target.cpu());
        let answer = target.reclaim(chunk, swappiness);
        acted.cpu += target.cpu().saturating_sub(cpu);
        let took = target.now().saturating_sub(began);
        acted.writing += took;
        acted.writes += 1;
        pace.saw(chunk, took);
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
            Err(Errno::AGAIN | Errno::INTR | Errno::BUSY) => {
                acted.reclaimed += fell;
                failed = if fell > chunk / 8 { 0 } else { failed + 1 };
                if failed >= RETRIES {
                    acted.end = End::Exhausted;
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

pub(super) fn lost(errno: Errno) -> End {
    match errno {
        Errno::NODEV | Errno::NOENT => End::Removed,
        errno => End::Failed(errno),
    }
}
