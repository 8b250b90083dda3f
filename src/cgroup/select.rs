//! From names and globs to cgroups, each of them once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::Arc;

use globset::{Glob, GlobBuilder, GlobMatcher};

use super::diagnose::{Unreclaimable, no_match};
use super::locate::{Located, locate};
use super::mount::Mount;
use super::{node, tree};

/// A cgroup that was asked for, by its own name or by a glob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// Where it is.
    pub located: Located,
    /// Whether only globs matched it. Then nobody promised that memory can be reclaimed there.
    pub by_glob: bool,
}

/// Finds all cgroups that the words name. A glob has `*`, `?`, `[…]`, `{a,b}`, which stay within a level, or `**`, which
/// crosses levels. Names keep the order in which they were given; what a glob matches comes in the order of names.
///
/// # Errors
/// [`Unreclaimable`]: a name that doesn't exist, a glob that is malformed or matches nothing.
pub fn select(words: &[String]) -> Result<Vec<Selected>, Unreclaimable> {
    let (selected, missing) = select_there(words);
    missing.into_iter().next().map_or(Ok(selected), Err)
}

/// Finds the cgroups that the words name, as [`select`] does, and says of each word that names none why.
#[must_use]
pub fn select_there(words: &[String]) -> (Vec<Selected>, Vec<Unreclaimable>) {
    let patterns: Vec<_> = words.iter().map(|word| Pattern::new(word)).collect();
    let (chosen, missing) = select_by(&patterns, &|_| false, &|_, _| false);
    (chosen.into_iter().map(|chosen| chosen.selected).collect(), missing)
}

/// A name, or a glob that was made ready.
#[derive(Debug)]
pub(super) struct Pattern {
    word: String,
    glob: Option<Result<GlobMatcher, String>>,
    specificity: Specificity,
}

/// How closely a pattern says what it means: a name more so than any glob; then the one with more characters that stand
/// for themselves, and then the one that stays within a level.
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

impl Pattern {
    pub(super) fn new(word: &str) -> Self {
        let below = is_glob(word).then(|| below_the_mount(word));
        let glob = below.as_deref().map(matcher);
        let specificity = Specificity::of(below.as_deref().unwrap_or(word), below.is_none());
        Self { word: word.to_owned(), glob, specificity }
    }

    /// Whether it is a glob.
    pub(super) fn is_glob(&self) -> bool {
        self.glob.is_some()
    }
}

/// What was selected, and by which of the patterns: the most specific, and the first of those.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) selected: Selected,
    pub(super) by: usize,
    /// Which pattern it was found by first.
    first: usize,
}

/// What is being selected.
struct Selection<'a> {
    patterns: &'a [Pattern],
    chosen: Vec<Chosen>,
    /// Where each is among those chosen: there may be thousands, and a watch asks again and again.
    places: HashMap<Arc<Path>, usize>,
}

impl Selection<'_> {
    fn choose(&mut self, located: Located, by: usize) {
        let by_glob = self.patterns[by].is_glob();
        match self.places.entry(Arc::clone(&located.path)) {
            Entry::Occupied(known) => {
                let known = &mut self.chosen[*known.get()];
                known.selected.by_glob &= by_glob;
                if self.patterns[by].specificity > self.patterns[known.by].specificity {
                    known.by = by;
                }
            }
            Entry::Vacant(place) => {
                place.insert(self.chosen.len());
                self.chosen.push(Chosen { selected: Selected { located, by_glob }, by, first: by });
            }
        }
    }
}

/// The same for words that were made ready, less what is `known` already, and less what a pattern `leaves_out`.
pub(super) fn select_by(
    patterns: &[Pattern],
    known: &dyn Fn(&Path) -> bool,
    leaves_out: &dyn Fn(usize, &str) -> bool,
) -> (Vec<Chosen>, Vec<Unreclaimable>) {
    let mut selection = Selection { patterns, chosen: Vec::new(), places: HashMap::new() };
    let mut missing: Vec<(usize, Unreclaimable)> = Vec::new();
    let mut globs: Vec<(Mount, Vec<Sought<'_>>)> = Vec::new();
    for (number, pattern) in patterns.iter().enumerate() {
        match &pattern.glob {
            None => match locate(&pattern.word) {
                Ok(found) if !known(&found.path) => selection.choose(found, number),
                Ok(_) => {}
                Err(why) => missing.push((number, why)),
            },
            Some(Ok(glob)) => match Mount::find(Path::new(&pattern.word)) {
                Ok(Some(mount)) => {
                    let sought = Sought { number, glob, found: false };
                    match globs.iter_mut().find(|(other, _)| other.point == mount.point) {
                        Some((_, sought_there)) => sought_there.push(sought),
                        None => globs.push((mount, vec![sought])),
                    }
                }
                Ok(None) => missing.push((number, Unreclaimable::no_cgroup2())),
                Err(e) => missing.push((number, Unreclaimable::io("/proc/self/mountinfo", &e))),
            },
            Some(Err(why)) => {
                let why = Unreclaimable::BadGlob { word: pattern.word.clone(), why: why.clone() };
                missing.push((number, why));
            }
        }
    }
    for (mount, mut sought) in globs {
        let mount = Arc::new(mount);
        // The hierarchy is walked through once, however many globs there are.
        for path in tree::below(&mount.point) {
            let Some(name) = mount.name_of(&path) else { continue };
            let (name, mut matched): (Arc<str>, _) = (name.into(), None);
            for sought in
                sought.iter_mut().filter(|sought| sought.glob.is_match(name.trim_start_matches('/')))
            {
                sought.found = true;
                if !leaves_out(sought.number, &name) && matched.get_or_insert_with(|| !known(&path)) == &true
                {
                    let (path, name, mount) = (path.as_path().into(), Arc::clone(&name), Arc::clone(&mount));
                    selection.choose(Located { path, name, mount }, sought.number);
                }
            }
        }
        let unmatched = sought.iter().filter(|sought| !sought.found);
        missing
            .extend(unmatched.map(|sought| (sought.number, no_match(&patterns[sought.number].word, &mount))));
    }
    let mut chosen = selection.chosen;
    // Names in the order in which they were given, and what a glob matches in the order of names.
    chosen.sort_by(|a, b| {
        let by_name = || a.selected.located.name.cmp(&b.selected.located.name);
        a.first.cmp(&b.first).then_with(by_name)
    });
    missing.sort_by_key(|(number, _)| *number);
    (chosen, missing.into_iter().map(|(_, why)| why).collect())
}

/// A glob that is looked for, and whether anything matched it.
struct Sought<'a> {
    number: usize,
    glob: &'a GlobMatcher,
    found: bool,
}

/// What was asked for where a NUMA node will do as well as a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A cgroup.
    Cgroup(Selected),
    /// The node of this number, which may not exist.
    Node(u32),
}

/// Finds all cgroups and nodes that the words name, each of them once, in the order in which they were given.
///
/// # Errors
/// As [`select`], and for a word that begins as a node's name does and doesn't end in a number.
pub fn places(words: &[String]) -> Result<Vec<Wanted>, Unreclaimable> {
    let mut wanted: Vec<Wanted> = Vec::new();
    for word in words {
        // A cgroup may be called so, and what exists is a name.
        if let Some(number) = node::parse(word).filter(|_| locate(word).is_err()) {
            let node = Wanted::Node(number?);
            if !wanted.contains(&node) {
                wanted.push(node);
            }
            continue;
        }
        for found in select(std::slice::from_ref(word))? {
            let known = wanted.iter_mut().find_map(|one| match one {
                Wanted::Cgroup(known) if known.located.path == found.located.path => Some(known),
                _ => None,
            });
            match known {
                Some(known) => known.by_glob &= found.by_glob,
                None => wanted.push(Wanted::Cgroup(found)),
            }
        }
    }
    Ok(wanted)
}

/// A glob without the mount in front of it, if it has that.
pub(super) fn below_the_mount(word: &str) -> String {
    let point = Mount::find(Path::new(word)).ok().flatten().map(|mount| mount.point);
    let below = point.as_deref().and_then(Path::to_str).and_then(|point| word.strip_prefix(point));
    below.unwrap_or(word).trim_matches('/').to_owned()
}

/// What only globs have.
const SPECIAL: [char; 4] = ['*', '?', '[', '{'];

/// Whether a word is a glob. A name with such a character in it can still be given by its path: what exists is a name.
pub(crate) fn is_glob(word: &str) -> bool {
    word.contains(SPECIAL) && locate(word).is_err()
}

fn matcher(pattern: &str) -> Result<GlobMatcher, String> {
    glob(pattern).map(|glob| glob.compile_matcher())
}

/// What is wrong with a word as a glob, if it is one.
pub(crate) fn malformed(word: &str) -> Option<String> {
    glob(word).err().filter(|_| word.contains(SPECIAL))
}

/// A glob over names without their leading slash.
pub(super) fn glob(pattern: &str) -> Result<Glob, String> {
    // A backslash is a character of systemd's unit names (`\x2d`) before it is anything else.
    let glob = GlobBuilder::new(pattern).literal_separator(true).backslash_escape(false).build();
    glob.map_err(|e| e.kind().to_string())
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

    #[test]
    fn stars_stay_within_a_level_but_for_two() {
        let is = |pattern: &str, name: &str| matcher(pattern).unwrap().is_match(name);
        assert!(is("batch/*", "batch/a"));
        assert!(!is("batch/*", "batch/a/b"));
        assert!(is("batch/**", "batch/a/b"));
        assert!(is("**/*.service", "system.slice/nginx.service"));
        assert!(is("**/*.service", "nginx.service"));
        assert!(is("job-[0-9]?", "job-1a"));
        assert!(is(r"system.slice/a\x2db*", r"system.slice/a\x2db.service"));
        assert!(matcher("a[").is_err());
    }
}
