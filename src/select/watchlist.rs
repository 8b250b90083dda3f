//! Which cgroups are watched: names and globs, looked through again and again, less what is never
//! taken by a glob.

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
use crate::cgroup::error::CgroupError;
use crate::cgroup::mount::Mount;
use crate::cgroup::path::CgroupPath;
use crate::cgroup::{Name, tree};
use crate::host::Reader;

/// The hierarchy is looked through so often even if it seems the same: one may have gone and
/// another come.
const LOOKED_THROUGH: Duration = Duration::from_secs(20);

/// After a change it is looked through each time for so long: one that just came may get its limit
/// a moment later.
const SETTLED: Duration = Duration::from_secs(10);

/// What a glob never takes: what a host is run from. A plain name still does.
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

/// Words, and what of their matches is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// Names and globs, as [`super`] takes them.
    pub wanted: Vec<OsString>,
    /// Globs: of what globs match, that is left out.
    pub excluded: Vec<OsString>,
}

/// A cgroup to be watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// Where it is, and whether only globs matched it.
    pub selected: Match,
    /// Which of the lists of words took it: the one with the most specific word for it.
    pub list: usize,
}

/// Lists of words.
#[derive(Debug)]
pub struct Watchlist {
    /// All of them, and which list each belongs to.
    selectors: Vec<Selector>,
    lists: Vec<usize>,
    /// What each list leaves out.
    left_out: Vec<Excluded>,
    exclude: Vec<OsString>,
    /// Whether names may come later, as what globs match may.
    waits: bool,
    /// Made when a glob first matches something: that takes a while.
    spared: OnceCell<Spared>,
    /// What was seen when the hierarchy was looked through last.
    seen: Option<Seen>,
    /// The root's `cgroup.stat`.
    root: Option<Reader>,
    text: String,
}

/// A look through the hierarchy.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// When.
    looked: Duration,
    /// When the number of cgroups was last seen to change.
    changed: Duration,
    /// How many cgroups there were.
    count: u64,
}

#[derive(Debug)]
struct Spared {
    globs: PatternSet,
    /// The id of memctl's own cgroup.
    own: Option<u64>,
}

impl Spared {
    fn new() -> Self {
        // They have no mount in front of them, which would have to be looked up for each. They
        // can't be malformed.
        let globs: Vec<_> = SPARED.iter().filter_map(|word| Pattern::new(OsStr::new(word)).ok()).collect();
        let globs = PatternSet::new(&globs).unwrap_or_default();
        Self { globs, own: locate("self").ok().map(|located| located.id) }
    }

    fn spares(&self, located: &CgroupPath) -> bool {
        self.own == Some(located.id) || self.globs.is_match(located.below_mount())
    }
}

/// What is left out: names and globs, wherever they match; paths, in the hierarchy that they lead
/// into; and whatever cgroup a word leads to, by whichever way it is found.
#[derive(Debug, Default)]
struct Excluded {
    anywhere: PatternSet,
    /// Mount points, and globs over paths from there.
    by_path: Vec<(PathBuf, Matcher)>,
    ids: HashSet<u64>,
}

impl Excluded {
    fn new(words: &[OsString], locator: &Locator) -> Result<Self, CgroupError> {
        let bad = |word: &OsStr, why: String| CgroupError::BadGlob { word: shown(word), why };
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

/// A unit's name as a glob that finds it wherever it is.
fn anywhere_below(name: &OsStr) -> Option<OsString> {
    let bytes = name.as_bytes();
    let unit = [".service", ".scope", ".slice"].iter().any(|suffix| bytes.ends_with(suffix.as_bytes()));
    (unit && !bytes.contains(&b'/')).then(|| OsString::from_vec([b"**/".as_slice(), bytes].concat()))
}

/// Whether there is something that a glob could match anything below: the levels in front of its
/// first special character.
fn parent_is_there(word: &OsStr) -> bool {
    let bytes = word.as_bytes();
    let plain = bytes.split(|byte| b"*?[{".contains(byte)).next().unwrap_or_default();
    let parent = plain.iter().rposition(|&byte| byte == b'/').map_or(&[][..], |slash| &plain[..slash]);
    parent.is_empty() || locate(OsStr::from_bytes(parent)).is_ok()
}

impl Watchlist {
    /// For one list of words, whose names must be there.
    ///
    /// # Errors
    /// [`CgroupError::BadGlob`].
    pub fn new(words: &Words) -> Result<Self, CgroupError> {
        Ok(Self { waits: false, ..Self::of(std::slice::from_ref(words))? })
    }

    /// For several lists, whose names may come later.
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
            // A mistake in one shows at once.
            left_out: left_out.collect::<Result<_, _>>()?,
            exclude: lists.iter().flat_map(|words| words.excluded.iter().cloned()).collect(),
            waits: true,
            spared: OnceCell::new(),
            seen: None,
            root: root(),
            text: String::new(),
        })
    }

    /// Whether there may be more later: there are globs, or names that may come.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.waits || self.selectors.iter().any(Selector::is_glob)
    }

    /// What there is at the beginning, and the words that name nothing yet.
    ///
    /// # Errors
    /// As [`super`]; but a glob may match nothing, if there is a cgroup that it could match
    /// something below.
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

    /// Which globs of those to be left out match nothing of what is there, which may be a mistake
    /// in them.
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

    /// What there is now. Names that aren't there, and globs that match nothing, may be and do so
    /// later. Looking through a large hierarchy has its price: where there are as many cgroups as
    /// before, nothing is said to be there until it is looked at again all the same, unless some
    /// were `lost`, of which one may be back. What is `known` is left out.
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

    /// How many cgroups there are.
    fn descendants(&mut self) -> Option<u64> {
        self.root.as_ref()?.read(&mut self.text).ok()?;
        self.text.lines().find_map(|line| line.strip_prefix("nr_descendants ")?.parse().ok())
    }

    fn look(&self, known: &dyn Fn(u64) -> bool) -> (Vec<Assigned>, Vec<CgroupError>) {
        // What is mounted is read once, however many words there are: a host can have thousands of
        // mounts.
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

/// The root's `cgroup.stat`, held open: a host with many mounts has much to read before it is
/// found.
fn root() -> Option<Reader> {
    let mount = Mount::find().ok()??;
    Reader::at(crate::cgroup::open_directory(&mount.point).ok()?, "cgroup.stat").ok()
}
