//! What became of one cgroup in the course of a watch: points in time, each with what was known by then.

use super::line::RecordLine;

/// What was known at some time. Amounts are bytes, times seconds; what is counted is counted since the watch began.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// When, since the watch began.
    pub at: f64,
    /// What was used.
    pub current: u64,
    /// The limit, if there was one.
    pub limit: Option<u64>,
    /// The working set, once it was found.
    pub working_set: Option<u64>,
    /// Whether what follows was counted then, or is as it was at the point before.
    pub counted: bool,
    /// What was reclaimed.
    pub reclaimed: u64,
    /// What came back, as far as that is told.
    pub refaulted: Option<u64>,
    /// How long its tasks were stalled for want of memory, as far as that is told.
    pub stalled: Option<f64>,
}

/// What it came to. Amounts are bytes, times seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RecordedOutcome {
    /// What was asked for, and what was reclaimed.
    pub requested: u64,
    /// See `requested`.
    pub reclaimed: u64,
    /// What its own tasks reclaimed.
    pub direct: Option<u64>,
    /// How long they were stalled.
    pub stalled: Option<f64>,
    /// CPU time in the writes.
    pub cpu: f64,
    /// The `memory.max` that would do.
    pub suggested: Option<u64>,
    /// What was saved.
    pub saved: Option<i64>,
}

/// The course of one cgroup.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Course {
    /// Its name.
    pub name: String,
    /// Its path, percent-encoded, where the name is no UTF-8.
    pub path_bytes: Option<String>,
    /// The rule that took it, if one did.
    pub rule: Option<String>,
    /// In the order of time.
    pub points: Vec<Point>,
    /// When it met its limit.
    pub outrun: Vec<f64>,
    /// When it went, if it did.
    pub ended: Option<f64>,
    /// What it came to, if the watch came to its end.
    pub outcome: Option<RecordedOutcome>,
    /// The points have the counts: else those of each action are added up.
    is_sampled: bool,
    /// What had been counted when it was made anew under the same name.
    before: Point,
}

/// So many limits that were met are kept of each.
const MOST_OUTRUN: usize = 1000;

impl Course {
    pub(super) fn named(name: String) -> Self {
        Self { name, ..Self::default() }
    }

    /// Enters a line. Tells how many points were added.
    pub(super) fn enter(&mut self, line: &RecordLine, at: f64, gap: f64) -> usize {
        let last = self.points.last().copied().unwrap_or_default();
        // Time goes on, whatever somebody writes.
        let at = at.max(last.at);
        let mut next = Point { at, counted: false, ..last };
        let usec = |usec: u64| usec as f64 / 1e6;
        match line.event.as_str() {
            "start" => {
                if self.ended.take().is_some() {
                    self.before = last;
                }
                self.rule.clone_from(&line.rule);
                (next.current, next.limit) = (line.current_bytes.unwrap_or(0), line.limit_bytes);
                next.counted = true;
            }
            "limit" => next.limit = line.limit_bytes,
            "reclaim" => {
                let Some(current) = line.current_after_bytes else { return 0 };
                next.current = current;
                if !self.is_sampled {
                    next.counted = true;
                    next.reclaimed = last.reclaimed.saturating_add(line.reclaimed_bytes.unwrap_or(0));
                }
            }
            "sample" => {
                self.is_sampled = true;
                let Some(current) = line.current_bytes else { return 0 };
                let Point { reclaimed, refaulted, stalled, .. } = self.before;
                next = Point {
                    at,
                    current,
                    limit: line.limit_bytes,
                    counted: true,
                    working_set: line.estimated_working_set_bytes.or(last.working_set),
                    reclaimed: reclaimed
                        .saturating_add(line.reclaimed_bytes.unwrap_or(0))
                        .max(last.reclaimed),
                    refaulted: add(refaulted, line.refaulted_bytes).max(last.refaulted),
                    stalled: line
                        .stalled_usec
                        .map(|more| usec(more) + stalled.unwrap_or(0.0))
                        .or(last.stalled),
                };
            }
            "working_set" => next.working_set = line.estimated_working_set_bytes,
            "would_reclaim" => next.current = line.current_bytes.unwrap_or(last.current),
            "outrun" => {
                if self.outrun.len() < MOST_OUTRUN {
                    self.outrun.push(at);
                }
                return 0;
            }
            "gone" | "released" => {
                self.ended = Some(at);
                return 0;
            }
            "summary" => {
                self.outcome = Some(RecordedOutcome {
                    requested: line.requested_bytes.unwrap_or(0),
                    reclaimed: line.reclaimed_bytes.unwrap_or(0),
                    direct: line.direct_bytes,
                    stalled: line.stalled_usec.map(usec),
                    cpu: line.cpu_usec.map_or(0.0, usec),
                    suggested: line.suggested_max_bytes,
                    saved: line.net_saved_bytes,
                });
                return 0;
            }
            _ => return 0,
        }
        self.push(next, gap)
    }

    /// Adds a point, or makes one of it and the last if that is so near.
    fn push(&mut self, next: Point, gap: f64) -> usize {
        match self.points.last_mut() {
            Some(last) if next.at - last.at < gap => {
                let (current, counted) = (last.current.max(next.current), last.counted || next.counted);
                *last = Point { at: last.at, current, counted, ..next };
                0
            }
            _ => {
                self.points.push(next);
                1
            }
        }
    }

    /// Makes one of all points that are so near to each other. Tells how many are left.
    pub(super) fn thin(&mut self, gap: f64) -> usize {
        let points = std::mem::take(&mut self.points);
        for point in points {
            self.push(point, gap);
        }
        self.points.len()
    }

    /// What was known at that time: what was seen last. `None` before it came and after it went.
    fn at(&self, time: f64) -> Option<&Point> {
        let next = self.points.partition_point(|point| point.at <= time);
        let gone = self.ended.is_some_and(|ended| ended <= time);
        next.checked_sub(1).filter(|_| !gone).map(|last| &self.points[last])
    }
}

/// Several as one: see [`super::Record::together`].
pub(super) fn together(courses: &[Course], span: f64, looks: usize) -> Course {
    if let [only] = courses {
        return only.clone();
    }
    let mut all = Course { name: format!("{} cgroups", courses.len()), ..Course::default() };
    let looks = looks.max(2);
    // What each was stalled by the look before.
    let mut before: Vec<Option<f64>> = vec![None; courses.len()];
    let mut stalled = 0.0;
    for look in 0..looks {
        let at = span * look as f64 / (looks - 1) as f64;
        // What comes right after the beginning was there at it.
        let soon = at + span / (looks - 1) as f64 / 2.0;
        let mut sum = Point { at, limit: Some(0), counted: true, ..Point::default() };
        let mut most = None::<f64>;
        for (course, before) in courses.iter().zip(&mut before) {
            // What was done stays done when it goes.
            let done = course.points[..course.points.partition_point(|point| point.at <= soon)].last();
            if let Some(point) = done {
                sum.reclaimed = sum.reclaimed.saturating_add(point.reclaimed);
                sum.refaulted = add(sum.refaulted, point.refaulted);
            }
            let Some(point) = course.at(soon) else { continue };
            sum.current = sum.current.saturating_add(point.current);
            sum.working_set = add(sum.working_set, point.working_set);
            sum.limit = sum.limit.zip(point.limit).map(|(sum, limit)| sum.saturating_add(limit));
            if let Some((now, then)) = point.stalled.zip(before.replace(point.stalled.unwrap_or(0.0))) {
                most = Some(most.unwrap_or(0.0).max(now - then));
            }
        }
        stalled += most.unwrap_or(0.0);
        sum.stalled = before.iter().any(Option::is_some).then_some(stalled);
        sum.limit = sum.limit.filter(|&limit| limit > 0);
        all.points.push(sum);
    }
    all.outrun = courses.iter().flat_map(|course| course.outrun.iter().copied()).take(MOST_OUTRUN).collect();
    let outcomes = courses.iter().filter_map(|course| course.outcome);
    all.outcome = outcomes.reduce(|all, one| RecordedOutcome {
        requested: all.requested.saturating_add(one.requested),
        reclaimed: all.reclaimed.saturating_add(one.reclaimed),
        direct: add(all.direct, one.direct),
        stalled: all.stalled.into_iter().chain(one.stalled).reduce(f64::max),
        cpu: all.cpu + one.cpu,
        suggested: None,
        saved: all.saved.zip(one.saved).map(|(all, one)| all.saturating_add(one)),
    });
    all
}

/// The sum of what is known.
fn add(sum: Option<u64>, one: Option<u64>) -> Option<u64> {
    match (sum, one) {
        (Some(sum), Some(one)) => Some(sum.saturating_add(one)),
        (known, None) | (None, known) => known,
    }
}
