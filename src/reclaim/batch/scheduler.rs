//! Which request to which cgroup comes next, and the result of each.

use std::collections::VecDeque;

use rustix::io::Errno;

use super::settle::Watched;
use super::{Job, Outcome, Outcomes};
use crate::reclaim::{Activity, Report};

/// Result of a job.
#[derive(Debug)]
pub struct Completed {
    /// The cgroup.
    pub index: usize,
    /// The job.
    pub job: Job,
    /// Its report.
    pub report: Result<Report, Errno>,
    /// A sample of the cgroup right afterwards, if it is watched.
    pub ended: Option<Activity>,
}

/// What comes next.
#[derive(Debug)]
pub enum NextJob {
    /// That job, to the cgroup of that index.
    Serve(usize, Box<Job>),
    /// Nothing until something under way is completed.
    Wait,
    /// Nothing at all.
    Over,
}

/// Gives out requests and takes back their results.
pub trait Scheduler {
    /// Returns the number of cgroups.
    fn cgroups(&self) -> usize;
    /// Returns what comes next. Asked whenever a thread is free.
    fn next(&mut self) -> NextJob;
    /// Takes the result of a request. Returns whether it was the cgroup's last.
    fn completed(&mut self, completed: Completed) -> bool;
    /// Returns the results of all, in the order of the cgroups, once nothing is under way.
    fn outcomes(self) -> Outcomes;
}

/// Each request once, in order.
#[derive(Debug)]
pub struct InOrder {
    jobs: VecDeque<(usize, Job)>,
    outcomes: Outcomes,
}

impl InOrder {
    /// Schedules these jobs.
    #[must_use]
    pub fn new(jobs: Vec<Job>) -> Self {
        let each: Vec<_> = jobs.iter().map(|job| Outcome::pending(&job.place)).collect();
        let watched = each.iter().map(|_| None).collect();
        Self {
            jobs: jobs.into_iter().enumerate().collect(),
            outcomes: Outcomes { each, watched, total: None },
        }
    }
}

impl Scheduler for InOrder {
    fn cgroups(&self) -> usize {
        self.outcomes.each.len()
    }

    fn next(&mut self) -> NextJob {
        self.jobs.pop_front().map_or(NextJob::Over, |(index, job)| NextJob::Serve(index, Box::new(job)))
    }

    fn completed(&mut self, Completed { index, job, report, ended }: Completed) -> bool {
        self.outcomes.each[index].report = report;
        self.outcomes.watched[index] = Watched::new(job, ended);
        true
    }

    fn outcomes(self) -> Outcomes {
        self.outcomes
    }
}
