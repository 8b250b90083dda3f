//! Knowledge of the guard [`above`](super::policy::above) about the host: the cgroups that killers
//! monitor, and the pressure of each level of the hierarchy.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::policy::above::{AbovePolicy, Limit};
use super::system::{Answer, System};
use crate::cgroup::killers::{Killers, Monitored};
use crate::cgroup::{CgroupPath, Mount, pressure};

/// Interval between queries for monitored cgroups, which change with units and their settings; and
/// its minimum when the set of watched cgroups changed.
const ASK_INTERVAL: Duration = Duration::from_secs(60);
const MIN_ASK_INTERVAL: Duration = Duration::from_secs(10);

/// Time to wait for the first answer before anything is reclaimed. Without systemd it arrives at
/// once; more caution than necessary for want of an answer helps nobody.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_millis(250);

/// Minimum interval between two samples of a level: the kernel updates its averages every 2 s
/// (`PSI_FREQ`, kernel/sched/psi.c), and systemd-oomd reads them each second.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// Verdict on reclaim below some level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AboveVerdict {
    /// Pressure that holds reclaim back, hundredths of a percent, and the earliest time of its
    /// release.
    pub held: Option<(u16, Duration)>,
    /// True if some level, or the set of monitored cgroups, can't be read.
    pub is_blind: bool,
}

/// One level of the hierarchy.
#[derive(Debug)]
struct Level {
    /// File with its pressure.
    file: PathBuf,
    limit: Limit,
    policy: AbovePolicy,
    /// Last `full` avg10; `None` if it could not be read.
    avg10: Option<u16>,
    sampled_at: Option<Duration>,
}

/// Monitored cgroups, and pressure of the levels.
#[derive(Debug)]
pub(crate) struct KillerWatch {
    /// The hierarchy; `None` until a cgroup is watched.
    mount: Option<Arc<Mount>>,
    /// The last answer; `None` until the first.
    killers: Option<Killers>,
    asked_at: Option<Duration>,
    /// True if the set of watched cgroups changed since the last query.
    changed: bool,
    /// True while an answer is to come.
    is_asking: bool,
    /// Sampled levels by directory.
    levels: HashMap<PathBuf, Level>,
    text: String,
}

impl KillerWatch {
    /// Creates an empty state.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self {
            mount: None,
            killers: None,
            asked_at: None,
            changed: false,
            is_asking: false,
            levels: HashMap::new(),
            text: String::with_capacity(4096),
        }
    }

    /// Returns the known killers; `None` before the first answer.
    #[must_use]
    pub(crate) fn killers(&self) -> Option<&Killers> {
        self.killers.as_ref()
    }

    /// Records that a cgroup is watched from now on.
    pub(crate) fn added(&mut self, located: &CgroupPath) {
        self.mount.get_or_insert_with(|| Arc::clone(&located.mount));
        self.changed = true;
    }

    /// Queries the monitored cgroups, if that is due. Returns whether an answer differs from the
    /// previous one, if an answer has arrived.
    pub(crate) fn renew(&mut self, now: Duration, system: &mut impl System) -> Option<bool> {
        if self.is_asking {
            return self.take_answer(Duration::ZERO, system);
        }
        let interval = if self.changed { MIN_ASK_INTERVAL } else { ASK_INTERVAL };
        if self.asked_at.is_none_or(|at| now.saturating_sub(at) >= interval)
            && let Some(mount) = &self.mount
        {
            (self.asked_at, self.changed) = (Some(now), false);
            // Forgets levels not sampled within `ASK_INTERVAL`: those of removed cgroups.
            self.levels
                .retain(|_, level| level.sampled_at.is_some_and(|at| now.saturating_sub(at) < ASK_INTERVAL));
            // Without a thread the last answer counts, and the query is repeated.
            self.is_asking = system.ask_killers(mount);
        }
        None
    }

    /// Queries for the first time, and waits a little for the answer.
    pub(crate) fn ask_first(&mut self, now: Duration, system: &mut impl System) -> Option<bool> {
        self.renew(now, system);
        self.is_asking.then(|| self.take_answer(FIRST_ANSWER_TIMEOUT, system)).flatten()
    }

    fn take_answer(&mut self, timeout: Duration, system: &mut impl System) -> Option<bool> {
        match system.killers(timeout) {
            Answer::Pending => None,
            Answer::Lost => {
                self.is_asking = false;
                None
            }
            Answer::Known(killers) => {
                self.is_asking = false;
                Some(self.learn(killers))
            }
        }
    }

    fn learn(&mut self, killers: Killers) -> bool {
        let is_news = self.killers.as_ref() != Some(&killers);
        if is_news {
            self.levels.retain(|_, level| level.policy.holds_until().is_some());
            self.killers = Some(killers);
        }
        is_news
    }

    /// Returns whether reclaim from a cgroup is held back by the pressure of a level above, its
    /// own, or a monitored one below. Samples each level at most once a second.
    pub(crate) fn verdict(
        &mut self,
        now: Duration,
        located: &CgroupPath,
        system: &mut impl System,
    ) -> AboveVerdict {
        let mut verdict = AboveVerdict::default();
        let Some(killers) = self.killers.take() else {
            // Before the first answer every level above may be monitored.
            self.sample_all(now, located, &[], &mut verdict, system);
            return verdict;
        };
        for monitored in killers.pressure_monitors(&located.path) {
            self.sample(now, &monitored.dir, Limit::Known(monitored.limit), located, &mut verdict, system);
        }
        if killers.unknown.is_some() {
            verdict.is_blind = true;
            self.sample_all(now, located, &killers.by_pressure, &mut verdict, system);
        } else if !killers.by_pressure.iter().any(|monitored| monitored.dir == located.mount.point) {
            self.sample(now, &located.mount.point, Limit::Host, located, &mut verdict, system);
        }
        self.killers = Some(killers);
        verdict
    }

    /// Samples all levels above the cgroup, and the cgroup itself, except levels whose limits are
    /// known.
    fn sample_all(
        &mut self,
        now: Duration,
        located: &CgroupPath,
        known: &[Monitored],
        verdict: &mut AboveVerdict,
        system: &mut impl System,
    ) {
        for dir in located.path.ancestors().take_while(|dir| dir.starts_with(&located.mount.point)) {
            if known.iter().all(|monitored| monitored.dir != dir) {
                self.sample(now, dir, Limit::Unknown, located, verdict, system);
            }
        }
    }

    fn sample(
        &mut self,
        now: Duration,
        dir: &Path,
        limit: Limit,
        located: &CgroupPath,
        verdict: &mut AboveVerdict,
        system: &mut impl System,
    ) {
        if !self.levels.contains_key(dir) {
            let policy = AbovePolicy::new(limit);
            let file = pressure::file(dir, &located.mount.point);
            self.levels.insert(dir.into(), Level { file, limit, policy, avg10: None, sampled_at: None });
        }
        let Some(level) = self.levels.get_mut(dir) else { return };
        if level.limit != limit {
            level.limit = limit;
            level.policy.adopt(limit);
        }
        if level.sampled_at.is_none_or(|at| now.saturating_sub(at) >= SAMPLE_INTERVAL) {
            level.sampled_at = Some(now);
            level.avg10 = system.full_avg10(&level.file, &mut self.text);
            // Where PSI is off killers see no pressure either: a hold is released in its time.
            level.policy.sample(now, level.avg10.unwrap_or(0));
        }
        verdict.is_blind |= level.avg10.is_none();
        if let Some(until) = level.policy.holds_until()
            && verdict.held.is_none_or(|(_, later)| until > later)
        {
            verdict.held = Some((level.avg10.unwrap_or(0), until));
        }
    }
}

impl Default for KillerWatch {
    fn default() -> Self {
        Self::new()
    }
}
