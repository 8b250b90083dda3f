//! What a running watch calls back: for output, for new rules, for metrics, and for its end.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::time::Duration;

use memctl::clock;
use memctl::size::Percent;
use memctl::watch::config::MetricsSpec;
use memctl::watch::event::{Ended, Event, EventKind};
use memctl::watch::notes::Note;
use memctl::watch::options::{Reload, RuledCgroup};

use super::follower::{Follower, Reloaded};
use super::rules_file::RulesFile;
use super::{lock, plan};
use crate::cli::Watch;
use crate::metrics::WatchMetrics;
use crate::notify::Notifier;
use crate::output::watch::WatchScreen;
use crate::output::{self, Verbosity};
use crate::signal;

/// Time from the start until memory that only the start needed is released.
const SETTLED: Duration = Duration::from_secs(20);

/// The callbacks of a watch, and what they share.
pub struct Session<'a> {
    args: &'a Watch,
    loudness: Verbosity,
    pub screen: RefCell<WatchScreen>,
    follower: RefCell<Follower>,
    pub service: Notifier,
    pub metrics: Option<WatchMetrics>,
    /// Where the metrics went at the start.
    metrics_spec: MetricsSpec,
    /// The file of rules, if changes of it are followed or in the metrics.
    rules_file: Option<RulesFile>,
    /// True once it was told that the look at the file hangs.
    hangs: Cell<bool>,
    /// Time at which memory that only the start needed is released, until that is done.
    settles: Cell<Option<Duration>>,
}

impl<'a> Session<'a> {
    /// Creates the session.
    pub fn new(
        args: &'a Watch,
        loudness: Verbosity,
        follower: Follower,
        service: Notifier,
        (metrics, metrics_spec): (Option<WatchMetrics>, MetricsSpec),
        rules_file: Option<RulesFile>,
    ) -> Self {
        let rules_file = rules_file.filter(|_| metrics.is_some() || args.follow_config);
        Self {
            args,
            loudness,
            screen: RefCell::new(WatchScreen::new(args.json, args.estimate, loudness)),
            follower: RefCell::new(follower),
            service,
            metrics,
            metrics_spec,
            rules_file,
            hangs: Cell::default(),
            settles: Cell::new(Some(clock::now() + SETTLED)),
        }
    }

    /// Prints a note.
    pub fn note(&self, note: &str) {
        self.screen.borrow_mut().note(note, self.loudness);
    }

    /// Returns whether the watch must end. Also called in the middle of a write, which may be in the
    /// middle of output.
    pub fn is_over(&self) -> bool {
        let is_over = signal::pending().inspect(|_| self.service.stopping()).is_some();
        is_over || self.screen.try_borrow().is_ok_and(|screen| screen.nobody_reads())
    }

    /// Looks after what is due with each turn of the control loop, with the number of watched
    /// cgroups on request. Returns the maximum time until the next turn.
    pub fn turned(&self, cgroups: &dyn Fn() -> usize) -> Duration {
        let settles = self.settles.get();
        let has_settled = settles.is_some_and(|at| clock::now() >= at);
        let has_reported = self.metrics.as_ref().is_some_and(WatchMetrics::has_reported);
        // A report needs a megabyte of code, which would stay locked until the next one.
        if has_settled || has_reported && settles.is_none() {
            self.settles.set(None);
            lock::forget_the_start();
        }
        for news in self.metrics.iter().flat_map(WatchMetrics::turned) {
            match news {
                Ok(note) => self.screen.borrow_mut().note(&note, self.loudness),
                Err(why) => self.screen.borrow_mut().note(&why, Verbosity::Normal),
            }
        }
        let look = self.rules_file.as_ref().filter(|_| self.args.follow_config).map(RulesFile::due);
        self.service.turned(cgroups).min(look.unwrap_or(Duration::MAX))
    }

    /// Looks at the file of rules. Returns whether it has to be read again.
    fn is_changed(&self, name: &Path) -> bool {
        let Some(file) = &self.rules_file else { return false };
        let is_changed = file.look();
        if let Some(metrics) = &self.metrics {
            metrics.set_differs(file.differs());
        }
        if self.args.follow_config && self.hangs.replace(file.hangs()) != file.hangs() {
            let what =
                if file.hangs() { "no answer for 30 s; changes aren't followed" } else { "answers again" };
            self.note(&format!("{}: {what}", name.display()));
        }
        is_changed && self.args.follow_config
    }

    /// Returns cgroups that were found since the last call.
    pub fn select(&self, lost: bool, known: &dyn Fn(u64) -> bool) -> Vec<RuledCgroup> {
        let (found, notes) = self.follower.borrow_mut().found(lost, known);
        for note in &notes {
            self.note(note);
        }
        found
    }

    /// Returns new rules, once they are read.
    pub fn reload(&self) -> Option<Reload> {
        let file = self.args.config.as_deref()?;
        let is_changed = self.is_changed(file);
        if signal::reload_asked() || is_changed {
            self.service.reloading();
            self.follower.borrow_mut().read_again(file);
        }
        let read = self.follower.borrow_mut().reloaded(file)?;
        if let Some(file) = &self.rules_file {
            match &read {
                Ok(new) => file.is_in_force(new.stamp),
                Err(refused) => refused.version.into_iter().for_each(|version| file.was_refused(version)),
            }
        }
        let read = read.map_err(|refused| refused.why);
        self.service.reloaded(read.as_ref().map(|new| new.purpose.clone()).map_err(ToString::to_string));
        if let Some(metrics) = &self.metrics {
            metrics.reloaded(read.as_ref().ok().map(|new| new.reload.rules.len()));
        }
        self.screen.borrow_mut().reloaded(file, read.as_ref().map(|new| new.rules), self.loudness);
        let Reloaded { reload, notes, metrics, .. } = read.ok()?;
        if plan::metrics(self.args, &metrics) != self.metrics_spec {
            self.note("other settings of metrics take effect when memctl is started again");
        }
        for note in &notes {
            self.note(note);
        }
        Some(Reload { cpu: self.args.cpu.map(Percent::ratio).or(reload.cpu), ..reload })
    }

    /// Handles a note of the watch.
    pub fn watch_note(&self, note: &Note) {
        match output::notes::of_watch(note) {
            Some(words) => self.note(&words),
            // At the beginning, this happens anyway after `SETTLED`.
            None if self.settles.get().is_none() => lock::forget_the_start(),
            None => {}
        }
    }

    /// Handles an event.
    pub fn event(&self, event: &Event<'_>) {
        let is_sample = matches!(event.what, EventKind::Sample(_));
        if let Some(metrics) = self.metrics.as_ref().filter(|_| !is_sample) {
            metrics.happened();
        }
        // Without JSON, samples are only for the metrics.
        if self.args.json || !is_sample {
            self.screen.borrow_mut().event(event);
        }
    }

    /// Prints the results. Returns whether they were written.
    pub fn end(self, ended: &Ended) -> bool {
        // Before a signal can end the process: frozen metrics would be taken for current ones.
        drop(self.metrics);
        let hurry = || signal::pending().is_some();
        self.screen.borrow().end(ended, self.args.estimate, self.loudness, &hurry)
    }
}
