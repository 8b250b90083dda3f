//! Ancestors of the watched cgroups, each once for all cgroups below it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;

use super::config::rule::Rule;
use super::context::Context;
use super::level::Level;
use super::system::{Sample, System};
use crate::cgroup::CgroupPath;
use crate::host::files::optional;

/// Maximum number of ancestors of one cgroup whose limits count, the nearest ones: a user may nest
/// cgroups without end below a delegated one.
const MAX_ANCESTORS: usize = 32;

/// A level that several cgroups share.
pub(crate) type SharedLevel<F> = Rc<RefCell<Level<F>>>;

/// Levels by cgroup id.
#[derive(Debug)]
pub(crate) struct Ancestors<F>(HashMap<u64, SharedLevel<F>>);

impl<F> Default for Ancestors<F> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<F: Sample> Ancestors<F> {
    /// Returns the ancestors of one cgroup, the nearest first, without the root of the hierarchy,
    /// which has no limit. Unreadable ancestors are left out.
    ///
    /// # Errors
    /// The kernel's error, if descriptors or memory are short.
    pub(crate) fn of<S: System<Sampler = F>>(
        &mut self,
        located: &CgroupPath,
        rule: &Rule,
        cx: &mut Context<'_, S>,
    ) -> Result<Vec<SharedLevel<F>>, Errno> {
        let mut levels = Vec::new();
        for above in cx.system.above(located).into_iter().take(MAX_ANCESTORS) {
            match self.0.entry(above.id) {
                Entry::Vacant(vacant) => {
                    let opened = cx.system.open(&above);
                    let level = opened.and_then(|sampler| Level::open(sampler, rule, None, cx));
                    let Some(level) = optional(level)? else { continue };
                    levels.push(Rc::clone(vacant.insert(Rc::new(RefCell::new(level)))));
                }
                Entry::Occupied(level) => {
                    level.get().borrow_mut().raise(rule);
                    levels.push(Rc::clone(level.get()));
                }
            }
        }
        Ok(levels)
    }

    /// Returns the level with this id.
    #[must_use]
    pub(crate) fn get(&self, id: u64) -> Option<&SharedLevel<F>> {
        self.0.get(&id)
    }

    /// Sets the sampling interval near the watermark for all levels.
    pub(crate) fn set_interval(&mut self, near: Duration) {
        self.0.values().for_each(|level| level.borrow_mut().set_interval(near));
    }

    /// Forgets levels without watched cgroups below, and what cgroups wanted that are no longer
    /// watched. `watched` are the rules of those that are, and their levels.
    pub(crate) fn update<'a>(&mut self, watched: impl Iterator<Item = (&'a Rule, &'a [SharedLevel<F>])>)
    where
        F: 'a,
    {
        self.0.retain(|_, level| Rc::strong_count(level) > 1);
        self.0.values().for_each(|level| level.borrow_mut().lower());
        for (rule, levels) in watched {
            for level in levels {
                level.borrow_mut().raise(rule);
            }
        }
    }
}
