//! `--settle`: watching the cgroups before and after their requests, all of them together.

use std::time::{Duration, Instant};

use memctl::reclaim::{Activity, Place, Settled};

use super::feed::{Job, Outcome};
use crate::output::progress::Watching;
use crate::output::{Loudness, notes};
use crate::signal;

/// No more than that is spent on learning what is usual: the kernel folds its counters every 2 s.
const BASELINE: Duration = Duration::from_secs(2);

const LOOK: Duration = Duration::from_millis(20);

/// A cgroup under watch.
#[derive(Debug)]
pub struct Watched {
    pub place: Place,
    pub before: Activity,
    pub began: Activity,
    pub ended: Activity,
}

impl Watched {
    /// Keeps the cgroup of a job under watch, if it was watched before and could be looked at after the request.
    pub fn new(job: Job, ended: Option<Activity>) -> Option<Box<Self>> {
        let ((before, began), ended) = job.usual.zip(ended)?;
        Some(Box::new(Self { place: job.place, before, began, ended }))
    }
}

/// Watches the cgroups for a while before anything is asked of them, and gives the looks at each, at the beginning and at
/// the end of that. `None` for one that can't be looked at: its request will say why.
pub fn baseline(jobs: &mut [Job], time: Duration, loudness: Loudness) -> Vec<Option<(Activity, Activity)>> {
    let before: Vec<_> = jobs.iter_mut().map(|job| Activity::of(job.place.target()).ok()).collect();
    watch(time.min(BASELINE), "measuring the usual refaults", loudness);
    let both = jobs
        .iter_mut()
        .zip(before)
        .map(|(job, before)| Some((before?, Activity::of(job.place.target()).ok()?)));
    both.collect()
}

/// Watches them again after the last, and enters what came back into their reports.
pub fn settle(outcomes: &mut [Outcome], time: Duration, loudness: Loudness) {
    // Nothing was reclaimed from those that weren't begun, and those that are gone take nothing back. After a signal
    // there is no time to see anything.
    let asked = |outcome: &Outcome| outcome.report.as_ref().is_ok_and(|report| report.chunks > 0);
    if signal::pending().is_some() || !outcomes.iter().any(|one| one.watched.is_some() && asked(one)) {
        return;
    }
    watch(time, "measuring refaults", loudness);
    for outcome in outcomes {
        let (Some(watched), Ok(report)) = (&mut outcome.watched, &mut outcome.report) else { continue };
        match Activity::of(watched.place.target()) {
            Ok(now) => {
                let Watched { before, began, ended, .. } = &**watched;
                report.settled = Some(Settled::new(before, began, ended, &now));
            }
            Err(_) => notes::unwatched(&outcome.name, loudness),
        }
    }
}

/// Lets the time go by, until a signal comes.
fn watch(time: Duration, what: &'static str, loudness: Loudness) {
    notes::watching(what, time, loudness);
    let watching = Watching::new(what, time, loudness.progress());
    let until = Instant::now() + time;
    while signal::pending().is_none() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        std::thread::sleep(left.min(LOOK));
        watching.tick();
    }
    watching.finish();
}
