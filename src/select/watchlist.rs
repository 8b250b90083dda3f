//! Watchlist of cgroups: names and globs, searched for repeatedly, without the cgroups that no glob
//! takes.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::pattern::{Matcher, Pattern, PatternSet};
use super::suggest::shown;
use super::{Locator, Match, Scope, Selector, locate, select_by};
use crate::cgroup::error::{CgroupError, GlobError};
use crate::cgroup::mount::Mount;
use crate::cgroup::path::CgroupPath;
use crate::cgroup::{Name, tree};
use crate::host::Reader;

/// Interval between walks of the hierarchy even while the number of cgroups is unchanged: one may
/// have been removed and another created.
const LOOKED_THROUGH: Duration = Duration::from_secs(20);

/// Period after a change in which every search walks the hierarchy: a new cgroup may get its limit
/// a moment later.
const SETTLED: Duration = Duration::from_secs(10);

/// Globs for essential parts of a host, which no glob takes. A plain name still does.
const SPARED: [&str; 12] = [
    "**/init.scope",
    "**/ssh.service",
    "**/sshd.service",
    "**/ssh@*.service",
    "**/sshd@*.service",
    "**/systemd-journald.service",
    "**/systemd-udevd.service",
    "**/kubelet.service",
    "**/containerd.service",
    "**/docker.service",
    "**/crio.service",
    "**/dbus*.service",
];

/// Words, and exclusions from their matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// Names and globs, in the form of [`super`].
    pub wanted: Vec<OsString>,
    /// Globs to exclude from the matches of globs.
    pub excluded: Vec<OsString>,
}

/// Cgroup to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// Selected cgroup, with a flag if only globs matched it.
    pub selected: Match,
    /// Index of the list of words that took the cgroup, by the most specific word.
    pub list: usize,
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
    /// True if names, like the matches of globs, may appear later.
    waits: bool,
    /// Essential cgroups. Compiled when a glob first matches, since compiling takes a while.
    spared: OnceCell<Spared>,
    /// State at the last walk of the hierarchy.
    seen: Option<Seen>,
    /// Reader of the root's `cgroup.stat`.
    root: Option<Reader>,
    text: String,
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

#[derive(Debug)]
struct Spared {
    globs: PatternSet,
    /// Id of memctl's own cgroup.
    own: Option<u64>,
}

impl Spared {
    fn new() -> Self {
        // These globs have no mount in front of them, which would have to be found for each. They
        // can't be malformed.
        let globs: Vec<_> = SPARED.iter().filter_map(|word| Pattern::new(OsStr::new(word)).ok()).collect();
        let globs = PatternSet::new(&globs).unwrap_or_default();
        Self { globs, own: locate("self").ok().map(|located| located.id) }
    }

    fn spares(&self, located: &CgroupPath) -> bool {
        self.own == Some(located.id) || self.globs.is_match(located.below_mount())
    }
}

/// Exclusions: names and globs, wherever they match; paths, in the hierarchy that they lead into;
/// and the cgroup that a word leads to, whichever way the cgroup is found.
#[derive(Debug, Default)]
struct Excluded {
    anywhere: PatternSet,
    /// Mount points, and globs over paths from there.
    by_path: Vec<(PathBuf, Matcher)>,
    ids: HashSet<u64>,
}

impl Excluded {
    fn new(words: &[OsString], locator: &Locator) -> Result<Self, CgroupError> {
        let bad = |word: &OsStr, why: GlobError| CgroupError::BadGlob { word: shown(word), why };
        let (mut anywhere, mut by_path, mut ids) = (Vec::new(), Vec::new(), HashSet::new());
        for word in words {
            let scope = Scope::of(word, locator);
            let pattern = Pattern::new(&scope.pattern).map_err(|why| bad(word, why))?;
            if locator.is_path(word) {
                ids.extend(locator.locate(word).ok().map(|located| located.id));
            }
            match scope.mount {
                Some(mount) => by_path.push((mount.point.clone(), pattern.matcher())),
                None => anywhere.push(pattern),
            }
            if let Some(unit) = anywhere_below(&scope.pattern) {
                anywhere.push(Pattern::new(&unit).map_err(|why| bad(word, why))?);
            }
        }
        let first = words.first().map_or(OsStr::new(""), |word| word);
        Ok(Self { anywhere: PatternSet::new(&anywhere).map_err(|why| bad(first, why))?, by_path, ids })
    }

    fn has(&self, located: &CgroupPath) -> bool {
        let below = located.below_mount();
        self.ids.contains(&located.id)
            || self.anywhere.is_match(below)
            || self.by_path.iter().any(|(point, glob)| located.mount.point == *point && glob.is_match(below))
    }
}

/// Returns a glob that finds a unit's name at any level.
fn anywhere_below(name: &OsStr) -> Option<OsString> {
    let bytes = name.as_bytes();
    let unit = [".service", ".scope", ".slice"].iter().any(|suffix| bytes.ends_with(suffix.as_bytes()));
    (unit && !bytes.contains(&b'/')).then(|| OsString::from_vec([b"**/".as_slice(), bytes].concat()))
}

/// Returns whether there is a cgroup below which a glob could match later: the levels in front of
/// its first special character.
fn parent_is_there(word: &OsStr) -> bool {
    let bytes = word.as_bytes();
    let plain = bytes.split(|byte| b"*?[{".contains(byte)).next().unwrap_or_default();
    let parent = plain.iter().rposition(|&byte| byte == b'/').map_or(&[][..], |slash| &plain[..slash]);
    parent.is_empty() || locate(OsStr::from_bytes(parent)).is_ok()
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
        let (lists_of, selectors) = words.map(|(list, word)| (list, Selector::new(word, &locator))).unzip();
        let left_out = lists.iter().map(|words| Excluded::new(&words.excluded, &locator));
        Ok(Self {
            selectors,
            lists: lists_of,
            // A malformed exclusion is reported at once.
            left_out: left_out.collect::<Result<_, _>>()?,
            exclude: lists.iter().flat_map(|words| words.excluded.iter().cloned()).collect(),
            waits: true,
            spared: OnceCell::new(),
            seen: None,
            root: root(),
            text: String::new(),
        })
    }

    /// Returns whether more cgroups may appear later: by globs, or by names that don't exist yet.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.waits || self.selectors.iter().any(Selector::is_glob)
    }

    /// Returns the cgroups that exist at the beginning, and the words that name nothing yet.
    ///
    /// # Errors
    /// As in [`super`]; but a glob may match nothing, if there is a cgroup below which it could
    /// match later.
    pub fn first(&self) -> Result<(Vec<Assigned>, Vec<String>), CgroupError> {
        let (taken, missing) = self.look(&|_| false);
        let mut waiting = Vec::new();
        for why in missing {
            match why.word() {
                Some(word) if self.waits => waiting.push(word.to_owned()),
                Some(word) if matches!(why, CgroupError::NoMatch { .. }) && self.may_match_later(word) => {
                    waiting.push(word.to_owned());
                }
                _ => return Err(why),
            }
        }
        Ok((taken, waiting))
    }

    fn may_match_later(&self, word: &str) -> bool {
        let is = |selector: &&Selector| shown(selector.word()) == word;
        self.selectors.iter().find(is).is_some_and(|selector| parent_is_there(selector.word()))
    }

    /// Returns the globs to exclude that match no existing cgroup, which may be mistyped.
    #[must_use]
    pub fn useless(&self) -> Vec<&OsStr> {
        let Ok(locator) = Locator::new() else { return Vec::new() };
        let matches = |word: &&OsString| {
            let Ok(excluded) = Excluded::new(std::slice::from_ref(word), &locator) else { return false };
            let scope = Scope::of(word, &locator);
            let Some(mount) = scope.mount.or_else(|| locator.mount().ok().cloned().map(Arc::new)) else {
                return false;
            };
            tree::walk(&mount).any(|tree::Entry { path, id }| {
                let (path, mount) = (path.into(), Arc::clone(&mount));
                excluded.has(&CgroupPath { path, name: Name::default(), mount, id })
            })
        };
        self.exclude.iter().filter(|word| !matches(word)).map(OsString::as_os_str).collect()
    }

    /// Returns the cgroups that exist now, without the `known` ones. Names that don't exist, and
    /// globs that match nothing, may do so later.
    ///
    /// Walking a large hierarchy is expensive. While the number of cgroups is unchanged and none
    /// was `lost`, this returns nothing until the next scheduled walk. (A lost cgroup may be back.)
    pub fn now(&mut self, now: Duration, lost: bool, known: &dyn Fn(u64) -> bool) -> Vec<Assigned> {
        let count = self.descendants();
        let changed = match self.seen {
            Some(seen) if Some(seen.count) == count && !lost => seen.changed,
            _ => now,
        };
        let settled = now.saturating_sub(changed) >= SETTLED;
        if let Some(seen) = self.seen.filter(|_| settled)
            && now.saturating_sub(seen.looked) < LOOKED_THROUGH
        {
            return Vec::new();
        }
        self.seen = count.map(|count| Seen { looked: now, changed, count });
        self.look(known).0
    }

    /// Returns the number of cgroups.
    fn descendants(&mut self) -> Option<u64> {
        self.root.as_ref()?.read(&mut self.text).ok()?;
        self.text.lines().find_map(|line| line.strip_prefix("nr_descendants ")?.parse().ok())
    }

    fn look(&self, known: &dyn Fn(u64) -> bool) -> (Vec<Assigned>, Vec<CgroupError>) {
        // Mounts are read once for all words: a host can have thousands.
        let locator = match Locator::new() {
            Ok(locator) => locator,
            Err(why) => return (Vec::new(), vec![why]),
        };
        let leaves_out =
            |selector: usize, located: &CgroupPath| self.left_out[self.lists[selector]].has(located);
        let (chosen, missing) = select_by(&self.selectors, &locator, known, &leaves_out);
        let spares = |located: &CgroupPath| self.spared.get_or_init(Spared::new).spares(located);
        let taken = chosen
            .into_iter()
            .filter(|one| !one.selected.by_glob || !spares(&one.selected.located))
            .map(|one| Assigned { selected: one.selected, list: self.lists[one.by] });
        (taken.collect(), missing)
    }
}

/// Opens the root's `cgroup.stat`. It is held open, since a host with many mounts has much to read
/// before the root is found.
fn root() -> Option<Reader> {
    let mount = Mount::find().ok()??;
    Reader::at(crate::cgroup::open_directory(&mount.point).ok()?, "cgroup.stat").ok()
}
