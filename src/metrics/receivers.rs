//! Where the metrics of a watch go, and when.

use std::cell::{Cell, OnceCell, RefCell};
use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use memctl::cgroup::error::error_text;
use memctl::clock;
use memctl::task::Task;
use memctl::watch::config::MetricsSpec;
use memctl::watch::config::address::Address;
use memctl::watch::meter::{Figures, Meter};

use rustix::io::Errno;

use super::file::MetricsFile;
use super::file_task::FileTask;
use super::memory::in_memory;
use super::serve::Server;
use crate::error::{Error, Result};
use crate::output::metrics::watch::{About, Reloads, write};

/// Interval between two versions of the file while something happens, and otherwise.
const BUSY_INTERVAL: Duration = Duration::from_secs(5);
const IDLE_INTERVAL: Duration = Duration::from_secs(15);

/// Time after which a usual scraper has the text.
const SCRAPED: Duration = Duration::from_secs(1);

/// Minimum interval between two texts for scrapers.
const SCRAPE_INTERVAL: Duration = Duration::from_millis(500);

/// Maximum number of cgroups with series of their own, if none is given.
const MOST_CGROUPS: u32 = 500;

/// Interval between attempts to listen.
const LISTEN_INTERVAL: Duration = Duration::from_secs(15);

/// Which receivers must work from the start: those of the command line. Those of a file of rules are
/// tried again and again, since to keep memory free is what a service is for.
#[derive(Clone, Copy, Debug)]
pub struct Required {
    /// The file.
    pub file: bool,
    /// The address.
    pub listen: bool,
}

/// The reason of an error.
type ToldError = Cell<Option<(ErrorKind, Option<i32>)>>;

/// What is to be told: an error, or something else.
pub type News = std::result::Result<String, String>;

/// The receivers of a watch's metrics.
pub struct WatchMetrics {
    /// The file, and its path.
    file: Option<FileTask>,
    path: Option<PathBuf>,
    /// The address, and the server once it listens.
    address: Option<Address>,
    server: OnceCell<Server>,
    listening: RefCell<Option<Task<io::Result<Server>>>>,
    /// Time of the next attempt to listen.
    listens_at: Cell<Duration>,
    most_cgroups: usize,
    began: SystemTime,
    /// Time of the last version of the file, and of the last text for scrapers.
    written_at: Cell<Duration>,
    served_at: Cell<Duration>,
    /// True if something happened since the last version of the file.
    is_busy: Cell<bool>,
    /// `None` without a file of rules.
    reloads: Cell<Option<Reloads>>,
    /// The error that was told last, until it is over: of the file, for scrapers, and of listening.
    file_error: ToldError,
    server_error: ToldError,
    listen_error: ToldError,
    news: RefCell<Vec<News>>,
    /// Time of a report, until that is asked for.
    reported_at: Cell<Option<Duration>>,
}

impl WatchMetrics {
    /// Opens the receivers; `None` if there are none. `rules` is the number of rules in force, where
    /// they come from a file.
    pub fn open(wanted: &MetricsSpec, required: Required, rules: Option<usize>) -> Result<Option<Self>> {
        if wanted.file.is_none() && wanted.listen.is_none() {
            return Ok(None);
        }
        let began = SystemTime::now();
        let in_force = |rules: usize| Reloads { is_successful: true, at: began, rules, differs: None };
        let mut metrics = Self {
            file: None,
            path: wanted.file.clone(),
            address: wanted.listen.clone(),
            server: OnceCell::new(),
            listening: RefCell::default(),
            listens_at: Cell::new(clock::now() + LISTEN_INTERVAL),
            most_cgroups: wanted.cgroups.unwrap_or(MOST_CGROUPS) as usize,
            began,
            written_at: Cell::default(),
            served_at: Cell::default(),
            is_busy: Cell::new(true),
            reloads: Cell::new(rules.map(in_force)),
            file_error: Cell::default(),
            server_error: Cell::default(),
            listen_error: Cell::default(),
            news: RefCell::default(),
            reported_at: Cell::new(None),
        };
        let refused = |what: &dyn Display, e: &io::Error, option| {
            Error::io(what, e).context(option).with_hint(sandbox_hint(e))
        };
        if let Some(path) = &wanted.file {
            let file = MetricsFile::at(path);
            let prepared =
                file.as_ref().map_err(|e| io::Error::from(e.kind())).and_then(MetricsFile::prepare);
            match prepared {
                Err(why) if required.file => return Err(refused(&path.display(), &why, "--metrics")),
                prepared => metrics.judge(prepared, &metrics.file_error, path.display()),
            }
            if path.extension() != Some(OsStr::new("prom")) {
                let note = format!("{}: node exporter reads only names that end in .prom", path.display());
                metrics.news.borrow_mut().push(Ok(note));
            }
            metrics.file = file.ok().map(FileTask::new);
        }
        if let Some(address) = &wanted.listen {
            match Server::listen(address) {
                Err(why) if required.listen => return Err(refused(address, &why, "--metrics-listen")),
                listens => metrics.judge(metrics.serve(listens), &metrics.listen_error, address),
            }
        }
        Ok(Some(metrics))
    }

    /// Takes a server that listens.
    fn serve(&self, server: io::Result<Server>) -> io::Result<()> {
        let server = server?;
        // The port is the real one where 0 was asked for.
        self.news.borrow_mut().push(Ok(format!("metrics are served at {}", server.address())));
        // There is no other yet.
        let _ = self.server.set(server);
        Ok(())
    }

    /// Records that the control loop turned. Returns what is to be told, once.
    pub fn turned(&self) -> Vec<News> {
        if let Some((wrote, path)) = self.file.as_ref().and_then(FileTask::wrote).zip(self.path.as_deref()) {
            self.judge(wrote, &self.file_error, path.display());
        }
        match (self.server.get(), &self.address) {
            (Some(server), _) => server.turned(),
            (None, Some(address)) => self.try_to_listen(address),
            (None, None) => {}
        }
        self.news.take()
    }

    /// Tries to listen, if that is due. The folder of a socket may be on a file system that hangs.
    fn try_to_listen(&self, address: &Address) {
        let done = self.listening.borrow().as_ref().map(|task| task.wait(Duration::ZERO));
        match done {
            Some(Ok(None)) => {}
            Some(Ok(Some(listens))) => {
                self.listening.replace(None);
                match self.serve(listens) {
                    // The note on the address says as much.
                    Ok(()) => self.listen_error.set(None),
                    why => self.judge(why, &self.listen_error, address),
                }
            }
            _ if clock::now() >= self.listens_at.get() => {
                self.listens_at.set(clock::now() + LISTEN_INTERVAL);
                let address = address.clone();
                self.listening.replace(Some(Task::start(move || Server::listen(&address))));
            }
            _ => {}
        }
    }

    /// Returns whether there was a report since the last call, which scrapers have by now.
    pub fn has_reported(&self) -> bool {
        let is_over = self.reported_at.get().is_some_and(|at| clock::now() >= at + SCRAPED);
        is_over && self.reported_at.take().is_some()
    }

    /// Remembers an error that is to be told, unless it was told before.
    fn judge(&self, result: io::Result<()>, told: &ToldError, place: impl Display) {
        let Err(why) = result else {
            if told.take().is_some() {
                self.news.borrow_mut().push(Ok(format!("{place}: works again")));
            }
            return;
        };
        let reason = Some((why.kind(), why.raw_os_error()));
        if told.replace(reason) != reason {
            let hint = sandbox_hint(&why).map_or_else(String::new, |hint| format!(" ({hint})"));
            self.news.borrow_mut().push(Err(format!("{place}: {}; trying again{hint}", error_text(&why))));
        }
    }

    /// Records that something happened.
    pub fn happened(&self) {
        self.is_busy.set(true);
    }

    /// Records an attempt to read the rules again: their number, if it succeeded.
    pub fn reloaded(&self, rules: Option<usize>) {
        self.happened();
        let before = self.reloads.get();
        self.reloads.set(match rules {
            Some(rules) => Some(Reloads { is_successful: true, at: SystemTime::now(), rules, differs: None }),
            None => before.map(|before| Reloads { is_successful: false, ..before }),
        });
    }

    /// Records whether the file of rules has changed since the rules in force were read, if that is
    /// known.
    pub fn set_differs(&self, differs: Option<bool>) {
        self.reloads.set(self.reloads.get().map(|reloads| Reloads { differs, ..reloads }));
    }

    /// Returns what the engine doesn't know of the watch.
    fn about(&self) -> About {
        About { began: self.began, reloads: self.reloads.get() }
    }
}

/// Returns a hint for an error that the sandbox of a service causes.
fn sandbox_hint(why: &io::Error) -> Option<&'static str> {
    match Errno::from_io_error(why)? {
        Errno::ROFS => Some(
            "a service may write only where ReadWritePaths= of its unit allows it, and to folders that were there at its \
             start",
        ),
        Errno::AFNOSUPPORT => Some(
            "a service needs RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 and PrivateNetwork=no in its unit",
        ),
        _ => None,
    }
}

impl Meter for WatchMetrics {
    fn due(&self) -> Duration {
        let interval = if self.is_busy.get() { BUSY_INTERVAL } else { IDLE_INTERVAL };
        // The first version is written at once.
        let next = |at: Duration| if at.is_zero() { at } else { at + interval };
        let file = self.file.as_ref().filter(|file| file.is_free()).map(|_| next(self.written_at.get()));
        let scrape = self.server.get().filter(|server| server.is_wanted());
        let scrape = scrape.map(|_| self.served_at.get() + SCRAPE_INTERVAL);
        [file, scrape].into_iter().flatten().min().unwrap_or(Duration::MAX)
    }

    fn most_cgroups(&self) -> usize {
        self.most_cgroups
    }

    fn report(&self, figures: &Figures<'_>) {
        let now = clock::now();
        let about = self.about();
        if let Some(server) = self.server.get().filter(|server| server.is_wanted()) {
            self.served_at.set(now);
            let wrote = server.replace(|to| write(to, figures, about));
            self.judge(wrote, &self.server_error, server.address());
        }
        if let Some(file) = self.file.as_ref().filter(|file| file.is_free())
            && (self.written_at.get().is_zero() || self.written_at.get() + BUSY_INTERVAL <= now)
        {
            self.written_at.set(now);
            self.is_busy.set(false);
            match in_memory(|to| write(to, figures, about)) {
                Ok(text) => file.begin(text),
                Err(why) => self.judge(Err(why), &self.server_error, "memory for metrics"),
            }
        }
        self.reported_at.set(Some(now));
    }
}
