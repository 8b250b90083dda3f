//! What a watch is to do, and who hears of it.

use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::action::Alarm;
use super::config::rule::Rule;
use super::event::{Event, MemberView};
use super::level::Ancestors;
use super::notes::Note;
use crate::cgroup::CgroupPath;
use crate::cgroup::join::Joined;

/// Who sees how all of them stand.
pub type Show<'a> = dyn FnMut(&mut dyn Iterator<Item = MemberView<'_>>) + 'a;

/// A cgroup to be watched, and what is wanted for it.
#[derive(Clone, Debug)]
pub struct RuledCgroup {
    /// Where it is.
    pub located: Arc<CgroupPath>,
    /// What is wanted.
    pub rule: Rc<Rule>,
}

/// Finds which cgroups there are now: asked again and again, since they come and go. It is told whether one was lost since
/// it was asked last, and which ids are known already.
pub type Select<'a> = dyn FnMut(bool, &dyn Fn(u64) -> bool) -> Vec<RuledCgroup> + 'a;

/// What is to be done from now on instead.
#[derive(Debug)]
pub struct Reload {
    /// All cgroups that there are to be watched.
    pub all: Vec<RuledCgroup>,
    /// See [`WatchOptions`].
    pub cpu: Option<f64>,
    /// See [`WatchOptions`].
    pub swap_writes: Option<u64>,
}

/// What a watch is to do.
#[allow(clippy::struct_excessive_bools)] // Each is a choice of its own.
pub struct WatchOptions<'a> {
    /// How much may go to the host's swap in a second, bytes; `None` for as much as there is.
    pub swap_writes: Option<u64>,
    /// How many writes may be under way at the same time.
    pub workers: usize,
    /// End after that time.
    pub duration: Option<Duration>,
    /// The share of a CPU that may be spent, the kernel's work included.
    pub cpu: Option<f64>,
    /// Decide and tell, but never write.
    pub dry_run: bool,
    /// Whether to tell of each action, too.
    pub each_action: bool,
    /// Whether to tell every few seconds how each cgroup stands.
    pub samples: bool,
    /// The cgroup that pays, until nobody else is left in it.
    pub joined: Option<Joined>,
    /// What is above the members, if that counts.
    pub ancestors: Ancestors,
    /// Whether to end.
    pub stop: &'a dyn Fn() -> bool,
    /// Interrupts the system call that a thread is in.
    pub nudge: fn(&JoinHandle<()>),
    /// Interrupts the calling thread's own system call after a while.
    pub alarm: Alarm,
    /// Whether more cgroups may come; else only those that went are looked for.
    pub follows: bool,
    /// Finds those that appeared.
    pub select: &'a mut Select<'a>,
    /// Says what is to be done instead from now on, if that changed: asked again and again, and soon after a signal.
    pub reload: &'a mut dyn FnMut() -> Option<Reload>,
    /// Sees how all of them stand, so often.
    pub show: Option<(Duration, &'a mut Show<'a>)>,
    /// Hears of what isn't of one cgroup.
    pub note: &'a mut dyn FnMut(&Note),
    /// Hears of everything.
    pub tell: &'a mut dyn FnMut(Event<'_>),
}
