//! Which cgroups are watched: names and globs, looked through again and again, less what is never taken by a glob.

use std::cell::OnceCell;

use globset::{GlobSet, GlobSetBuilder};

use super::diagnose::Unreclaimable;
use super::select::{glob, is_glob, select};
use super::{Selected, locate};

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
    words: Vec<String>,
    exclude: Vec<String>,
    /// Made when a glob first matches something: that takes a while.
    spared: OnceCell<Spared>,
}

#[derive(Debug)]
struct Spared {
    globs: GlobSet,
    /// memctl's own cgroup.
    own: Option<String>,
}

impl Spared {
    fn new(exclude: &[String]) -> Result<Self, Unreclaimable> {
        let mut globs = GlobSetBuilder::new();
        for word in exclude.iter().map(String::as_str).chain(SPARED) {
            let bad = |why| Unreclaimable::BadGlob { word: word.to_owned(), why };
            globs.add(glob(word.trim_start_matches('/')).map_err(bad)?);
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

impl Watchlist {
    /// For words as [`select`] takes them, less what the globs of `exclude` match.
    ///
    /// # Errors
    /// [`Unreclaimable::BadGlob`].
    pub fn new(words: &[String], exclude: &[String]) -> Result<Self, Unreclaimable> {
        let spared = OnceCell::new();
        if !exclude.is_empty() {
            // A mistake in one shows at once.
            let _ = spared.set(Spared::new(exclude)?);
        }
        Ok(Self { words: words.to_vec(), exclude: exclude.to_vec(), spared })
    }

    /// Whether there may be more later: there are globs.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.words.iter().any(|word| is_glob(word))
    }

    /// What there is at the beginning.
    ///
    /// # Errors
    /// As [`select`].
    pub fn first(&self) -> Result<Vec<Selected>, Unreclaimable> {
        Ok(self.taken(select(&self.words)?))
    }

    /// What there is now. Names that aren't there, and globs that match nothing, may be and do so later.
    #[must_use]
    pub fn now(&self) -> Vec<Selected> {
        let each = self.words.iter().filter_map(|word| select(std::slice::from_ref(word)).ok());
        self.taken(each.flatten().collect())
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
