//! The cgroups that a watch begins with.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::ancestors::Ancestors;
use super::config::rule::{Rule, WatchError};
use super::context::Context;
use super::control;
use super::event::Ended;
use super::host::HostState;
use super::kernel::Kernel;
use super::member::Member;
use super::options::WatchOptions;
use super::rejected::Rejected;
use super::system::System;
use crate::cgroup::{CgroupPath, Name, Sampler};

/// Cgroups to watch, opened for it.
#[allow(missing_debug_implementations)] // Threads and callbacks have nothing to show.
pub struct Members {
    system: Option<Kernel>,
    each: Vec<Member<Kernel>>,
    ancestors: Ancestors<Sampler>,
    text: String,
    dry_run: bool,
    rejected: Rejected,
}

impl Members {
    /// Creates an empty set. For a `dry_run` nothing is written, not even to find out what the
    /// kernel supports.
    ///
    /// # Errors
    /// The system's, if there can be neither an epoll nor an eventfd.
    pub fn new(dry_run: bool) -> std::io::Result<Self> {
        Ok(Self {
            system: Some(Kernel::new()?),
            each: Vec::new(),
            ancestors: Ancestors::default(),
            text: String::new(),
            dry_run,
            rejected: Rejected::default(),
        })
    }

    /// Adds a cgroup with its rule. Nothing is written there before the watch begins.
    ///
    /// # Errors
    /// [`WatchError`], the reason why it can't be watched.
    pub fn add(&mut self, located: Arc<CgroupPath>, rule: Rc<Rule>) -> Result<(), WatchError> {
        let Some(system) = &mut self.system else { return Ok(()) };
        let (id, now) = (located.id, system.now());
        let checked = system.check(&located, &rule.bounds, self.dry_run);
        let added = checked.and_then(|()| self.add_unchecked(located, rule));
        if let Err(WatchError::Errno(errno)) = added {
            // The caller reports it.
            self.rejected.add(id, now);
            self.rejected.failed(errno);
        }
        added
    }

    /// Adds a directory that imitates a cgroup, as a benchmark makes it.
    ///
    /// # Errors
    /// [`WatchError`], the reason why it can't be sampled.
    #[doc(hidden)]
    pub fn add_unchecked(&mut self, located: Arc<CgroupPath>, rule: Rc<Rule>) -> Result<(), WatchError> {
        let Some(system) = self.system.take() else { return Ok(()) };
        let now = system.now();
        let text = std::mem::take(&mut self.text);
        let host = HostState::default();
        let mut cx = Context { system, host, text, now, began: now, has_meter: false, emit: &mut |_| {} };
        let member = Member::new(located, rule, &mut self.ancestors, Duration::ZERO, &mut cx);
        (self.system, self.text) = (Some(cx.system), cx.text);
        self.each.push(member?);
        Ok(())
    }

    /// Returns the names of the cgroups.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.each.iter().map(|member| &member.located.name)
    }

    /// Returns whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.each.is_empty()
    }

    /// Watches them, and those that are found later, until a stop is requested.
    ///
    /// # Errors
    /// The system's, if there can be neither an epoll nor an eventfd.
    pub fn watch(self, options: WatchOptions<'_>) -> std::io::Result<Ended> {
        let mut system = match self.system {
            Some(system) => system,
            None => Kernel::new()?,
        };
        system.set_signals(options.nudge, options.alarm, options.signals);
        Ok(control::run(system, self.each, self.ancestors, self.rejected, options))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    use super::*;
    use crate::cgroup::Mount;
    use crate::watch::config::rule::RuleSpec;
    use crate::watch::event::{Event, EventKind};
    use crate::watch::options::{Reload, RuledCgroup};

    /// Makes a directory that imitates a cgroup at rest.
    fn imitation(tree: &Path, name: &str, mount: &Arc<Mount>) -> Arc<CgroupPath> {
        let path = tree.join(name);
        std::fs::create_dir(&path).unwrap();
        for (file, text) in [
            ("memory.current", "1048576\n"),
            ("memory.max", "67108864\n"),
            ("memory.high", "max\n"),
            ("memory.min", "0\n"),
            ("memory.low", "0\n"),
            ("memory.stat", "anon 0\nfile 1048576\n"),
        ] {
            std::fs::write(path.join(file), text).unwrap();
        }
        let id = std::fs::metadata(&path).unwrap().ino();
        let name = format!("/{name}").into();
        CgroupPath { path: path.into(), name, mount: Arc::clone(mount), id }.into()
    }

    #[test]
    fn a_released_cgroup_is_summarised_at_once() {
        let tree = tempfile::tempdir().unwrap();
        let mount = Arc::new(Mount::whole(tree.path().to_owned(), true));
        let keep = RuleSpec { keep: Some(32 << 20), ..RuleSpec::default() };
        let rule = Rc::new(keep.rule().unwrap());
        let [stays, goes] = ["stays", "goes"].map(|name| imitation(tree.path(), name, &mount));
        let mut members = Members::new(true).unwrap();
        for located in [&stays, &goes] {
            members.add_unchecked(Arc::clone(located), Rc::clone(&rule)).unwrap();
        }
        let (events, is_over) = (RefCell::new(Vec::new()), Cell::new(false));
        let stop = || is_over.get();
        let mut emit = |event: Event<'_>| {
            let word = match &event.what {
                EventKind::Released => "released",
                EventKind::Ended(summary) if summary.cgroup == *event.cgroup => "ended",
                _ => return,
            };
            events.borrow_mut().push((event.cgroup.to_string(), word));
        };
        let mut reload = || {
            (!is_over.replace(true)).then(|| Reload {
                all: vec![RuledCgroup { located: Arc::clone(&stays), rule: Rc::clone(&rule) }],
                cpu: None,
                swap_writes: None,
                rules: Vec::new(),
            })
        };
        let options = WatchOptions { reload: Some(&mut reload), ..WatchOptions::new(&stop, &mut emit) };
        let ended = members.watch(options).unwrap();
        let goes = |word| ("/goes".to_owned(), word);
        assert_eq!(*events.borrow(), [goes("released"), goes("ended")]);
        let names: Vec<_> = ended.each.iter().map(|summary| &*summary.cgroup).collect();
        assert_eq!((names, ended.emitted), (vec!["/goes", "/stays"], 1));
    }
}
