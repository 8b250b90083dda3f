//! Where the metrics of a watch go, and when.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::io;
use std::time::{Duration, SystemTime};

use memctl::cgroup::error::error_text;
use memctl::clock;
use memctl::watch::config::MetricsSpec;
use memctl::watch::config::address::Address;
use memctl::watch::meter::{Figures, Meter};

use super::file::MetricsFile;
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

/// The receivers of a watch's metrics.
pub struct WatchMetrics {
    file: Option<RefCell<MetricsFile>>,
    server: Option<Server>,
    most_cgroups: usize,
    began: SystemTime,
    /// Time of the last version of the file, and of the last text for scrapers.
    written_at: Cell<Duration>,
    served_at: Cell<Duration>,
    /// True if something happened since the last version of the file.
    is_busy: Cell<bool>,
    /// `None` on the command line.
    reloads: Cell<Option<Reloads>>,
    /// True once an error was told, until a version is written again: of the file, and for scrapers.
    file_failed: Cell<bool>,
    server_failed: Cell<bool>,
    /// The error to tell.
    trouble: Cell<Option<String>>,
    /// Time of a report, until that is asked for.
    reported_at: Cell<Option<Duration>>,
}

impl WatchMetrics {
    /// Opens the receivers; `None` if there are none. `rules` is the number of rules in the file of
    /// rules, if there is one.
    pub fn open(wanted: &MetricsSpec, rules: Option<usize>) -> Result<Option<Self>> {
        let began = SystemTime::now();
        let file = wanted.file.as_ref().map(|path| {
            MetricsFile::open(path).map_err(|e| Error::io(path.display(), &e).context("--metrics"))
        });
        let server = wanted.listen.as_ref().map(|address| {
            Server::listen(address).map_err(|e| Error::io(address, &e).context("--metrics-listen"))
        });
        let (file, server) = (file.transpose()?, server.transpose()?);
        if file.is_none() && server.is_none() {
            return Ok(None);
        }
        Ok(Some(Self {
            file: file.map(RefCell::new),
            server,
            most_cgroups: wanted.cgroups.unwrap_or(MOST_CGROUPS) as usize,
            began,
            written_at: Cell::default(),
            served_at: Cell::default(),
            is_busy: Cell::new(true),
            reloads: Cell::new(rules.map(|rules| Reloads { is_successful: true, at: began, rules })),
            file_failed: Cell::new(false),
            server_failed: Cell::new(false),
            trouble: Cell::new(None),
            reported_at: Cell::new(None),
        }))
    }

    /// Returns the address at which scrapers are served: the port is the real one where 0 was asked
    /// for.
    pub fn address(&self) -> Option<&Address> {
        self.server.as_ref().map(Server::address)
    }

    /// Records that the control loop turned. Returns an error that is to be told, once.
    pub fn turned(&self) -> Option<String> {
        if let Some(server) = &self.server {
            server.turned();
        }
        self.trouble.take()
    }

    /// Returns whether there was a report since the last call, which scrapers have by now.
    pub fn has_reported(&self) -> bool {
        let is_over = self.reported_at.get().is_some_and(|at| clock::now() >= at + SCRAPED);
        is_over && self.reported_at.take().is_some()
    }

    /// Remembers an error that is to be told, unless it was told before.
    fn judge(&self, wrote: io::Result<()>, has_failed: &Cell<bool>, place: impl Display) {
        let is_known = has_failed.replace(wrote.is_err());
        if let Some(why) = wrote.err().filter(|_| !is_known) {
            self.trouble.set(Some(format!("{place}: {}; trying again", error_text(&why))));
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
            Some(rules) => Some(Reloads { is_successful: true, at: SystemTime::now(), rules }),
            None => before.map(|before| Reloads { is_successful: false, ..before }),
        });
    }
}

impl Meter for WatchMetrics {
    fn due(&self) -> Duration {
        let interval = if self.is_busy.get() { BUSY_INTERVAL } else { IDLE_INTERVAL };
        // The first version is written at once.
        let next = |at: Duration| if at.is_zero() { at } else { at + interval };
        let file = self.file.as_ref().map(|_| next(self.written_at.get()));
        let scrape = self.server.as_ref().filter(|server| server.is_wanted());
        let scrape = scrape.map(|_| self.served_at.get() + SCRAPE_INTERVAL);
        [file, scrape].into_iter().flatten().min().unwrap_or(Duration::MAX)
    }

    fn most_cgroups(&self) -> usize {
        self.most_cgroups
    }

    fn report(&self, figures: &Figures<'_>) {
        let now = clock::now();
        let about = About { began: self.began, reloads: self.reloads.get() };
        if let Some(server) = self.server.as_ref().filter(|server| server.is_wanted()) {
            self.served_at.set(now);
            let wrote = server.replace(|to| write(to, figures, about));
            self.judge(wrote, &self.server_failed, server.address());
        }
        if let Some(file) = &self.file
            && (self.written_at.get().is_zero() || self.written_at.get() + BUSY_INTERVAL <= now)
        {
            self.written_at.set(now);
            self.is_busy.set(false);
            let mut file = file.borrow_mut();
            let wrote = file.replace(|to| write(to, figures, about));
            self.judge(wrote, &self.file_failed, file.path().display());
        }
        self.reported_at.set(Some(now));
    }
}
