//! Selection of cgroups by names and globs, each cgroup once.
//!
//! A word with a special character is a glob, unless it is the path of a cgroup, given with the
//! mount point (`/sys/fs/cgroup/…`): whoever may create a cgroup called `*` must not turn the glob
//! `batch/*` of others into a name.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cgroup::error::{CgroupError, GlobError};
use crate::cgroup::mount::Mount;
use crate::cgroup::path::CgroupPath;
use crate::node;
use locate::Lookup;
use locate::shown;
use pattern::{Matcher, Pattern, has_special, literal};
use pods::PodState;
use pods::pattern::PodPattern;
use search::{PodWord, Search, troubles};
use specificity::Specificity;

pub mod completion;
pub mod locate;
mod meant;
mod pattern;
pub mod pods;
mod process;
pub mod resolver;
mod search;
mod specificity;
mod suggest;
pub mod watchlist;

pub use locate::{Locator, locate};
pub use watchlist::Watchlist;

/// Cgroup that was requested, by its own name or by a glob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// Path, name and id of the cgroup.
    pub located: CgroupPath,
    /// True if only globs matched the cgroup. Then the user made no claim that memory can be
    /// reclaimed there.
    pub by_glob: bool,
}

/// Finds the cgroups that the words name, and the reason for each word that names none.
///
/// A glob has `*`, `?`, `[…]`, `{a,b}`, which stay within a level, or `**`, which crosses levels.
/// Names keep the order in which they were given; the matches of a glob are sorted by name.
#[must_use]
pub fn select_there(words: &[OsString]) -> (Vec<Match>, Vec<CgroupError>) {
    let locator = match Locator::new() {
        Ok(locator) => locator,
        Err(why) => return (Vec::new(), vec![why]),
    };
    let selectors: Vec<_> = words.iter().map(|word| Selector::new(word, &locator, false)).collect();
    let Selected { chosen, missing, troubles } =
        select_by(&selectors, &locator, &|_| false, &|_, _, _| false);
    let explained = missing.into_iter().enumerate().map(|(nth, (number, why))| match nth {
        ..EXPLAINED => locator.explain(why, selectors[number].word()),
        _ => why,
    });
    let errors = explained.chain(troubles).collect();
    let named = chosen.into_iter().map(|chosen| {
        let pod = chosen.pod(&locator);
        chosen.named(pod)
    });
    (named.collect(), errors)
}

/// Maximum number of words that name nothing for which suggestions are searched for.
const EXPLAINED: usize = 3;

/// Name, or compiled glob.
#[derive(Debug)]
pub(crate) struct Selector {
    word: OsString,
    glob: Option<Result<Glob, GlobError>>,
    /// Hierarchy of a glob, if it isn't the one that names begin from.
    mount: Option<Arc<Mount>>,
    /// Pods or containers by their names, of which there may be several.
    pod: Option<PodPattern>,
    /// True if a pod is meant with all that is in it.
    whole_pods: bool,
    specificity: Specificity,
}

/// Compiled glob, and its text from the mount point.
#[derive(Debug)]
struct Glob {
    matcher: Matcher,
    pattern: OsString,
}

impl Selector {
    /// Compiles a word. With `whole_pods`, the name of a pod stands for all that is in it.
    pub(crate) fn new(word: &OsStr, locator: &Locator, whole_pods: bool) -> Self {
        let is_glob = locator.is_glob(word);
        let specificity = Specificity::of(&word.to_string_lossy(), !is_glob);
        let selector =
            Self { word: word.to_owned(), glob: None, mount: None, pod: None, whole_pods, specificity };
        if let Some(pattern) = PodPattern::parse(word).filter(|_| !locator.is_path(word)) {
            // The error of a malformed word comes from its lookup.
            return Self { pod: pattern.ok().filter(|_| is_glob || whole_pods), ..selector };
        }
        if !is_glob {
            return selector;
        }
        let Scope { pattern, mount } = Scope::of(word, locator);
        let specificity = Specificity::of(&pattern.to_string_lossy(), false);
        let glob = Pattern::new(&pattern).map(|compiled| Glob { matcher: compiled.matcher(), pattern });
        Self { glob: Some(glob), mount, specificity, ..selector }
    }

    /// Returns whether the selector is a glob.
    pub(crate) fn is_glob(&self) -> bool {
        self.glob.is_some() || self.pod.as_ref().is_some_and(PodPattern::is_glob)
    }

    /// Looks a name up as far as no search is needed; `None` for a glob.
    fn look_up(&self, locator: &Locator) -> Result<Option<Lookup>, CgroupError> {
        match &self.glob {
            None if self.pod.is_some() => Ok(None),
            None => locator.look_up(&self.word).map(Some),
            Some(Ok(_)) => Ok(None),
            Some(Err(why)) => Err(CgroupError::BadGlob { word: shown(&self.word), why: why.clone() }),
        }
    }

    /// Returns the word's pods or containers, if it names them.
    pub(crate) fn pod(&self) -> Option<Cow<'_, PodPattern>> {
        match &self.pod {
            Some(pattern) => Some(Cow::Borrowed(pattern)),
            None => PodPattern::parse(&self.word)?.ok().map(Cow::Owned),
        }
    }

    /// Returns the word as it was given.
    pub(crate) fn word(&self) -> &OsStr {
        &self.word
    }
}

/// Selected cgroup, and the index of its selector: the most specific, and the first of equals.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) selected: Match,
    pub(crate) by: usize,
    /// Index of the selector that found the cgroup first: names are looked up before globs.
    first: usize,
    /// Index of the first selector that found the cgroup, in the order of the words.
    earliest: usize,
}

impl Chosen {
    /// Returns the pod that the cgroup is in.
    fn pod(&self, locator: &Locator) -> PodState {
        let located = &self.selected.located;
        locator.pods().of(&located.mount, located.below_mount())
    }

    /// Returns the cgroup, with the names of the pod that it is in.
    fn named(self, pod: PodState) -> Match {
        let Match { mut located, by_glob } = self.selected;
        if let PodState::Known(pod) = pod {
            located.name = located.name.in_pod(pod.names);
        }
        Match { located, by_glob }
    }
}

/// Result of a selection.
#[derive(Debug, Default)]
pub(crate) struct Selected {
    pub(crate) chosen: Vec<Chosen>,
    /// Indices of the selectors that select nothing, each with the plain reason.
    pub(crate) missing: Vec<(usize, CgroupError)>,
    /// Parts of the hierarchy that couldn't be searched.
    pub(crate) troubles: Vec<CgroupError>,
}

/// Selection in progress.
struct Selection<'a> {
    selectors: &'a [Selector],
    chosen: Vec<Chosen>,
    /// Indices into `chosen`, by the cgroup's id: one cgroup can be reached by several paths.
    indices: HashMap<u64, usize>,
}

impl Selection<'_> {
    fn choose(&mut self, located: CgroupPath, by: usize) {
        let by_glob = self.selectors[by].is_glob();
        match self.indices.entry(located.id) {
            Entry::Occupied(known) => {
                let known = &mut self.chosen[*known.get()];
                known.earliest = known.earliest.min(by);
                // A cgroup may be read-only through one mount, and writable through another.
                if known.selected.located.mount.read_only && !located.mount.read_only {
                    known.selected.located = located;
                }
                known.selected.by_glob &= by_glob;
                if self.selectors[by].specificity > self.selectors[known.by].specificity {
                    known.by = by;
                }
            }
            Entry::Vacant(place) => {
                place.insert(self.chosen.len());
                let selected = Match { located, by_glob };
                self.chosen.push(Chosen { selected, by, first: by, earliest: by });
            }
        }
    }
}

/// Searches that belong to one mount.
struct Part<'a> {
    mount: Arc<Mount>,
    search: Search<'a>,
}

/// Returns the search that belongs to a mount.
fn search_in<'a, 'b>(parts: &'b mut Vec<Part<'a>>, mount: &Arc<Mount>) -> &'b mut Search<'a> {
    let part = parts.iter().position(|part| part.mount.point == mount.point).unwrap_or_else(|| {
        parts.push(Part { mount: Arc::clone(mount), search: Search::default() });
        parts.len() - 1
    });
    &mut parts[part].search
}

/// Finds the cgroups of compiled selectors, as [`select_there`] does, except cgroups whose id is
/// `known`, and those that a selector `leaves_out` (given whether the cgroup's name counts). Walks
/// each hierarchy once at most.
pub(crate) fn select_by(
    selectors: &[Selector],
    locator: &Locator,
    known: &dyn Fn(u64) -> bool,
    leaves_out: &dyn Fn(usize, &CgroupPath, bool) -> bool,
) -> Selected {
    let mut selection = Selection { selectors, chosen: Vec::new(), indices: HashMap::new() };
    let mut missing: Vec<(usize, CgroupError)> = Vec::new();
    let mut parts: Vec<Part<'_>> = Vec::new();
    // Names that only the walk can find: their directories, and the error of a path.
    let mut by_name: HashMap<usize, (Vec<PathBuf>, Option<CgroupError>)> = HashMap::new();
    // Globs that match nothing so far.
    let mut unmatched: HashMap<usize, bool> = HashMap::new();
    let widest = locator.mount().cloned().map(Arc::new);
    for (number, selector) in selectors.iter().enumerate() {
        let lookup = match selector.look_up(locator) {
            Ok(Some(Lookup::Found(located))) => {
                if !known(located.id) {
                    selection.choose(located, number);
                }
                continue;
            }
            Ok(lookup) => lookup,
            Err(why) => {
                missing.push((number, why));
                continue;
            }
        };
        let Ok(mount) = selector.mount.as_ref().map_or(widest.as_ref(), Ok) else {
            missing.push((number, CgroupError::no_cgroup2()));
            continue;
        };
        let search = search_in(&mut parts, mount);
        match (lookup, &selector.glob) {
            (Some(Lookup::Named(named)), _) => {
                by_name.insert(number, (Vec::new(), None));
                search.named(number, named);
            }
            (Some(Lookup::Spelt(below, why)), _) => {
                by_name.insert(number, (Vec::new(), Some(why)));
                search.spelt(number, &below);
            }
            (Some(Lookup::Pod(pattern)), _) => {
                by_name.insert(number, (Vec::new(), None));
                search.pod(number, PodWord { pattern: Cow::Owned(pattern), whole: false });
            }
            (_, Some(Ok(glob))) => {
                unmatched.insert(number, true);
                search.glob(number, Path::new(&glob.pattern), &glob.matcher);
            }
            _ => {
                if let Some(pattern) = &selector.pod {
                    unmatched.insert(number, true);
                    let word = PodWord { pattern: Cow::Borrowed(pattern), whole: selector.whole_pods };
                    search.pod(number, word);
                }
            }
        }
    }
    let (mut matches, mut unsearched) = (Vec::new(), Vec::new());
    for Part { mount, search } in parts.iter().filter(|part| !part.search.is_empty()) {
        let mut located: Option<CgroupPath> = None;
        let trouble = search.run(mount, locator.asker(), locator.pods(), false, &mut |number, entry| {
            if let Some((found, _)) = by_name.get_mut(&number) {
                found.push(entry.path.clone());
                return;
            }
            unmatched.insert(number, false);
            if known(entry.id) {
                return;
            }
            // Several globs can match one cgroup.
            if located.as_ref().is_none_or(|last| *last.path != *entry.path) {
                let name = mount.name_of(&entry.path).unwrap_or_default();
                let (path, mount) = (entry.path.as_path().into(), Arc::clone(mount));
                located = Some(CgroupPath { path, name, mount, id: entry.id });
            }
            if let Some(located) = located.as_ref().filter(|one| !leaves_out(number, one, entry.genuine)) {
                matches.push((number, located.clone()));
            }
        });
        unsearched.extend(troubles(trouble, mount));
    }
    let mut by_name: Vec<_> = by_name.into_iter().collect();
    by_name.sort_by_key(|(number, _)| *number);
    for (number, (found, why)) in by_name {
        match locator.choose(&selectors[number].word, found, why) {
            Ok(located) if !known(located.id) => selection.choose(located, number),
            Ok(_) => {}
            Err(why) => missing.push((number, why)),
        }
    }
    for (number, located) in matches {
        selection.choose(located, number);
    }
    let no_match = |number: usize| CgroupError::NoMatch { word: shown(&selectors[number].word) };
    missing.extend(
        unmatched.into_iter().filter(|(_, none)| *none).map(|(number, _)| (number, no_match(number))),
    );
    let mut chosen = selection.chosen;
    // Names keep the order in which they were given; the matches of a glob are sorted by name.
    chosen.sort_by(|a, b| {
        let by_name = || a.selected.located.name.cmp(&b.selected.located.name);
        a.first.cmp(&b.first).then_with(by_name)
    });
    missing.sort_by_key(|(number, _)| *number);
    Selected { chosen, missing: on_v1(missing, locator), troubles: unsearched }
}

/// Replaces the errors of words that name nothing, if the memory controller is on version 1: then
/// no name would do.
fn on_v1(missing: Vec<(usize, CgroupError)>, locator: &Locator) -> Vec<(usize, CgroupError)> {
    let absent =
        |why: &CgroupError| matches!(why, CgroupError::NoSuchCgroup { .. } | CgroupError::NoMatch { .. });
    let Some(mount) = locator.mount().ok().filter(|_| missing.iter().any(|(_, why)| absent(why))) else {
        return missing;
    };
    let Some(CgroupError::ControllerOnV1 { v1, .. }) = suggest::elsewhere("", mount) else { return missing };
    let replaced = |(number, why): (usize, CgroupError)| match why.word().filter(|_| absent(&why)) {
        Some(word) => (number, CgroupError::ControllerOnV1 { name: word.to_owned(), v1: v1.clone() }),
        None => (number, why),
    };
    missing.into_iter().map(replaced).collect()
}

/// Request for a cgroup or a NUMA node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetSpec {
    /// Request for a cgroup.
    Cgroup(Match),
    /// Request for the node of this number, which may not exist.
    Node(u32),
}

/// Finds all cgroups and nodes that the words name, each once, in the order in which they were
/// given. Calls `report` for parts of the hierarchy that couldn't be searched.
///
/// # Errors
/// As for [`select_there`], and for a word with a node's prefix that doesn't end in a number.
pub fn places(
    words: &[OsString],
    report: &mut dyn FnMut(&CgroupError),
) -> Result<Vec<TargetSpec>, CgroupError> {
    let locator = Locator::new()?;
    // A cgroup may have the same name as a node, and an existing cgroup takes precedence.
    let node = |word: &OsString| word.to_str().and_then(node::parse).filter(|_| !locator.is_path(word));
    let nodes = words.iter().map(|word| node(word).transpose()).collect::<Result<Vec<_>, _>>()?;
    let (mut selectors, mut positions) = (Vec::new(), Vec::new());
    for (position, word) in words.iter().enumerate().filter(|(position, _)| nodes[*position].is_none()) {
        selectors.push(Selector::new(word, &locator, false));
        positions.push(position);
    }
    let Selected { chosen, missing, troubles } =
        select_by(&selectors, &locator, &|_| false, &|_, _, _| false);
    troubles.iter().for_each(report);
    if let Some((number, why)) = missing.into_iter().next() {
        return Err(locator.explain(why, selectors[number].word()));
    }
    let nodes = nodes.iter().enumerate().filter_map(|(position, node)| Some((position, (*node)?)));
    let mut wanted: Vec<_> = nodes.map(|(position, node)| (position, TargetSpec::Node(node))).collect();
    wanted.extend(chosen.into_iter().map(|one| {
        let (position, pod) = (positions[one.earliest], one.pod(&locator));
        (position, TargetSpec::Cgroup(one.named(pod)))
    }));
    let name = |one: &TargetSpec| match one {
        TargetSpec::Cgroup(one) => Some(one.located.name.clone()),
        TargetSpec::Node(_) => None,
    };
    wanted.sort_by(|(at, one), (other_at, other)| at.cmp(other_at).then_with(|| name(one).cmp(&name(other))));
    let mut seen = std::collections::HashSet::new();
    wanted.retain(|(_, one)| match one {
        TargetSpec::Node(number) => seen.insert(*number),
        TargetSpec::Cgroup(_) => true,
    });
    Ok(wanted.into_iter().map(|(_, one)| one).collect())
}

/// Glob over paths from a mount point, from a word.
#[derive(Debug)]
pub(crate) struct Scope {
    /// Glob over paths.
    pub(crate) pattern: OsString,
    /// Hierarchy of the glob, if it isn't the one that names begin from.
    pub(crate) mount: Option<Arc<Mount>>,
}

impl Scope {
    /// Returns the scope of a word. If the word is a path up to its first special character, the
    /// glob is over the hierarchy that this path leads into, otherwise over names.
    pub(crate) fn of(word: &OsStr, locator: &Locator) -> Self {
        let widest = locator.mount().ok();
        let elsewhere = |mount: &Mount| widest.is_none_or(|widest| widest.point != mount.point);
        if let Some((base, rest)) = locator.base_of_glob(word) {
            let mut glob = literal(base.below_mount());
            if !glob.is_empty() && !rest.as_os_str().is_empty() {
                glob.push(b'/');
            }
            glob.extend(rest.as_os_str().as_bytes());
            let mount = elsewhere(&base.mount).then_some(base.mount);
            return Self { pattern: OsString::from_vec(glob), mount };
        }
        // The path may not exist yet: the mount in front of the path decides.
        let around = locator.around(Path::new(word));
        let below = around.and_then(|mount| Path::new(word).strip_prefix(&mount.point).ok());
        let bytes = below.unwrap_or(Path::new(word)).as_os_str().as_bytes();
        let plain = |byte: &u8| *byte != b'/';
        let (from, to) = (bytes.iter().position(plain), bytes.iter().rposition(plain));
        let pattern = from.zip(to).map_or(&[][..], |(from, to)| &bytes[from..=to]);
        let mount = around.filter(|mount| elsewhere(mount)).cloned().map(Arc::new);
        Self { pattern: OsStr::from_bytes(pattern).to_owned(), mount }
    }
}

impl Locator {
    /// Returns whether a word is a glob.
    fn is_glob(&self, word: &OsStr) -> bool {
        has_special(word) && !self.is_path_below_a_mount(word)
    }
}

/// Returns whether a word is a glob.
pub(crate) fn is_glob(word: &OsStr) -> bool {
    Locator::new().is_ok_and(|locator| locator.is_glob(word))
}

/// Returns the error in a word that can't name anything: a malformed glob, or name of a pod.
pub(crate) fn malformed(word: &OsStr) -> Option<CgroupError> {
    if let Some(parsed) = PodPattern::parse(word) {
        return parsed.err();
    }
    let why = Pattern::new(word).err().filter(|_| has_special(word))?;
    Some(CgroupError::BadGlob { word: shown(word), why })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::tree::tests::{READ, give_away, make};

    /// Selects by words, and returns the names, the errors, and the number of directories read.
    fn selected(root: &Path, words: &[&str]) -> (Vec<String>, Vec<CgroupError>, usize) {
        let locator = Locator::faked(root);
        let selectors: Vec<_> =
            words.iter().map(|word| Selector::new(word.as_ref(), &locator, false)).collect();
        let before = READ.get();
        let Selected { chosen, missing, troubles } =
            select_by(&selectors, &locator, &|_| false, &|_, _, _| false);
        assert!(troubles.is_empty(), "{troubles:?}");
        let names = chosen.iter().map(|one| one.selected.located.name.to_string());
        (names.collect(), missing.into_iter().map(|(_, why)| why).collect(), READ.get() - before)
    }

    #[test]
    fn a_search_costs_one_walk_however_many_names_are_absent() {
        let root = tempfile::tempdir().unwrap();
        let slices: Vec<_> = (0..15).map(|n| format!("system.slice/{n}.slice")).collect();
        let cgroups =
            slices.iter().flat_map(|slice| (0..100).map(move |n| format!("{slice}/app-{n}.service")));
        make(root.path(), &cgroups.collect::<Vec<_>>().iter().map(String::as_str).collect::<Vec<_>>());
        make(root.path(), &["memory.stat"]);
        let absent: Vec<_> = (0..60).map(|n| format!("app{n}.service")).collect();
        let mut words: Vec<_> = absent.iter().map(String::as_str).collect();
        words.extend(["system.slice/none", "container:0123", "pod:0123"]);
        let (found, missing, read) = selected(root.path(), &words);
        // A file system that doesn't count links has empty directories read, too.
        assert!(found.is_empty() && (read == 17 || read == 17 + 1501), "{read}");
        assert_eq!(missing.len(), 63);
        // Nobody asked for suggestions.
        let plain =
            |why: &CgroupError| matches!(why, CgroupError::NoSuchCgroup { near, .. } if near.is_empty());
        assert!(missing.iter().all(plain), "{missing:?}");
        words.extend(["system.slice/1.slice/app-7*", "**/app-9.service"]);
        let (found, _, again) = selected(root.path(), &words);
        assert_eq!((found.len(), again), (11 + 15, read));
    }

    #[test]
    fn the_error_of_a_strangers_name_gives_its_path() {
        let root = tempfile::tempdir().unwrap();
        make(root.path(), &["memory.stat", "user.slice/nginx.service", "system.slice/nginx-1.service"]);
        give_away(&root.path().join("user.slice"));
        let (found, missing, _) = selected(root.path(), &["nginx.service"]);
        assert!(found.is_empty() && missing.len() == 1);
        let word = OsStr::new("nginx.service");
        let explain = || {
            Locator::faked(root.path()).explain(selected(root.path(), &["nginx.service"]).1.remove(0), word)
        };
        let why = explain();
        assert_eq!(why.to_string(), "nginx.service: no cgroup of root or of this user has this name");
        let hint = "name another user's cgroup by its path: /user.slice/nginx.service";
        assert_eq!((why.hint().as_deref(), why.word()), (Some(hint), Some("nginx.service")));
        std::fs::remove_dir(root.path().join("user.slice/nginx.service")).unwrap();
        assert_eq!(explain().hint().as_deref(), Some("similar names: system.slice/nginx-1.service"));
    }

    #[test]
    fn a_strangers_name_makes_nothing_ambiguous() {
        let root = tempfile::tempdir().unwrap();
        make(root.path(), &["memory.stat", "a/app.service", "b/app.service", "user/app.service"]);
        give_away(&root.path().join("user"));
        let missing = selected(root.path(), &["app.service"]).1;
        let [CgroupError::Ambiguous { candidates, .. }] = &missing[..] else { panic!("{missing:?}") };
        assert_eq!(candidates, &["/a/app.service", "/b/app.service"]);
    }
}
