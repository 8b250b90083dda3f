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
    select_by(&words.iter().map(|word| Pattern::new(word)).collect::<Vec<_>>(), &|_| false)
}

/// A name, or a glob that was made ready.
#[derive(Debug)]
pub(super) struct Pattern {
    word: String,
    glob: Option<Result<GlobMatcher, String>>,
}

impl Pattern {
    pub(super) fn new(word: &str) -> Self {
        let glob = is_glob(word).then(|| matcher(&below_the_mount(word)));
        Self { word: word.to_owned(), glob }
    }

    /// Whether it is a glob.
    pub(super) fn is_glob(&self) -> bool {
        self.glob.is_some()
    }

    fn find(&self, known: &dyn Fn(&Path) -> bool) -> Result<Vec<Located>, Unreclaimable> {
        match &self.glob {
            None => Ok(Some(locate(&self.word)?).into_iter().filter(|found| !known(&found.path)).collect()),
            Some(Ok(glob)) => matches(&self.word, glob, known),
            Some(Err(why)) => Err(Unreclaimable::BadGlob { word: self.word.clone(), why: why.clone() }),
        }
    }
}

/// The same for words that were made ready, less what is `known` already.
pub(super) fn select_by(
    patterns: &[Pattern],
    known: &dyn Fn(&Path) -> bool,
) -> (Vec<Selected>, Vec<Unreclaimable>) {
    let mut selected: Vec<Selected> = Vec::new();
    let mut missing = Vec::new();
    // Where each is among those selected: there may be thousands, and a watch asks again and again.
    let mut places: HashMap<Arc<Path>, usize> = HashMap::new();
    for pattern in patterns {
        let by_glob = pattern.is_glob();
        for located in pattern.find(known).unwrap_or_else(|why| {
            missing.push(why);
            Vec::new()
        }) {
            match places.entry(Arc::clone(&located.path)) {
                Entry::Occupied(known) => selected[*known.get()].by_glob &= by_glob,
                Entry::Vacant(place) => {
                    place.insert(selected.len());
                    selected.push(Selected { located, by_glob });
                }
            }
        }
    }
    (selected, missing)
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

/// Whether a word is a glob. A name with such a character in it can still be given by its path: what exists is a name.
pub(crate) fn is_glob(word: &str) -> bool {
    word.contains(['*', '?', '[', '{']) && locate(word).is_err()
}

fn matches(
    word: &str,
    glob: &GlobMatcher,
    known: &dyn Fn(&Path) -> bool,
) -> Result<Vec<Located>, Unreclaimable> {
    let mount = Mount::find(Path::new(word)).map_err(|e| Unreclaimable::io("/proc/self/mountinfo", &e))?;
    let mount = Arc::new(mount.ok_or_else(Unreclaimable::no_cgroup2)?);
    let named = tree::below(&mount.point).filter_map(|path| Some((mount.name_of(&path)?, path)));
    let mut matching = named.filter(|(name, _)| glob.is_match(name.trim_start_matches('/'))).peekable();
    if matching.peek().is_none() {
        return Err(no_match(word, &mount));
    }
    let mut found: Vec<_> = matching
        .filter(|(_, path)| !known(path))
        .map(|(name, path)| Located { path: path.into(), name: name.into(), mount: Arc::clone(&mount) })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn matcher(pattern: &str) -> Result<GlobMatcher, String> {
    glob(pattern).map(|glob| glob.compile_matcher())
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
