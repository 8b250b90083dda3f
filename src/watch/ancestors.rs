//! Ancestors of the watched cgroups, each once for all cgroups below it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::time::Duration;

use super::config::rule::Rule;
use super::context::Context;
use super::level::Level;
use super::system::{Sample, System};
use crate::cgroup::CgroupPath;

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
    pub(crate) fn of<S: System<Sampler = F>>(
        &mut self,
        located: &CgroupPath,
        rule: &Rule,
        cx: &mut Context<'_, S>,
    ) -> Vec<SharedLevel<F>> {
        let mut levels = Vec::new();
        for above in cx.system.above(located).into_iter().take(MAX_ANCESTORS) {
            match self.0.entry(above.id) {
                Entry::Vacant(vacant) => {
                    let Ok(sampler) = cx.system.open(&above) else { continue };
                    let Ok(level) = Level::open(sampler, rule, None, cx) else { continue };
                    levels.push(Rc::clone(vacant.insert(Rc::new(RefCell::new(level)))));
                }
                // The largest headroom of all members below counts.
                Entry::Occupied(level) => {
                    level.get().borrow_mut().raise(rule.headroom);
                    levels.push(Rc::clone(level.get()));
                }
            }
        }
        levels
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

    /// Forgets all levels: they have to be found anew.
    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }

    /// Forgets levels without watched cgroups below.
    pub(crate) fn forget_the_unused(&mut self) {
        self.0.retain(|_, level| Rc::strong_count(level) > 1);
    }
}
