//! Access to a cgroup through a directory descriptor, and the modules that read and write the
//! kernel's cgroup files.
//!
//! A descriptor stays with the cgroup it was opened on. When that cgroup is removed and another
//! takes its name, reads through the descriptor fail with `ENODEV` instead of returning the figures
//! of the wrong cgroup.
//!
//! Units are the kernel's unless a document says otherwise: bytes for amounts, pages for events in
//! `memory.stat`, microseconds for stall times.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use crate::host::proc::{parse_number, read_in};
use crate::host::{LockHolder, Reader};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

pub mod conditions;
pub mod details;
pub mod diagnose;
pub mod error;
pub mod events;
pub mod hugetlb;
pub mod join;
pub mod killers;
pub mod limit;
pub mod memory;
pub mod mount;
pub mod name;
pub mod naming;
pub mod numa;
pub mod owner;
pub mod path;
pub mod pod;
pub mod pressure;
pub mod reclaim;
pub mod sampler;
pub(crate) mod shortages;
pub mod stat;
pub mod survey;
pub mod swap_room;
pub mod systemd;
pub mod tree;
pub mod trigger;
pub mod v1;
pub mod zswap;

pub use conditions::{Conditions, Protected};
pub use details::Details;
pub use limit::BindingLimit;
pub use memory::MemoryCgroup;
pub use mount::Mount;
pub use name::Name;
pub use path::CgroupPath;
pub use pod::PodNames;
pub use sampler::Sampler;
pub use survey::{Reading, Survey};

/// Open cgroup directory.
#[derive(Debug)]
pub(crate) struct Cgroup {
    dir: OwnedFd,
    path: Arc<Path>,
    name: Name,
}

/// Type of the file system that a directory lies on, as far as cgroups are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileSystem {
    /// Unified hierarchy.
    Cgroup2,
    /// Old per-controller hierarchy.
    Cgroup1,
    /// Any other file system.
    Other,
}

/// `CGROUP2_SUPER_MAGIC` and `CGROUP_SUPER_MAGIC`, include/uapi/linux/magic.h.
const CGROUP2_MAGIC: u64 = 0x6367_7270;
const CGROUP1_MAGIC: u64 = 0x0027_e0eb;

impl Cgroup {
    /// Opens the cgroup at `path`, called `name` in reports.
    ///
    /// # Errors
    /// The kernel's error from opening the directory; [`io::ErrorKind::InvalidInput`] if the
    /// directory isn't on cgroup2.
    pub(crate) fn open(path: Arc<Path>, name: Name) -> io::Result<Self> {
        let cgroup = Self::open_to_read(path, name)?;
        if file_system(&cgroup.dir)? != FileSystem::Cgroup2 {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        Ok(cgroup)
    }

    /// Opens a directory as [`Cgroup::open`] does, but on any file system, since nothing is written
    /// there.
    pub(crate) fn open_to_read(path: Arc<Path>, name: Name) -> io::Result<Self> {
        Ok(Self { dir: open_directory(&path)?, path, name })
    }

    /// Returns the name: the path from the mount point, with a leading `/`; the root is `/`.
    #[must_use]
    pub(crate) fn name(&self) -> &Name {
        &self.name
    }

    /// Returns the directory's path in the file system at the time of opening.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether this is the root of the hierarchy, which is the whole host. The root that a
    /// cgroup namespace shows is a cgroup like any other, and so has a type.
    #[must_use]
    pub(crate) fn is_root(&self) -> bool {
        /// Inode of the root of a kernfs hierarchy, the first of its nodes (`kernfs_create_root`,
        /// fs/kernfs/dir.c).
        const ROOT_ID: u64 = 1;
        (&*self.name == "/" || self.id() == Ok(ROOT_ID)) && !self.has("cgroup.type")
    }

    /// Returns the cgroup's id: its directory's inode, which no other cgroup gets while the host
    /// runs.
    ///
    /// # Errors
    /// The kernel's error from fstat(2).
    pub(crate) fn id(&self) -> Result<u64, Errno> {
        rustix::fs::fstat(&self.dir).map(|stat| stat.st_ino)
    }

    /// Takes the advisory lock on the cgroup's directory if no other process holds the lock, and
    /// returns whether this succeeded. The lock is held as long as this value lives.
    ///
    /// # Errors
    /// The kernel's error from flock(2), except `EWOULDBLOCK`, for which this returns false.
    pub(crate) fn try_lock(&self) -> Result<bool, Errno> {
        try_lock(&self.dir)
    }

    /// Finds the process that holds the lock. [`LockHolder::is_honoured`] decides whether to wait.
    pub(crate) fn lock_holder(&self) -> LockHolder {
        LockHolder::of(&self.dir)
    }

    /// Releases the lock.
    pub(crate) fn unlock(&self) {
        // Unlocking fails only where no lock was held.
        let _ = rustix::fs::flock(&self.dir, FlockOperation::Unlock);
    }

    /// Opens one of the cgroup's files for reading, repeatedly, with [`Reader::read`].
    ///
    /// # Errors
    /// The kernel's error: `ENOENT` where this kernel or this cgroup has no such file.
    pub(crate) fn reader(&self, file: &str) -> Result<Reader, Errno> {
        Reader::at(&self.dir, file)
    }

    /// Reads one of the cgroup's files once.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn read(&self, file: &str) -> Result<String, Errno> {
        let mut text = String::new();
        self.reader(file)?.read(&mut text)?;
        Ok(text)
    }

    /// Reads a file that contains one number; `max` is `None`.
    ///
    /// # Errors
    /// The kernel's error; `EINVAL` if the text isn't a number.
    pub(crate) fn number(&self, file: &str) -> Result<Option<u64>, Errno> {
        parse_number(&self.read(file)?)
    }

    /// Returns whether the cgroup has a file of this name.
    #[must_use]
    pub(crate) fn has(&self, file: &str) -> bool {
        rustix::fs::accessat(&self.dir, file, rustix::fs::Access::EXISTS, rustix::fs::AtFlags::empty())
            .is_ok()
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// Takes the advisory lock on a directory if no other process holds the lock, and returns whether
/// this succeeded.
pub(crate) fn try_lock(dir: impl AsFd) -> Result<bool, Errno> {
    match rustix::fs::flock(dir, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Returns the type of the file system that `dir` lies on.
///
/// # Errors
/// The kernel's error from fstatfs(2).
pub(crate) fn file_system(dir: impl AsFd) -> Result<FileSystem, Errno> {
    Ok(match rustix::fs::fstatfs(dir)?.f_type as u64 {
        CGROUP2_MAGIC => FileSystem::Cgroup2,
        CGROUP1_MAGIC => FileSystem::Cgroup1,
        _ => FileSystem::Other,
    })
}

/// Opens a directory for calls that take a descriptor. Opens for reading, not with `O_PATH`, since
/// flock(2) needs a real descriptor.
pub(crate) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Err(Errno::NAMETOOLONG) if path.is_absolute() && path.as_os_str().len() >= PATH_MAX => {
            open_in_steps(path, flags)
        }
        opened => Ok(opened?),
    }
}

/// Maximum length of a path in one call, bytes.
const PATH_MAX: usize = 4096;

/// Opens a directory whose path is too long for one call.
fn open_in_steps(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let mut dir = rustix::fs::open("/", flags, Mode::empty())?;
    for name in path.iter().filter(|name| *name != "/") {
        dir = rustix::fs::openat(&dir, name, flags, Mode::empty())?;
    }
    Ok(dir)
}

/// Returns whether a cgroup or any below contains processes, as far as `cgroup.events` can be read.
pub(crate) fn is_populated(dir: &Path) -> bool {
    read_in(dir, "cgroup.events").is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
}
