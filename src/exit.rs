//! Exit statuses, all of them.

use std::process::ExitCode;

use memctl::reclaim::{Blocker, Report, StoppedBy, Verdict};

use memctl::reclaim::batch::{Outcome, Outcomes};

/// How memctl ends. The worst of several comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// What was asked for was done.
    Success,
    /// The kernel reclaimed less than was asked.
    Incomplete,
    /// The time was up.
    TimedOut,
    /// It failed.
    Failed,
    /// The command line was not understood.
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Success => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Incomplete => 3,
            Exit::TimedOut => 124,
        })
    }
}

impl From<&Report> for Exit {
    /// The status for a report. A signal's is not among them: memctl then dies by the signal.
    fn from(report: &Report) -> Self {
        match report.stopped_by {
            StoppedBy::Removed | StoppedBy::Failed(_) => Self::Failed,
            StoppedBy::Timeout => Self::TimedOut,
            // With max the price is all that was asked.
            StoppedBy::Cost if report.requested.is_none() => Self::Success,
            StoppedBy::Cost | StoppedBy::Pressure => Self::Incomplete,
            StoppedBy::Reached | StoppedBy::Exhausted | StoppedBy::Interrupted => match report.verdict() {
                Some(Verdict::Under) => Self::Incomplete,
                _ => Self::Success,
            },
        }
    }
}

impl From<Blocker> for Exit {
    /// The status that a request would end with, by the arithmetic.
    fn from(guard: Blocker) -> Self {
        match guard {
            Blocker::Unsupported(_) => Self::Failed,
            Blocker::Timeout(_) => Self::TimedOut,
            Blocker::Short(_) | Blocker::Pressure(_) => Self::Incomplete,
        }
    }
}

impl From<&Outcomes> for Exit {
    /// The worst of all; where one amount was for all together, what came of that and what failed.
    fn from(outcomes: &Outcomes) -> Self {
        let each = outcomes.each.iter().map(Self::from);
        match &outcomes.total {
            None => each.max().unwrap_or(Self::Success),
            Some(total) => each.filter(|&exit| exit == Self::Failed).max().unwrap_or(Self::from(total)),
        }
    }
}

impl From<&Outcome> for Exit {
    fn from(outcome: &Outcome) -> Self {
        outcome.report.as_ref().map_or(Self::Failed, Self::from)
    }
}
