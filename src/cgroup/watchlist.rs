//! Which cgroups are watched: names and globs, looked through again and again, less what is never taken by a glob.

use std::cell::OnceCell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use globset::{GlobSet, GlobSetBuilder};

use super::diagnose::Unreclaimable;
use super::mount::Mount;
use super::select::{Pattern, below_the_mount, glob, select_by};
use super::{Reader, Selected, locate, tree};

/// The hierarchy is looked through so often even if it seems the same: one may have gone and another come.
const LOOKED_THROUGH: Duration = Duration::from_secs(20);

/// After a change it is looked through each time for so long: one that just came may get its limit a moment later.
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
    /// Names and globs, as [`super::select`] takes them.
    pub wanted: Vec<String>,
    /// Globs: of what globs match, that is left out.
    pub excluded: Vec<String>,
}

/// A cgroup to be watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Where it is, and whether only globs matched it.
    pub selected: Selected,
    /// Which of the lists of words took it: the one with the most specific word for it.
    pub list: usize,
}

/// Lists of words.
#[derive(Debug)]
pub struct Watchlist {
    /// All of them, and which list each belongs to.
    patterns: Vec<Pattern>,
    lists: Vec<usize>,
    /// What each list leaves out.
    left_out: Vec<GlobSet>,
    exclude: Vec<String>,
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
    globs: GlobSet,
    /// memctl's own cgroup.
    own: Option<Arc<str>>,
}

impl Spared {
    fn new() -> Self {
        // They have no mount in front of them, which would have to be looked up for each. They can't be malformed.
        let globs = glob_set(SPARED.map(|word| (word, word.to_owned())).into_iter()).unwrap_or_default();
        Self { globs, own: locate("self").ok().map(|located| located.name) }
    }

    fn spares(&self, name: &str) -> bool {
        self.own.as_deref() == Some(name) || self.globs.is_match(name.trim_start_matches('/'))
    }
}

fn left_out(exclude: &[String]) -> Result<GlobSet, Unreclaimable> {
    glob_set(exclude.iter().flat_map(|word| forms(word).into_iter().map(move |form| (word.as_str(), form))))
}

/// A set of globs, each with the word that it stands for.
fn glob_set<'a>(words: impl Iterator<Item = (&'a str, String)>) -> Result<GlobSet, Unreclaimable> {
    let mut globs = GlobSetBuilder::new();
    let bad = |word: &str, why: String| Unreclaimable::BadGlob { word: word.to_owned(), why };
    for (word, form) in words {
        globs.add(glob(&form).map_err(|why| bad(word, why))?);
    }
    globs.build().map_err(|e| bad(e.glob().unwrap_or_default(), e.kind().to_string()))
}

/// The globs that a word stands for: with the mount or without it, and a unit wherever it is.
fn forms(word: &str) -> Vec<String> {
    let name = below_the_mount(word);
    let unit = [".service", ".scope", ".slice"].iter().any(|suffix| name.ends_with(suffix));
    let anywhere = (unit && !name.contains('/')).then(|| format!("**/{name}"));
    std::iter::once(name).chain(anywhere).collect()
}

/// Whether there is something that a glob could match anything below: the levels in front of its first special character.
fn parent_is_there(word: &str) -> bool {
    let plain = word.split(['*', '?', '[', '{']).next().unwrap_or_default();
    let parent = plain.rsplit_once('/').map_or("", |(parent, _)| parent);
    parent.is_empty() || locate(parent).is_ok()
}

impl Watchlist {
    /// For one list of words, whose names must be there.
    ///
    /// # Errors
    /// [`Unreclaimable::BadGlob`].
    pub fn new(words: &Words) -> Result<Self, Unreclaimable> {
        Ok(Self { waits: false, ..Self::of(std::slice::from_ref(words))? })
    }

    /// For several lists, whose names may come later.
    ///
    /// # Errors
    /// [`Unreclaimable::BadGlob`].
    pub fn of(lists: &[Words]) -> Result<Self, Unreclaimable> {
        let numbered = lists.iter().enumerate();
        let patterns = numbered.flat_map(|(list, words)| words.wanted.iter().map(move |word| (list, word)));
        let (lists_of, patterns) = patterns.map(|(list, word)| (list, Pattern::new(word))).unzip();
        Ok(Self {
            patterns,
            lists: lists_of,
            // A mistake in one shows at once.
            left_out: lists.iter().map(|words| left_out(&words.excluded)).collect::<Result<_, _>>()?,
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
        self.waits || self.patterns.iter().any(Pattern::is_glob)
    }

    /// What there is at the beginning, and the words that name nothing yet.
    ///
    /// # Errors
    /// As [`super::select`]; but a glob may match nothing, if there is a cgroup that it could match something below.
    pub fn first(&self) -> Result<(Vec<Taken>, Vec<String>), Unreclaimable> {
        let (taken, missing) = self.look(&|_| false);
        let mut waiting = Vec::new();
        for why in missing {
            match why.word() {
                Some(word) if self.waits => waiting.push(word.to_owned()),
                Some(word) if matches!(why, Unreclaimable::NoMatch { .. }) && parent_is_there(word) => {
                    waiting.push(word.to_owned());
                }
                _ => return Err(why),
            }
        }
        Ok((taken, waiting))
    }

    /// Which globs of those to be left out match nothing of what is there, which may be a mistake in them.
    #[must_use]
    pub fn useless(&self) -> Vec<&str> {
        let Ok(Some(mount)) = Mount::find(Path::new("/")) else { return Vec::new() };
        let names: Vec<_> = tree::below(&mount.point).filter_map(|path| mount.name_of(&path)).collect();
        let matches = |word: &&String| {
            let globs: Vec<_> = forms(word)
                .iter()
                .filter_map(|form| glob(form).ok())
                .map(|glob| glob.compile_matcher())
                .collect();
            names.iter().any(|name| globs.iter().any(|glob| glob.is_match(name.trim_start_matches('/'))))
        };
        self.exclude.iter().filter(|word| !matches(word)).map(String::as_str).collect()
    }

    /// What there is now. Names that aren't there, and globs that match nothing, may be and do so later. Looking through
    /// a large hierarchy has its price: where there are as many cgroups as before, nothing is said to be there until it
    /// is looked at again all the same, unless some were `lost`, of which one may be back. What is `known` is left out.
    pub fn now(&mut self, now: Duration, lost: bool, known: &dyn Fn(&Path) -> bool) -> Vec<Taken> {
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

    fn look(&self, known: &dyn Fn(&Path) -> bool) -> (Vec<Taken>, Vec<Unreclaimable>) {
        let leaves_out = |pattern: usize, name: &str| {
            let left_out = &self.left_out[self.lists[pattern]];
            !left_out.is_empty() && left_out.is_match(name.trim_start_matches('/'))
        };
        let (chosen, missing) = select_by(&self.patterns, known, &leaves_out);
        let spares = |name: &str| self.spared.get_or_init(Spared::new).spares(name);
        let taken = chosen
            .into_iter()
            .filter(|one| !one.selected.by_glob || !spares(&one.selected.located.name))
            .map(|one| Taken { selected: one.selected, list: self.lists[one.by] });
        (taken.collect(), missing)
    }
}

/// The root's `cgroup.stat`, held open: a host with many mounts has much to read before it is found.
fn root() -> Option<Reader> {
    let mount = Mount::find(Path::new("/")).ok()??;
    Reader::at(super::open_directory(&mount.point).ok()?, "cgroup.stat").ok()
}
