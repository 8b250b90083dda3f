//! Watchlist of cgroups: names and globs, searched for repeatedly, without the cgroups that no glob
//! takes.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use super::pods::pattern::PodPattern;
use super::{Locator, Match, Scope, Selected, Selector, select_by};
use crate::cgroup::error::CgroupError;
use crate::cgroup::mount::Mount;
use crate::cgroup::path::CgroupPath;
use crate::cgroup::{Name, tree};
use crate::clock;
use crate::host::Reader;
use excluded::Excluded;
use needs::Needs;
use spared::Spared;

mod excluded;
mod needs;
mod spared;

/// Interval between walks of the hierarchy even while the number of cgroups is unchanged: one may
/// have been removed and another created.
const LOOKED_THROUGH: Duration = Duration::from_secs(20);

/// Period after a change in which every search walks the hierarchy: a new cgroup may get its limit
/// a moment later.
const SETTLED: Duration = Duration::from_secs(10);

/// Time for which a container without a name is waited for.
const NAMED: Duration = Duration::from_secs(10);

/// Words, and exclusions from their matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// Names and globs, in the form of [`super`].
    pub wanted: Vec<OsString>,
    /// Globs to exclude from the matches of globs.
    pub excluded: Vec<OsString>,
    /// True if the name of a pod stands for all cgroups in it, not only for its own.
    pub whole_pods: bool,
}

/// Cgroup to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// Selected cgroup, with a flag if only globs matched it.
    pub selected: Match,
    /// Index of the list of words that took the cgroup, by the most specific word.
    pub list: usize,
}

/// Result of a search.
#[derive(Debug, Default)]
pub struct Found {
    /// Cgroups to watch.
    pub taken: Vec<Assigned>,
    /// Words that name nothing yet. Only [`Watchlist::first`] lists them.
    pub waiting: Vec<String>,
    /// Words that can't be resolved now.
    pub unresolved: Vec<Unresolved>,
    /// Parts of the hierarchy that couldn't be searched.
    pub troubles: Vec<CgroupError>,
}

/// Word of a list that can't be resolved now: it is ambiguous, say.
#[derive(Debug)]
pub struct Unresolved {
    /// Index of the list.
    pub list: usize,
    /// Reason.
    pub why: CgroupError,
}

/// Watchlist made from lists of words.
#[derive(Debug)]
pub struct Watchlist {
    /// Selectors of all lists, and the index of each selector's list.
    selectors: Vec<Selector>,
    lists: Vec<usize>,
    /// Exclusions of each list.
    left_out: Vec<Excluded>,
    exclude: Vec<OsString>,
    /// What the words need to know of pods.
    needs: Needs,
    /// True if names, like the matches of globs, may appear later.
    waits: bool,
    /// Essential cgroups. Compiled when a glob first matches, since compiling takes a while.
    spared: OnceCell<Spared>,
    /// Mounts at the beginning, for the first search.
    at_start: Locator,
    /// State at the last walk of the hierarchy.
    seen: Option<Seen>,
    /// Reader of the root's `cgroup.stat`.
    root: Option<Reader>,
    text: String,
    /// Ids of cgroups that are waited for until their container has a name, and when each was found.
    nameless: HashMap<u64, Duration>,
}

/// Record of a walk of the hierarchy.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Time of the walk.
    looked: Duration,
    /// Time of the last change in the number of cgroups.
    changed: Duration,
    /// Number of cgroups.
    count: u64,
}

/// Returns whether there is a cgroup below which a glob could match later: the levels in front of
/// its first special character; for a pod, whether pods have names here.
fn parent_is_there(word: &OsStr, locator: &Locator) -> bool {
    if PodPattern::parse(word).is_some() {
        return locator.pods().logs().unread().is_none();
    }
    let bytes = word.as_bytes();
    let plain = bytes.split(|byte| b"*?[{".contains(byte)).next().unwrap_or_default();
    let parent = plain.iter().rposition(|&byte| byte == b'/').map_or(&[][..], |slash| &plain[..slash]);
    parent.is_empty() || locator.find(OsStr::from_bytes(parent)).is_ok()
}

impl Watchlist {
    /// Returns a watchlist of one list of words, whose names must exist.
    ///
    /// # Errors
    /// [`CgroupError::BadGlob`].
    pub fn new(words: &Words) -> Result<Self, CgroupError> {
        Ok(Self { waits: false, ..Self::of(std::slice::from_ref(words))? })
    }

    /// Returns a watchlist of several lists, whose names may appear later.
    ///
    /// # Errors
    /// [`CgroupError::BadGlob`].
    pub fn of(lists: &[Words]) -> Result<Self, CgroupError> {
        let numbered = lists.iter().enumerate();
        let words = numbered.flat_map(|(list, words)| words.wanted.iter().map(move |word| (list, word)));
        let locator = Locator::new()?;
        let selector =
            |(list, word): (usize, &OsString)| (list, Selector::new(word, &locator, lists[list].whole_pods));
        let (lists_of, selectors): (Vec<_>, Vec<_>) = words.map(selector).unzip();
        // A malformed exclusion is reported at once.
        let left_out = lists.iter().map(|words| Excluded::new(&words.excluded, &locator));
        let left_out = left_out.collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            needs: Needs::of(&selectors, &left_out),
            selectors,
            lists: lists_of,
            left_out,
            exclude: lists.iter().flat_map(|words| words.excluded.iter().cloned()).collect(),
            waits: true,
            spared: OnceCell::new(),
            root: root(&locator),
            at_start: locator,
            seen: None,
            text: String::new(),
            nameless: HashMap::new(),
        })
    }

    /// Returns whether more cgroups may appear later: by globs, or by names that don't exist yet.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.waits || self.selectors.iter().any(Selector::is_glob)
    }

    /// Returns the cgroups that exist at the beginning. An error of one of several lists is in the
    /// result, and leaves the others as they are.
    ///
    /// # Errors
    /// The hierarchy can't be searched at all; and in a watchlist of one list, the error of the
    /// first word that doesn't name one cgroup. But a glob may match nothing, if there is a cgroup
    /// below which it could match later.
    pub fn first(&self) -> Result<Found, CgroupError> {
        self.at_start.mount()?;
        self.first_by(&self.at_start)
    }

    fn first_by(&self, locator: &Locator) -> Result<Found, CgroupError> {
        let (mut found, missing) = self.look(locator, &|_| false);
        for (number, why) in missing {
            let word = self.selectors[number].word();
            match why.word() {
                // No word of any list would do.
                _ if matches!(why, CgroupError::ControllerOnV1 { .. }) => return Err(why),
                Some(word) if self.waits => found.waiting.push(word.to_owned()),
                _ if self.waits => found.unresolved.push(Unresolved { list: self.lists[number], why }),
                Some(name)
                    if matches!(why, CgroupError::NoMatch { .. }) && parent_is_there(word, locator) =>
                {
                    found.waiting.push(name.to_owned());
                }
                _ => return Err(locator.explain(why, word)),
            }
        }
        Ok(found)
    }

    /// Returns whether a list can't take a cgroup, whatever its words match: the cgroup is excluded,
    /// spared, or in a pod whose name has to be known.
    #[must_use]
    pub fn leaves_out(&self, list: usize, located: &CgroupPath) -> bool {
        let locator = &self.at_start;
        // Whether the name counts isn't known here: to leave out too much is the safe side.
        self.left_out.get(list).is_some_and(|excluded| excluded.has(located, true, locator.pods()))
            || self.needs.lack(&locator.pods().of(&located.mount, located.below_mount()))
    }

    /// Removes containers that may get a name yet from the cgroups at the beginning: the next searches
    /// find them again.
    pub fn without_nameless(&self, found: &mut Found) {
        let pods = self.at_start.pods();
        found.taken.retain(|one| !one.selected.by_glob || !pods.may_get_name(&one.selected.located.name));
    }

    /// Returns the globs to exclude that match no existing cgroup, which may be mistyped.
    #[must_use]
    pub fn useless(&self) -> Vec<&OsStr> {
        let locator = &self.at_start;
        let widest = locator.mount().cloned().map(Arc::new).ok();
        let mut useless: Vec<_> = self.exclude.iter().map(OsString::as_os_str).collect();
        let mut rest: Vec<(&OsStr, Excluded, Arc<Mount>)> = Vec::new();
        for word in &self.exclude {
            let mount = Scope::of(word, locator).mount.or_else(|| widest.clone());
            if let (Ok(excluded), Some(mount)) = (Excluded::new(std::slice::from_ref(word), locator), mount) {
                rest.push((word, excluded, mount));
            }
        }
        // One walk for all words of a mount.
        while let Some(mount) = rest.first().map(|(.., mount)| Arc::clone(mount)) {
            for tree::Entry { path, id, genuine, .. } in tree::walk(&mount) {
                let located =
                    CgroupPath { path: path.into(), name: Name::default(), mount: Arc::clone(&mount), id };
                rest.retain(|(word, excluded, within)| {
                    let found =
                        within.point == mount.point && excluded.has(&located, genuine, locator.pods());
                    if found {
                        useless.retain(|other| other != word);
                    }
                    !found
                });
            }
            rest.retain(|(.., within)| within.point != mount.point);
        }
        useless
    }

    /// Returns whether it is time to search for cgroups, and records the search.
    ///
    /// Walking a large hierarchy is expensive. While the number of cgroups is unchanged and none
    /// was `lost`, this returns false until the next scheduled walk. (A lost cgroup may be back.)
    pub(crate) fn is_due(&mut self, now: Duration, lost: bool) -> bool {
        let count = self.descendants();
        let changed = match self.seen {
            Some(seen) if Some(seen.count) == count && !lost => seen.changed,
            _ => now,
        };
        let settled = now.saturating_sub(changed) >= SETTLED;
        if let Some(seen) = self.seen.filter(|_| settled)
            && now.saturating_sub(seen.looked) < LOOKED_THROUGH
        {
            return false;
        }
        self.seen = count.map(|count| Seen { looked: now, changed, count });
        true
    }

    /// Returns the cgroups that exist now, without the `known` ones. Names that don't exist, and
    /// globs that match nothing, may do so later.
    pub(crate) fn search(&mut self, known: &dyn Fn(u64) -> bool) -> Found {
        let locator = match Locator::new() {
            Ok(locator) => locator,
            Err(why) => return Found { troubles: vec![why], ..Found::default() },
        };
        let (mut found, missing) = self.look(&locator, known);
        self.wait_for_names(&mut found.taken, &locator, clock::now());
        let failed = missing.into_iter().filter(|(_, why)| why.word().is_none());
        let unresolved = failed.map(|(number, why)| Unresolved { list: self.lists[number], why });
        found.unresolved = unresolved.collect();
        found
    }

    /// Returns the number of cgroups.
    fn descendants(&mut self) -> Option<u64> {
        self.root.as_ref()?.read(&mut self.text).ok()?;
        self.text.lines().find_map(|line| line.strip_prefix("nr_descendants ")?.parse().ok())
    }

    /// Looks for all words. Mounts are read once for all of them: a host can have thousands.
    fn look(&self, locator: &Locator, known: &dyn Fn(u64) -> bool) -> (Found, Vec<(usize, CgroupError)>) {
        let leaves_out = |selector: usize, located: &CgroupPath, genuine: bool| {
            self.left_out[self.lists[selector]].has(located, genuine, locator.pods())
        };
        let Selected { chosen, missing, troubles } = select_by(&self.selectors, locator, known, &leaves_out);
        let spares = |located: &CgroupPath| self.spared.get_or_init(|| Spared::new(locator)).spares(located);
        let (mut taken, mut nameless) = (Vec::with_capacity(chosen.len()), 0);
        for one in chosen {
            let by_glob = one.selected.by_glob;
            if by_glob && spares(&one.selected.located) {
                continue;
            }
            let (list, pod) = (self.lists[one.by], one.pod(locator));
            if by_glob && self.needs.lack(&pod) {
                nameless += 1;
                continue;
            }
            taken.push(Assigned { selected: one.named(pod), list });
        }
        let mut found = Found { taken, troubles, ..Found::default() };
        if self.needs.pods {
            found.troubles.extend(locator.pods().trouble(nameless, self.needs.containers));
        }
        (found, missing)
    }

    /// Leaves out containers that have no name yet, for a while: the kubelet makes the link of a
    /// container's log right after its cgroup. A sandbox never has a name.
    fn wait_for_names(&mut self, taken: &mut Vec<Assigned>, locator: &Locator, now: Duration) {
        let before = std::mem::take(&mut self.nameless);
        taken.retain(|one| {
            let located = &one.selected.located;
            if !one.selected.by_glob || !locator.pods().may_get_name(&located.name) {
                return true;
            }
            let since = before.get(&located.id).copied().unwrap_or(now);
            let waits = now.saturating_sub(since) < NAMED;
            if waits {
                self.nameless.insert(located.id, since);
            }
            !waits
        });
    }
}

/// Opens the root's `cgroup.stat`. It is held open, since a host with many mounts has much to read
/// before the root is found.
fn root(locator: &Locator) -> Option<Reader> {
    let mount = locator.mount().ok()?;
    Reader::at(crate::cgroup::open_directory(&mount.point).ok()?, "cgroup.stat").ok()
}

#[cfg(test)]
mod tests;
