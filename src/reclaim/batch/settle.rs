//! `--settle`: watches the cgroups before and after their requests, all of them together.

use std::time::{Duration, Instant};

use super::{Job, Outcomes};
use crate::cgroup::Name;
use crate::reclaim::{Activity, OpenTarget, Settled};

/// Maximum time for measuring the usual refault rate: the kernel folds its counters every 2 s.
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
    /// Creates the watch on the cgroup of a job, if the cgroup was sampled before and after the
    /// request.
    pub(super) fn new(job: Job, ended: Option<Activity>) -> Option<Box<Self>> {
        let ((before, began), ended) = job.usual.zip(ended)?;
        Some(Box::new(Self { place: job.place, before, began, ended }))
    }
}

/// Events while cgroups are watched.
#[derive(Clone, Copy, Debug)]
pub enum SettleProgress<'a> {
    /// Watching begins, for this time.
    Begins(Duration),
    /// A clock tick: time passed.
    Tick,
    /// Watching ends: the time is over, or a signal arrived.
    Ends,
    /// The cgroup of this name can no longer be sampled.
    Lost(&'a Name),
}

/// Callbacks of the watching.
pub struct SettleOptions<'a> {
    /// Returns whether to stop.
    pub stop: fn() -> bool,
    /// Receives the events.
    pub emit: &'a mut dyn FnMut(SettleProgress<'_>),
}

/// Watches the cgroups of jobs for a while before their requests, and stores in each job a sample
/// from the beginning of that time and one from its end. A cgroup that can't be sampled gets none:
/// its request will report why.
pub fn baseline(jobs: &mut [Job], time: Duration, options: &mut SettleOptions<'_>) {
    let before: Vec<_> = jobs.iter_mut().map(|job| Activity::of(job.place.target()).ok()).collect();
    watch(time.min(BASELINE), options);
    for (job, before) in jobs.iter_mut().zip(before) {
        job.usual = before.zip(Activity::of(job.place.target()).ok());
    }
}

/// Watches the cgroups again after the last request, and adds the refaults to their reports.
pub fn settle(outcomes: &mut Outcomes, time: Duration, options: &mut SettleOptions<'_>) {
    let Outcomes { each, watched, .. } = outcomes;
    // Nothing was reclaimed from cgroups whose request wasn't begun, and removed cgroups refault
    // nothing. After a signal there is no time to observe anything.
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

/// Waits for the time to pass, or for a signal.
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
