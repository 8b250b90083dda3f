//! Ancestors of the watched cgroups, each once for all cgroups below it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;

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
        for above in cx.system.above(located, MAX_ANCESTORS) {
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

    /// Returns all levels.
    pub(crate) fn levels(&self) -> impl Iterator<Item = &SharedLevel<F>> {
        self.0.values()
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cgroup::Mount;
    use crate::size::Amount;
    use crate::watch::config::rule::RuleSpec;
    use crate::watch::kernel::Kernel;

    const M: u64 = 1 << 20;

    #[test]
    fn what_was_wanted_by_a_cgroup_that_went_is_forgotten() {
        let tree = tempfile::tempdir().unwrap();
        let top = tree.path().join("top");
        let mount = Arc::new(Mount::whole(tree.path().to_owned(), true));
        let below = ["one", "two"].map(|name| {
            let path = top.join(name);
            std::fs::create_dir_all(&path).unwrap();
            let (name, mount) = (format!("/top/{name}").as_str().into(), Arc::clone(&mount));
            CgroupPath { path: path.into(), name, mount, id: 0 }
        });
        let files = [("memory.current", "0\n"), ("memory.max", "67108864\n"), ("memory.high", "max\n")];
        for (file, text) in files.into_iter().chain([("memory.stat", "anon 0\n")]) {
            std::fs::write(top.join(file), text).unwrap();
        }
        let rule = |mib: u64| {
            RuleSpec { headroom: Some(Amount::Bytes(mib * M)), ancestors: true, ..RuleSpec::default() }
                .rule()
                .unwrap()
        };
        let (small, large) = (rule(8), rule(32));
        let mut ancestors = Ancestors::default();
        let mut emit = |_: crate::watch::event::Event<'_>| {};
        let mut cx = Context::at_start(Kernel::new().unwrap(), &mut emit);
        let of_one = ancestors.of(&below[0], &small, &mut cx).unwrap();
        let low = || of_one[0].borrow().low();
        assert_eq!((of_one.len(), low()), (1, 8 * M));
        let of_two = ancestors.of(&below[1], &large, &mut cx).unwrap();
        assert!(Rc::ptr_eq(&of_one[0], &of_two[0]) && low() == 32 * M);
        ancestors.update([(&small, &*of_one), (&large, &*of_two)].into_iter());
        assert_eq!(low(), 32 * M);
        drop(of_two);
        ancestors.update([(&small, &*of_one)].into_iter());
        assert_eq!(low(), 8 * M);
        drop(of_one);
        ancestors.update(std::iter::empty());
        assert_eq!(ancestors.levels().count(), 0);
    }
}
