//! Signals: a first one asks to stop, a second one kills.
//!
//! The kernel checks for signals of the *writing thread* only, between its batches. So handlers are
//! installed without `SA_RESTART` (with it, a kernel from 7.2 on would silently begin the
//! interrupted write anew, in full), and a thread that waits for a writing thread interrupts it
//! with [`nudge`].

use std::cell::RefCell;
use std::os::unix::thread::{JoinHandleExt, RawPthread};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::pthread::pthread_kill;
use nix::sys::signal::{
    SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, SigmaskHow, Signal, raise, sigaction,
};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;

/// Signal that arrived, or 0.
static PENDING: AtomicI32 = AtomicI32::new(0);

/// Signals that ask memctl to stop.
const STOPPING: [Signal; 2] = [Signal::SIGINT, Signal::SIGTERM];

/// Signal that asks a service to stop.
pub const TERMINATE: Signal = Signal::SIGTERM;

/// Signal that wakes a writing thread. Its default is to be ignored, so a stray one is harmless.
const WAKING: Signal = Signal::SIGURG;

extern "C" fn remember(signal: i32) {
    PENDING.store(signal, Ordering::Relaxed);
}

extern "C" fn wake(_: i32) {}

/// Flag: a signal asked for the rules to be read again.
static RELOAD: AtomicBool = AtomicBool::new(false);

extern "C" fn reload(_: i32) {
    RELOAD.store(true, Ordering::Relaxed);
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

/// Interrupts the system call that the calling thread is in after this time; `None` cancels the
/// alarm.
pub fn alarm(after: Option<Duration>) {
    let expiration = Expiration::OneShot(TimeSpec::from_duration(after.unwrap_or_default()));
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
    // SAFETY: the only handlers ever passed are `remember` and `reload`, which store to an atomic,
    // and `wake`, which does nothing: all are async-signal-safe and never unwind.
    unsafe { sigaction(signal, &action) }.ok().map(|before| before.handler())
}
