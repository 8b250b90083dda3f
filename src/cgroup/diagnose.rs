//! Diagnosis of a failed access: finds out why memory can't be reclaimed from a cgroup.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::error::CgroupError;
use super::mount::Mount;
use super::{Cgroup, CgroupPath, reclaim, tree};
use crate::cgroup::mount::controller_on_v1;
use crate::cgroup::{FileSystem, file_system, open_directory};
use crate::host::proc::read_in;

/// Returns why opening the `memory.reclaim` of `cgroup` failed with `errno`.
#[must_use]
pub(crate) fn explain(cgroup: &Cgroup, located: &CgroupPath, errno: Errno) -> CgroupError {
    let file = cgroup.path().join(reclaim::FILE);
    match errno {
        Errno::ACCESS | Errno::PERM => CgroupError::Permission { name: cgroup.name().to_string(), file },
        Errno::ROFS => CgroupError::ReadOnly { file },
        Errno::NODEV => removed(located),
        Errno::NOENT => absent(cgroup, &located.mount),
        _ => CgroupError::io(file, &errno.into()),
    }
}

/// Returns why reading the `memory.stat` of the cgroup at `located` failed with `errno`.
#[must_use]
pub fn unreadable(located: &CgroupPath, errno: Errno) -> CgroupError {
    match open(located) {
        Ok(cgroup) if errno == Errno::NOENT => absent(&cgroup, &located.mount),
        _ if errno == Errno::STALE => replaced(located),
        _ if errno == Errno::NODEV => removed(located),
        _ => CgroupError::io(&*located.name, &errno.into()),
    }
}

/// Opens the cgroup at `located`.
///
/// # Errors
/// [`CgroupError`], naming what is there instead.
pub(crate) fn open(located: &CgroupPath) -> Result<Cgroup, CgroupError> {
    located.open().map_err(|e| match Errno::from_io_error(&e) {
        Some(Errno::STALE) => replaced(located),
        Some(Errno::NOENT | Errno::NODEV) => removed(located),
        _ => not_a_cgroup(&located.path, &located.path, &e),
    })
}

fn removed(located: &CgroupPath) -> CgroupError {
    CgroupError::Removed { name: located.name.to_string() }
}

fn replaced(located: &CgroupPath) -> CgroupError {
    CgroupError::Replaced { name: located.name.to_string() }
}

/// Returns why a cgroup has no `memory.reclaim` at all.
fn absent(cgroup: &Cgroup, mount: &Mount) -> CgroupError {
    let name = cgroup.name().to_string();
    // Every existing cgroup has this file.
    if !cgroup.has("cgroup.controllers") {
        return CgroupError::Removed { name };
    }
    if cgroup.read("cgroup.type").is_ok_and(|kind| kind.trim() == "threaded") {
        return CgroupError::Threaded { domain: domain_of(cgroup.path(), mount), name };
    }
    // memory.stat exists wherever the controller is enabled, at the root as well.
    if cgroup.has("memory.stat") {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        return CgroupError::OldKernel { name, release };
    }
    if let Some(parent) = lacking_parent(cgroup.path(), mount) {
        let parent_name = mount.name_of(&parent).unwrap_or_default().to_string();
        return CgroupError::ControllerOff { name, parent: parent_name, parent_path: parent };
    }
    match controller_on_v1() {
        Some(v1) => CgroupError::ControllerOnV1 { name, v1 },
        None => CgroupError::ControllerDisabled { name },
    }
}

/// Returns why no cgroup below has figures to show, if there are any below.
#[must_use]
pub fn none_below(located: &CgroupPath) -> Option<CgroupError> {
    let (path, id) = tree::children_with_ids(&located.path).next()?;
    let name = located.mount.name_of(&path)?;
    let located = CgroupPath { name, path: path.into(), mount: Arc::clone(&located.mount), id };
    let cgroup = open(&located).ok().filter(|cgroup| !cgroup.has("memory.stat"))?;
    Some(absent(&cgroup, &located.mount))
}

/// Returns the topmost ancestor that has the memory controller and doesn't pass it on.
fn lacking_parent(path: &Path, mount: &Mount) -> Option<PathBuf> {
    let mut up: Vec<_> = path.ancestors().skip(1).take_while(|p| p.starts_with(&mount.point)).collect();
    up.reverse();
    let lists = |dir: &Path, file: &str| {
        let text = read_in(dir, file).unwrap_or_default();
        text.split_whitespace().any(|controller| controller == "memory")
    };
    let lacking = up.into_iter().find(|dir| !lists(dir, "cgroup.subtree_control"))?;
    lists(lacking, "cgroup.controllers").then(|| lacking.to_path_buf())
}

/// Returns the name of the nearest ancestor that isn't threaded: the domain to which the memory is
/// charged.
fn domain_of(path: &Path, mount: &Mount) -> String {
    let threaded = |dir: &&Path| read_in(dir, "cgroup.type").is_ok_and(|kind| kind.trim() == "threaded");
    let domain = path.ancestors().skip(1).find(|dir| !threaded(dir));
    domain.and_then(|dir| mount.name_of(dir)).map_or_else(|| "the parent".to_owned(), |name| name.to_string())
}

/// Returns an error that says what is there instead of a cgroup.
pub(crate) fn not_a_cgroup(path: &Path, called: &Path, error: &io::Error) -> CgroupError {
    let on_v1 = || open_directory(path).and_then(|dir| Ok(file_system(&dir)?));
    match error.kind() {
        io::ErrorKind::InvalidInput if matches!(on_v1(), Ok(FileSystem::Cgroup1)) => {
            CgroupError::Version1 { path: called.to_path_buf() }
        }
        io::ErrorKind::InvalidInput | io::ErrorKind::NotADirectory => {
            CgroupError::NotACgroup { path: called.to_path_buf() }
        }
        _ => CgroupError::io(called, error),
    }
}
