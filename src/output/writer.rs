//! Output that never holds up the caller: lines wait in bounded rings, and a thread writes them to
//! stdout and stderr.
//!
//! Without a thread (a limit of processes), the caller writes as much as the outputs take at once.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use memctl::clock::now;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;

use super::format::errno_text;
use crate::signal;

mod ring;
mod stream;

pub use stream::Form;
use stream::{Attempt, Stream};

/// Capacity of the rings of stdout and stderr, in bytes.
const CAPACITY: [usize; 2] = [192 << 10, 64 << 10];

/// Maximum length of a write, in bytes: what a pipe that poll(2) reports as writable takes at once
/// (`PIPE_BUF`).
const CHUNK: usize = 4096;

/// Stack size of the thread, in bytes.
const STACK: usize = 64 << 10;

/// Time until the start of the thread is tried again: doubled each time, up to a maximum.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(60);

/// Time at the end without progress of the reader after which the rest is given up, and maximum
/// time for all of the rest after a signal.
const STALLED: Duration = Duration::from_millis(500);
const HURRIED: Duration = Duration::from_millis(800);

/// Maximum time at the end for messages alone.
const MESSAGES: Duration = Duration::from_millis(100);

/// Interval between checks at the end, and minimum number of them without progress: the thread must
/// have had a chance to run on a host that stood still meanwhile.
const CHECKED: Duration = Duration::from_millis(2);
const CHECKS: u32 = 50;

/// The outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Names of the outputs in messages.
const NAMES: [&str; 2] = ["standard output", "standard error"];

/// Writer of lines, as seen by the caller. `F` are the files.
pub struct Writer<F> {
    shared: Arc<Shared<F>>,
    thread: RefCell<Thread>,
    /// True where escape sequences are removed.
    plain: [bool; 2],
}

/// State of the thread.
enum Thread {
    /// It runs.
    Running,
    /// It couldn't be started, or wasn't needed yet.
    Missing {
        /// Time of the next attempt, and the time to wait after it.
        retry: Duration,
        delay: Duration,
    },
}

struct Shared<F> {
    files: [F; 2],
    state: Mutex<State>,
    /// Eventfd that wakes the thread; created with it.
    wake: OnceLock<OwnedFd>,
    /// Flag: the reader of stdout left, and with it the reason for the watch.
    closed: AtomicBool,
    /// Returns whether a reader that leaves ends the watch.
    is_interactive: fn() -> bool,
}

struct State {
    streams: [Stream; 2],
    /// Number of the next line, on both outputs.
    next: u64,
    /// True while the thread waits to be woken.
    waiting: bool,
    /// True once the thread is to end.
    ended: bool,
}

/// Obstacles that kept the lines that are left from being written.
struct Waits {
    /// True for an output without room.
    blocked: [bool; 2],
    /// Time of the next attempt after an error.
    until: Option<Duration>,
}

impl Writer<BorrowedFd<'static>> {
    /// Creates the writer for stdout and stderr.
    pub fn new(form: Form) -> Self {
        let files = [rustix::stdio::stdout(), rustix::stdio::stderr()];
        let mut writer = Self::with(files, form, has_terminal);
        let never = |choice| choice == anstream::ColorChoice::Never;
        writer.plain = [
            never(anstream::AutoStream::choice(&io::stdout())),
            never(anstream::AutoStream::choice(&io::stderr())),
        ];
        writer
    }
}

/// Returns whether someone uses the program: its standard input is a terminal, or it has a
/// controlling terminal. A reader that leaves then wants no more.
fn has_terminal() -> bool {
    io::stdin().is_terminal() || File::open("/dev/tty").is_ok()
}

impl<F: AsFd + Send + Sync + 'static> Writer<F> {
    fn with(files: [F; 2], form: Form, is_interactive: fn() -> bool) -> Self {
        let began = now();
        let streams =
            [Stream::new(form, CAPACITY[0], began), Stream::new(Form::Messages, CAPACITY[1], began)];
        let state = State { streams, next: 0, waiting: false, ended: false };
        Self {
            shared: Arc::new(Shared {
                files,
                state: Mutex::new(state),
                wake: OnceLock::new(),
                closed: AtomicBool::new(false),
                is_interactive,
            }),
            thread: RefCell::new(Thread::Missing { retry: Duration::ZERO, delay: FIRST_RETRY }),
            plain: [false; 2],
        }
    }

    /// Adds a line, which ends with a newline. If there is no room, drops and counts it.
    pub fn push(&self, to: To, line: &str) {
        self.with_plain(to, line, |line| {
            let mut state = self.shared.lock();
            let number = state.number();
            state.streams[to as usize].push(number, now(), line);
        });
        self.write();
    }

    /// Adds a screen to stdout, or drops it while an earlier one isn't written yet: the next will
    /// show more recent values.
    pub fn paint(&self, screen: &str) {
        self.with_plain(To::Stdout, screen, |screen| {
            let mut state = self.shared.lock();
            let number = state.number();
            if state.streams[0].is_empty() {
                state.streams[0].try_push(number, now(), screen);
            }
        });
        self.write();
    }

    /// Returns whether the reader of stdout left, and with it the reason for the watch.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Relaxed)
    }

    /// Returns the number of lines for stdout that were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.shared.lock().streams[0].dropped()
    }

    /// Starts the thread if it is missing and an attempt is due; without it, writes as much as the
    /// outputs take at once. To be called repeatedly.
    pub fn advance(&self) {
        let is_missing = || matches!(*self.thread.borrow(), Thread::Missing { .. });
        if is_missing() && !self.shared.lock().is_written() {
            self.start_if_due();
            if is_missing() {
                self.shared.pump();
            }
        }
    }

    /// Gets what was added written.
    fn write(&self) {
        self.advance();
        self.shared.wake_thread();
    }

    /// Adds the last lines for stdout, and waits until all is written, or gives up on a reader that
    /// stalls; after a signal, which `hurry` reports, sooner. Returns the reason if lines for
    /// stdout are left.
    pub fn end(
        &self,
        lines: impl IntoIterator<Item = String>,
        hurry: &dyn Fn() -> bool,
    ) -> Result<(), String> {
        let mut wait = Wait::new(&self.shared, hurry);
        let mut all_added = true;
        for line in lines {
            let add = || {
                self.with_plain(To::Stdout, &line, |line| {
                    let mut state = self.shared.lock();
                    let number = state.number();
                    state.streams[0].try_push(number, now(), line)
                })
            };
            all_added = loop {
                let added = add();
                self.write();
                if added || !wait.goes_on() {
                    break added;
                }
            };
            if !all_added {
                break;
            }
        }
        self.write();
        while !self.shared.lock().is_written() && wait.goes_on() {
            self.advance();
        }
        let state = self.shared.lock();
        if all_added && state.streams[0].is_empty() {
            return Ok(());
        }
        Err(state.streams[0].error().map_or_else(|| "not read in time".to_owned(), errno_text))
    }

    /// Waits for a moment until the messages are written.
    pub fn flush_messages(&self) {
        let until = now() + MESSAGES;
        while !self.shared.lock().streams[1].is_empty() && now() < until {
            self.advance();
            std::thread::sleep(CHECKED);
        }
    }

    fn with_plain<T>(&self, to: To, text: &str, with: impl FnOnce(&[u8]) -> T) -> T {
        if self.plain[to as usize] && text.contains('\u{1b}') {
            return with(anstream::adapter::strip_str(text).to_string().as_bytes());
        }
        with(text.as_bytes())
    }

    fn start_if_due(&self) {
        let mut thread = self.thread.borrow_mut();
        let Thread::Missing { retry, delay } = *thread else { return };
        let now = now();
        if now < retry {
            return;
        }
        match self.shared.start() {
            Ok(()) => *thread = Thread::Running,
            Err(why) => {
                *thread = Thread::Missing { retry: now + delay, delay: (delay * 2).min(MAX_RETRY) };
                if retry.is_zero() {
                    let why = memctl::cgroup::error::error_text(&why);
                    let mut state = self.shared.lock();
                    let line = format!(
                        "memctl: no thread for the output: {why}; what isn't read in time is dropped\n"
                    );
                    let number = state.number();
                    state.streams[1].push(number, now, line.as_bytes());
                }
            }
        }
    }
}

impl<F> Drop for Writer<F> {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.wake_thread();
    }
}

/// Bounded wait at the end.
struct Wait<'a, F> {
    shared: &'a Shared<F>,
    hurry: &'a dyn Fn() -> bool,
    began: Duration,
    /// Bytes written until the last check that found progress, and its time.
    written: u64,
    moved: Duration,
    /// Number of checks since then.
    checks: u32,
}

impl<'a, F> Wait<'a, F> {
    fn new(shared: &'a Shared<F>, hurry: &'a dyn Fn() -> bool) -> Self {
        let mut state = shared.lock();
        state.streams.iter_mut().for_each(Stream::hurry);
        let written = state.written();
        drop(state);
        let began = now();
        Self { shared, hurry, began, written, moved: began, checks: 0 }
    }

    /// Waits for progress for a moment. Returns false once there was none for too long.
    fn goes_on(&mut self) -> bool {
        std::thread::sleep(CHECKED);
        let (written, now) = (self.shared.lock().written(), now());
        if written != self.written {
            (self.written, self.moved, self.checks) = (written, now, 0);
        }
        self.checks += 1;
        (now.saturating_sub(self.moved) < STALLED || self.checks < CHECKS)
            && !((self.hurry)() && now.saturating_sub(self.began) >= HURRIED)
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Returns whether no line is waiting.
    fn is_written(&self) -> bool {
        self.streams.iter().all(Stream::is_empty)
    }

    fn written(&self) -> u64 {
        self.streams.iter().map(Stream::written).sum()
    }

    /// Returns the output whose line was added first, among those that can be written to.
    fn first(&self, now: Duration, blocked: [bool; 2]) -> Option<usize> {
        let due = |&output: &usize| self.streams[output].due(now);
        (0..2).filter(|&output| !blocked[output] && due(&output).is_some()).min_by_key(due)
    }
}

impl<F> Shared<F> {
    /// Returns the state. It is valid after a panic, too: no method of it panics halfway.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_thread(&self) {
        if std::mem::take(&mut self.lock().waiting)
            && let Some(wake) = self.wake.get()
        {
            // This fails only if the counter is full, which wakes as well.
            let _ = rustix::io::write(wake, &1u64.to_ne_bytes());
        }
    }
}

impl<F: AsFd + Send + Sync + 'static> Shared<F> {
    fn start(self: &Arc<Self>) -> io::Result<()> {
        if self.wake.get().is_none() {
            let _ = self.wake.set(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        }
        let shared = Arc::clone(self);
        signal::with_all_blocked(|| {
            std::thread::Builder::new().stack_size(STACK).spawn(move || {
                while let Some(waits) = shared.pump() {
                    shared.wait(&waits);
                }
            })
        })?;
        Ok(())
    }

    /// Writes all that the outputs take at once, in the order in which it was added. Returns the
    /// obstacles for the rest; `None` once the writer is gone.
    fn pump(&self) -> Option<Waits> {
        let mut chunk = [0; CHUNK];
        let mut blocked = [false; 2];
        let mut state = self.lock();
        state.waiting = false;
        loop {
            if state.ended {
                return None;
            }
            let Some(output) = state.first(now(), blocked) else { break };
            let bytes = state.streams[output].peek(&mut chunk);
            drop(state);
            let result = self.write(output, &chunk[..bytes]);
            state = self.lock();
            let Some(result) = result else {
                blocked[output] = true;
                continue;
            };
            self.wrote(&mut state, output, result);
        }
        state.waiting = true;
        Some(Waits { blocked, until: state.streams.iter().filter_map(Stream::until).min() })
    }

    /// Writes to an output, unless that has no room.
    fn write(&self, output: usize, bytes: &[u8]) -> Option<Result<usize, Errno>> {
        let file = &self.files[output];
        match poll(&mut [PollFd::new(file, PollFlags::OUT)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(0) => None,
            Err(Errno::INTR) => Some(Err(Errno::INTR)),
            Ok(_) | Err(_) => Some(rustix::io::write(file, bytes)),
        }
    }

    fn wrote(&self, state: &mut State, output: usize, result: Result<usize, Errno>) {
        let number = state.next;
        let ends = || output == 0 && (self.is_interactive)();
        match state.streams[output].wrote(number, now(), result, ends) {
            Attempt::Closed => self.closed.store(true, Ordering::Relaxed),
            Attempt::Failed(errno) if output == 0 => {
                let number = state.number();
                let line = format!("memctl: {}: {}; the watch goes on\n", NAMES[0], errno_text(errno));
                state.streams[1].push(number, now(), line.as_bytes());
            }
            // Errors of stderr can't be reported anywhere.
            Attempt::Going | Attempt::Failed(_) => {}
        }
    }

    /// Waits until there is something to write, or room for it.
    fn wait(&self, waits: &Waits) {
        let Some(wake) = self.wake.get() else { return };
        let mut fds = [const { PollFlags::IN }; 3].map(|flags| PollFd::new(wake, flags));
        for (output, fd) in fds[1..].iter_mut().enumerate() {
            // Others aren't asked: one that lost its reader is always ready.
            if waits.blocked[output] {
                *fd = PollFd::new(&self.files[output], PollFlags::OUT);
            }
        }
        let timeout = waits.until.map(|until| until.saturating_sub(now()));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let _ = poll(&mut fds, timeout.as_ref());
        let _ = rustix::io::read(wake, &mut [0; size_of::<u64>()]);
    }
}

#[cfg(test)]
mod tests;
