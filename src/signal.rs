//! Signals: a first one asks to stop, a second one kills.
//!
//! The kernel looks at signals of the *writing thread* only, between its batches. So handlers are installed without
//! `SA_RESTART` (with it, a kernel from 7.2 on would silently begin the interrupted write anew, in full), and whoever
//! waits for a writing thread passes the news on to it with [`nudge`].

use std::os::unix::thread::{JoinHandleExt, RawPthread};
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread::JoinHandle;

use nix::sys::pthread::pthread_kill;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};

/// The signal that came, or 0.
static PENDING: AtomicI32 = AtomicI32::new(0);

/// What asks memctl to stop.
const STOPPING: [Signal; 2] = [Signal::SIGINT, Signal::SIGTERM];

/// What tells a service to stop.
pub const TERMINATE: Signal = Signal::SIGTERM;

/// What wakes a writing thread. Its default is to be ignored, so a stray one is harmless.
const WAKING: Signal = Signal::SIGURG;

extern "C" fn remember(signal: i32) {
    PENDING.store(signal, Ordering::Relaxed);
}

extern "C" fn wake(_: i32) {}

/// Installs the handlers. A signal that is ignored stays so, as nohup(1) and shells' background jobs expect.
pub fn install() {
    for signal in STOPPING {
        // SA_RESETHAND: a second one of the same kind kills.
        let before = set(signal, SigHandler::Handler(remember), SaFlags::SA_RESETHAND);
        if matches!(before, Some(SigHandler::SigIgn)) {
            set(signal, SigHandler::SigIgn, SaFlags::empty());
        }
    }
    set(WAKING, SigHandler::Handler(wake), SaFlags::empty());
}

/// The signal that asked to stop, if one did.
pub fn pending() -> Option<Signal> {
    Signal::try_from(PENDING.load(Ordering::Relaxed)).ok()
}

/// From now on any signal that asks to stop kills at once.
pub fn let_the_next_kill() {
    for signal in STOPPING {
        set(signal, SigHandler::SigDfl, SaFlags::empty());
    }
}

/// Interrupts the system call that `thread` is in.
pub fn nudge<T>(thread: &JoinHandle<T>) {
    let id: RawPthread = thread.as_pthread_t();
    // It fails only for a thread that is over, which is as well.
    let _ = pthread_kill(id, WAKING);
}

/// Dies by `signal`, so that a shell sees what happened. Returns only if that is impossible.
pub fn die_by(signal: Signal) {
    set(signal, SigHandler::SigDfl, SaFlags::empty());
    let _ = raise(signal);
}

fn set(signal: Signal, handler: SigHandler, flags: SaFlags) -> Option<SigHandler> {
    let action = SigAction::new(handler, flags, SigSet::empty());
    // SAFETY: the only handlers ever passed are `remember`, which stores to an atomic, and `wake`, which does
    // nothing: both are async-signal-safe and never unwind.
    unsafe { sigaction(signal, &action) }.ok().map(|before| before.handler())
}
