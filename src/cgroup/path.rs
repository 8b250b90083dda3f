//! Identification of an open directory as a cgroup: its mount, path and name.
//!
//! The kernel resolves a path once, when it is opened; the opened directory is then identified by
//! the descriptor: file system, inode, mount. Resolving the path again as text can lead elsewhere:
//! through `/proc/PID/root`, `/proc/PID/cwd` or `/proc/PID/fd`, which aren't symbolic links to the
//! text that readlink(2) gives, or where another mount covers a directory. So every path derived
//! from the text is opened, and accepted only if it leads to the same inode.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, StatVfsMountFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::mount::{Mount, Mounts, join, mount_id};
use super::{Cgroup, FileSystem, Name, file_system, open_directory};
use crate::host::proc::errno_of;

/// Path, name and id of a cgroup that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupPath {
    /// Directory: the mount point, then the names from there.
    pub path: Arc<Path>,
    /// Path from the mount point, with a leading `/`.
    pub name: Name,
    /// Hierarchy of the cgroup.
    pub mount: Arc<Mount>,
    /// Cgroup id, as from `Cgroup::id`. A cgroup with another id at the path later is not this
    /// one.
    pub id: u64,
}

impl CgroupPath {
    /// Returns the ancestors, the nearest first, without the root of the mount. Leaves out removed
    /// cgroups.
    pub(crate) fn above(&self) -> impl Iterator<Item = Self> + '_ {
        let within = |path: &&Path| path.starts_with(&self.mount.point) && **path != self.mount.point;
        self.path.ancestors().skip(1).take_while(within).filter_map(|path| {
            let name = self.mount.name_of(path)?;
            // Without a descriptor, of which there may be none left.
            let id = rustix::fs::stat(path).ok()?.st_ino;
            Some(Self { path: path.into(), name, mount: Arc::clone(&self.mount), id })
        })
    }

    /// Returns the path from the mount point, without a leading `/`; empty for the top.
    #[must_use]
    pub(crate) fn below_mount(&self) -> &Path {
        self.path.strip_prefix(&self.mount.point).unwrap_or(&self.path)
    }

    /// Opens the cgroup.
    ///
    /// # Errors
    /// The kernel's error from opening the directory; [`io::ErrorKind::InvalidInput`] if the
    /// directory isn't on cgroup2; `ESTALE` if the path now leads to another cgroup.
    pub(crate) fn open(&self) -> io::Result<Cgroup> {
        let cgroup = Cgroup::open(Arc::clone(&self.path), self.name.clone())?;
        self.verify(cgroup.id()?)?;
        Ok(cgroup)
    }

    /// Opens the cgroup as [`CgroupPath::open`] does, but on any file system, since nothing is
    /// written there.
    pub(crate) fn open_to_read(&self) -> Result<Cgroup, Errno> {
        let cgroup = Cgroup::open_to_read(Arc::clone(&self.path), self.name.clone())
            .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::INVAL))?;
        self.verify(cgroup.id()?)?;
        Ok(cgroup)
    }

    /// Opens the directory alone.
    pub(crate) fn open_directory(&self) -> Result<OwnedFd, Errno> {
        let dir = open_directory(&self.path).map_err(|e| errno_of(&e))?;
        self.verify(id_of(&dir)?)?;
        Ok(dir)
    }

    fn verify(&self, id: u64) -> Result<(), Errno> {
        if id == self.id { Ok(()) } else { Err(Errno::STALE) }
    }
}

/// Returns the inode of a directory, which is the id of a cgroup.
pub(crate) fn id_of(dir: impl AsFd) -> Result<u64, Errno> {
    rustix::fs::fstat(dir).map(|stat| stat.st_ino)
}

/// Identifies the cgroup `dir`, which was opened by the absolute path `given`. Prefers the mount
/// that names begin from if that mount shows the cgroup with more of its ancestors, unless only
/// that mount is read-only.
///
/// # Errors
/// The kernel's error; [`io::ErrorKind::InvalidInput`] if the directory isn't on cgroup2.
pub(crate) fn identify(dir: &OwnedFd, given: &Path, mounts: &Mounts) -> io::Result<CgroupPath> {
    if file_system(dir)? != FileSystem::Cgroup2 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let id = id_of(dir)?;
    // The kernel writes the path from the root of its mount namespace, not necessarily from ours.
    let text = std::fs::read_link(format!("/proc/self/fd/{}", dir.as_raw_fd()))?;
    let (mount, below) = match listed(dir, &text, id, mounts) {
        Some(found) => found,
        None => unlisted(dir, given, &text)?,
    };
    let preferred = mounts.widest().filter(|widest| mount.id.is_none() || widest.root != mount.root);
    let elsewhere = preferred.and_then(|widest| {
        // An unlisted mount may still show the same part of the hierarchy.
        let path = match mount.id {
            Some(_) => widest.directory_of(&mount.root.join(&below))?,
            None => join(&widest.point, &below),
        };
        leads_to(&path, id).then_some((widest, path))
    });
    if let Some((widest, path)) = elsewhere {
        let name = widest.name_of(&path).unwrap_or_default();
        if mount.read_only || !widest.read_only {
            return Ok(CgroupPath { path: path.into(), name, mount: Arc::new(widest.clone()), id });
        }
        let path = join(&mount.point, &below);
        let top = without_tail(Path::new(&*name), &below).to_path_buf();
        return Ok(CgroupPath { path: path.into(), name, mount: Arc::new(Mount { top, ..mount }), id });
    }
    let path = join(&mount.point, &below);
    let name = mount.name_of(&path).unwrap_or_default();
    Ok(CgroupPath { path: path.into(), name, mount: Arc::new(mount), id })
}

/// Returns the descriptor's mount, if this mount namespace lists it, and the path below, if the
/// path leads to the cgroup, or led to it before the cgroup was removed.
fn listed(dir: &OwnedFd, text: &Path, id: u64, mounts: &Mounts) -> Option<(Mount, PathBuf)> {
    let mount = mounts.of_id(mount_id(dir)?)?;
    let below = text.strip_prefix(&mount.point).ok()?;
    let below = if leads_to(text, id) { Some(below) } else { former(below).filter(|_| is_removed(dir)) };
    below.map(|below| (mount.clone(), below.to_path_buf()))
}

/// Returns a path without the kernel's note that nothing is there any more.
fn former(path: &Path) -> Option<&Path> {
    path.as_os_str().as_bytes().strip_suffix(b" (deleted)").map(|path| Path::new(OsStr::from_bytes(path)))
}

/// Returns whether the cgroup of a directory was removed: every other one has this file.
fn is_removed(dir: &OwnedFd) -> bool {
    let found = rustix::fs::statat(dir, "cgroup.controllers", AtFlags::empty());
    matches!(found, Err(Errno::NOENT | Errno::NODEV))
}

/// Returns a mount that this mount namespace doesn't list, or that another mount covers, and the
/// path below. Finds its top by ascending from the descriptor, and reaches the top by the given
/// path. Where `..` leads onto the mount that covers the top, ascending is impossible, and the
/// directory itself is the top of the visible part.
fn unlisted(dir: &OwnedFd, given: &Path, text: &Path) -> io::Result<(Mount, PathBuf)> {
    let (id, depth) = (id_of(dir)?, depth(dir)?);
    let names: Vec<_> = text.iter().collect();
    let below: PathBuf = names[names.len().saturating_sub(depth)..].iter().collect();
    // Use the given path where it ends as expected; else go back as many steps.
    let cut = given.ancestors().nth(depth).filter(|_| given.ends_with(&below)).map(Path::to_path_buf);
    let back = (0..depth).fold(given.to_path_buf(), |path, _| path.join(".."));
    let leads_back = |top: &PathBuf| leads_to(&join(top, &below), id);
    let (top, below) = match cut.into_iter().chain([back]).find(leads_back) {
        Some(top) => (top, below),
        None => (given.to_path_buf(), PathBuf::new()),
    };
    let read_only = rustix::fs::fstatvfs(dir)?.f_flag.contains(StatVfsMountFlags::RDONLY);
    // The position of the mount in the hierarchy can't be determined here, nor can its options.
    let mount = Mount {
        id: None,
        point: top.clone(),
        root: "/..".into(),
        read_only,
        local_events: true,
        top,
        inner: Vec::new(),
    };
    Ok((mount, below))
}

/// Returns the number of levels between a directory and the top of its mount.
fn depth(dir: &OwnedFd) -> Result<usize, Errno> {
    /// Maximum number of levels: paths have a maximum length (`PATH_MAX`), and each level takes at
    /// least two bytes.
    const MAX_DEPTH: usize = 2048;
    let (mut at, mut depth) = (rustix::io::fcntl_dupfd_cloexec(dir, 0)?, 0);
    while !is_mount_top(&at)? {
        if depth == MAX_DEPTH {
            return Err(Errno::NAMETOOLONG);
        }
        at = rustix::fs::openat(
            &at,
            "..",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        depth += 1;
    }
    Ok(depth)
}

/// Returns whether a directory is the top of its mount. Kernels before 5.8 don't report this:
/// there, this recognises the file system's own root and a parent on another file system, but not a
/// mount of a part over a part.
fn is_mount_top(dir: &OwnedFd) -> Result<bool, Errno> {
    let known = rustix::fs::statx(dir, "", AtFlags::EMPTY_PATH, StatxFlags::empty()).ok().and_then(|stat| {
        let told = stat.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT);
        told.then(|| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
    });
    if let Some(known) = known {
        return Ok(known);
    }
    let (here, above) = (rustix::fs::fstat(dir)?, rustix::fs::statat(dir, "..", AtFlags::empty())?);
    Ok(here.st_dev != above.st_dev || here.st_ino == above.st_ino)
}

/// Returns whether a path leads to the cgroup with this id.
pub(crate) fn leads_to(path: &Path, id: u64) -> bool {
    open_directory(path)
        .is_ok_and(|dir| id_of(&dir) == Ok(id) && file_system(&dir) == Ok(FileSystem::Cgroup2))
}

/// Removes from a name as many components as `tail` has.
fn without_tail<'a>(name: &'a Path, tail: &Path) -> &'a Path {
    name.ancestors().nth(tail.iter().count()).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_elsewhere_is_no_cgroup() {
        let dir = tempfile::tempdir().unwrap();
        let open = open_directory(dir.path()).unwrap();
        let why = identify(&open, dir.path(), &Mounts::default()).unwrap_err();
        assert_eq!(why.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn the_top_of_a_mount_is_recognised_from_below() {
        let proc = open_directory(Path::new("/proc/self")).unwrap();
        assert_eq!(depth(&proc), Ok(1));
        assert_eq!(depth(&open_directory(Path::new("/proc")).unwrap()), Ok(0));
        assert!(mount_id(&proc).is_some());
    }

    #[test]
    fn another_cgroup_of_the_same_path_is_not_taken_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app");
        std::fs::create_dir(&path).unwrap();
        let id = id_of(open_directory(&path).unwrap()).unwrap();
        let mount = Mount::whole(dir.path().into(), false);
        let located =
            CgroupPath { path: path.as_path().into(), name: "/app".into(), mount: Arc::new(mount), id };
        assert!(located.open_to_read().is_ok() && located.open_directory().is_ok());
        let other = CgroupPath { id: id + 1, ..located.clone() };
        assert_eq!(other.open_to_read().map(drop), Err(Errno::STALE));
        assert_eq!(other.open_directory().map(drop), Err(Errno::STALE));
        assert_eq!(located.below_mount(), Path::new("app"));
    }
}
