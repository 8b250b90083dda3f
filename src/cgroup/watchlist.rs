//! Which cgroups are watched: names and globs, looked through again and again, less what is never taken by a glob.

use globset::{GlobSet, GlobSetBuilder};

use super::diagnose::Unreclaimable;
use super::select::{glob, select};
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
    excluded: GlobSet,
    /// memctl's own cgroup.
    own: Option<String>,
}

impl Watchlist {
    /// For words as [`select`] takes them, less what the globs of `exclude` match.
    ///
    /// # Errors
    /// [`Unreclaimable::BadGlob`].
    pub fn new(words: &[String], exclude: &[String]) -> Result<Self, Unreclaimable> {
        let mut excluded = GlobSetBuilder::new();
        for word in exclude.iter().map(String::as_str).chain(SPARED) {
            let pattern = word.trim_start_matches('/');
            let bad = |why| Unreclaimable::BadGlob { word: word.to_owned(), why };
            excluded.add(glob(pattern).map_err(bad)?);
        }
        let excluded = excluded.build().map_err(|e| {
            let why = e.kind().to_string();
            Unreclaimable::BadGlob { word: exclude.join(" "), why }
        })?;
        let own = locate("self").ok().map(|located| located.name);
        Ok(Self { words: words.to_vec(), excluded, own })
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
        selected.retain(|one| {
            let name = &one.located.name;
            let spared =
                self.own.as_ref() == Some(name) || self.excluded.is_match(name.trim_start_matches('/'));
            !one.by_glob || !spared
        });
        selected
    }
}
