//! `--settle`: watching the cgroups before and after their requests, all of them together.

use std::time::{Duration, Instant};

use super::{Job, Outcomes};
use crate::cgroup::Name;
use crate::reclaim::{Activity, OpenTarget, Settled};

/// Time limit for learning what is usual: the kernel folds its counters every 2 s.
const BASELINE: Duration = Duration::from_secs(2);

const TICK: Duration = Duration::from_millis(20);

/// A cgroup that is watched.
#[derive(Debug)]
pub struct Watched {
    place: OpenTarget,
    before: Activity,
    began: Activity,
    ended: Activity,
}

impl Watched {
    /// Keeps the cgroup of a job watched, if it was sampled before and after the request.
    pub(super) fn new(job: Job, ended: Option<Activity>) -> Option<Box<Self>> {
        let ((before, began), ended) = job.usual.zip(ended)?;
        Some(Box::new(Self { place: job.place, before, began, ended }))
    }
}

/// Reports while cgroups are watched.
#[derive(Clone, Copy, Debug)]
pub enum SettleProgress<'a> {
    /// They are watched from now on, for that time.
    Begins(Duration),
    /// Time goes by.
    Tick,
    /// The time is over, or a signal came.
    Ends,
    /// That cgroup can't be sampled any more.
    Lost(&'a Name),
}

/// Callbacks of the watching.
pub struct SettleOptions<'a> {
    /// Whether to stop.
    pub stop: fn() -> bool,
    /// Receives the reports.
    pub emit: &'a mut dyn FnMut(SettleProgress<'_>),
}

/// Watches the cgroups of jobs for a while before anything is asked of them, and enters into each a sample from the
/// beginning and one from the end of that. One that can't be sampled gets none: its request will report why.
pub fn baseline(jobs: &mut [Job], time: Duration, options: &mut SettleOptions<'_>) {
    let before: Vec<_> = jobs.iter_mut().map(|job| Activity::of(job.place.target()).ok()).collect();
    watch(time.min(BASELINE), options);
    for (job, before) in jobs.iter_mut().zip(before) {
        job.usual = before.zip(Activity::of(job.place.target()).ok());
    }
}

/// Watches them again after the last request, and enters what came back into their reports.
pub fn settle(outcomes: &mut Outcomes, time: Duration, options: &mut SettleOptions<'_>) {
    let Outcomes { each, watched, .. } = outcomes;
    // Nothing was reclaimed from those that weren't begun, and those that are gone take nothing back. After a signal
    // there is no time to see anything.
    let mut both = each.iter().zip(&*watched);
    let is_asked = both.any(|(outcome, watched)| {
        watched.is_some() && outcome.report.as_ref().is_ok_and(|report| report.chunks > 0)
    });
    if (options.stop)() || !is_asked {
        return;
    }
    watch(time, options);
    for (outcome, watched) in each.iter_mut().zip(watched) {
        let (Some(watched), Ok(report)) = (watched, &mut outcome.report) else { continue };
        match Activity::of(watched.place.target()) {
            Ok(now) => {
                let Watched { before, began, ended, .. } = &**watched;
                report.settled = Some(Settled::new(before, began, ended, &now));
            }
            Err(_) => (options.emit)(SettleProgress::Lost(&outcome.name)),
        }
    }
}

/// Lets the time go by, until a signal comes.
fn watch(time: Duration, options: &mut SettleOptions<'_>) {
    (options.emit)(SettleProgress::Begins(time));
    let until = Instant::now() + time;
    while !(options.stop)() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        std::thread::sleep(left.min(TICK));
        (options.emit)(SettleProgress::Tick);
    }
    (options.emit)(SettleProgress::Ends);
}
