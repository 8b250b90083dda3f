//! Cgroups that were found and can't be watched for now.

use std::collections::HashMap;
use std::time::Duration;

use rustix::io::Errno;

use super::policy::backoff::Doubling;
use crate::host::files::is_shortage;

/// Delays before a cgroup that can't be watched is tried again, and maximum number of those that
/// are remembered.
const FIRST_RETRY: Duration = Duration::from_secs(2);
const LAST_RETRY: Duration = Duration::from_secs(60);
const MAX_REJECTED: usize = 10_000;

/// Cgroups that can't be watched for now, by id.
#[derive(Debug, Default)]
pub(crate) struct Rejected {
    each: HashMap<u64, (Duration, Doubling)>,
    /// True if some were rejected for lack of descriptors or memory.
    is_short: bool,
    /// Last error in a note.
    noted: Option<Errno>,
}

impl Rejected {
    /// Returns whether a cgroup isn't to be tried yet.
    pub(crate) fn is_waiting(&self, id: u64, now: Duration) -> bool {
        self.each.get(&id).is_some_and(|&(until, _)| now < until)
    }

    /// Records that a cgroup can't be watched.
    pub(crate) fn add(&mut self, id: u64, now: Duration) {
        if self.each.len() >= MAX_REJECTED {
            self.each.retain(|_, (until, _)| *until > now);
        }
        let entry = self.each.entry(id).or_insert((now, Doubling::default()));
        entry.0 = now + entry.1.next(FIRST_RETRY, LAST_RETRY);
    }

    /// Records that the next attempt is due for all, where descriptors or memory were short.
    pub(crate) fn freed(&mut self) {
        if std::mem::take(&mut self.is_short) {
            self.each.clear();
        }
    }

    /// Records that a cgroup can be watched.
    pub(crate) fn remove(&mut self, id: u64) {
        self.each.remove(&id);
    }

    /// Records an error that isn't about a cgroup. Returns whether it differs from the last one.
    pub(crate) fn failed(&mut self, errno: Errno) -> bool {
        self.is_short |= is_shortage(errno);
        self.noted.replace(errno) != Some(errno)
    }
}
