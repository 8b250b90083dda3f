//! Settings and callbacks of a watch.

use crate::reclaim::Alarm;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::config::rule::Rule;
use super::event::{Event, MemberView};
use super::meter::Meter;
use super::notes::Note;
use crate::cgroup::CgroupPath;
use crate::cgroup::join::Joined;

/// Callback that displays the state of all members.
pub(crate) type Show<'a> = dyn FnMut(&mut dyn Iterator<Item = MemberView<'_>>) + 'a;

/// Callback for each turn of the loop, with a function that counts the watched cgroups. Returns the
/// maximum time until the next turn.
pub(crate) type Turned<'a> = dyn FnMut(&dyn Fn() -> usize) -> Duration + 'a;

/// A cgroup to watch, and its rule.
#[derive(Clone, Debug)]
pub struct RuledCgroup {
    /// Path of the cgroup.
    pub located: Arc<CgroupPath>,
    /// Rule for the cgroup.
    pub rule: Rc<Rule>,
}

/// Callback that finds the current cgroups, called repeatedly, since they come and go. Arguments:
/// whether a cgroup was lost since the last call, and a predicate for ids that are known already.
pub(crate) type Select<'a> = dyn FnMut(bool, &dyn Fn(u64) -> bool) -> Vec<RuledCgroup> + 'a;

/// New settings of a running watch.
#[derive(Debug)]
pub struct Reload {
    /// All cgroups to watch.
    pub all: Vec<RuledCgroup>,
    /// See [`WatchOptions`].
    pub cpu: Option<f64>,
    /// See [`WatchOptions`].
    pub swap_writes: Option<u64>,
    /// See [`WatchOptions`].
    pub rules: Vec<Rc<str>>,
}

/// Settings and callbacks of a watch.
#[allow(clippy::struct_excessive_bools)] // Each is a choice of its own.
pub struct WatchOptions<'a> {
    /// Maximum bytes per second written to the host's swap; `None` for no limit.
    pub swap_writes: Option<u64>,
    /// Maximum number of concurrent writes.
    pub workers: usize,
    /// Duration of the watch; `None` for no end.
    pub duration: Option<Duration>,
    /// Share of a CPU that may be used, including the kernel's work.
    pub cpu: Option<f64>,
    /// True to decide and report, but never write.
    pub dry_run: bool,
    /// True to emit each action, too.
    pub each_action: bool,
    /// True to emit a usage sample of each cgroup every few seconds.
    pub samples: bool,
    /// Names of all rules, for `meter`, which gets nothing of others; none on the command line.
    pub rules: Vec<Rc<str>>,
    /// Cgroup that is charged for memctl, until no other process is left in it.
    pub joined: Option<Joined>,
    /// Returns true once the watch must end.
    pub stop: &'a dyn Fn() -> bool,
    /// Interrupts the system call of another thread.
    pub nudge: fn(&JoinHandle<()>),
    /// Interrupts the calling thread's own system call after a time.
    pub alarm: Alarm,
    /// Descriptor that becomes readable when a signal arrives that the callbacks are to notice.
    pub signals: Option<BorrowedFd<'static>>,
    /// True if new cgroups may be added; otherwise only lost ones are searched for.
    pub follows: bool,
    /// Finds new cgroups, where there can be some.
    pub select: Option<&'a mut Select<'a>>,
    /// Returns new settings, if they changed: called repeatedly, and soon after a signal.
    pub reload: Option<&'a mut dyn FnMut() -> Option<Reload>>,
    /// Called in each turn of the loop, after new settings are in force.
    pub turned: Option<&'a mut Turned<'a>>,
    /// Displays the state of all members, at this interval.
    pub show: Option<(Duration, &'a mut Show<'a>)>,
    /// Receives figures for monitoring, which needs `samples`.
    pub meter: Option<&'a dyn Meter>,
    /// Receives notes that aren't about a single cgroup.
    pub note: Option<&'a mut dyn FnMut(&Note)>,
    /// Receives all events.
    pub emit: &'a mut dyn FnMut(Event<'_>),
}

impl<'a> WatchOptions<'a> {
    /// Makes the options of a watch of cgroups that stay the same: without an end of its own,
    /// without limits on CPU time and swap, and without signals. `stop` ends it.
    pub fn new(stop: &'a dyn Fn() -> bool, emit: &'a mut dyn FnMut(Event<'_>)) -> Self {
        Self {
            swap_writes: None,
            workers: 4,
            duration: None,
            cpu: None,
            dry_run: false,
            each_action: false,
            samples: false,
            rules: Vec::new(),
            joined: None,
            stop,
            nudge: |_| {},
            alarm: |_| {},
            signals: None,
            follows: false,
            select: None,
            reload: None,
            turned: None,
            show: None,
            meter: None,
            note: None,
            emit,
        }
    }
}
