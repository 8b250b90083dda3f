//! The order of requests: chooses the next request, and collects the result of each.

use std::collections::VecDeque;

use rustix::io::Errno;

use super::settle::Watched;
use super::{Job, Outcome, Outcomes};
use crate::reclaim::{Activity, Report};

/// Result of a job.
#[derive(Debug)]
pub struct Completed {
    /// Index of the cgroup.
    pub index: usize,
    /// Served job.
    pub job: Job,
    /// Report of the request.
    pub report: Result<Report, Errno>,
    /// Sample of the cgroup right after the request, if the cgroup is watched.
    pub ended: Option<Activity>,
}

/// The scheduler's next step.
#[derive(Debug)]
pub enum NextJob {
    /// Serve this job, to the cgroup of this index.
    Serve(usize, Box<Job>),
    /// Wait until a request under way is completed.
    Wait,
    /// End: no request is left.
    Over,
}

/// Gives out requests and collects their results.
pub trait Scheduler {
    /// Returns the number of cgroups.
    fn cgroups(&self) -> usize;
    /// Returns the next step. Called whenever a thread is free.
    fn next(&mut self) -> NextJob;
    /// Records the result of a request. Returns whether it was the cgroup's last.
    fn completed(&mut self, completed: Completed) -> bool;
    /// Returns the results of all cgroups, in their order, once no request is under way.
    fn outcomes(self) -> Outcomes;
}

/// A scheduler that serves each request once, in order.
#[derive(Debug)]
pub struct InOrder {
    jobs: VecDeque<(usize, Job)>,
    outcomes: Outcomes,
}

impl InOrder {
    /// Creates a scheduler for these jobs.
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
