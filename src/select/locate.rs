//! From a name as a user gives it to the directory of a cgroup.
//!
//! A name is a path under the cgroup2 mount (`/sys/fs/cgroup/app`), the same without the mount
//! (`app`, `/app`), `self`, a systemd unit's name, `pid:N`, `container:ID`, `pod:UID`, or a path
//! that begins with `.`. An absolute path is first of all what the kernel opens by it, whichever
//! mount or namespace it leads through ([`crate::cgroup::path`]). Whether memory can be reclaimed
//! there is the business of [`crate::cgroup::diagnose`].

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::suggest::{missing, shown};
use crate::cgroup::diagnose::not_a_cgroup;
use crate::cgroup::error::CgroupError;
use crate::cgroup::mount::{Mount, Mounts};
use crate::cgroup::naming::Named;
use crate::cgroup::path::{CgroupPath, identify};
use crate::cgroup::{mount, open_directory, tree};
use crate::node;

/// Finds cgroups by their names, all by the same look at what is mounted.
#[derive(Debug)]
pub struct Locator {
    mounts: Mounts,
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
    /// Reads what is mounted.
    ///
    /// # Errors
    /// [`CgroupError`], if that can't be read.
    pub fn new() -> Result<Self, CgroupError> {
        let mounts = Mounts::read().map_err(|e| CgroupError::io("/proc/self/mountinfo", &e))?;
        Ok(Self { mounts })
    }

    /// The mount that names begin from.
    ///
    /// # Errors
    /// [`CgroupError`]: cgroup2 isn't mounted.
    pub fn mount(&self) -> Result<&Mount, CgroupError> {
        self.mounts.widest().ok_or_else(CgroupError::no_cgroup2)
    }

    /// Finds the cgroup that `word` names.
    ///
    /// # Errors
    /// [`CgroupError`], as [`locate`].
    pub fn locate(&self, word: &OsStr) -> Result<CgroupPath, CgroupError> {
        // A script whose variable is empty doesn't mean the root, which joining an empty path would
        // make of it.
        if word.is_empty() {
            return Err(CgroupError::NoName);
        }
        let given = Path::new(word);
        if is_from_here(given) {
            // For messages alone: what a directory is called may not be what leads there.
            let path = from_here(given);
            let called = path.canonicalize().unwrap_or_else(|_| given.to_path_buf());
            return match self.opened(&path, &called)? {
                Some(located) => Ok(located),
                None => Err(missing(word, given, self.mount()?)),
            };
        }
        let by_path = if given.is_absolute() { self.opened(given, given) } else { Ok(None) };
        if let Ok(Some(located)) = by_path {
            return Ok(located);
        }
        let mount = match (self.mount(), by_path.as_ref().err()) {
            (Err(_), Some(_)) => return by_path.and_then(|_| Err(CgroupError::no_cgroup2())),
            (mount, _) => mount?,
        };
        if word == "self" {
            return self.of_process("self", word);
        }
        // A name, perhaps with the mount in front of it.
        let below = given.strip_prefix(&mount.point).or_else(|_| given.strip_prefix("/")).unwrap_or(given);
        let in_mount = mount.point.join(below);
        if let Some(located) = self.opened(&in_mount, &in_mount)? {
            return Ok(located);
        }
        if let Some(number) = word.to_str().and_then(node::parse) {
            return Err(CgroupError::IsNode { word: shown(word), number: number? });
        }
        if let Some(named) = Named::parse(word) {
            let named = named.map_err(|why| CgroupError::BadName { word: shown(word), why })?;
            return self.by_name(&named, word, mount);
        }
        // `-` typed where systemd has `\\x2d`.
        if let Some(path) = spelt_otherwise(&mount.point, below) {
            return self.existing(&path, word);
        }
        // Something else may be there, which says more than that no cgroup is called so.
        by_path.and_then(|_| Err(missing(word, &in_mount, mount)))
    }

    /// The cgroup that a path leads to, which errors are to call so; `None` where it leads nowhere.
    fn opened(&self, path: &Path, called: &Path) -> Result<Option<CgroupPath>, CgroupError> {
        let opened = open_directory(path).and_then(|dir| identify(&dir, path, &self.mounts));
        match opened {
            Ok(located) => Ok(Some(located)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            // A file of a cgroup's is there, and no cgroup.
            Err(e) if e.kind() == io::ErrorKind::NotADirectory && !path.exists() => Ok(None),
            Err(e) => Err(not_a_cgroup(path, called, &e)),
        }
    }

    /// The cgroup that a path must lead to.
    fn existing(&self, path: &Path, word: &OsStr) -> Result<CgroupPath, CgroupError> {
        match self.opened(path, path)? {
            Some(located) => Ok(located),
            None => Err(missing(word, path, self.mount()?)),
        }
    }

    /// The cgroup that a process runs in.
    fn of_process(&self, process: &str, word: &OsStr) -> Result<CgroupPath, CgroupError> {
        let file = format!("/proc/{process}/cgroup");
        let text = crate::host::proc::read_bytes(&file).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => CgroupError::NoProcess { word: shown(word) },
            _ => CgroupError::io(&file, &e),
        })?;
        let mount = self.mount()?;
        let cgroup = mount::own_cgroup(&text).unwrap_or(Path::new(""));
        // The process is listed there, unless it is a zombie, or the cgroup threaded. The kernel
        // marks a cgroup that was removed by what another one can be called; the names between this
        // namespace's root and a mount from outside of it are known to nobody.
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

    /// A unit, container, pod or process.
    fn by_name(&self, named: &Named, word: &OsStr, mount: &Mount) -> Result<CgroupPath, CgroupError> {
        if let Named::Pid(pid) = named {
            return self.of_process(&pid.to_string(), word);
        }
        let found = named.find(mount);
        match &found[..] {
            [] => Err(missing(word, &mount.point.join(word), mount)),
            [only] => self.existing(only, word),
            several => {
                let candidates = several.iter().filter_map(|path| mount.name_of(path));
                let candidates = candidates.map(|name| name.to_string()).collect();
                Err(CgroupError::Ambiguous { word: shown(word), candidates })
            }
        }
    }

    /// Whether a word leads to a cgroup as a path, or as one from the mount point.
    pub(super) fn is_path(&self, word: &OsStr) -> bool {
        let path = Path::new(word);
        let leads = |path: &Path| matches!(self.opened(path, path), Ok(Some(_)));
        if word.is_empty() || is_from_here(path) {
            return !word.is_empty() && leads(&from_here(path));
        }
        let below = path.strip_prefix("/").unwrap_or(path);
        path.is_absolute() && leads(path) || self.mount().is_ok_and(|mount| leads(&mount.point.join(below)))
    }

    /// The mount whose mount point is in front of a path, as far as text tells.
    pub(super) fn around(&self, path: &Path) -> Option<&Mount> {
        self.mounts.around(path)
    }

    /// The directory in front of a glob's first special name, and the rest: where it lies in which
    /// hierarchy. `None` where the glob is one over names.
    pub(super) fn base_of_glob(&self, word: &OsStr) -> Option<(CgroupPath, PathBuf)> {
        let path = Path::new(word);
        let is_path = path.is_absolute() || is_from_here(path);
        if !is_path {
            return None;
        }
        // A path without any is a glob that matches itself, as among those to be left out.
        let at = path.iter().position(has_special).unwrap_or_else(|| path.iter().count());
        let (base, rest): (PathBuf, PathBuf) =
            (path.iter().take(at).collect(), path.iter().skip(at).collect());
        let base = if path.is_absolute() { base } else { from_here(&base) };
        Some((self.opened(&base, &base).ok()??, rest))
    }
}

/// Whether a process is in a cgroup.
fn lists(path: &Path, process: &str) -> bool {
    let own = std::process::id().to_string();
    let pid = if process == "self" { own.as_str() } else { process };
    crate::host::proc::read_in(path, "cgroup.procs").is_ok_and(|procs| procs.lines().any(|line| line == pid))
}

/// Whether a word has what only globs have.
pub(super) fn has_special(word: &OsStr) -> bool {
    word.as_bytes().iter().any(|byte| b"*?[{".contains(byte))
}

/// Whether a path is one from the working directory: names begin at the mount otherwise.
fn is_from_here(path: &Path) -> bool {
    matches!(path.components().next(), Some(Component::CurDir | Component::ParentDir))
}

/// A path from the working directory. By proc's link and not by text: the directory may have no
/// path from our root.
fn from_here(path: &Path) -> PathBuf {
    Path::new("/proc/self/cwd").join(path)
}

/// A path in which systemd's escapes are spelt as what they stand for.
fn spelt_otherwise(point: &Path, below: &Path) -> Option<PathBuf> {
    below.components().try_fold(point.to_path_buf(), |path, component| {
        let plain = path.join(component);
        if plain.is_dir() {
            return Some(plain);
        }
        let unit = Named::unit(component.as_os_str());
        tree::children(&path).find(|child| child.file_name().is_some_and(|name| unit.is(name)))
    })
}
