//! The rule for a cgroup, and the errors of rules that are invalid or can't be applied.

use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;

use crate::cgroup::error::{CgroupError, MORE_FILES, error_text};
use crate::cgroup::limit::LimitFile;
use crate::kind::Kind;
use crate::reclaim::Refusal;
use crate::size::{Amount, Percent};
use crate::watch::policy::guard::Bounds;
use crate::watch::policy::headroom::Headroom;
use crate::watch::policy::reuse::DEFAULT_REUSE;

/// Settings for a cgroup, as the user gives them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RuleSpec {
    /// Memory to keep free below the limit.
    pub headroom: Option<Amount>,
    /// A limit set by the user, bytes.
    pub keep: Option<u64>,
    /// Target share of the time for which `--pressure` stalls the cgroup.
    pub pressure: Option<Percent>,
    /// Time within which memory in use is touched, for `pressure`; a minute by default.
    pub reuse: Option<Duration>,
    /// Minimum usage, bytes.
    pub floor: u64,
    /// Share of the host's swap that must be free for anonymous memory to be reclaimed; a quarter
    /// by default.
    pub swap_free: Option<Percent>,
    /// Maximum share of the time for which the cgroup may be stalled.
    pub max_pressure: Option<Percent>,
    /// Kind of memory to reclaim.
    pub kind: Option<Kind>,
    /// True if the limits of ancestors count as well.
    pub ancestors: bool,
    /// True to ignore the locks of other memctl processes.
    pub no_lock: bool,
}

/// Shortest reuse time: presses are further apart than that, and nothing would come back meanwhile.
const MIN_REUSE: Duration = Duration::from_secs(1);

/// Error of a rule that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRule {
    /// The rule sets neither headroom, nor a limit to keep, nor a pressure.
    #[error("the rule sets none of headroom, keep, pressure and leave-alone")]
    NothingToDo,
    /// The headroom is all of the limit.
    #[error("the headroom must be less than the limit")]
    NothingLeft,
    /// Ancestors are set without headroom, for which alone their limits count.
    #[error("ancestors requires headroom")]
    NoHeadroom,
    /// A reuse time is set without pressure, for which alone it counts.
    #[error("reuse requires pressure")]
    NoPressure,
    /// A reuse time is shorter than a second.
    #[error("reuse must be at least 1s")]
    ShortReuse,
}

impl RuleSpec {
    /// Converts the settings to a rule.
    ///
    /// # Errors
    /// [`InvalidRule`].
    pub fn rule(self) -> Result<Rule, InvalidRule> {
        let headroom = match self.headroom {
            Some(Amount::Bytes(bytes)) => Headroom::Bytes(bytes),
            Some(Amount::Share(share)) if share.ratio() < 1.0 => Headroom::Share(share.ratio()),
            Some(Amount::Share(_) | Amount::Max) => return Err(InvalidRule::NothingLeft),
            None if self.keep.is_none() && self.pressure.is_none() => return Err(InvalidRule::NothingToDo),
            None if self.ancestors => return Err(InvalidRule::NoHeadroom),
            None => Headroom::Bytes(0),
        };
        if self.reuse.is_some() && self.pressure.is_none() {
            return Err(InvalidRule::NoPressure);
        }
        if self.reuse.is_some_and(|reuse| reuse < MIN_REUSE) {
            return Err(InvalidRule::ShortReuse);
        }
        Ok(Rule {
            name: None,
            headroom,
            pressure: self.pressure.map(Percent::ratio),
            reuse: self.reuse.unwrap_or(DEFAULT_REUSE),
            keep: self.keep,
            ancestors: self.ancestors,
            lock: !self.no_lock,
            bounds: Bounds {
                floor: self.floor,
                swap_free: self.swap_free.unwrap_or(Percent::QUARTER),
                max_pressure: self.max_pressure,
                kind: self.kind,
            },
        })
    }
}

/// Rule for a cgroup.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Name of the rule, where there are several.
    pub name: Option<Rc<str>>,
    /// Memory to keep free below the limit.
    pub headroom: Headroom,
    /// Target share of stall; `None` where nothing is reclaimed beyond the headroom.
    pub pressure: Option<f64>,
    /// Time within which memory in use is touched.
    pub reuse: Duration,
    /// A limit set by the user, bytes. The lower of it and of the cgroup's own counts.
    pub keep: Option<u64>,
    /// True if the limits of ancestors count as well.
    pub ancestors: bool,
    /// True to wait while another memctl is reclaiming from the cgroup.
    pub lock: bool,
    /// Bounds on every action.
    pub bounds: Bounds,
}

impl Rule {
    /// Returns whether memory is kept free below a limit: with `--pressure` alone a limit may be
    /// met.
    #[must_use]
    pub(crate) fn keeps_free(&self) -> bool {
        self.pressure.is_none() || self.keep.is_some() || self.headroom.below(u64::MAX) > 0
    }
}

/// Returns the maximum bytes per second written to the host's swap, as `given` (`Some(None)` for no
/// limit). With `--pressure` (`has_pressure`) there is a low default, so that an SSD lasts.
#[must_use]
pub fn swap_writes(given: Option<Option<u64>>, has_pressure: bool) -> Option<u64> {
    const DEFAULT_LIMIT: u64 = 1 << 20;
    given.unwrap_or(has_pressure.then_some(DEFAULT_LIMIT))
}

/// Reason for which a cgroup can't be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The kernel's error.
    #[error("{}", error_text(&(*.0).into()))]
    Errno(#[from] Errno),
    /// Memory can't be reclaimed from the cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// This kind of memory can't be reclaimed from the cgroup.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The cgroup is the root of the hierarchy, which has neither usage nor limit.
    #[error("the root cgroup has neither memory.current nor a limit")]
    Root,
    /// The cgroup has no limit below which memory could be kept free.
    #[error("no limit: memory.high and memory.max are both max")]
    NoLimit,
    /// Neither the cgroup nor any of its ancestors has a limit.
    #[error("no limit here or above: memory.high and memory.max are all max")]
    NoLimitAbove,
    /// The headroom is all of the limit, in bytes.
    #[error("the headroom must be less than the limit of {0} bytes")]
    NoRoom(u64),
    /// The limit is 0: that in a file, or `--keep`.
    #[error("{} is 0, and nothing can be kept free below that", .0.map_or("keep", LimitFile::name))]
    ZeroLimit(Option<LimitFile>),
}

impl WatchError {
    /// Returns advice to the user.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Errno(Errno::MFILE) => MORE_FILES,
            Self::Errno(_) => return None,
            Self::Cgroup(why) => return why.hint(),
            Self::Refused(why) => why.hint()?,
            Self::Root => "name cgroups below the root: memctl watch '*.slice' …",
            Self::NoLimit | Self::NoLimitAbove => {
                "set a limit for memctl to keep, without OOM kills: --keep SIZE"
            }
            Self::NoRoom(_) => "set a headroom below the limit",
            Self::ZeroLimit(Some(_)) => "raise the limit, or write max to the file",
            Self::ZeroLimit(None) => "keep a size above 0",
        };
        Some(hint.to_owned())
    }
}
