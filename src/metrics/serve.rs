//! The HTTP server: one thread for all connections. A slow scraper holds up nobody: not the control
//! loop, which writes each text into memory of its own, and not other scrapers.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind};
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use memctl::watch::config::address::Address;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, fstat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::umask;

use super::http::{Connection, Known, Next, Page};
use super::memory::in_memory;
use super::peer::{accept, given_up};
use crate::signal;

/// Maximum number of connections. With one more, one is given up: see [`given_up`].
const MAX_CONNECTIONS: usize = 32;

/// Maximum number of connections per second. They wait in a queue, where one who floods it holds up
/// the others.
const MOST_ACCEPTS: usize = 200;

/// Maximum number of connections that wait to be accepted: one that waits behind 4,096, as many as a
/// host allows, waits longer than a scraper.
const QUEUE: i32 = 128;

/// Number of replaced texts that are still sent to slow scrapers.
const OLD_VERSIONS: u64 = 3;

/// Size of the thread's stack. Only what is used of it takes memory.
const STACK: usize = 256 << 10;

/// Time without a turn of the control loop from which on the watch isn't healthy.
const STUCK: Duration = Duration::from_secs(30);

/// Pause after an error of the listening socket, such as a lack of descriptors.
const PAUSE: Duration = Duration::from_millis(200);

/// What the control loop and the server share.
struct Shared {
    /// The last text.
    page: Mutex<Option<Page>>,
    /// True if a scraper waits for a new text.
    is_wanted: AtomicBool,
    /// Time of the last turn of the control loop, in milliseconds since `began`.
    turned: AtomicU64,
    began: Instant,
    /// True once the server must end.
    is_over: AtomicBool,
    /// Descriptor that wakes the server.
    wakes: OwnedFd,
}

impl Shared {
    fn new(began: Instant) -> io::Result<Self> {
        Ok(Self {
            page: Mutex::default(),
            is_wanted: AtomicBool::new(false),
            turned: AtomicU64::new(0),
            began,
            is_over: AtomicBool::new(false),
            wakes: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    fn wake(&self) {
        // A counter that is full is readable already.
        let _ = rustix::io::write(&self.wakes, &1u64.to_ne_bytes());
    }

    fn page(&self) -> std::sync::MutexGuard<'_, Option<Page>> {
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> Known {
        let turned = Duration::from_millis(self.turned.load(Ordering::Relaxed));
        let since = self.began.elapsed().saturating_sub(turned);
        let trouble =
            (since >= STUCK).then(|| format!("the control loop hasn't turned for {} s", since.as_secs()));
        Known { page: self.page().clone(), trouble }
    }

    /// Returns the number of the last text; 0 before the first.
    fn version(&self) -> u64 {
        self.page().as_ref().map_or(0, |page| page.version)
    }
}

/// A running server. It ends when it is dropped.
pub struct Server {
    shared: Arc<Shared>,
    address: Address,
    /// The unix socket.
    own: Option<Identity>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens at an address.
    ///
    /// # Errors
    /// The system's.
    pub fn listen(address: &Address) -> io::Result<Self> {
        let mut own = None;
        let (listener, address): (OwnedFd, _) = match address {
            Address::Ip(at) => {
                let listener = TcpListener::bind(at)?;
                listener.set_nonblocking(true)?;
                // Once more, with a shorter queue.
                rustix::net::listen(&listener, QUEUE)?;
                // The port may have been 0.
                let at = listener.local_addr().unwrap_or(*at);
                (listener.into(), Address::Ip(at))
            }
            Address::Unix(path) => {
                let (listener, identity) = listen_unix(path)?;
                own = identity;
                (listener, address.clone())
            }
        };
        let shared = Arc::new(Shared::new(Instant::now())?);
        let theirs = Arc::clone(&shared);
        let serve = move || serve(&listener, &theirs);
        // Signals are the control loop's.
        let thread = signal::with_all_blocked(|| {
            Builder::new().name("metrics".into()).stack_size(STACK).spawn(serve)
        })?;
        Ok(Self { shared, address, own, thread: Some(thread) })
    }

    /// Returns the address.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Records that the control loop turned.
    pub fn turned(&self) {
        let since = self.shared.began.elapsed().as_millis() as u64;
        self.shared.turned.store(since, Ordering::Relaxed);
    }

    /// Returns whether a scraper waits for a new text.
    pub fn is_wanted(&self) -> bool {
        self.shared.is_wanted.load(Ordering::Relaxed)
    }

    /// Hands over the text that `write` writes.
    ///
    /// # Errors
    /// The system's.
    pub fn replace(&self, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
        // A scraper that comes now wants a newer one.
        self.shared.is_wanted.store(false, Ordering::Relaxed);
        let text = in_memory(write)?;
        let length = fstat(&text)?.st_size.unsigned_abs();
        let version = self.shared.version() + 1;
        *self.shared.page() = Some(Page { text: Arc::new(text), length, version });
        self.shared.wake();
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.shared.wake();
        let _ = self.thread.take().map(JoinHandle::join);
        // The socket of another process isn't removed.
        if let Address::Unix(path) = &self.address
            && self.own.is_some()
            && identity(path) == self.own
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Listens at a unix socket. A socket that nobody listens at any more is replaced.
fn listen_unix(path: &Path) -> io::Result<(OwnedFd, Option<Identity>)> {
    match path.symlink_metadata() {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(ErrorKind::AlreadyExists, "something else than a socket is there"));
        }
        Ok(_) if is_abandoned(path)? => std::fs::remove_file(path)?,
        // Binding tells what is wrong.
        Ok(_) | Err(_) => {}
    }
    // What anyone may read in a file, anyone may read here. Not by chmod(2) after it: whoever owns the
    // folder could have put a symlink there.
    let before = umask(Mode::from_raw_mode(0o111));
    let listener = UnixListener::bind(path);
    umask(before);
    let listener = listener?;
    listener.set_nonblocking(true)?;
    rustix::net::listen(&listener, QUEUE)?;
    Ok((listener.into(), identity(path)))
}

/// Returns whether nobody listens at a socket. Doesn't wait for somebody who does.
fn is_abandoned(path: &Path) -> io::Result<bool> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None)?;
    Ok(connect(&socket, &SocketAddrUnix::new(path)?) == Err(Errno::CONNREFUSED))
}

/// Device and inode of a file.
type Identity = (u64, u64);

fn identity(path: &Path) -> Option<Identity> {
    path.symlink_metadata().ok().map(|found| (found.dev(), found.ino()))
}

/// Serves until the end.
fn serve(listener: &OwnedFd, shared: &Shared) {
    let mut connections: Vec<Connection> = Vec::new();
    let mut accepts = Accepts::default();
    while !shared.is_over.load(Ordering::Relaxed) {
        let now = Instant::now();
        let paused_until = accepts.paused_until(now);
        let until = connections.iter().map(Connection::until).chain(paused_until).min();
        let mut gone = wait(listener, shared, &connections, until, paused_until.is_none()).into_iter();
        connections.retain(|_| !gone.next().unwrap_or(false));
        let now = Instant::now();
        if accepts.paused_until(now).is_none() {
            accepts.accept(listener, &mut connections, now);
        }
        let version = shared.version();
        let mut is_wanted = false;
        connections.retain_mut(|one| {
            let next = one.turn(now, version, &|| shared.known());
            is_wanted |= next == Next::Metrics;
            // Texts that were replaced long ago would take memory without bound.
            next != Next::End && one.version().is_none_or(|its| its + OLD_VERSIONS >= version)
        });
        if is_wanted {
            shared.is_wanted.store(true, Ordering::Relaxed);
            signal::wake_up();
        }
    }
}

/// Accepts connections, but not too many at a time: their CPU time counts for `--cpu`.
#[derive(Default)]
struct Accepts {
    /// Beginning of the current second, and connections in it.
    second: Option<Instant>,
    count: usize,
    /// End of a pause after an error.
    paused: Option<Instant>,
}

impl Accepts {
    /// Returns the time before which none is accepted, if it is to come.
    fn paused_until(&self, now: Instant) -> Option<Instant> {
        let is_full = self.count >= MOST_ACCEPTS;
        let second = self.second.filter(|_| is_full).map(|second| second + Duration::from_secs(1));
        second.max(self.paused).filter(|until| *until > now)
    }

    /// Accepts connections that wait.
    fn accept(&mut self, listener: &OwnedFd, connections: &mut Vec<Connection>, now: Instant) {
        if self.second.is_none_or(|second| now.duration_since(second) >= Duration::from_secs(1)) {
            (self.second, self.count) = (Some(now), 0);
        }
        while self.count < MOST_ACCEPTS {
            match accept(listener) {
                Ok((stream, peer)) => {
                    self.count += 1;
                    if connections.len() >= MAX_CONNECTIONS {
                        let all: Vec<_> =
                            connections.iter().map(|one| (one.peer(), one.asks_nothing())).collect();
                        connections.remove(given_up(&all, peer));
                    }
                    connections.push(Connection::new(stream, peer, now));
                }
                // Gone already, or interrupted.
                Err(Errno::CONNABORTED | Errno::INTR | Errno::PROTO) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.paused = Some(now + PAUSE);
                    return;
                }
            }
        }
    }
}

/// Waits for an event, at most until a time. Returns for each connection whether the client is gone.
fn wait(
    listener: &OwnedFd,
    shared: &Shared,
    connections: &[Connection],
    until: Option<Instant>,
    accepts: bool,
) -> Vec<bool> {
    let first: [(BorrowedFd<'_>, PollFlags); 2] = [
        (shared.wakes.as_fd(), PollFlags::IN),
        (listener.as_fd(), if accepts { PollFlags::IN } else { PollFlags::empty() }),
    ];
    let all = first.into_iter().chain(connections.iter().map(Connection::wants));
    let mut polled: Vec<_> = all.map(|(fd, events)| PollFd::from_borrowed_fd(fd, events)).collect();
    let timeout = until.map(|until| {
        // Rounded up: a wait that ends early would be repeated at once.
        let time = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) }
    });
    let _ = poll(&mut polled, timeout.as_ref());
    let _ = rustix::io::read(&shared.wakes, &mut [0; 8]);
    let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
    polled.iter().skip(first.len()).map(|one| one.revents().intersects(gone)).collect()
}

#[cfg(test)]
mod tests;
