//! What the reclaiming threads are fed with: which request to which cgroup comes next, and what came of it.

use std::collections::VecDeque;
use std::path::PathBuf;

use memctl::cgroup::Name;
use memctl::reclaim::{Activity, Place, Report, Request};
use rustix::io::Errno;

use super::settle::Watched;

/// One request to one cgroup or node.
pub struct Job {
    pub place: Place,
    pub request: Request,
    /// Whether to keep other memctl off the cgroup meanwhile.
    pub lock: bool,
    /// Two looks at the cgroup, if it is to be watched for what comes back.
    pub usual: Option<(Activity, Activity)>,
}

/// What came of a job.
pub struct Served {
    pub index: usize,
    pub job: Job,
    pub report: Result<Report, Errno>,
    /// A look at the cgroup right afterwards, if it is to be watched.
    pub ended: Option<Activity>,
}

/// What a thread is to do.
pub enum Next {
    /// Serve that request, to the cgroup in that place.
    Serve(usize, Box<Job>),
    /// Wait for what another thread is doing.
    Wait,
    /// End.
    Over,
}

/// Gives out requests and takes back what came of them.
pub trait Feed: Send {
    /// What comes next. Asked by every thread in turn.
    fn next(&mut self) -> Next;
    /// Takes what came of a request. Says whether its cgroup is done with.
    fn served(&mut self, served: Served) -> bool;
    /// What came of all, in the order of the cgroups, once every thread has ended.
    fn outcomes(self: Box<Self>) -> Outcomes;
}

/// What came of all requests.
pub struct Outcomes {
    pub each: Vec<Outcome>,
    /// What came of all together, if that was the request.
    pub total: Option<Report>,
}

/// What came of the requests to one cgroup.
pub struct Outcome {
    pub name: Name,
    pub path: PathBuf,
    /// An error only if nothing was begun.
    pub report: Result<Report, Errno>,
    /// The cgroup, if it is to be watched on.
    pub watched: Option<Box<Watched>>,
}

impl Outcome {
    /// Overwritten by every thread that lives to tell.
    pub fn pending(job: &Job) -> Self {
        let place = &job.place;
        Self {
            name: place.name().clone(),
            path: place.path().to_path_buf(),
            report: Err(Errno::CANCELED),
            watched: None,
        }
    }
}

/// Each request once, in order.
pub struct EachOnce {
    jobs: VecDeque<(usize, Job)>,
    outcomes: Vec<Outcome>,
}

impl EachOnce {
    pub fn new(jobs: Vec<Job>) -> Self {
        let outcomes = jobs.iter().map(Outcome::pending).collect();
        Self { jobs: jobs.into_iter().enumerate().collect(), outcomes }
    }
}

impl Feed for EachOnce {
    fn next(&mut self) -> Next {
        self.jobs.pop_front().map_or(Next::Over, |(index, job)| Next::Serve(index, Box::new(job)))
    }

    fn served(&mut self, Served { index, job, report, ended }: Served) -> bool {
        let outcome = &mut self.outcomes[index];
        outcome.report = report;
        outcome.watched = Watched::new(job, ended);
        true
    }

    fn outcomes(self: Box<Self>) -> Outcomes {
        Outcomes { each: self.outcomes, total: None }
    }
}
