//! Signals: a first one asks to stop, a second one kills.
//!
//! The kernel checks for signals of the *writing thread* only, between its batches. So handlers are
//! installed without `SA_RESTART` (with it, a kernel from 7.2 on would silently begin the
//! interrupted write anew, in full), and a thread that waits for a writing thread interrupts it
//! with [`nudge`].

use std::cell::RefCell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::thread::{JoinHandleExt, RawPthread};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::pthread::pthread_kill;
use nix::sys::signal::{
    SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, SigmaskHow, Signal, raise, sigaction,
};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use rustix::event::{EventfdFlags, eventfd};

/// Signal that arrived, or 0.
static PENDING: AtomicI32 = AtomicI32::new(0);

/// Signals that ask memctl to stop.
const STOPPING: [Signal; 2] = [Signal::SIGINT, Signal::SIGTERM];

/// Signal that asks a service to stop.
pub const TERMINATE: Signal = Signal::SIGTERM;

/// Signal that wakes a writing thread. Its default is to be ignored, so a stray one is harmless.
const WAKING: Signal = Signal::SIGURG;

/// Eventfd that becomes readable at each signal, once something waits for it; `None` where there
/// can't be one. Never closed.
static WAKEUP: OnceLock<Option<OwnedFd>> = OnceLock::new();

/// Number of the descriptor of [`WAKEUP`], for the handlers, or -1.
static WAKEUP_FD: AtomicI32 = AtomicI32::new(-1);

/// Returns a descriptor that becomes readable when a signal asks to stop or to reload. A loop that
/// polls it doesn't miss a signal that arrives between its check of [`pending`] and the poll.
///
/// Read 8 bytes from it, without blocking, to rearm it. `None` if no descriptor is free: signals
/// then only interrupt the poll.
pub fn wakeup_fd() -> Option<BorrowedFd<'static>> {
    let fd =
        WAKEUP.get_or_init(|| eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok()).as_ref()?;
    WAKEUP_FD.store(fd.as_raw_fd(), Ordering::Release);
    Some(fd.as_fd())
}

/// Makes the descriptor of [`wakeup_fd`] readable, so that the loop that polls it looks around.
/// Async-signal-safe.
pub fn wake_up() {
    let number = WAKEUP_FD.load(Ordering::Acquire);
    if number < 0 {
        return;
    }
    let errno = Errno::last_raw();
    // SAFETY: a number that isn't negative was stored by `wakeup_fd`, from the descriptor in
    // `WAKEUP`, a static that is never replaced or dropped: it is open until the process ends.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    // A counter that is full is readable already.
    let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
    Errno::set_raw(errno);
}

extern "C" fn remember(signal: i32) {
    PENDING.store(signal, Ordering::Relaxed);
    wake_up();
}

extern "C" fn wake(_: i32) {}

/// Flag: a signal asked for the rules to be read again.
static RELOAD: AtomicBool = AtomicBool::new(false);

extern "C" fn reload(_: i32) {
    RELOAD.store(true, Ordering::Relaxed);
    wake_up();
}

/// Makes SIGHUP ask for the rules to be read again, unless the signal is ignored.
pub fn install_reload() {
    let before = set(Signal::SIGHUP, SigHandler::Handler(reload), SaFlags::empty());
    if matches!(before, Some(SigHandler::SigIgn)) {
        set(Signal::SIGHUP, SigHandler::SigIgn, SaFlags::empty());
    }
}

/// Returns whether a signal asked for a reload since the last call.
pub fn reload_asked() -> bool {
    RELOAD.swap(false, Ordering::Relaxed)
}

/// Installs the handlers. A signal that is ignored stays so, as nohup(1) and shells' background
/// jobs expect.
pub fn install() {
    for signal in STOPPING {
        // SA_RESETHAND: a second signal of the same kind kills.
        let before = set(signal, SigHandler::Handler(remember), SaFlags::SA_RESETHAND);
        if matches!(before, Some(SigHandler::SigIgn)) {
            set(signal, SigHandler::SigIgn, SaFlags::empty());
        }
    }
    set(WAKING, SigHandler::Handler(wake), SaFlags::empty());
}

/// Returns the signal that asked to stop, if one did.
pub fn pending() -> Option<Signal> {
    Signal::try_from(PENDING.load(Ordering::Relaxed)).ok()
}

/// Restores the default action: any signal that asks to stop then kills at once.
pub fn restore_defaults() {
    for signal in STOPPING {
        set(signal, SigHandler::SigDfl, SaFlags::empty());
    }
}

/// Runs `start` with all signals blocked, as threads that it starts inherit it: they receive none
/// of the signals that are to wake this one.
pub fn with_all_blocked<T>(start: impl FnOnce() -> T) -> T {
    // This can't fail: the arguments are valid.
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let started = start();
    let _ = before.and_then(|before| before.thread_set_mask());
    started
}

/// Interrupts the system call that `thread` is in.
pub fn nudge<T>(thread: &JoinHandle<T>) {
    let id: RawPthread = thread.as_pthread_t();
    // This fails only for a thread that has ended, which needs no nudge.
    let _ = pthread_kill(id, WAKING);
}

thread_local! {
    /// Timer that wakes this thread, created on first use. `None` where there can't be one.
    static TIMER: RefCell<Option<Timer>> = RefCell::new(wakes_this_thread());
}

fn wakes_this_thread() -> Option<Timer> {
    let thread_id = rustix::thread::gettid().as_raw_nonzero().get();
    let wakes = SigevNotify::SigevThreadId { signal: WAKING, thread_id, si_value: 0 };
    Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(wakes)).ok()
}

/// Interrupts the system call that the calling thread is in after this time, and again and again
/// at this interval; `None` cancels the alarm.
///
/// A single signal would be lost if it arrived before the call begins: a thread can lose the CPU
/// between the two for longer than this time.
pub fn alarm(after: Option<Duration>) {
    let expiration = match after {
        Some(interval) => Expiration::Interval(TimeSpec::from_duration(interval)),
        // A time of zero disarms the timer.
        None => Expiration::OneShot(TimeSpec::from_duration(Duration::ZERO)),
    };
    TIMER.with_borrow_mut(|timer| {
        // Without a timer the length of a write is unbounded.
        if let Some(timer) = timer {
            let _ = timer.set(expiration, TimerSetTimeFlags::empty());
        }
    });
}

/// Ends the process by `signal`, so that a shell learns the reason. Returns only if that is
/// impossible.
pub fn die_by(signal: Signal) {
    set(signal, SigHandler::SigDfl, SaFlags::empty());
    let _ = raise(signal);
}

fn set(signal: Signal, handler: SigHandler, flags: SaFlags) -> Option<SigHandler> {
    let action = SigAction::new(handler, flags, SigSet::empty());
    // SAFETY: the only handlers ever passed are `remember` and `reload`, which store to an atomic
    // and write to an eventfd (write(2) is async-signal-safe, and errno is restored), and `wake`,
    // which does nothing: all are async-signal-safe and never unwind.
    unsafe { sigaction(signal, &action) }.ok().map(|before| before.handler())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    #[test]
    fn an_alarm_before_the_call_interrupts_it_all_the_same() {
        set(WAKING, SigHandler::Handler(wake), SaFlags::empty());
        let (reader, writer) = std::io::pipe().unwrap();
        // Ends the test where the alarm is lost.
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(2));
            let _ = rustix::io::write(&writer, b"x");
        });
        alarm(Some(Duration::from_millis(5)));
        let until = Instant::now() + Duration::from_millis(20);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        let read = rustix::io::read(&reader, &mut [0; 1]);
        alarm(None);
        assert_eq!(read, Err(rustix::io::Errno::INTR));
        // A cancelled alarm interrupts nothing.
        assert_eq!(poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 20_000_000 })), Ok(0));
    }

    #[test]
    fn signals_make_the_descriptor_readable() {
        let fd = wakeup_fd().unwrap();
        let is_readable = || {
            let mut polled = [PollFd::new(&fd, PollFlags::IN)];
            poll(&mut polled, Some(&Timespec::default())) == Ok(1)
        };
        let drain = || rustix::io::read(fd, &mut [0; 8]);
        assert!(!is_readable());
        // Below nohup(1) it is ignored, and stays so.
        set(Signal::SIGHUP, SigHandler::SigDfl, SaFlags::empty());
        install_reload();
        Errno::set_raw(77);
        raise(Signal::SIGHUP).unwrap();
        assert_eq!(Errno::last_raw(), 77);
        assert!(reload_asked() && is_readable());
        assert_eq!(drain(), Ok(8));
        assert!(!is_readable());
        remember(0);
        assert!(is_readable() && pending().is_none());
        assert_eq!(drain(), Ok(8));
        assert_eq!(wakeup_fd().map(|again| again.as_raw_fd()), Some(fd.as_raw_fd()));
    }
}
