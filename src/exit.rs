//! The exit statuses of memctl.

use std::process::ExitCode;

use memctl::reclaim::{Blocker, Report, StoppedBy, Verdict};

use memctl::reclaim::batch::{Outcome, Outcomes};

/// Exit status. The order is of severity, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// The request was met.
    Success,
    /// The kernel reclaimed less than was requested.
    Incomplete,
    /// The timeout expired.
    TimedOut,
    /// The command failed.
    Failed,
    /// The command line is invalid.
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
    /// Returns the status for a report. A signal's is not among them: memctl then dies by the
    /// signal.
    fn from(report: &Report) -> Self {
        match report.stopped_by {
            StoppedBy::Removed | StoppedBy::Failed(_) => Self::Failed,
            StoppedBy::Timeout => Self::TimedOut,
            // With max the bound on the cost is all that was requested.
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
    /// Returns the status that a request would end with, by the arithmetic.
    fn from(guard: Blocker) -> Self {
        match guard {
            Blocker::Unsupported(_) => Self::Failed,
            Blocker::Timeout(_) => Self::TimedOut,
            Blocker::Short(_) | Blocker::Pressure(_) => Self::Incomplete,
        }
    }
}

impl From<&Outcomes> for Exit {
    /// Returns the worst status of all; for one amount over all cgroups, that of the total and of
    /// any failure.
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
