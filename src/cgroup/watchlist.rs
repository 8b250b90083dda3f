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
#[derive(Debug)]
pub struct Watchlist {
    patterns: Vec<Pattern>,
    exclude: Vec<String>,
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
    fn new(exclude: &[String]) -> Result<Self, Unreclaimable> {
        let mut globs = GlobSetBuilder::new();
        let given =
            exclude.iter().flat_map(|word| forms(word).into_iter().map(move |form| (word.as_str(), form)));
        // Ours have no mount in front of them, which would have to be looked up for each.
        for (word, form) in given.chain(SPARED.map(|word| (word, word.to_owned()))) {
            globs.add(glob(&form).map_err(|why| Unreclaimable::BadGlob { word: word.to_owned(), why })?);
        }
        let globs = globs.build().map_err(|e| {
            let why = e.kind().to_string();
            Unreclaimable::BadGlob { word: exclude.join(" "), why }
        })?;
        Ok(Self { globs, own: locate("self").ok().map(|located| located.name) })
    }

    fn spares(&self, name: &str) -> bool {
        self.own.as_deref() == Some(name) || self.globs.is_match(name.trim_start_matches('/'))
    }
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
    /// For words as [`super::select`] takes them, less what the globs of `exclude` match.
    ///
    /// # Errors
    /// [`Unreclaimable::BadGlob`].
    pub fn new(words: &[String], exclude: &[String]) -> Result<Self, Unreclaimable> {
        let spared = OnceCell::new();
        if !exclude.is_empty() {
            // A mistake in one shows at once.
            let _ = spared.set(Spared::new(exclude)?);
        }
        let patterns = words.iter().map(|word| Pattern::new(word)).collect();
        Ok(Self {
            patterns,
            exclude: exclude.to_vec(),
            spared,
            seen: None,
            root: root(),
            text: String::new(),
        })
    }

    /// Whether there may be more later: there are globs.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.patterns.iter().any(Pattern::is_glob)
    }

    /// What there is at the beginning, and the globs that match nothing yet.
    ///
    /// # Errors
    /// As [`super::select`]; but a glob may match nothing, if there is a cgroup that it could match something below.
    pub fn first(&self) -> Result<(Vec<Selected>, Vec<String>), Unreclaimable> {
        let (selected, missing) = select_by(&self.patterns, &|_| false);
        let mut waiting = Vec::new();
        for why in missing {
            match why {
                Unreclaimable::NoMatch { word } if parent_is_there(&word) => waiting.push(word),
                why => return Err(why),
            }
        }
        Ok((self.taken(selected), waiting))
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
    pub fn now(&mut self, now: Duration, lost: bool, known: &dyn Fn(&Path) -> bool) -> Vec<Selected> {
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
        self.taken(select_by(&self.patterns, known).0)
    }

    /// How many cgroups there are.
    fn descendants(&mut self) -> Option<u64> {
        self.root.as_ref()?.read(&mut self.text).ok()?;
        self.text.lines().find_map(|line| line.strip_prefix("nr_descendants ")?.parse().ok())
    }

    fn taken(&self, mut selected: Vec<Selected>) -> Vec<Selected> {
        if selected.iter().any(|one| one.by_glob) && self.spared.get().is_none() {
            // It can't fail: the globs are our own.
            let _ = Spared::new(&self.exclude).map(|spared| self.spared.set(spared));
        }
        let spares = |name: &str| self.spared.get().is_some_and(|spared| spared.spares(name));
        selected.retain(|one| !one.by_glob || !spares(&one.located.name));
        selected
    }
}

/// The root's `cgroup.stat`, held open: a host with many mounts has much to read before it is found.
fn root() -> Option<Reader> {
    let mount = Mount::find(Path::new("/")).ok()??;
    Reader::at(super::open_directory(&mount.point).ok()?, "cgroup.stat").ok()
}
