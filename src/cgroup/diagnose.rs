//! Diagnosis of a failed access: finds out why memory can't be reclaimed from a cgroup.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::error::CgroupError;
use super::mount::Mount;
use super::owner::{Denied, Owner};
use super::v1::controller_on_v1;
use super::{Cgroup, CgroupPath, reclaim, tree};
use crate::cgroup::{FileSystem, file_system, open_directory};
use crate::host::proc::read_in;

/// Returns why opening the `memory.reclaim` of `cgroup` failed with `errno`.
#[must_use]
pub(crate) fn explain(cgroup: &Cgroup, located: &CgroupPath, errno: Errno) -> CgroupError {
    let file = cgroup.path().join(reclaim::FILE);
    match errno {
        Errno::ACCESS | Errno::PERM => {
            let denied = Denied::of(Owner::of(cgroup));
            CgroupError::Permission { name: cgroup.name().to_string(), file, denied }
        }
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
        Err(why) if errno == Errno::NOENT => why,
        _ if errno == Errno::STALE => replaced(located),
        _ if errno == Errno::NODEV => removed(located),
        _ => CgroupError::io(&*located.name, &errno.into()),
    }
}

/// Returns why the memory files of the cgroup at `located`, which were open, are gone.
#[must_use]
pub fn lost(located: &CgroupPath) -> CgroupError {
    match open(located) {
        Ok(cgroup) if cgroup.has("memory.stat") => {
            CgroupError::ControllerAway { name: located.name.to_string() }
        }
        Ok(cgroup) => absent(&cgroup, &located.mount),
        Err(why) => why,
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
    match cgroup.read("cgroup.type").unwrap_or_default().trim() {
        "threaded" => return CgroupError::Threaded { domain: domain_of(cgroup.path(), mount), name },
        "domain invalid" => {
            return CgroupError::DomainInvalid { domain: domain_of(cgroup.path(), mount), name };
        }
        _ => {}
    }
    // memory.stat exists wherever the controller is enabled, at the root as well.
    if cgroup.has("memory.stat") {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        return CgroupError::OldKernel { name, release };
    }
    let lacking = lacking_parents(cgroup.path(), mount);
    if let Some(topmost) = lacking.first() {
        let parent = mount.name_of(topmost).unwrap_or_default().to_string();
        let occupied = lacking.iter().take(MAX_OCCUPIED).find(|dir| is_occupied(dir));
        let parent = occupied.and_then(|dir| mount.name_of(dir)).map_or(parent, |name| name.to_string());
        return CgroupError::ControllerOff { name, parent, occupied: occupied.is_some(), lacking };
    }
    match controller_on_v1() {
        Some(v1) => CgroupError::ControllerOnV1 { name, v1 },
        None if mount.hidden().is_some() => CgroupError::ControllerHidden { name },
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

/// Maximum number of ancestors that are examined for processes: a user may nest cgroups deeply.
const MAX_OCCUPIED: usize = 16;

/// Returns whether processes in a cgroup keep it from passing controllers on (`EBUSY`). Only the
/// root, which has no type, may have both.
fn is_occupied(dir: &Path) -> bool {
    let has = |file: &str| read_in(dir, file).is_ok_and(|text| !text.trim().is_empty());
    has("cgroup.type") && has("cgroup.procs")
}

/// Returns the ancestors that don't pass the memory controller on, the topmost first; none if the
/// topmost doesn't have it either.
fn lacking_parents(path: &Path, mount: &Mount) -> Vec<PathBuf> {
    let mut up: Vec<_> = path.ancestors().skip(1).take_while(|p| p.starts_with(&mount.point)).collect();
    up.reverse();
    let lists = |dir: &Path, file: &str| {
        let text = read_in(dir, file).unwrap_or_default();
        text.split_whitespace().any(|controller| controller == "memory")
    };
    // None below such a cgroup has the controller to pass on.
    let Some(topmost) = up.iter().position(|dir| !lists(dir, "cgroup.subtree_control")) else {
        return Vec::new();
    };
    let lacking = &up[topmost..];
    if lists(lacking[0], "cgroup.controllers") {
        lacking.iter().map(|dir| dir.to_path_buf()).collect()
    } else {
        Vec::new()
    }
}

/// Returns the name of the nearest ancestor that isn't within a threaded subtree: the domain to
/// which the memory is charged.
fn domain_of(path: &Path, mount: &Mount) -> String {
    let threaded = |dir: &&Path| {
        read_in(dir, "cgroup.type").is_ok_and(|kind| matches!(kind.trim(), "threaded" | "domain invalid"))
    };
    let domain = path.ancestors().skip(1).find(|dir| !threaded(dir));
    domain.and_then(|dir| mount.name_of(dir)).map_or_else(|| "the parent".to_owned(), |name| name.to_string())
}

/// Returns an error that says what is there instead of a cgroup.
pub(crate) fn not_a_cgroup(path: &Path, called: &Path, error: &io::Error) -> CgroupError {
    // A file of a cgroup stands for the cgroup, in version 1 too.
    let directory = path.parent().filter(|_| error.kind() == io::ErrorKind::NotADirectory).unwrap_or(path);
    let on_v1 = || open_directory(directory).and_then(|dir| Ok(file_system(&dir)?));
    match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::NotADirectory
            if matches!(on_v1(), Ok(FileSystem::Cgroup1)) =>
        {
            CgroupError::Version1 { path: called.to_path_buf() }
        }
        io::ErrorKind::InvalidInput | io::ErrorKind::NotADirectory => {
            CgroupError::NotACgroup { path: called.to_path_buf() }
        }
        _ => CgroupError::io(called, error),
    }
}
