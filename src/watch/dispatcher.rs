//! Dispatcher of actions to workers: fair between owners, and never stuck behind one whose writes
//! hang. A pure structure of times.
//!
//! Actions come in slices, and owners take turns, so that one owner's hundred cgroups delay
//! another's by a slice. A write can hang for seconds, in the kernel or on a slow swap device. An
//! owner with such a write doesn't get the last worker as long as others may need it; and when all
//! workers hang, further ones are used, up to a bound.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::action::{LONGEST, SLICE};
use super::policy::guard::Allowed;
use crate::cgroup::CgroupPath;

/// Duration from which a job is taken to hang: two slices more than one that pauses takes.
const HANG_TIME: Duration = LONGEST.saturating_add(SLICE.saturating_mul(2));

/// Time for which an owner with a hanging write waits, before it gets a worker that others may
/// need.
const PENALTY: Duration = Duration::from_secs(1);

/// Maximum number of empty queues whose memory is kept.
const MAX_SPARE: usize = 8;

/// A member that waits for a worker.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    /// Slot of the member.
    pub slot: usize,
    /// Cgroup id of the member.
    pub id: u64,
    /// Path of the cgroup.
    pub located: Arc<CgroupPath>,
    /// Time since which it waits.
    pub queued_at: Duration,
    /// Reclaim that was decided then.
    pub allowed: Allowed,
}

#[derive(Debug)]
struct Queue {
    owner: u64,
    waiting: VecDeque<Ticket>,
}

#[derive(Debug)]
struct Running {
    slot: usize,
    id: u64,
    owner: u64,
    located: Arc<CgroupPath>,
    since: Duration,
}

/// Members that wait for workers, and jobs in progress.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    workers: usize,
    max_workers: usize,
    /// Queues that aren't empty, the next owner first.
    queues: VecDeque<Queue>,
    /// Memory of queues that became empty: an action allocates nothing.
    spare: Vec<VecDeque<Ticket>>,
    running: Vec<Running>,
}

impl Dispatcher {
    /// Creates a dispatcher for this number of workers, and for up to `max_workers` when all hang.
    #[must_use]
    pub(crate) fn new(workers: usize, max_workers: usize) -> Self {
        Self {
            workers,
            max_workers: max_workers.max(workers),
            queues: VecDeque::new(),
            spare: Vec::with_capacity(MAX_SPARE),
            running: Vec::with_capacity(max_workers.max(workers)),
        }
    }

    /// Puts a member at the end of its owner's queue.
    pub(crate) fn push(&mut self, owner: u64, ticket: Ticket) {
        if let Some(queue) = self.queues.iter_mut().find(|queue| queue.owner == owner) {
            return queue.waiting.push_back(ticket);
        }
        let mut waiting = self.spare.pop().unwrap_or_default();
        waiting.push_back(ticket);
        self.queues.push_back(Queue { owner, waiting });
    }

    /// Removes and returns the member that is next, if there is a worker for it. Its owner's turn
    /// is over then.
    pub(crate) fn pop(&mut self, now: Duration) -> Option<(u64, Ticket)> {
        for turn in 0..self.queues.len() {
            let found = self.queues[turn]
                .waiting
                .iter()
                .position(|ticket| self.has_worker(now, self.queues[turn].owner, ticket));
            let Some(position) = found else { continue };
            return self.take(turn, position);
        }
        None
    }

    /// Removes and returns the member that is first, whether there is a worker for it or not.
    pub(crate) fn pop_any(&mut self) -> Option<Ticket> {
        self.take(0, 0).map(|(_, ticket)| ticket)
    }

    /// Removes and returns a member of the queue whose turn that is, and ends its turn.
    fn take(&mut self, turn: usize, position: usize) -> Option<(u64, Ticket)> {
        let mut queue = self.queues.remove(turn)?;
        let ticket = queue.waiting.remove(position)?;
        let owner = queue.owner;
        if !queue.waiting.is_empty() {
            self.queues.push_back(queue);
        } else if self.spare.len() < MAX_SPARE {
            self.spare.push(queue.waiting);
        }
        Some((owner, ticket))
    }

    /// Returns the number of members that wait.
    #[must_use]
    pub(crate) fn waiting(&self) -> usize {
        self.queues.iter().map(|queue| queue.waiting.len()).sum()
    }

    /// Returns whether some member waits for which there is a worker.
    #[must_use]
    pub(crate) fn is_ready(&self, now: Duration) -> bool {
        let has_worker =
            |queue: &Queue| queue.waiting.iter().any(|one| self.has_worker(now, queue.owner, one));
        self.queues.iter().any(has_worker)
    }

    /// Returns whether there is a worker for a member.
    fn has_worker(&self, now: Duration, owner: u64, ticket: &Ticket) -> bool {
        let in_use = self.running.len();
        let waits = now.saturating_sub(ticket.queued_at) < PENALTY;
        let owner_hangs = || self.running.iter().any(|job| job.owner == owner && job.hangs(now));
        if in_use < self.workers {
            let is_last = in_use + 1 == self.workers && self.workers > 1;
            return !(is_last && waits && owner_hangs());
        }
        let all_hang = in_use < self.max_workers && self.running.iter().all(|job| job.hangs(now));
        all_hang
            && !(waits && owner_hangs())
            // The kernel may hang in what these cgroups share.
            && self.running.iter().all(|job| !is_below_parent(&ticket.located, &job.located))
    }

    /// Records that a worker has a job for a member.
    pub(crate) fn started(&mut self, owner: u64, ticket: &Ticket, now: Duration) {
        let Ticket { slot, id, located, .. } = ticket;
        self.running.push(Running { slot: *slot, id: *id, owner, located: Arc::clone(located), since: now });
    }

    /// Records the end of a job.
    pub(crate) fn ended(&mut self, slot: usize, id: u64) {
        self.running.retain(|job| (job.slot, job.id) != (slot, id));
    }

    /// Removes a member that waits.
    pub(crate) fn remove(&mut self, slot: usize) {
        for queue in &mut self.queues {
            queue.waiting.retain(|ticket| ticket.slot != slot);
        }
        self.queues.retain(|queue| !queue.waiting.is_empty());
    }

    /// Returns whether some member has waited for a slice.
    #[must_use]
    pub(crate) fn is_overdue(&self, now: Duration) -> bool {
        let mut waiting = self.queues.iter().filter_map(|queue| queue.waiting.front());
        waiting.any(|ticket| now.saturating_sub(ticket.queued_at) >= SLICE)
    }

    /// Returns the next time at which a member that waits may get a worker although no job has
    /// ended, or is overdue.
    #[must_use]
    pub(crate) fn due(&self, now: Duration) -> Option<Duration> {
        let waiting = self.queues.iter().filter_map(|queue| queue.waiting.front());
        let penalties = waiting.flat_map(|ticket| [ticket.queued_at + SLICE, ticket.queued_at + PENALTY]);
        let hangs = self.running.iter().map(|job| job.since + HANG_TIME);
        let has_waiting = !self.queues.is_empty();
        has_waiting.then(|| penalties.chain(hangs).filter(|&due| due > now).min()).flatten()
    }

    /// Returns the age of the oldest job in progress.
    #[must_use]
    pub(crate) fn oldest(&self, now: Duration) -> Option<Duration> {
        self.running.iter().map(|job| now.saturating_sub(job.since)).max()
    }

    /// Returns the cgroup of a job, if some have waited for `time` and no job has ended meanwhile.
    #[must_use]
    pub(crate) fn blocked_for(&self, now: Duration, time: Duration) -> Option<&CgroupPath> {
        let is_old = |at: Duration| now.saturating_sub(at) >= time;
        let mut waits = self.queues.iter().filter_map(|queue| queue.waiting.front());
        let all_hang = self.running.len() >= self.workers && self.running.iter().all(|job| is_old(job.since));
        (all_hang && waits.any(|ticket| is_old(ticket.queued_at)))
            .then(|| self.running.first().map(|job| &*job.located))
            .flatten()
    }
}

impl Running {
    fn hangs(&self, now: Duration) -> bool {
        now.saturating_sub(self.since) >= HANG_TIME
    }
}

/// Returns whether a cgroup is below the parent of another one. The root of the hierarchy doesn't
/// count as a parent: everything is below it.
fn is_below_parent(located: &CgroupPath, other: &CgroupPath) -> bool {
    let parent = other.path.parent().unwrap_or(Path::new("/"));
    parent != other.mount.point && located.path.starts_with(parent)
}

/// Returns the key of a cgroup's owner: the user of its directory, and the top-level cgroup, since
/// root owns most of them.
#[must_use]
pub(crate) fn owner_key(uid: u32, name: &str) -> u64 {
    let top = name.split('/').find(|part| !part.is_empty()).unwrap_or_default();
    // FNV-1a: owners with the same key share a queue, which harms nobody.
    let bytes = uid.to_le_bytes().into_iter().chain(top.bytes());
    bytes
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Mount;
    use crate::kind::Kind;

    const NOW: Duration = Duration::from_secs(100);

    fn ticket(slot: usize, path: &str) -> Ticket {
        let mount = Mount {
            id: None,
            point: "/m".into(),
            root: "/".into(),
            read_only: false,
            local_events: false,
            top: "/".into(),
            inner: Vec::new(),
        };
        let path = format!("/m{path}");
        let located =
            CgroupPath { path: Path::new(&path).into(), name: "/".into(), mount: mount.into(), id: 1 };
        let allowed = Allowed { down_to: 0, most: u64::MAX, kind: Kind::All, spared_by: None, waits: false };
        Ticket { slot, id: slot as u64, located: located.into(), queued_at: NOW, allowed }
    }

    /// Returns the slots that get a worker at a time.
    fn started(dispatcher: &mut Dispatcher, now: Duration) -> Vec<usize> {
        let mut slots = Vec::new();
        while let Some((owner, ticket)) = dispatcher.pop(now) {
            dispatcher.started(owner, &ticket, now);
            slots.push(ticket.slot);
        }
        slots
    }

    #[test]
    fn owners_take_turns() {
        let mut dispatcher = Dispatcher::new(1, 1);
        (0..5).for_each(|slot| dispatcher.push(7, ticket(slot, "/a")));
        dispatcher.push(8, ticket(10, "/b"));
        let mut order = Vec::new();
        for _ in 0..6 {
            order.extend(started(&mut dispatcher, NOW));
            order.last().into_iter().for_each(|&slot| dispatcher.ended(slot, slot as u64));
        }
        assert_eq!(order, [0, 10, 1, 2, 3, 4]);
        assert!(dispatcher.running.is_empty() && dispatcher.queues.is_empty());
    }

    #[test]
    fn an_owner_whose_writes_hang_leaves_a_worker_to_others() {
        let mut dispatcher = Dispatcher::new(4, 16);
        (0..9).for_each(|slot| dispatcher.push(7, ticket(slot, &format!("/a/{slot}"))));
        assert_eq!(started(&mut dispatcher, NOW), [0, 1, 2, 3], "nothing is known of hanging yet");
        let later = NOW + HANG_TIME;
        assert_eq!(started(&mut dispatcher, later), [0; 0]);
        dispatcher.push(8, Ticket { queued_at: later, ..ticket(20, "/b") });
        assert_eq!(started(&mut dispatcher, later), [20], "a further worker");
        dispatcher.ended(20, 20);
        dispatcher.ended(3, 3);
        assert_eq!(started(&mut dispatcher, later), [0; 0], "the last one is for others");
        dispatcher.push(8, Ticket { queued_at: later, ..ticket(21, "/b") });
        assert_eq!(started(&mut dispatcher, later), [21]);
        dispatcher.ended(21, 21);
        assert_eq!(started(&mut dispatcher, NOW + PENALTY), [4], "but not for ever");
    }

    #[test]
    fn further_workers_avoid_cgroups_that_hang() {
        let mut dispatcher = Dispatcher::new(1, 3);
        dispatcher.push(7, ticket(0, "/a/b/c"));
        assert_eq!(started(&mut dispatcher, NOW), [0]);
        let later = NOW + PENALTY + HANG_TIME;
        for (slot, path) in [(1, "/a/b/d"), (2, "/a/b/c/e"), (3, "/a/x"), (4, "/z")] {
            dispatcher.push(slot as u64, Ticket { queued_at: later, ..ticket(slot, path) });
        }
        assert_eq!(started(&mut dispatcher, later), [3]);
        assert_eq!(started(&mut dispatcher, later + HANG_TIME), [4], "no more than the bound");
        assert_eq!(started(&mut dispatcher, later + HANG_TIME * 9), [0; 0]);
    }

    #[test]
    fn a_blocked_dispatcher_is_reported() {
        let mut dispatcher = Dispatcher::new(1, 1);
        dispatcher.push(7, ticket(0, "/a"));
        dispatcher.push(7, ticket(1, "/b"));
        started(&mut dispatcher, NOW);
        let five = Duration::from_secs(5);
        assert!(!dispatcher.is_ready(NOW), "the only worker is in use");
        assert!(dispatcher.blocked_for(NOW + five / 2, five).is_none());
        assert!(dispatcher.blocked_for(NOW + five, five).is_some());
        assert_eq!(dispatcher.due(NOW), Some(NOW + SLICE));
        assert_eq!([NOW, NOW + SLICE].map(|now| dispatcher.is_overdue(now)), [false, true]);
        assert_eq!(dispatcher.due(NOW + SLICE), Some(NOW + HANG_TIME));
        dispatcher.remove(1);
        assert!(dispatcher.blocked_for(NOW + five, five).is_none() && dispatcher.due(NOW).is_none());
    }

    #[test]
    fn owners_differ_by_user_and_top_level() {
        let keys = [owner_key(0, "/a/b"), owner_key(0, "/b/b"), owner_key(1000, "/a/b"), owner_key(0, "/")];
        assert!((0..4).all(|one| (0..one).all(|other| keys[one] != keys[other])));
        assert_eq!(owner_key(0, "/a/b"), owner_key(0, "/a/c/d"));
    }
}
