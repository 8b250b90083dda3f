//! What is wanted for a cgroup, and why it can't be had.

use rustix::io::Errno;

use super::guard::Bounds;
use super::headroom::Headroom;
use crate::cgroup::Gauge;
use crate::cgroup::limit::LimitFile;

/// What is wanted for a cgroup.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
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

/// Why a cgroup can't be watched.
#[derive(Debug, thiserror::Error)]
pub enum Unwatchable {
    /// The kernel's reason.
    #[error(transparent)]
    Errno(#[from] Errno),
    /// The root of the hierarchy, which has neither usage nor limit.
    #[error("the root cgroup has neither memory.current nor a limit")]
    Root,
    /// It has no limit that anything could be kept free below.
    #[error("it has no limit: memory.high and memory.max are both max")]
    NoLimit,
    /// Nor has any of its ancestors.
    #[error("neither it nor any cgroup above it has a limit: memory.high and memory.max are all max")]
    NoLimitAbove,
    /// The headroom leaves nothing of the limit, in bytes.
    #[error("the headroom leaves nothing of its limit of {0} bytes")]
    NoRoom(u64),
}

impl Unwatchable {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Errno(_) => None,
            Self::Root => Some("name cgroups below it: memctl watch '*.slice' …"),
            Self::NoLimit | Self::NoLimitAbove => {
                Some("--keep SIZE sets one that memctl keeps, and that kills nobody")
            }
            Self::NoRoom(_) => Some("keep less than the limit free"),
        }
    }
}

/// The size of the pages that the kernel's counters count.
pub(super) fn page() -> u64 {
    rustix::param::page_size() as u64
}

/// The limit that counts, and which file sets it.
pub(super) fn limit(
    gauge: &Gauge,
    keep: Option<u64>,
    text: &mut String,
) -> Result<Option<(u64, Option<LimitFile>)>, Errno> {
    let own = gauge.limit(text)?.map(|(limit, file)| (limit, Some(file)));
    let keep = keep.map(|keep| (keep, None));
    Ok([own, keep].into_iter().flatten().min_by_key(|(limit, _)| *limit))
}
