//! The poller: wakes the control loop before something is due, on limit events, stalls and finished
//! workers.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, EventFlags};
use rustix::time::Timespec;

/// Files that several members share are reported once.
const EACH_TIME: EventFlags = EventFlags::PRI.union(EventFlags::ET);
const ONCE: EventFlags = EACH_TIME.union(EventFlags::ONESHOT);

/// Maximum number of events per wait.
const AT_ONCE: usize = 64;

/// An epoll, and the ids that are muted for now.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: OwnedFd,
    hushed: Vec<(Duration, u64)>,
}

impl Poller {
    /// Creates a poller with `room` for that many muted ids.
    ///
    /// # Errors
    /// The system's error, if an epoll can't be created.
    pub(crate) fn new(room: usize) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, hushed: Vec::with_capacity(room) })
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

    /// Adds a descriptor like [`Poller::each_time`], but for one event, until
    /// [`Poller::hear_again`].
    pub(crate) fn once(&self, what: BorrowedFd<'_>, id: u64) {
        let _ = epoll::add(&self.epoll, what, epoll::EventData::new_u64(id), ONCE);
    }

    /// Mutes a descriptor that was reported until a time.
    pub(crate) fn hush(&mut self, id: u64, until: Duration) {
        if self.hushed.iter().all(|(_, hushed)| *hushed != id) {
            self.hushed.push((until, id));
        }
    }

    /// Rearms descriptors whose mute time is over; events from that time are reported at once.
    /// `find` passes on the descriptor of an id; descriptors that are gone are dropped.
    pub(crate) fn hear_again(&mut self, now: Duration, find: impl Fn(u64, &dyn Fn(BorrowedFd<'_>))) {
        let epoll = &self.epoll;
        self.hushed.retain(|&(until, id)| {
            if until > now {
                return true;
            }
            find(id, &|what| {
                let _ = epoll::modify(epoll, what, epoll::EventData::new_u64(id), ONCE);
            });
            false
        });
    }

    /// Returns the times at which muted descriptors are rearmed.
    pub(crate) fn dues(&self) -> impl Iterator<Item = Duration> {
        self.hushed.iter().map(|(until, _)| *until)
    }

    /// Waits for at most `timeout`, and returns the ids of the events. A signal ends the wait
    /// early.
    pub(crate) fn wait(&self, timeout: &Timespec) -> impl Iterator<Item = u64> + use<> {
        let nothing = epoll::Event { flags: EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut heard = [nothing; AT_ONCE];
        let count = epoll::wait(&self.epoll, &mut heard, Some(timeout)).unwrap_or(0);
        heard.into_iter().take(count).map(|event| event.data.u64())
    }
}
