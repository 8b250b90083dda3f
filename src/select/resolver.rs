//! Search for the cgroups of a watchlist beside the control loop: each search is a [`Task`].

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::watchlist::{Found, Watchlist};
use crate::task::Task;

/// Watchlist that is searched for beside the caller.
#[derive(Debug)]
pub struct Resolver {
    watchlist: Arc<Mutex<Watchlist>>,
    task: Option<Task<Found>>,
    /// True if a cgroup was lost since the last search began.
    lost: bool,
    /// Called in the thread at the end of each search.
    after: fn(),
}

impl Resolver {
    /// Returns a resolver. `after` is called in the thread at the end of each search: it may give
    /// memory back.
    #[must_use]
    pub fn new(watchlist: Watchlist, after: fn()) -> Self {
        Self { watchlist: Arc::new(Mutex::new(watchlist)), task: None, lost: false, after }
    }

    /// Replaces the watchlist. The result of a search in progress is dropped.
    pub fn replace(&mut self, watchlist: Watchlist) {
        *self = Self::new(watchlist, self.after);
    }

    /// Returns the result of the last search, once, and begins the next one if it is due: every
    /// time while the number of cgroups changes or some are lost, and now and then otherwise. `lost` is true if a cgroup was lost since the last call. Cgroups
    /// whose ids are `known` aren't searched for.
    pub fn next(&mut self, now: Duration, lost: bool, known: impl IntoIterator<Item = u64>) -> Option<Found> {
        self.lost |= lost;
        if self.task.is_none() && lock(&self.watchlist).is_due(now, std::mem::take(&mut self.lost)) {
            let (watchlist, known) = (Arc::clone(&self.watchlist), known.into_iter().collect::<HashSet<_>>());
            let after = self.after;
            self.task = Some(Task::start(move || {
                let found = lock(&watchlist).search(&|id| known.contains(&id));
                drop((known, watchlist));
                after();
                found
            }));
        }
        let found = self.task.as_ref()?.poll().transpose()?;
        self.task = None;
        found.ok()
    }
}

/// Locks a mutex. A panic of its last holder leaves a watchlist as it was.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::watchlist::Words;
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn what_is_lost_while_a_search_runs_is_searched_for_afterwards() {
        let Ok(watchlist) = Watchlist::of(&[Words::default()]) else { return };
        let mut resolver = Resolver::new(watchlist, || {});
        let (go, gone) = channel::<()>();
        resolver.task = Some(Task::start(move || {
            let _ = gone.recv();
            Found::default()
        }));
        assert!(resolver.next(Duration::ZERO, true, []).is_none() && resolver.lost);
        drop(go);
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while resolver.task.is_some() && std::time::Instant::now() < until {
            resolver.next(Duration::ZERO, false, []);
        }
        assert!(resolver.task.is_none() && resolver.lost);
        resolver.next(Duration::ZERO, false, []);
        assert!(!resolver.lost, "the next search knows of it");
    }
}
