//! `--total`: one amount over all cgroups, by the policy of [`crate::reclaim::share`].

use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::scheduler::{Completed, NextJob, Scheduler};
use super::settle::Watched;
use super::{Job, Outcome, Outcomes};
use crate::host::proc::page_size;
use crate::kind::{Kind, Swappiness};
use crate::reclaim::share::{self, CostBounds, Donor, NextRequest};
use crate::reclaim::{Activity, Goal, Reclaimable, Report, StoppedBy, run};
use crate::size::{Amount, Percent};

/// The requests that make up a total.
#[derive(Debug)]
pub struct Total {
    stop: fn() -> bool,
    /// Requested bytes; `None` for all that can be reclaimed.
    requested: Option<u64>,
    page: u64,
    /// Maximum page cache to request in a round, in bytes.
    round: Option<u64>,
    bounds: CostBounds,
    timeout: Option<Duration>,
    began: Option<Instant>,
    stopped_by: Option<StoppedBy>,
    members: Vec<Member>,
    givers: Vec<Donor>,
}

/// One of the cgroups.
#[derive(Debug)]
struct Member {
    /// Job of the cgroup; `None` while a thread serves it.
    job: Option<Job>,
    outcome: Outcome,
    /// Usage at the beginning, in bytes.
    used: u64,
    /// Kind of memory that the user asked for, and whether page cache can be requested alone.
    kind: Kind,
    cache_alone: bool,
    asked_for_cache: bool,
    ended: Option<Activity>,
}

impl Total {
    /// Samples the memory of each cgroup.
    ///
    /// # Errors
    /// The kernel's, with the index of the cgroup.
    pub fn new(mut jobs: Vec<Job>, amount: Amount, stop: fn() -> bool) -> Result<Self, (usize, Errno)> {
        let page = page_size();
        let first = jobs.first().map(|job| &job.request);
        let bounds = CostBounds {
            max_cost: first.and_then(|request| request.max_cost),
            max_pressure: first.and_then(|request| request.max_pressure).map(Percent::ratio),
        };
        let timeout = first.and_then(|request| request.timeout);
        let rate = first.and_then(|request| request.rate.as_ref()).map(|rate| rate.bytes_per_second());
        let round = rate.map(|rate| share::round(rate, jobs.len()));
        let Holdings { requested, givers, used } = Holdings::of(&mut jobs, amount)?;
        let members = jobs.into_iter().zip(used).map(|(mut job, used)| {
            let kind = job.request.kind;
            let alone =
                kind == Kind::All && job.place.target().accepts(Swappiness::Value(0)).unwrap_or(false);
            let outcome = Outcome::pending(&job.place);
            let cache_alone = alone || kind == Kind::File;
            Member { job: Some(job), outcome, used, kind, cache_alone, asked_for_cache: false, ended: None }
        });
        let members = members.collect();
        Ok(Self {
            stop,
            requested,
            page,
            round,
            bounds,
            timeout,
            began: None,
            stopped_by: None,
            members,
            givers,
        })
    }

    /// Sets the amount of each job to that of its first request, and returns the total. Writes
    /// nothing.
    ///
    /// # Errors
    /// As [`Total::new`].
    pub fn foretell(jobs: &mut [Job], amount: Amount) -> Result<Option<u64>, (usize, Errno)> {
        let Holdings { requested, givers, .. } = Holdings::of(jobs, amount)?;
        if let Some(bytes) = requested {
            let has: Vec<_> = givers.iter().map(Donor::inactive_file).collect();
            for (job, part) in jobs.iter_mut().zip(share::split(bytes, &has)) {
                job.request.goal = Goal::Reclaim(Amount::Bytes(part));
            }
        }
        Ok(requested)
    }

    /// Returns the requested bytes; `None` for all that can be reclaimed.
    #[must_use]
    pub fn requested(&self) -> Option<u64> {
        self.requested
    }

    fn reclaimed(&self) -> u64 {
        let reports = self.members.iter().filter_map(|member| member.outcome.report.as_ref().ok());
        reports.map(|report| report.reclaimed).sum()
    }

    fn missing(&self) -> u64 {
        // All there is: more than any cgroup uses, and small enough not to overflow.
        self.requested.unwrap_or(1 << 62).saturating_sub(self.reclaimed())
    }
}

/// Memory of the cgroups at the beginning.
struct Holdings {
    requested: Option<u64>,
    givers: Vec<Donor>,
    used: Vec<u64>,
}

impl Holdings {
    fn of(jobs: &mut [Job], amount: Amount) -> Result<Self, (usize, Errno)> {
        let (mut givers, mut used) = (Vec::new(), Vec::new());
        for (index, job) in jobs.iter_mut().enumerate() {
            let at = |errno| (index, errno);
            let target = job.place.target();
            used.push(target.usage().map_err(at)?);
            let stat = target.stat(true).map_err(at)?;
            // Where the user sets weights, the weights decide, not the order.
            let by_cache = matches!(job.request.kind, Kind::All | Kind::File);
            let inactive = stat.inactive_file.filter(|_| by_cache).unwrap_or(0);
            // Memory under the protection of its children can't be reclaimed from it.
            let there = Reclaimable::new(Kind::File, &stat, &target.conditions());
            let cache = there.bytes().min(there.file);
            givers.push(Donor::new(inactive.min(cache)));
        }
        let requested = match amount {
            Amount::Bytes(bytes) => Some(bytes),
            Amount::Share(share) => Some(share.of_usage(used.iter().sum())),
            Amount::Max => None,
        };
        Ok(Self { requested, givers, used })
    }
}

impl Scheduler for Total {
    fn cgroups(&self) -> usize {
        self.members.len()
    }

    fn next(&mut self) -> NextJob {
        let began = *self.began.get_or_insert_with(Instant::now);
        let left = self.timeout.map(|timeout| timeout.saturating_sub(began.elapsed()));
        if (self.stop)() {
            self.stopped_by = Some(StoppedBy::Interrupted);
        } else if left.is_some_and(|left| left.is_zero()) && self.missing() > 0 {
            self.stopped_by = Some(StoppedBy::Timeout);
        }
        if self.stopped_by.is_some() {
            return NextJob::Over;
        }
        let missing = self.missing();
        match share::next(&mut self.givers, missing, self.round, self.page) {
            NextRequest::Over => NextJob::Over,
            NextRequest::Wait => NextJob::Wait,
            NextRequest::Ask { index, bytes, file_only } => {
                let member = &mut self.members[index];
                let Some(mut job) = member.job.take() else { return NextJob::Wait };
                member.asked_for_cache = file_only && member.cache_alone;
                job.request.goal = Goal::Reclaim(Amount::Bytes(bytes));
                job.request.kind = if member.asked_for_cache { Kind::File } else { member.kind };
                job.request.timeout = left;
                // The bound applies to all requests together, most of which are too short to
                // measure pressure; a long one ends by itself.
                job.stalls = self.givers[index].stalls().clone();
                NextJob::Serve(index, Box::new(job))
            }
        }
    }

    fn completed(&mut self, Completed { index, job, report, ended }: Completed) -> bool {
        let member = &mut self.members[index];
        match report {
            Ok(report) => {
                self.givers[index].record(&report, member.asked_for_cache, self.bounds);
                let so_far = std::mem::replace(&mut member.outcome.report, Err(Errno::CANCELED));
                member.outcome.report = Ok(match so_far {
                    Ok(so_far) => so_far.then(report),
                    Err(_) => report,
                });
            }
            Err(errno) => {
                self.givers[index].exclude(StoppedBy::Removed);
                if member.outcome.report.is_err() {
                    member.outcome.report = Err(errno);
                }
            }
        }
        // All that the cgroup used was reclaimed once: the rest was allocated since.
        let given = member.outcome.report.as_ref().map_or(0, |report| report.reclaimed);
        if self.requested.is_none() && given >= member.used {
            self.givers[index].exclude(StoppedBy::Exhausted);
        }
        member.job = Some(job);
        member.ended = ended.or(member.ended.take());
        self.givers[index].excluded_by().is_some()
    }

    fn outcomes(mut self) -> Outcomes {
        let elapsed = self.began.map_or(Duration::ZERO, |began| began.elapsed());
        let missing = self.missing();
        let stopped_by = match self.stopped_by {
            Some(why) if missing > 0 => why,
            _ => share::ended(&self.givers, missing),
        };
        let mut watched: Vec<_> = self.members.iter().map(|_| None).collect();
        for (member, watched) in self.members.iter_mut().zip(&mut watched) {
            let Some(mut job) = member.job.take() else { continue };
            if matches!(member.outcome.report, Err(Errno::CANCELED)) {
                // No request went to this cgroup, or none is needed any more: the report of this
                // empty request gives its state.
                job.request.goal = Goal::Reclaim(Amount::Bytes(0));
                member.outcome.report = run(job.place.target(), &job.request, &|| false, &mut |_| {});
            }
            *watched = Watched::new(job, member.ended.take());
        }
        let each: Vec<_> = self.members.into_iter().map(|member| member.outcome).collect();
        let reports = each.iter().filter_map(|outcome| outcome.report.as_ref().ok());
        let total = Report::total(reports, self.requested, stopped_by, elapsed);
        Outcomes { each, watched, total }
    }
}
