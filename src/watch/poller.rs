//! The poller: wakes the control loop before something is due, on limit events, stalls and finished
//! workers.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, EventFlags};

use crate::clock::timespec;

/// Files that several members share are reported once.
const EACH_TIME: EventFlags = EventFlags::PRI.union(EventFlags::ET);
const ONCE: EventFlags = EACH_TIME.union(EventFlags::ONESHOT);

/// Maximum number of events per wait.
const MAX_EVENTS: usize = 64;

/// An epoll.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    /// Creates a poller.
    ///
    /// # Errors
    /// The system's error, if an epoll can't be created.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }

    /// Adds a descriptor that wakes the loop as long as it is readable.
    ///
    /// # Errors
    /// The system's error.
    pub(crate) fn while_readable(&self, what: BorrowedFd<'_>, id: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, what, epoll::EventData::new_u64(id), EventFlags::IN)?)
    }

    /// Adds a descriptor that wakes the loop at each priority event. Should that fail, the next
    /// sample notices the event.
    pub(crate) fn each_time(&self, what: BorrowedFd<'_>, id: u64) {
        let _ = epoll::add(&self.epoll, what, epoll::EventData::new_u64(id), EACH_TIME);
    }

    /// Adds a descriptor like [`Poller::each_time`], but for one event, until [`Poller::rearm`].
    pub(crate) fn once(&self, what: BorrowedFd<'_>, id: u64) {
        let _ = epoll::add(&self.epoll, what, epoll::EventData::new_u64(id), ONCE);
    }

    /// Rearms a descriptor that was added with [`Poller::once`]; an event that arrived meanwhile is
    /// reported at once.
    pub(crate) fn rearm(&self, what: BorrowedFd<'_>, id: u64) {
        let _ = epoll::modify(&self.epoll, what, epoll::EventData::new_u64(id), ONCE);
    }

    /// Waits for at most `timeout`, and stores the ids of the events in `ready`. A signal ends the
    /// wait early.
    pub(crate) fn wait(&self, timeout: Duration, ready: &mut Vec<u64>) {
        let nothing = epoll::Event { flags: EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut events = [nothing; MAX_EVENTS];
        let count = epoll::wait(&self.epoll, &mut events, Some(&timespec(timeout))).unwrap_or(0);
        ready.clear();
        ready.extend(events.iter().take(count).map(|event| event.data.u64()));
    }
}
