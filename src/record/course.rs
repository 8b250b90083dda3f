//! The course of one cgroup through a watch: points in time, each with the values known by then.

use super::line::RecordLine;

/// Values known at one time. Amounts are bytes, times seconds; counts begin with the watch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// Time since the watch began.
    pub at: f64,
    /// Usage.
    pub current: u64,
    /// Limit, if there was one.
    pub limit: Option<u64>,
    /// Working set, once it was found.
    pub working_set: Option<u64>,
    /// True if the values that follow were counted at this point; otherwise they are the previous
    /// point's.
    pub counted: bool,
    /// Bytes reclaimed.
    pub reclaimed: u64,
    /// Refaulted bytes, if recorded.
    pub refaulted: Option<u64>,
    /// Time that tasks were stalled on memory, if recorded.
    pub stalled: Option<f64>,
}

/// Final result. Amounts are bytes, times seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RecordedOutcome {
    /// Bytes requested.
    pub requested: u64,
    /// Bytes reclaimed.
    pub reclaimed: u64,
    /// Bytes reclaimed by the cgroup's own tasks.
    pub direct: Option<u64>,
    /// True if `direct` is an upper bound.
    pub direct_is_at_most: bool,
    /// Time that tasks were stalled.
    pub stalled: Option<f64>,
    /// CPU time in the writes.
    pub cpu: f64,
    /// Suggested `memory.max`.
    pub suggested: Option<u64>,
    /// Bytes saved.
    pub saved: Option<i64>,
}

/// Course of one cgroup.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Course {
    /// Name of the cgroup.
    pub name: String,
    /// Path of the cgroup, percent-encoded, where the name isn't UTF-8.
    pub path_bytes: Option<String>,
    /// Names of the pod and the container that the cgroup is in, if they are known.
    pub pod: Option<String>,
    /// Name of the rule that applied, if one did.
    pub rule: Option<String>,
    /// Points, in order of time.
    pub points: Vec<Point>,
    /// Times at which the cgroup reached its limit.
    pub outrun: Vec<f64>,
    /// Time at which the cgroup was removed or released, if it was.
    pub ended: Option<f64>,
    /// Final result, if the watch ran to its end.
    pub outcome: Option<RecordedOutcome>,
    /// True if the points contain the counts: otherwise the counts of each action are added up.
    is_sampled: bool,
    /// Counts from before the cgroup started anew under the same name.
    before: Point,
}

/// Maximum number of times that `outrun` keeps for each cgroup.
const MOST_OUTRUN: usize = 1000;

impl Course {
    pub(super) fn named(name: String) -> Self {
        Self { name, ..Self::default() }
    }

    /// Adds a line. Returns the number of points added.
    pub(super) fn enter(&mut self, line: &RecordLine, at: f64, gap: f64) -> usize {
        let last = self.points.last().copied().unwrap_or_default();
        // Time never goes back, whatever the record contains.
        let at = at.max(last.at);
        let mut next = Point { at, counted: false, ..last };
        let usec = |usec: u64| usec as f64 / 1e6;
        let mut peaks = 0;
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
                if let Some(most) = line.current_most_bytes.filter(|&most| most > current.max(last.current)) {
                    // It was reached at some time in between.
                    let peak =
                        Point { at: f64::midpoint(last.at, at), current: most, counted: false, ..last };
                    peaks = self.push(peak, gap);
                }
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
                    direct_is_at_most: line.direct_at_most,
                    stalled: line.stalled_usec.map(usec),
                    cpu: line.cpu_usec.map_or(0.0, usec),
                    suggested: line.suggested_max_bytes,
                    saved: line.net_saved_bytes,
                });
                return 0;
            }
            _ => return 0,
        }
        peaks + self.push(next, gap)
    }

    /// Adds a point, or merges it with the last one if they are nearer than `gap`.
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

    /// Merges all points that are nearer to each other than `gap`. Returns the number left.
    pub(super) fn thin(&mut self, gap: f64) -> usize {
        let points = std::mem::take(&mut self.points);
        for point in points {
            self.push(point, gap);
        }
        self.points.len()
    }

    /// Returns the values known at that time: the latest before it. `None` before the cgroup
    /// appeared and after its end.
    fn at(&self, time: f64) -> Option<&Point> {
        let next = self.points.partition_point(|point| point.at <= time);
        let gone = self.ended.is_some_and(|ended| ended <= time);
        next.checked_sub(1).filter(|_| !gone).map(|last| &self.points[last])
    }
}

/// Merges several courses into one: see [`super::Record::together`].
pub(super) fn together(courses: &[Course], span: f64, looks: usize) -> Course {
    if let [only] = courses {
        return only.clone();
    }
    let mut all = Course { name: format!("{} cgroups", courses.len()), ..Course::default() };
    let looks = looks.max(2);
    // Stall of each cgroup at the previous sample.
    let mut before: Vec<Option<f64>> = vec![None; courses.len()];
    let mut stalled = 0.0;
    for look in 0..looks {
        let at = span * look as f64 / (looks - 1) as f64;
        // Points right after the beginning count as there from the beginning.
        let soon = at + span / (looks - 1) as f64 / 2.0;
        let mut sum = Point { at, limit: Some(0), counted: true, ..Point::default() };
        let mut most = None::<f64>;
        for (course, before) in courses.iter().zip(&mut before) {
            // The work done stays in the sum after the cgroup's end.
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
        direct_is_at_most: all.direct_is_at_most || one.direct_is_at_most,
        stalled: all.stalled.into_iter().chain(one.stalled).reduce(f64::max),
        cpu: all.cpu + one.cpu,
        suggested: None,
        saved: all.saved.zip(one.saved).map(|(all, one)| all.saturating_add(one)),
    });
    all
}

/// Adds up the known values.
fn add(sum: Option<u64>, one: Option<u64>) -> Option<u64> {
    match (sum, one) {
        (Some(sum), Some(one)) => Some(sum.saturating_add(one)),
        (known, None) | (None, known) => known,
    }
}
