//! Selection of cgroups by names and globs, each cgroup once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;

use crate::cgroup::error::{CgroupError, GlobError};
use crate::cgroup::mount::Mount;
use crate::cgroup::path::CgroupPath;
use crate::cgroup::tree;
use crate::node;
use locate::has_special;
use pattern::{Matcher, Pattern, literal};
use suggest::{no_match, shown};

pub mod completion;
pub mod locate;
mod pattern;
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
    let selectors: Vec<_> = words.iter().map(|word| Selector::new(word, &locator)).collect();
    let (chosen, missing) = select_by(&selectors, &locator, &|_| false, &|_, _| false);
    (chosen.into_iter().map(|chosen| chosen.selected).collect(), missing)
}

/// Name, or compiled glob.
#[derive(Debug)]
pub(crate) struct Selector {
    word: OsString,
    glob: Option<Result<Matcher, GlobError>>,
    /// Hierarchy of a glob, if it isn't the one that names begin from.
    mount: Option<Arc<Mount>>,
    specificity: Specificity,
}

/// Precision of a selector: a name is more specific than any glob; then the glob with more literal
/// characters, and then the glob that stays within a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Specificity {
    is_name: bool,
    literal: usize,
    within_a_level: bool,
}

impl Specificity {
    fn of(pattern: &str, is_name: bool) -> Self {
        let (mut literal, mut depth) = (0, 0usize);
        for character in pattern.chars() {
            match character {
                '[' | '{' => depth += 1,
                ']' | '}' => depth = depth.saturating_sub(1),
                '*' | '?' => {}
                _ if depth == 0 => literal += 1,
                _ => {}
            }
        }
        Self { is_name, literal, within_a_level: !pattern.contains("**") }
    }
}

impl Selector {
    pub(crate) fn new(word: &OsStr, locator: &Locator) -> Self {
        if !locator.is_glob(word) {
            let specificity = Specificity::of(&word.to_string_lossy(), true);
            return Self { word: word.to_owned(), glob: None, mount: None, specificity };
        }
        let Scope { pattern, mount } = Scope::of(word, locator);
        let glob = Pattern::new(&pattern).map(|pattern| pattern.matcher());
        let specificity = Specificity::of(&pattern.to_string_lossy(), false);
        Self { word: word.to_owned(), glob: Some(glob), mount, specificity }
    }

    /// Returns whether the selector is a glob.
    pub(crate) fn is_glob(&self) -> bool {
        self.glob.is_some()
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
    /// Index of the selector that found the cgroup first.
    first: usize,
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
                self.chosen.push(Chosen { selected: Match { located, by_glob }, by, first: by });
            }
        }
    }
}

/// Finds the cgroups of compiled selectors, as [`select_there`] does, except cgroups whose id is
/// `known`, and those that a selector `leaves_out`.
pub(crate) fn select_by(
    selectors: &[Selector],
    locator: &Locator,
    known: &dyn Fn(u64) -> bool,
    leaves_out: &dyn Fn(usize, &CgroupPath) -> bool,
) -> (Vec<Chosen>, Vec<CgroupError>) {
    let mut selection = Selection { selectors, chosen: Vec::new(), indices: HashMap::new() };
    let mut missing: Vec<(usize, CgroupError)> = Vec::new();
    let mut globs: Vec<(Arc<Mount>, Vec<Sought<'_>>)> = Vec::new();
    for (number, selector) in selectors.iter().enumerate() {
        match &selector.glob {
            None => match locator.locate(&selector.word) {
                Ok(found) if !known(found.id) => selection.choose(found, number),
                Ok(_) => {}
                Err(why) => missing.push((number, why)),
            },
            Some(Ok(glob)) => {
                let mount = selector.mount.clone().map_or_else(|| locator.mount().cloned().map(Arc::new), Ok);
                match mount {
                    Ok(mount) => {
                        let sought = Sought { number, glob, found: false };
                        match globs.iter_mut().find(|(other, _)| other.point == mount.point) {
                            Some((_, sought_there)) => sought_there.push(sought),
                            None => globs.push((mount, vec![sought])),
                        }
                    }
                    Err(why) => missing.push((number, why)),
                }
            }
            Some(Err(why)) => {
                let why = CgroupError::BadGlob { word: shown(&selector.word), why: why.clone() };
                missing.push((number, why));
            }
        }
    }
    for (mount, mut sought) in globs {
        // The hierarchy is walked once for all globs.
        for tree::Entry { path, id } in tree::walk(&mount) {
            let Ok(below) = path.strip_prefix(&mount.point) else { continue };
            let mut located: Option<CgroupPath> = None;
            for sought in sought.iter_mut().filter(|sought| sought.glob.is_match(below)) {
                sought.found = true;
                if known(id) {
                    continue;
                }
                let located = located.get_or_insert_with(|| {
                    let name = mount.name_of(&path).unwrap_or_default();
                    CgroupPath { path: path.as_path().into(), name, mount: Arc::clone(&mount), id }
                });
                if !leaves_out(sought.number, located) {
                    selection.choose(located.clone(), sought.number);
                }
            }
        }
        let unmatched = sought.iter().filter(|sought| !sought.found);
        missing.extend(
            unmatched.map(|sought| (sought.number, no_match(&selectors[sought.number].word, &mount))),
        );
    }
    let mut chosen = selection.chosen;
    // Names keep the order in which they were given; the matches of a glob are sorted by name.
    chosen.sort_by(|a, b| {
        let by_name = || a.selected.located.name.cmp(&b.selected.located.name);
        a.first.cmp(&b.first).then_with(by_name)
    });
    missing.sort_by_key(|(number, _)| *number);
    (chosen, missing.into_iter().map(|(_, why)| why).collect())
}

/// Glob to match, with a flag for any match.
struct Sought<'a> {
    number: usize,
    glob: &'a Matcher,
    found: bool,
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
/// given.
///
/// # Errors
/// As for [`select_there`], and for a word with a node's prefix that doesn't end in a number.
pub fn places(words: &[OsString]) -> Result<Vec<TargetSpec>, CgroupError> {
    let locator = Locator::new()?;
    let mut wanted: Vec<TargetSpec> = Vec::new();
    for word in words {
        // A cgroup may have the same name, and an existing cgroup takes precedence.
        if let Some(number) = word.to_str().and_then(node::parse).filter(|_| !locator.is_path(word)) {
            let node = TargetSpec::Node(number?);
            if !wanted.contains(&node) {
                wanted.push(node);
            }
            continue;
        }
        let selector = [Selector::new(word, &locator)];
        let (chosen, missing) = select_by(&selector, &locator, &|_| false, &|_, _| false);
        if let Some(why) = missing.into_iter().next() {
            return Err(why);
        }
        for found in chosen.into_iter().map(|chosen| chosen.selected) {
            let known = wanted.iter_mut().find_map(|one| match one {
                TargetSpec::Cgroup(known) if known.located.id == found.located.id => Some(known),
                _ => None,
            });
            match known {
                Some(known) => {
                    known.by_glob &= found.by_glob;
                    if known.located.mount.read_only && !found.located.mount.read_only {
                        known.located = found.located;
                    }
                }
                None => wanted.push(TargetSpec::Cgroup(found)),
            }
        }
    }
    Ok(wanted)
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
    /// Returns whether a word is a glob. A name with a special character can still be given by its
    /// path: an existing path is a name.
    fn is_glob(&self, word: &OsStr) -> bool {
        has_special(word) && !self.is_path(word)
    }
}

/// Returns whether a word is a glob.
pub(crate) fn is_glob(word: &OsStr) -> bool {
    Locator::new().is_ok_and(|locator| locator.is_glob(word))
}

/// Returns the error in a word as a glob, if the word is a malformed glob.
pub(crate) fn malformed(word: &OsStr) -> Option<GlobError> {
    Pattern::new(word).err().filter(|_| has_special(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_is_said_the_more_specific_it_is() {
        let words = ["**", "**/*.service", "*/*.service", "web-[0-9]*", "web-1*", "{web-1,web-2}-{a,b}*"];
        let of = |word: &str| Specificity::of(word, false);
        for (less, more) in [
            ("**", "*"),
            ("**", "**/*.service"),
            ("**/*.service", "*/*.service"),
            ("web-[0-9]*", "web-1*"),
            ("{web-1,web-2}-{a,b}*", "web-1*"),
            ("system.slice/*", "system.slice/a*"),
        ] {
            assert!(of(less) < of(more), "{less} < {more}");
        }
        assert!(words.iter().all(|word| of(word) < Specificity::of("a", true)), "a name says most");
    }
}
