//! Resolution of a name given by a user to the directory of a cgroup.
//!
//! A name is a path under the cgroup2 mount (`/sys/fs/cgroup/app`), the same without the mount
//! (`app`, `/app`), `self`, a systemd unit's name, `pid:N`, `container:ID`, `pod:UID`, or a path
//! that begins with `.`. An absolute path stands first of all for the directory that the kernel
//! opens by it, through any mount or namespace ([`crate::cgroup::path`]).
//! [`crate::cgroup::diagnose`] determines whether memory can be reclaimed there.
//!
//! Paths are looked up directly. Units, containers and pods are searched for in the whole hierarchy
//! (`search.rs`), among the names that count ([`crate::cgroup::owner`]). A failed search
//! returns a plain error; `Locator::explain` adds suggestions, which take a search of their own.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::pattern::has_special;
use super::search::Search;
use super::suggest::{self, shown};
use crate::cgroup::diagnose::not_a_cgroup;
use crate::cgroup::error::CgroupError;
use crate::cgroup::mount::{Mount, Mounts};
use crate::cgroup::naming::{Named, ROOT};
use crate::cgroup::owner::Asker;
use crate::cgroup::path::{CgroupPath, identify};
use crate::cgroup::{mount, open_directory, tree};
use crate::node;

/// Resolver of names, all from one read of the mounts.
#[derive(Debug)]
pub struct Locator {
    mounts: Mounts,
    asker: Asker,
}

/// Result of the lookup of a word without a search.
#[derive(Debug)]
pub(super) enum Lookup {
    /// Cgroup at a path.
    Found(CgroupPath),
    /// Unit, container or pod to search for.
    Named(Named),
    /// Path from the mount point to search for in another spelling, and the error if there is none.
    Spelt(PathBuf, CgroupError),
}

/// Finds the cgroup that `word` names.
///
/// # Errors
/// [`CgroupError`]: cgroup2 isn't mounted, or there is no such cgroup; the nearest names are
/// suggested.
pub fn locate(word: impl AsRef<OsStr>) -> Result<CgroupPath, CgroupError> {
    Locator::new()?.locate(word.as_ref())
}

impl Locator {
    /// Reads the mounts.
    ///
    /// # Errors
    /// [`CgroupError`], if the mounts can't be read.
    pub(crate) fn new() -> Result<Self, CgroupError> {
        let mounts = Mounts::read().map_err(|e| CgroupError::io("/proc/self/mountinfo", &e))?;
        Ok(Self { mounts, asker: Asker::of_self() })
    }

    /// Returns a locator for a directory in place of a hierarchy.
    #[cfg(test)]
    pub(super) fn faked(point: &Path) -> Self {
        let line = format!("35 24 0:30 / {} rw - cgroup2 cgroup2 rw\n", point.display());
        Self { mounts: Mounts::parse(line.as_bytes()), asker: Asker::faked() }
    }

    /// Returns the user whose names count.
    pub(super) fn asker(&self) -> Asker {
        self.asker
    }

    /// Returns the mount that names begin from.
    ///
    /// # Errors
    /// [`CgroupError`]: cgroup2 isn't mounted.
    pub(crate) fn mount(&self) -> Result<&Mount, CgroupError> {
        self.mounts.widest().ok_or_else(CgroupError::no_cgroup2)
    }

    /// Finds the cgroup that `word` names.
    ///
    /// # Errors
    /// [`CgroupError`], as for [`locate`].
    pub fn locate(&self, word: &OsStr) -> Result<CgroupPath, CgroupError> {
        self.find(word).map_err(|why| self.explain(why, word))
    }

    /// Finds the cgroup that `word` names, without suggestions if there is none.
    pub(super) fn find(&self, word: &OsStr) -> Result<CgroupPath, CgroupError> {
        let mut search = Search::default();
        let why = match self.look_up(word)? {
            Lookup::Found(located) => return Ok(located),
            Lookup::Named(named) => {
                search.named(0, named);
                None
            }
            Lookup::Spelt(below, why) => {
                search.spelt(0, &below);
                Some(why)
            }
        };
        let mut found = Vec::new();
        search.run(self.mount()?, self.asker, false, &mut |_, entry| found.push(entry.path.clone()));
        self.choose(word, found, why)
    }

    /// Returns the only one of the cgroups found by a name. `why` is the error of a path for which
    /// another spelling was searched for.
    pub(super) fn choose(
        &self,
        word: &OsStr,
        mut found: Vec<PathBuf>,
        why: Option<CgroupError>,
    ) -> Result<CgroupPath, CgroupError> {
        found.sort();
        match (&found[..], why) {
            ([], None) => Err(none(word)),
            ([], Some(why)) => Err(why),
            ([only], _) | ([only, ..], Some(_)) => self.existing(only, word),
            (several, None) => {
                let mount = self.mount()?;
                let candidates = several.iter().filter_map(|path| mount.name_of(path));
                let candidates = candidates.map(|name| name.to_string()).collect();
                Err(CgroupError::Ambiguous { word: shown(word), candidates })
            }
        }
    }

    /// Adds to the error of a word that names nothing what a person may want to know.
    pub(super) fn explain(&self, why: CgroupError, word: &OsStr) -> CgroupError {
        match self.mount() {
            Ok(mount) => suggest::explain(why, word, mount, self.asker),
            Err(_) => why,
        }
    }

    /// Looks a word up as far as no search is needed.
    pub(super) fn look_up(&self, word: &OsStr) -> Result<Lookup, CgroupError> {
        // An empty variable in a script doesn't mean the root, but joining an empty path would give
        // the root.
        if word.is_empty() {
            return Err(CgroupError::NoName);
        }
        let given = Path::new(word);
        if is_from_here(given) {
            // For messages only: the canonical path may not lead to the directory.
            let path = from_here(given);
            let called = path.canonicalize().unwrap_or_else(|_| given.to_path_buf());
            return match self.opened(&path, &called)? {
                Some(located) => Ok(Lookup::Found(located)),
                None => Err(none(word)),
            };
        }
        let by_path = if given.is_absolute() { self.opened(given, given) } else { Ok(None) };
        if let Ok(Some(located)) = by_path {
            return Ok(Lookup::Found(located));
        }
        let mount = match (self.mount(), by_path.as_ref().err()) {
            (Err(_), Some(_)) => return by_path.and_then(|_| Err(CgroupError::no_cgroup2())),
            (mount, _) => mount?,
        };
        if word == "self" {
            return self.of_process("self", word).map(Lookup::Found);
        }
        // A name, possibly preceded by the mount point.
        let below = given.strip_prefix(&mount.point).or_else(|_| given.strip_prefix("/")).unwrap_or(given);
        let in_mount = mount.point.join(below);
        if let Some(located) = self.opened(&in_mount, &in_mount)? {
            return Ok(Lookup::Found(located));
        }
        if let Some(number) = word.to_str().and_then(node::parse) {
            return Err(CgroupError::IsNode { word: shown(word), number: number? });
        }
        match Named::parse(word) {
            Some(Ok(Named::Pid(pid))) => self.of_process(&pid.to_string(), word).map(Lookup::Found),
            Some(Ok(Named::Unit(unit))) if unit == ROOT => {
                self.existing(&mount.point, word).map(Lookup::Found)
            }
            Some(Ok(named)) => Ok(Lookup::Named(named)),
            Some(Err(why)) => Err(CgroupError::BadName { word: shown(word), why }),
            // If the path leads to something else, that error says more than a missing cgroup.
            None => Ok(Lookup::Spelt(below.to_path_buf(), by_path.err().unwrap_or_else(|| none(word)))),
        }
    }

    /// Returns the cgroup that a path leads to, or `None` if the path leads nowhere. Errors name
    /// the path as `called`.
    fn opened(&self, path: &Path, called: &Path) -> Result<Option<CgroupPath>, CgroupError> {
        let opened = open_directory(path).and_then(|dir| identify(&dir, path, &self.mounts));
        match opened {
            Ok(located) => Ok(Some(located)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            // The path goes through a file of a cgroup, so there is no cgroup.
            Err(e) if e.kind() == io::ErrorKind::NotADirectory && !path.exists() => Ok(None),
            Err(e) => Err(not_a_cgroup(path, called, &e)),
        }
    }

    /// Returns the cgroup that a path must lead to.
    fn existing(&self, path: &Path, word: &OsStr) -> Result<CgroupPath, CgroupError> {
        match self.opened(path, path)? {
            Some(located) => Ok(located),
            None => Err(none(word)),
        }
    }

    /// Returns the cgroup that a process runs in.
    fn of_process(&self, process: &str, word: &OsStr) -> Result<CgroupPath, CgroupError> {
        let file = format!("/proc/{process}/cgroup");
        let text = crate::host::proc::read_bytes(&file).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => CgroupError::NoProcess { word: shown(word) },
            _ => CgroupError::io(&file, &e),
        })?;
        let mount = self.mount()?;
        let cgroup = mount::own_cgroup(&text).unwrap_or(Path::new(""));
        // The cgroup lists the process, unless the process is a zombie or the cgroup threaded. The
        // kernel marks a removed cgroup with a suffix that another cgroup can have in its name.
        // Names between this namespace's root and a mount from outside of it can't be determined.
        let removed = cgroup.as_os_str().as_bytes().ends_with(b" (deleted)");
        let by_name = mount.directory_of(cgroup).filter(|path| !removed || lists(path, process));
        let path = by_name.or_else(|| tree::top_and_walk(mount).find(|path| lists(path, process)));
        match path {
            Some(path) => self.existing(&path, word),
            None if removed => Err(CgroupError::Ended { word: shown(word) }),
            None => Err(CgroupError::OutOfSight {
                word: shown(word),
                name: cgroup.display().to_string(),
                root: mount.root.clone(),
            }),
        }
    }

    /// Returns whether a word is a path that is given with a mount point, and leads to a cgroup.
    pub(super) fn is_path_below_a_mount(&self, word: &OsStr) -> bool {
        let path = Path::new(word);
        self.around(path).is_some() && matches!(self.opened(path, path), Ok(Some(_)))
    }

    /// Returns whether a word leads to a cgroup as a path, or as a path from the mount point.
    pub(super) fn is_path(&self, word: &OsStr) -> bool {
        let path = Path::new(word);
        let leads = |path: &Path| matches!(self.opened(path, path), Ok(Some(_)));
        if word.is_empty() || is_from_here(path) {
            return !word.is_empty() && leads(&from_here(path));
        }
        let below = path.strip_prefix("/").unwrap_or(path);
        path.is_absolute() && leads(path) || self.mount().is_ok_and(|mount| leads(&mount.point.join(below)))
    }

    /// Returns the mount whose mount point is nearest above a path, judging by text alone.
    pub(super) fn around(&self, path: &Path) -> Option<&Mount> {
        self.mounts.around(path)
    }

    /// Returns the directory in front of a glob's first special component, located in its
    /// hierarchy, and the remaining components. `None` if the glob is over names.
    pub(super) fn base_of_glob(&self, word: &OsStr) -> Option<(CgroupPath, PathBuf)> {
        let path = Path::new(word);
        let is_path = path.is_absolute() || is_from_here(path);
        if !is_path {
            return None;
        }
        // A path without special characters is a glob that matches itself, as among the excluded
        // words.
        let at = path.iter().position(has_special).unwrap_or_else(|| path.iter().count());
        let (base, rest): (PathBuf, PathBuf) =
            (path.iter().take(at).collect(), path.iter().skip(at).collect());
        let base = if path.is_absolute() { base } else { from_here(&base) };
        Some((self.opened(&base, &base).ok()??, rest))
    }
}

/// Returns whether a process is in a cgroup.
fn lists(path: &Path, process: &str) -> bool {
    let own = std::process::id().to_string();
    let pid = if process == "self" { own.as_str() } else { process };
    crate::host::proc::read_in(path, "cgroup.procs").is_ok_and(|procs| procs.lines().any(|line| line == pid))
}

/// Returns whether a path begins at the working directory; names begin at the mount otherwise.
fn is_from_here(path: &Path) -> bool {
    matches!(path.components().next(), Some(Component::CurDir | Component::ParentDir))
}

/// Returns a path from the working directory, by proc's link and not by text: the directory may
/// have no path from our root.
fn from_here(path: &Path) -> PathBuf {
    Path::new("/proc/self/cwd").join(path)
}

/// Returns the plain error for a word that names nothing.
fn none(word: &OsStr) -> CgroupError {
    CgroupError::NoSuchCgroup { word: shown(word), near: Vec::new() }
}
