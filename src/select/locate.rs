//! Resolution of a name given by a user to the directory of a cgroup.
//!
//! A name is a path under the cgroup2 mount (`/sys/fs/cgroup/app`), the same without the mount
//! (`app`, `/app`), `self`, a systemd unit's name, `pid:N`, `container:ID`, `pod:UID`,
//! `pod:NAMESPACE/NAME`, `pod:NAMESPACE/NAME/CONTAINER`, or a path that begins with `.`. An
//! absolute path stands first of all for the directory that the kernel
//! opens by it, through any mount or namespace ([`crate::cgroup::path`]).
//! [`crate::cgroup::diagnose`] determines whether memory can be reclaimed there.
//!
//! Paths are looked up directly. Units, containers and pods are searched for in the whole hierarchy
//! (`search.rs`), among the names that count ([`crate::cgroup::owner`]). A failed search
//! returns a plain error; `Locator::explain` adds suggestions, which take a search of their own.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use super::pattern::has_special;
use super::pods::Pods;
use super::pods::pattern::PodPattern;
use super::search::{PodWord, Search};
use crate::cgroup::diagnose::not_a_cgroup;
use crate::cgroup::error::CgroupError;
use crate::cgroup::mount::{Mount, Mounts};
use crate::cgroup::naming::{Named, ROOT};
use crate::cgroup::open_directory;
use crate::cgroup::owner::Asker;
use crate::cgroup::path::{CgroupPath, identify};
use crate::node;

/// Resolver of names, all from one read of the mounts.
#[derive(Debug)]
pub struct Locator {
    mounts: Mounts,
    asker: Asker,
    /// Names of pods.
    pods: Pods,
    /// Root of this cgroup namespace, once it was searched for.
    namespace_root: OnceLock<Option<PathBuf>>,
}

/// Result of the lookup of a word without a search.
#[derive(Debug)]
pub(super) enum Lookup {
    /// Cgroup at a path.
    Found(CgroupPath),
    /// Unit, container or pod to search for.
    Named(Named),
    /// Pod or container to search for by its name.
    Pod(PodPattern),
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
        let asker = Asker::of_self();
        Ok(Self { mounts, asker, pods: Pods::new(asker), namespace_root: OnceLock::new() })
    }

    /// Returns a locator for a directory in place of a hierarchy.
    #[cfg(test)]
    pub(super) fn faked(point: &Path) -> Self {
        let line = format!("35 24 0:30 / {} rw - cgroup2 cgroup2 rw\n", point.display());
        let (mounts, asker) = (Mounts::parse(line.as_bytes()), Asker::faked());
        Self { mounts, asker, pods: Pods::faked(&point.join("no logs")), namespace_root: OnceLock::new() }
    }

    /// Returns the locator with the names of pods of other logs.
    #[cfg(test)]
    pub(super) fn with_logs(self, logs: &Path) -> Self {
        Self { pods: Pods::faked(logs), ..self }
    }

    /// Returns the user whose names count.
    pub(super) fn asker(&self) -> Asker {
        self.asker
    }

    /// Returns the names of pods.
    pub(crate) fn pods(&self) -> &Pods {
        &self.pods
    }

    /// Returns the mounts.
    pub(crate) fn mounts(&self) -> &Mounts {
        &self.mounts
    }

    /// Returns the mount points, that from which names begin first.
    pub(crate) fn mount_points(&self) -> Vec<PathBuf> {
        let first = self.mounts.widest().map(|mount| &mount.point);
        let others = self.mounts.iter().map(|mount| &mount.point).filter(|point| Some(*point) != first);
        first.into_iter().chain(others).cloned().collect()
    }

    /// Returns the root of this cgroup namespace in the mount that names begin from, if that mount
    /// was made outside of the namespace.
    pub(super) fn namespace_root(&self) -> Option<&Path> {
        self.namespace_root.get_or_init(|| self.find_namespace_root()).as_deref()
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
        let mut located = self.find(word).map_err(|why| self.explain(why, word))?;
        self.pods.name(&mut located.name, &located.mount);
        Ok(located)
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
            Lookup::Pod(pattern) => {
                search.pod(0, PodWord { pattern: Cow::Owned(pattern), whole: false });
                None
            }
            Lookup::Spelt(below, why) => {
                search.spelt(0, &below);
                Some(why)
            }
        };
        let mut found = Vec::new();
        search.run(self.mount()?, self.asker, &self.pods, false, &mut |_, entry| {
            found.push(entry.path.clone());
        });
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
        // A file's name alone is hardly meant to be the root's.
        let is_directory = below.iter().count() != 1 || !is_cgroup_file(&in_mount);
        if is_directory && let Some(located) = self.opened(&in_mount, &in_mount)? {
            return Ok(Lookup::Found(located));
        }
        if let Some(number) = word.to_str().and_then(node::parse) {
            return Err(CgroupError::IsNode { word: shown(word), number: number? });
        }
        if let Some(pattern) = PodPattern::parse(word) {
            return pattern.map(Lookup::Pod);
        }
        // Completion of a unit with cgroups below ends in a slash.
        let name = OsStr::from_bytes(word.as_bytes().strip_suffix(b"/").unwrap_or(word.as_bytes()));
        match Named::parse(name) {
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

    /// Returns the cgroup that a path leads to, as its directory or one of its files, or `None` if
    /// the path leads nowhere. Errors name the path as `called`.
    fn opened(&self, path: &Path, called: &Path) -> Result<Option<CgroupPath>, CgroupError> {
        let identified =
            |path: &Path| open_directory(path).and_then(|dir| identify(&dir, path, &self.mounts));
        match identified(path) {
            Ok(located) => Ok(Some(self.with_ancestors(located))),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                // A file of a cgroup stands for the cgroup.
                let directory = path.parent().filter(|_| is_cgroup_file(path));
                match directory.map(identified) {
                    Some(Ok(located)) => Ok(Some(self.with_ancestors(located))),
                    // The path goes through a file of a cgroup, so there is no cgroup.
                    _ if !path.exists() => Ok(None),
                    _ => Err(not_a_cgroup(path, called, &e)),
                }
            }
            Err(e) => Err(not_a_cgroup(path, called, &e)),
        }
    }

    /// Returns the cgroup that a path must lead to.
    pub(super) fn existing(&self, path: &Path, word: &OsStr) -> Result<CgroupPath, CgroupError> {
        match self.opened(path, path)? {
            Some(located) => Ok(located),
            None => Err(none(word)),
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

/// Returns whether a path ends in the name of a cgroup's file: one that exists, or the one that is
/// written to, which not every kernel and cgroup has.
fn is_cgroup_file(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_bytes();
    !path.as_os_str().as_bytes().ends_with(b"/") && (name == b"memory.reclaim" || path.is_file())
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

/// Converts a word to text for a message.
pub(super) fn shown(word: &OsStr) -> String {
    word.to_string_lossy().into_owned()
}
