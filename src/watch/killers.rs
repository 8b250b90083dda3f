//! What the guard [`above`](super::policy::above) knows of the host: who is monitored, and how the levels of the hierarchy stand.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::Duration;

use super::policy::above::{AbovePolicy, Limit};
use crate::cgroup::killers::{Killers, Monitored};
use crate::cgroup::{CgroupPath, Mount, pressure};

/// Interval between questions for what is monitored, which units and their settings change; and the least of it when other
/// cgroups are watched.
const ASK_INTERVAL: Duration = Duration::from_secs(60);
const MIN_ASK_INTERVAL: Duration = Duration::from_secs(10);

/// For how long the first answer is waited for before anything is done: without systemd it comes at once, and to press less
/// than could be for want of it helps nobody.
const FIRST_ANSWER: Duration = Duration::from_millis(250);

/// Least interval between two samples of a level: the kernel updates its averages every 2 s (`PSI_FREQ`,
/// kernel/sched/psi.c), and systemd-oomd reads them each second.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// The thread that asks needs room for a child process, and little more.
const STACK: usize = 256 << 10;

/// What stands against reclaim below some level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AboveVerdict {
    /// The pressure that holds it back, hundredths of a percent, and the earliest time of its release.
    pub held: Option<(u16, Duration)>,
    /// Whether some level, or who is monitored, can't be seen.
    pub is_blind: bool,
}

/// One level of the hierarchy.
#[derive(Debug)]
struct Level {
    /// Where its pressure is read.
    file: PathBuf,
    limit: Limit,
    policy: AbovePolicy,
    /// `None` if it could not be read.
    avg10: Option<u16>,
    sampled_at: Option<Duration>,
}

/// Who is monitored, and how the levels stand.
#[derive(Debug)]
pub struct KillerWatch {
    /// The hierarchy; `None` as long as nothing was watched.
    mount: Option<Arc<Mount>>,
    /// `None` until the first answer.
    killers: Option<Killers>,
    asked_at: Option<Duration>,
    /// Whether other cgroups are watched than when it was asked.
    changed: bool,
    answer: Option<Receiver<Killers>>,
    /// By directory: those that were sampled.
    levels: HashMap<PathBuf, Level>,
    text: String,
}

impl KillerWatch {
    /// Knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            mount: None,
            killers: None,
            asked_at: None,
            changed: false,
            answer: None,
            levels: HashMap::new(),
            text: String::with_capacity(4096),
        }
    }

    /// What is known of the killers; `None` until that was asked.
    #[must_use]
    pub fn killers(&self) -> Option<&Killers> {
        self.killers.as_ref()
    }

    /// A cgroup is watched from now on.
    pub fn added(&mut self, located: &CgroupPath) {
        self.mount.get_or_insert_with(|| Arc::clone(&located.mount));
        self.changed = true;
    }

    /// Has it asked who is monitored, by a thread of its own, if that is due. Returns whether an answer differs from the one
    /// before, if one has come.
    pub fn renew(&mut self, now: Duration) -> Option<bool> {
        if let Some(answer) = &self.answer {
            match answer.try_recv() {
                Ok(killers) => {
                    self.answer = None;
                    return Some(self.learn(killers));
                }
                Err(TryRecvError::Empty) => return None,
                Err(TryRecvError::Disconnected) => self.answer = None,
            }
        }
        let interval = if self.changed { MIN_ASK_INTERVAL } else { ASK_INTERVAL };
        if self.asked_at.is_none_or(|at| now.saturating_sub(at) >= interval)
            && let Some(mount) = self.mount.clone()
        {
            (self.asked_at, self.changed) = (Some(now), false);
            // Of cgroups that are gone.
            self.levels
                .retain(|_, level| level.sampled_at.is_some_and(|at| now.saturating_sub(at) < ASK_INTERVAL));
            let (sender, receiver) = sync_channel(1);
            let thread = std::thread::Builder::new().name("killers".into()).stack_size(STACK);
            // Without a thread what was known counts, and is asked for again.
            if thread.spawn(move || sender.send(Killers::ask(&mount))).is_ok() {
                self.answer = Some(receiver);
            }
        }
        None
    }

    /// Asks for the first time, and waits a little for the answer.
    pub fn ask_first(&mut self, now: Duration) -> Option<bool> {
        self.renew(now);
        let killers = self.answer.as_ref()?.recv_timeout(FIRST_ANSWER).ok()?;
        self.answer = None;
        Some(self.learn(killers))
    }

    fn learn(&mut self, killers: Killers) -> bool {
        let is_news = self.killers.as_ref() != Some(&killers);
        if is_news {
            self.levels.retain(|_, level| level.policy.holds_until().is_some());
            self.killers = Some(killers);
        }
        is_news
    }

    /// Whether reclaim from that cgroup is held back by the pressure of a level above, its own, or one below that is
    /// monitored. Samples each level at most once a second.
    pub fn verdict(&mut self, now: Duration, located: &CgroupPath) -> AboveVerdict {
        let mut verdict = AboveVerdict::default();
        let Some(killers) = self.killers.take() else {
            // As long as nobody answered, whatever is above may be monitored.
            self.sample_all(now, located, &[], &mut verdict);
            return verdict;
        };
        for monitored in killers.pressure_monitors(&located.path) {
            self.sample(now, &monitored.dir, Limit::Known(monitored.limit), located, &mut verdict);
        }
        if killers.unknown.is_some() {
            verdict.is_blind = true;
            self.sample_all(now, located, &killers.by_pressure, &mut verdict);
        } else if !killers.by_pressure.iter().any(|monitored| monitored.dir == located.mount.point) {
            self.sample(now, &located.mount.point, Limit::Host, located, &mut verdict);
        }
        self.killers = Some(killers);
        verdict
    }

    /// Samples whatever is above the cgroup, and itself, but for levels whose limits are known.
    fn sample_all(
        &mut self,
        now: Duration,
        located: &CgroupPath,
        known: &[Monitored],
        verdict: &mut AboveVerdict,
    ) {
        for dir in located.path.ancestors().take_while(|dir| dir.starts_with(&located.mount.point)) {
            if known.iter().all(|monitored| monitored.dir != dir) {
                self.sample(now, dir, Limit::Unknown, located, verdict);
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
            level.avg10 = pressure::full_avg10(&level.file, &mut self.text);
            // Where PSI is off a killer sees nothing either: what held is released in its time.
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
