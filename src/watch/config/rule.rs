//! What is wanted for a cgroup, and why it can't be had.

use std::rc::Rc;

use rustix::io::Errno;

use crate::kind::Kind;
use crate::size::{Amount, Percent};
use crate::watch::policy::guard::Bounds;
use crate::watch::policy::headroom::Headroom;

/// What is wanted for a cgroup, as a user gives it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RuleSpec {
    /// What is to be free below the limit.
    pub headroom: Option<Amount>,
    /// A limit of the user's own, bytes.
    pub keep: Option<u64>,
    /// The share of the time in which it is to be stalled.
    pub pressure: Option<Percent>,
    /// Usage that is never undercut, bytes.
    pub floor: u64,
    /// The share of the host's swap that must be free for anonymous memory to be taken; a quarter by default.
    pub swap_free: Option<Percent>,
    /// The share of the time in which the cgroup may be stalled.
    pub max_pressure: Option<Percent>,
    /// Which memory may be taken.
    pub kind: Option<Kind>,
    /// Whether the limits of ancestors count as well.
    pub ancestors: bool,
    /// Whether not to ask if another memctl is at it.
    pub no_lock: bool,
}

/// Why what is wanted makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRule {
    /// Neither headroom, nor a limit to keep, nor a pressure.
    #[error("the rule sets none of headroom, keep, pressure and leave-alone")]
    NothingToDo,
    /// All of the limit is to be free.
    #[error("the headroom must be less than the limit")]
    NothingLeft,
    /// Limits above count for the headroom only.
    #[error("ancestors requires headroom")]
    NoHeadroom,
}

impl RuleSpec {
    /// The rule that this makes.
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
        Ok(Rule {
            name: None,
            headroom,
            pressure: self.pressure.map(Percent::ratio),
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

/// What is wanted for a cgroup.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// What it is called, where there are several.
    pub name: Option<Rc<str>>,
    /// What is to be free below the limit.
    pub headroom: Headroom,
    /// The share of the time in which it is to be stalled; `None` where nothing is pressed out beyond what is to be free.
    pub pressure: Option<f64>,
    /// A limit of the user's own, bytes. The lower of it and of the cgroup's counts.
    pub keep: Option<u64>,
    /// Whether the limits of ancestors count as well.
    pub ancestors: bool,
    /// Whether to keep off a cgroup while another memctl is at it.
    pub lock: bool,
    /// What must not happen.
    pub bounds: Bounds,
}

impl Rule {
    /// Whether something is to be free below a limit: whoever only presses doesn't mind that one is met.
    #[must_use]
    pub fn keeps_free(&self) -> bool {
        self.pressure.is_none() || self.keep.is_some() || self.headroom.below(u64::MAX) > 0
    }
}

/// How much may go to the host's swap in a second, bytes, if that much was given (`None` within for as much as there is).
/// Whoever `presses` goes gently by default: an SSD is to last.
#[must_use]
pub fn swap_writes(given: Option<Option<u64>>, presses: bool) -> Option<u64> {
    const GENTLE: u64 = 1 << 20;
    given.unwrap_or(presses.then_some(GENTLE))
}

/// Why a cgroup can't be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The kernel's reason.
    #[error(transparent)]
    Errno(#[from] Errno),
    /// The root of the hierarchy, which has neither usage nor limit.
    #[error("the root cgroup has neither memory.current nor a limit")]
    Root,
    /// It has no limit that anything could be kept free below.
    #[error("no limit: memory.high and memory.max are both max")]
    NoLimit,
    /// Nor has any of its ancestors.
    #[error("no limit here or above: memory.high and memory.max are all max")]
    NoLimitAbove,
    /// The headroom leaves nothing of the limit, in bytes.
    #[error("the headroom must be less than the limit of {0} bytes")]
    NoRoom(u64),
}

impl WatchError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Errno(_) => None,
            Self::Root => Some("name cgroups below the root: memctl watch '*.slice' …"),
            Self::NoLimit | Self::NoLimitAbove => {
                Some("set a limit for memctl to keep, without OOM kills: --keep SIZE")
            }
            Self::NoRoom(_) => Some("set a headroom below the limit"),
        }
    }
}
