//! Notifications to a service manager, by the protocol of `sd_notify(3)`. Without `NOTIFY_SOCKET`
//! nothing is sent.

use std::cell::RefCell;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use memctl::cgroup::error::error_text;
use memctl::clock;
use sd_notify::NotifyState;

use crate::output::eprint_line;
use crate::output::status::Purpose;

/// Minimum time between two updates of the status that report another number of cgroups.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// Time after which a service manager that couldn't be notified of READY=1 is notified again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum time between two turns of the loop while the rules are read again. A caller may wait for
/// the end of the reload.
const RELOAD_INTERVAL: Duration = Duration::from_millis(20);

/// Time that the end of a watch may take: writes in progress are waited for, and the reader of its
/// results.
const STOP_MICROSECONDS: u32 = 10_000_000;

/// Sends notifications.
type Send = dyn Fn(&[NotifyState<'_>]) -> io::Result<()>;

/// Connection to a service manager. All methods do nothing where there is none.
pub struct Notifier {
    /// `None` without a service manager.
    send: Option<Box<Send>>,
    /// Interval at which the service manager wants a sign of life, if it wants any.
    watchdog: Option<Duration>,
    state: RefCell<State>,
}

/// State of a service, as far as the service manager was notified.
struct State {
    phase: Phase,
    purpose: Purpose,
    /// Why the last new rules were refused, if they were.
    refused: Option<String>,
    /// Number of cgroups in the last status, and the time when it was checked.
    cgroups: usize,
    checked_at: Duration,
    /// Time of the last sign of life.
    alive_at: Duration,
    /// True after an error, which was printed.
    has_failed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The rules are in force from the next turn of the loop on.
    Starting,
    Ready,
    /// The rules are being read again.
    Reloading,
    Stopping,
}

impl Notifier {
    /// Returns a notifier for the service manager that started this process, if one did.
    pub fn new(purpose: Purpose) -> Self {
        let is_service = std::env::var_os("NOTIFY_SOCKET").is_some_and(|socket| !socket.is_empty());
        let send = is_service.then(|| Box::new(send) as Box<Send>);
        Self::with(send, sd_notify::watchdog_enabled(), purpose)
    }

    /// `timeout` is the time without a sign of life after which the service is restarted.
    fn with(send: Option<Box<Send>>, timeout: Option<Duration>, purpose: Purpose) -> Self {
        let state = State {
            phase: Phase::Starting,
            purpose,
            refused: None,
            cgroups: 0,
            checked_at: Duration::ZERO,
            alive_at: Duration::ZERO,
            has_failed: false,
        };
        let watchdog = timeout.filter(|timeout| !timeout.is_zero()).map(|timeout| timeout / 2);
        Self { send, watchdog, state: RefCell::new(state) }
    }

    /// Notifies of a turn of the loop, with the number of watched cgroups on request. Returns the
    /// maximum time until the next turn. Allocates only for what it sends.
    pub fn turned(&self, cgroups: &dyn Fn() -> usize) -> Duration {
        self.turned_at(clock::now(), cgroups)
    }

    fn turned_at(&self, now: Duration, cgroups: &dyn Fn() -> usize) -> Duration {
        if self.send.is_none() {
            return Duration::MAX;
        }
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        match state.phase {
            Phase::Starting => {
                (state.cgroups, state.checked_at) = (cgroups(), now);
                let status = state.status();
                if !self.send(state, &[NotifyState::Ready, NotifyState::Status(&status)]) {
                    return RETRY_INTERVAL;
                }
                state.phase = Phase::Ready;
            }
            Phase::Ready if now.saturating_sub(state.checked_at) >= STATUS_INTERVAL => {
                let before = std::mem::replace(&mut state.cgroups, cgroups());
                state.checked_at = now;
                if state.cgroups != before {
                    let status = state.status();
                    self.send(state, &[NotifyState::Status(&status)]);
                }
            }
            Phase::Ready | Phase::Reloading | Phase::Stopping => {}
        }
        let mut next = Duration::MAX;
        if let Some(interval) = self.watchdog {
            if now.saturating_sub(state.alive_at) >= interval {
                if !self.send(state, &[NotifyState::Watchdog]) {
                    return RETRY_INTERVAL;
                }
                state.alive_at = now;
            }
            next = (state.alive_at + interval).saturating_sub(now);
        }
        if state.phase == Phase::Reloading { next.min(RELOAD_INTERVAL) } else { next }
    }

    /// Notifies that the rules are being read again.
    pub fn reloading(&self) {
        let state = &mut *self.state.borrow_mut();
        state.phase = Phase::Reloading;
        let reloading = [NotifyState::Reloading, NotifyState::Status("reading the rules again")];
        match NotifyState::monotonic_usec_now() {
            Ok(now) => {
                self.send(state, &[&reloading[..], &[now]].concat());
            }
            Err(error) => state.failed(&error),
        }
    }

    /// Remembers the end of a reload: the purpose by the new rules, or why they were refused. The
    /// service manager is notified in the next turn, when the rules are in force.
    pub fn reloaded(&self, new: Result<Purpose, String>) {
        let mut state = self.state.borrow_mut();
        state.phase = Phase::Starting;
        state.refused = new.map(|purpose| state.purpose = purpose).err();
    }

    /// Notifies that the watch ends.
    pub fn stopping(&self) {
        let state = &mut *self.state.borrow_mut();
        if std::mem::replace(&mut state.phase, Phase::Stopping) != Phase::Stopping {
            let time = NotifyState::ExtendTimeoutUsec(STOP_MICROSECONDS);
            self.send(state, &[NotifyState::Stopping, NotifyState::Status("stopping"), time]);
        }
    }

    /// Sends a notification. Returns whether it was sent.
    fn send(&self, state: &mut State, what: &[NotifyState<'_>]) -> bool {
        let sent = self.send.as_ref().map_or(Ok(()), |send| send(what));
        if let Err(error) = &sent {
            state.failed(error);
        }
        sent.is_ok()
    }
}

impl State {
    fn status(&self) -> String {
        let text = self.purpose.text(self.cgroups);
        match &self.refused {
            // A line break would begin another notification.
            Some(why) => {
                let why = why.lines().next().unwrap_or_default();
                format!("{text}; the old rules stay: {why}")
            }
            None => text,
        }
    }

    /// Prints the first error: a service manager that isn't notified stops the service after a time.
    fn failed(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.has_failed, true) {
            eprint_line(&format!("memctl: NOTIFY_SOCKET: {}", error_text(error)));
        }
    }
}

/// Sends a notification to `NOTIFY_SOCKET` without waiting for a reader: whoever set the variable
/// may not read at all, and the loop must go on.
fn send(what: &[NotifyState<'_>]) -> io::Result<()> {
    let path = std::env::var_os("NOTIFY_SOCKET").unwrap_or_default();
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    let text = what.iter().fold(String::new(), |text, state| text + &state.to_string() + "\n");
    socket.send_to_addr(text.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    /// A notifier, and the messages that it sent.
    struct Sent {
        notifier: Notifier,
        messages: Rc<RefCell<Vec<String>>>,
    }

    impl Sent {
        fn new(watchdog: Option<Duration>) -> Self {
            let messages = Rc::new(RefCell::new(Vec::new()));
            let sent = Rc::clone(&messages);
            let record = move |what: &[NotifyState<'_>]| {
                let words: Vec<_> = what.iter().map(ToString::to_string).collect();
                sent.borrow_mut().push(words.join("|"));
                Ok(())
            };
            let notifier = Notifier::with(Some(Box::new(record)), watchdog, Purpose::Rules(3));
            Self { notifier, messages }
        }

        fn turned(&self, millis: u64, cgroups: usize) -> Duration {
            self.notifier.turned_at(Duration::from_millis(millis), &|| cgroups)
        }

        fn take(&self) -> Vec<String> {
            self.messages.take()
        }
    }

    #[test]
    fn the_first_turn_is_ready_and_a_number_that_changed_is_told_later() {
        let sent = Sent::new(None);
        assert_eq!(sent.turned(1000, 12), Duration::MAX);
        assert_eq!(sent.take(), ["READY=1|STATUS=watching 12 cgroups by 3 rules"]);
        sent.turned(2000, 13);
        assert!(sent.take().is_empty());
        sent.turned(6000, 14);
        assert_eq!(sent.take(), ["STATUS=watching 14 cgroups by 3 rules"]);
        for at in [7000, 11_000, 16_000] {
            sent.turned(at, 14);
        }
        assert!(sent.take().is_empty());
    }

    #[test]
    fn a_turn_is_a_sign_of_life_twice_in_the_time_of_the_watchdog() {
        let sent = Sent::new(Some(Duration::from_secs(60)));
        sent.turned(100_000, 1);
        assert_eq!(sent.take()[1], "WATCHDOG=1");
        assert_eq!(sent.turned(129_000, 1), Duration::from_secs(1));
        assert!(sent.take().is_empty());
        assert_eq!(sent.turned(130_000, 1), Duration::from_secs(30));
        assert_eq!(sent.take(), ["WATCHDOG=1"]);
    }

    #[test]
    fn a_reload_ends_in_the_turn_after_it() {
        let sent = Sent::new(None);
        sent.turned(1000, 12);
        sent.take();
        sent.notifier.reloading();
        let said = sent.take().remove(0);
        let usec = said.strip_prefix("RELOADING=1|STATUS=reading the rules again|MONOTONIC_USEC=");
        assert!(usec.is_some_and(|usec| usec.parse::<u64>().is_ok_and(|usec| usec > 0)), "{said}");
        assert_eq!(sent.turned(1020, 12), RELOAD_INTERVAL);
        assert!(sent.take().is_empty());
        sent.notifier.reloaded(Err("watch.toml:1:1: unknown key\n  hint".into()));
        assert!(sent.take().is_empty());
        sent.turned(1040, 12);
        let old =
            "READY=1|STATUS=watching 12 cgroups by 3 rules; the old rules stay: watch.toml:1:1: unknown key";
        assert_eq!(sent.take(), [old]);
        sent.notifier.reloading();
        sent.take();
        sent.notifier.reloaded(Ok(Purpose::Keep("1 GiB".into())));
        sent.turned(1060, 2);
        assert_eq!(sent.take(), ["READY=1|STATUS=keeping the usage of 2 cgroups below 1 GiB"]);
    }

    #[test]
    fn the_end_is_told_once() {
        let sent = Sent::new(None);
        sent.turned(1000, 12);
        sent.take();
        sent.notifier.stopping();
        sent.notifier.stopping();
        sent.turned(60_000, 13);
        assert_eq!(sent.take(), ["STOPPING=1|STATUS=stopping|EXTEND_TIMEOUT_USEC=10000000"]);
    }

    #[test]
    fn ready_is_sent_again_until_it_arrives() {
        let (times, sent) = (Rc::new(RefCell::new(0)), Rc::new(RefCell::new(Vec::new())));
        let (count, words) = (Rc::clone(&times), Rc::clone(&sent));
        let full = move |what: &[NotifyState<'_>]| {
            *count.borrow_mut() += 1;
            if *count.borrow() < 3 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            words.borrow_mut().push(what[0].to_string());
            Ok(())
        };
        let notifier = Notifier::with(Some(Box::new(full)), None, Purpose::Rules(1));
        let turned = |seconds| notifier.turned_at(Duration::from_secs(seconds), &|| 1);
        assert_eq!([turned(1), turned(2), turned(3)], [RETRY_INTERVAL, RETRY_INTERVAL, Duration::MAX]);
        turned(4);
        assert_eq!((*times.borrow(), sent.take()), (3, vec!["READY=1".to_owned()]));
    }

    #[test]
    fn without_a_service_manager_nothing_happens() {
        let none = Notifier::with(None, Some(Duration::from_secs(1)), Purpose::Estimate);
        assert_eq!(none.turned(&|| panic!("nobody asks")), Duration::MAX);
        none.reloading();
        none.stopping();
        assert!(none.send.is_none());
    }
}
