//! What wakes the control loop before something is due: limits that are met, stalls, and workers that come back.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, EventFlags};
use rustix::time::Timespec;

/// Of something that several share, once is enough.
const EACH_TIME: EventFlags = EventFlags::PRI.union(EventFlags::ET);
const ONCE: EventFlags = EACH_TIME.union(EventFlags::ONESHOT);

/// How many are told of at a time.
const AT_ONCE: usize = 64;

/// An epoll, and what isn't heard of for now.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
    hushed: Vec<(Duration, u64)>,
}

impl Poller {
    /// With `room` for so many that are hushed at the same time.
    ///
    /// # Errors
    /// The system's, if there can't be an epoll.
    pub fn new(room: usize) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, hushed: Vec::with_capacity(room) })
    }

    /// Wakes up as long as there is something to be read.
    ///
    /// # Errors
    /// The system's.
    pub fn while_readable(&self, what: BorrowedFd<'_>, id: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, what, epoll::EventData::new_u64(id), EventFlags::IN)?)
    }

    /// Wakes up each time that something has news of high priority. Without it that is noticed at the next look.
    pub fn each_time(&self, what: BorrowedFd<'_>, id: u64) {
        let _ = epoll::add(&self.epoll, what, epoll::EventData::new_u64(id), EACH_TIME);
    }

    /// The same, but then not again until [`Poller::hear_again`].
    pub fn once(&self, what: BorrowedFd<'_>, id: u64) {
        let _ = epoll::add(&self.epoll, what, epoll::EventData::new_u64(id), ONCE);
    }

    /// What was heard of once isn't before that time.
    pub fn hush(&mut self, id: u64, until: Duration) {
        if self.hushed.iter().all(|(_, hushed)| *hushed != id) {
            self.hushed.push((until, id));
        }
    }

    /// From now on what was hushed long enough is heard of, and at once if it happened meanwhile. `find` passes on the
    /// descriptor that goes with an id; whatever is gone isn't heard of any more.
    pub fn hear_again(&mut self, now: Duration, find: impl Fn(u64, &dyn Fn(BorrowedFd<'_>))) {
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

    /// When something is to be heard of again.
    pub fn dues(&self) -> impl Iterator<Item = Duration> {
        self.hushed.iter().map(|(until, _)| *until)
    }

    /// Waits for so long, and gives the ids of what woke it. A signal ends it early.
    pub fn wait(&self, timeout: &Timespec) -> impl Iterator<Item = u64> + use<> {
        let nothing = epoll::Event { flags: EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut heard = [nothing; AT_ONCE];
        let count = epoll::wait(&self.epoll, &mut heard, Some(timeout)).unwrap_or(0);
        heard.into_iter().take(count).map(|event| event.data.u64())
    }
}
