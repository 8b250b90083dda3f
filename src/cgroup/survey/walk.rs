//! Walk of a tree with an explicit stack of work, by one thread or several: the depth of the tree
//! takes memory, but no stack.

use std::io;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, Scope};

/// Starts a thread.
pub(super) type Spawn =
    for<'scope, 'env> fn(&'scope Scope<'scope, 'env>, Box<dyn FnOnce() + Send + 'scope>) -> io::Result<()>;

/// Starts a thread of the system.
pub(super) fn spawn<'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: Box<dyn FnOnce() + Send + 'scope>,
) -> io::Result<()> {
    Builder::new().name("survey".into()).spawn_scoped(scope, work).map(drop)
}

/// Visits `root`, and from each visit on the places that it returned beside its result, with at
/// most `threads` threads, the calling one among them. Fewer threads only take longer.
///
/// A branch whose visit panics ends there, and the walk panics once the rest is visited.
pub(super) fn walk<T: Send, F: Send>(
    root: T,
    threads: usize,
    spawn: Spawn,
    visit: impl Fn(T) -> (F, Vec<T>) + Sync,
) -> Walked<F> {
    let work = Work {
        state: Mutex::new(State { open: vec![(0, root)], visiting: 0, visited: Vec::from([None]) }),
        changed: Condvar::new(),
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            if spawn(scope, Box::new(|| work.serve(&visit))).is_err() {
                break;
            }
        }
        work.serve(&visit);
    });
    Walked(work.state.into_inner().unwrap_or_else(PoisonError::into_inner).visited)
}

/// Results of a walk.
pub(super) struct Walked<F>(Vec<Option<Visited<F>>>);

/// Result of a visit.
struct Visited<F> {
    found: F,
    /// Indices of the places below.
    below: Range<usize>,
}

struct Work<T, F> {
    state: Mutex<State<T, F>>,
    changed: Condvar,
}

struct State<T, F> {
    /// Places to visit, by their index; the last is the next.
    open: Vec<(usize, T)>,
    /// Number of visits under way, which may return further places.
    visiting: usize,
    visited: Vec<Option<Visited<F>>>,
}

/// Counts a visit until it ends, by a panic too.
struct Visit<'a, T, F>(&'a Work<T, F>);

impl<T, F> Drop for Visit<'_, T, F> {
    fn drop(&mut self) {
        self.0.lock().visiting -= 1;
        self.0.changed.notify_all();
    }
}

impl<T, F> Work<T, F> {
    fn lock(&self) -> MutexGuard<'_, State<T, F>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, visit: &impl Fn(T) -> (F, Vec<T>)) {
        while let Some((index, place)) = self.next() {
            let under_way = Visit(self);
            let (found, below) = visit(place);
            self.lock().enter(index, found, below);
            drop(under_way);
        }
    }

    /// Waits for a place to visit; `None` once all are visited.
    fn next(&self) -> Option<(usize, T)> {
        let mut state = self.lock();
        loop {
            if let Some(next) = state.open.pop() {
                state.visiting += 1;
                return Some(next);
            }
            if state.visiting == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T, F> State<T, F> {
    fn enter(&mut self, index: usize, found: F, below: Vec<T>) {
        let first = self.visited.len();
        let range = first..first + below.len();
        self.visited.resize_with(range.end, || None);
        self.visited[index] = Some(Visited { found, below: range.clone() });
        self.open.extend(range.zip(below).rev());
    }
}

impl<F> Walked<F> {
    /// Returns the results, each before those below it, and siblings in their order. `join` is
    /// called for each result and each of those directly below it.
    pub(super) fn in_order(self, mut join: impl FnMut(&mut F, &mut F)) -> Vec<F> {
        let Self(mut visited) = self;
        let mut results = Vec::with_capacity(visited.len());
        let mut open = vec![0];
        while let Some(index) = open.pop() {
            let Some(Visited { mut found, below }) = visited[index].take() else { continue };
            for child in visited[below.clone()].iter_mut().flatten() {
                join(&mut found, &mut child.found);
            }
            open.extend(below.rev());
            results.push(found);
        }
        results
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread::ThreadId;

    /// Visits a tree of numbers: below each, up to `limit`, are its tenfold plus 1 to 3. Returns the
    /// numbers with the sums of those below, and the threads.
    fn numbers(limit: u64, threads: usize, spawn: Spawn) -> (Vec<(u64, u64)>, usize) {
        let seen: Mutex<HashSet<ThreadId>> = Mutex::default();
        let visit = |number: u64| {
            seen.lock().unwrap().insert(std::thread::current().id());
            let below = (1..=3).map(|digit| number * 10 + digit).filter(|&below| below <= limit);
            std::thread::yield_now();
            ((number, 0), below.collect())
        };
        let walked = walk(0, threads, spawn, visit);
        (walked.in_order(|above, below| above.1 += below.0), seen.into_inner().unwrap().len())
    }

    #[test]
    fn results_come_in_order_whoever_visits() {
        let (alone, by) = numbers(40_000, 1, spawn);
        assert_eq!(by, 1);
        assert_eq!(alone[..4], [(0, 6), (1, 36), (11, 336), (111, 3336)]);
        assert_eq!(alone.len(), 1 + 3 + 9 + 27 + 81 + 243);
        assert!(alone.is_sorted_by_key(|(number, _)| number.to_string()));
        assert_eq!(numbers(40_000, 4, spawn).0, alone);
    }

    #[test]
    fn threads_that_can_not_be_had_are_done_without() {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let alone = numbers(40_000, 1, spawn).0;
        let none: Spawn = |_, _| Err(io::ErrorKind::WouldBlock.into());
        assert_eq!(numbers(40_000, 4, none), (alone.clone(), 1));
        let one: Spawn = |scope, work| match STARTED.fetch_add(1, Ordering::Relaxed) {
            0 => spawn(scope, work),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        };
        let (results, by) = numbers(40_000, 8, one);
        assert!(results == alone && by <= 2, "{by}");
        assert_eq!(STARTED.load(Ordering::Relaxed), 2);
    }
}
