//! Cgroup of a process, and the position of this cgroup namespace in a mount made outside of it.
//!
//! `/proc/PID/cgroup` (cgroups(7), `cgroup_namespaces(7)`) gives the path from the root of this
//! process's cgroup namespace. A mount made outside of the namespace, such as the host's hierarchy
//! in a pod, shows that root under a name that no file tells. It is found by its inode where the
//! namespace's own hierarchy is mounted too, and else by this process's ID.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::locate::{Locator, shown};
use crate::cgroup::error::CgroupError;
use crate::cgroup::mount::{self, Mount, join, levels};
use crate::cgroup::owner::Asker;
use crate::cgroup::path::{CgroupPath, id_of, leads_to};
use crate::cgroup::{open_directory, tree};
use crate::host::proc::{process_exists, read_bytes, read_in};

/// Mark that the kernel appends to the path of a process whose cgroup was removed
/// (`proc_cgroup_show`, kernel/cgroup/cgroup.c). The name of another cgroup can end so, too.
const REMOVED: &[u8] = b" (deleted)";

impl Locator {
    /// Returns the cgroup that a process runs in.
    pub(super) fn of_process(&self, process: &str, word: &OsStr) -> Result<CgroupPath, CgroupError> {
        let file = format!("/proc/{process}/cgroup");
        let text = read_bytes(&file).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound if process_exists(process) => {
                CgroupError::HiddenProcess { word: shown(word) }
            }
            io::ErrorKind::NotFound => CgroupError::NoProcess { word: shown(word) },
            _ => CgroupError::io(&file, &e),
        })?;
        let widest = self.mount()?;
        let cgroup = mount::own_cgroup(&text).unwrap_or(Path::new(""));
        // A cgroup lists its processes, except zombies, which alone can be in a removed cgroup.
        let alive = cgroup.as_os_str().as_bytes().strip_suffix(REMOVED).map(OsStr::from_bytes);
        let by_name = self.directories_of(cgroup).find(|path| match alive {
            None => open_directory(path).is_ok(),
            Some(_) => lists(path, process),
        });
        let path = by_name.or_else(|| tree::top_and_walk(widest).find(|path| lists(path, process)));
        match (path, alive) {
            (Some(path), _) => self.existing(&path, word),
            (None, Some(_)) => Err(CgroupError::Ended { word: shown(word) }),
            (None, None) => Err(CgroupError::OutOfSight {
                word: shown(word),
                name: cgroup.display().to_string(),
                root: widest.root.clone(),
            }),
        }
    }

    /// Returns the directories that a cgroup may have, given its path from the root of this cgroup
    /// namespace: in the mount that names begin from, and else in the others.
    fn directories_of<'a>(&'a self, cgroup: &'a Path) -> impl Iterator<Item = PathBuf> + 'a {
        let by_root = self.mounts().widest().and_then(|widest| widest.directory_of(cgroup));
        let by_namespace = || std::iter::once_with(|| self.below_namespace(cgroup)).flatten();
        let elsewhere = self.mounts().iter().filter_map(|mount| mount.directory_of(cgroup));
        by_root.into_iter().chain(by_namespace()).chain(elsewhere)
    }

    /// Returns the directory, in the mount that names begin from, of a cgroup given by its path from
    /// the root of this cgroup namespace.
    fn below_namespace(&self, cgroup: &Path) -> Option<PathBuf> {
        let top = &self.mounts().widest()?.point;
        resolved(self.namespace_root()?, cgroup).filter(|path| path.starts_with(top))
    }

    /// Returns the path of a cgroup in the mount that names begin from, where that mount was made
    /// outside of this cgroup namespace and so shows more of the cgroup's ancestors than the mount
    /// by which the cgroup was found; but not if only the other mount can be written to.
    pub(super) fn with_ancestors(&self, located: CgroupPath) -> CgroupPath {
        let Some(widest) = self.mounts().widest() else { return located };
        let is_inner = located.mount.id.is_some() && levels(&located.mount.root).0 == 0;
        if !is_inner || levels(&widest.root).0 == 0 || widest.read_only && !located.mount.read_only {
            return located;
        }
        let within = join(&located.mount.root, located.below_mount());
        match self.below_namespace(&within).filter(|path| leads_to(path, located.id)) {
            Some(path) => {
                let name = widest.name_of(&path).unwrap_or_default();
                CgroupPath { path: path.into(), name, mount: widest.clone().into(), id: located.id }
            }
            None => located,
        }
    }

    /// Finds the root of this cgroup namespace in the mount that names begin from, if that mount
    /// was made outside of the namespace and shows its root.
    pub(super) fn find_namespace_root(&self) -> Option<PathBuf> {
        let widest = self.mounts().widest()?;
        let (up, 0) = levels(&widest.root) else { return None };
        if up == 0 {
            return None;
        }
        let mut inner = self.mounts().iter().filter(|mount| mount.root == Path::new("/"));
        let id = |mount: &Mount| id_of(open_directory(&mount.point).ok()?).ok();
        if let Some(id) = inner.find_map(id) {
            return at_depth(widest, up).find(|(_, found)| *found == id).map(|(path, _)| path);
        }
        let text = read_bytes("/proc/self/cgroup").ok()?;
        let own = mount::own_cgroup(&text)?.strip_prefix("/").ok()?;
        let below = own.iter().count();
        if own.starts_with("..") {
            return None;
        }
        let found = at_depth(widest, up + below)
            .map(|(path, _)| path)
            .find(|path| path.ends_with(own) && lists(path, "self"))?;
        found.ancestors().nth(below).map(Path::to_path_buf)
    }
}

/// Returns the cgroups that are this many levels below the top of a mount, each with its id.
fn at_depth(mount: &Mount, depth: usize) -> impl Iterator<Item = (PathBuf, u64)> {
    let mut walk = tree::Walk::new(mount, Asker::of_self(), vec![PathBuf::new()]);
    std::iter::from_fn(move || {
        loop {
            let tree::Entry { path, id, .. } = walk.next()?;
            let here = path.strip_prefix(&mount.point).map_or(0, |below| below.iter().count());
            if here >= depth {
                walk.skip_below();
                return Some((path, id));
            }
        }
    })
}

/// Resolves a path with `..` at its beginning from a directory, by text: the kernel writes no links
/// and no `.` into it.
fn resolved(from: &Path, path: &Path) -> Option<PathBuf> {
    let mut at = from.to_path_buf();
    for component in path.components() {
        match component {
            Component::ParentDir if !at.pop() => return None,
            Component::Normal(name) => at.push(name),
            _ => {}
        }
    }
    Some(at)
}

/// Returns whether a process is in a cgroup. A threaded cgroup lists only threads.
fn lists(path: &Path, process: &str) -> bool {
    let own = std::process::id().to_string();
    let pid = if process == "self" { own.as_str() } else { process };
    let listed = read_in(path, "cgroup.procs").or_else(|_| read_in(path, "cgroup.threads"));
    listed.is_ok_and(|listed| listed.lines().any(|line| line == pid))
}

/// Returns the word for the process of a path below `/proc/PID`, which isn't a cgroup itself.
pub(super) fn word_of_proc(path: &Path) -> Option<OsString> {
    let mut names = path.strip_prefix("/proc").ok()?.iter();
    match names.next()?.to_str()? {
        "self" | "thread-self" => Some("self".into()),
        pid => pid.parse().ok().map(|pid: u32| format!("pid:{pid}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_from_the_namespace_is_found_from_its_root() {
        let of = |path: &str| resolved(Path::new("/cg/a/b"), Path::new(path));
        assert_eq!(of("/"), Some("/cg/a/b".into()));
        assert_eq!(of("/x/y"), Some("/cg/a/b/x/y".into()));
        assert_eq!(of("/../../x"), Some("/cg/x".into()));
        assert_eq!(of("/../../../../.."), None);
    }

    #[test]
    fn a_process_is_named_by_its_files() {
        for (path, word) in [("/proc/12", "pid:12"), ("/proc/12/cgroup", "pid:12"), ("/proc/self/ns", "self")]
        {
            assert_eq!(word_of_proc(Path::new(path)), Some(word.into()), "{path}");
        }
        assert!(
            ["/proc", "/proc/sys/vm", "/tmp/12"].iter().all(|path| word_of_proc(Path::new(path)).is_none())
        );
    }

    #[test]
    fn cgroups_of_one_depth_are_returned() {
        let root = tempfile::tempdir().unwrap();
        tree::tests::make(root.path(), &["a/b/c", "a/d", "e"]);
        let mount = Mount::whole(root.path().into(), false);
        let mut found: Vec<_> = at_depth(&mount, 2).map(|(path, _)| path).collect();
        found.sort();
        assert_eq!(found, [root.path().join("a/b"), root.path().join("a/d")]);
    }
}
