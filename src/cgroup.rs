//! A cgroup by directory descriptor, and the room in which the kernel's files are read and written.
//!
//! A descriptor stays with the cgroup it was opened on: when that one is removed and another takes its name, what
//! is read through it fails with `ENODEV` instead of telling of the wrong cgroup.
//!
//! Units are the kernel's unless a document says otherwise: bytes for amounts, pages for events in
//! `memory.stat`, microseconds for stall times.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use crate::host::Reader;
use crate::host::proc::{parse_number, read_in};
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
pub mod pressure;
pub mod reclaim;
pub mod sampler;
pub mod stat;
pub mod survey;
pub mod swap_room;
pub mod systemd;
pub mod tree;
pub mod trigger;
pub mod zswap;

pub use conditions::{Conditions, Protected};
pub use details::Details;
pub use limit::BindingLimit;
pub use memory::MemoryCgroup;
pub use mount::Mount;
pub use name::Name;
pub use path::CgroupPath;
pub use sampler::Sampler;
pub use survey::{Reading, Survey};

/// An open cgroup directory.
#[derive(Debug)]
pub struct Cgroup {
    dir: OwnedFd,
    path: Arc<Path>,
    name: Name,
}

/// What kind of file system a directory lies on, as far as cgroups are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// The unified hierarchy.
    Cgroup2,
    /// One of the old per-controller hierarchies.
    Cgroup1,
    /// Anything else.
    Other,
}

/// `CGROUP2_SUPER_MAGIC` and `CGROUP_SUPER_MAGIC`, include/uapi/linux/magic.h.
const CGROUP2_MAGIC: u64 = 0x6367_7270;
const CGROUP1_MAGIC: u64 = 0x0027_e0eb;

impl Cgroup {
    /// Opens the cgroup at `path`, which is to be called `name` in reports.
    ///
    /// # Errors
    /// The kernel's, from opening the directory; [`io::ErrorKind::InvalidInput`] if it isn't on cgroup2.
    pub fn open(path: Arc<Path>, name: Name) -> io::Result<Self> {
        let cgroup = Self::open_to_read(path, name)?;
        if file_system(&cgroup.dir)? != FileSystem::Cgroup2 {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        Ok(cgroup)
    }

    /// The same for a directory that need not be on cgroup2, since nothing will be written there.
    pub(crate) fn open_to_read(path: Arc<Path>, name: Name) -> io::Result<Self> {
        Ok(Self { dir: open_directory(&path)?, path, name })
    }

    /// The name: the path from the mount point, with a leading `/`; the root is `/`.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The directory's path in the file system, as it was when it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this is the root of the hierarchy, which is the whole host. The root that a cgroup namespace shows is a
    /// cgroup like any other, and so has a type.
    #[must_use]
    pub fn is_root(&self) -> bool {
        /// The root of a kernfs hierarchy is the first of its nodes (`kernfs_create_root`, fs/kernfs/dir.c).
        const ROOT_ID: u64 = 1;
        (&*self.name == "/" || self.id() == Ok(ROOT_ID)) && !self.has("cgroup.type")
    }

    /// The cgroup's id: its directory's inode, which no other cgroup gets while the host runs.
    ///
    /// # Errors
    /// The kernel's, from fstat(2).
    pub fn id(&self) -> Result<u64, Errno> {
        rustix::fs::fstat(&self.dir).map(|stat| stat.st_ino)
    }

    /// Takes the advisory lock on the cgroup's directory, if nobody else has it. It is held as long as this lives.
    ///
    /// # Errors
    /// The kernel's, from flock(2), but for `EWOULDBLOCK`, which is the answer no.
    pub fn try_lock(&self) -> Result<bool, Errno> {
        try_lock(&self.dir)
    }

    /// Gives the lock back.
    pub fn unlock(&self) {
        // It fails only where there was none.
        let _ = rustix::fs::flock(&self.dir, FlockOperation::Unlock);
    }

    /// Opens one of the cgroup's files for reading, to be read again and again with [`Reader::read`].
    ///
    /// # Errors
    /// The kernel's: `ENOENT` where this kernel or this cgroup has no such file.
    pub fn reader(&self, file: &str) -> Result<Reader, Errno> {
        Reader::at(&self.dir, file)
    }

    /// Reads one of the cgroup's files once.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read(&self, file: &str) -> Result<String, Errno> {
        let mut text = String::new();
        self.reader(file)?.read(&mut text)?;
        Ok(text)
    }

    /// Reads a file that holds one number; `max` is `None`.
    ///
    /// # Errors
    /// The kernel's; `EINVAL` if it isn't a number.
    pub fn number(&self, file: &str) -> Result<Option<u64>, Errno> {
        parse_number(&self.read(file)?)
    }

    /// Whether the cgroup has such a file.
    #[must_use]
    pub fn has(&self, file: &str) -> bool {
        rustix::fs::accessat(&self.dir, file, rustix::fs::Access::EXISTS, rustix::fs::AtFlags::empty())
            .is_ok()
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// Takes the advisory lock on a directory, if nobody else has it.
pub(crate) fn try_lock(dir: impl AsFd) -> Result<bool, Errno> {
    match rustix::fs::flock(dir, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// What kind of file system `dir` lies on.
///
/// # Errors
/// The kernel's, from fstatfs(2).
pub fn file_system(dir: impl AsFd) -> Result<FileSystem, Errno> {
    Ok(match rustix::fs::fstatfs(dir)?.f_type as u64 {
        CGROUP2_MAGIC => FileSystem::Cgroup2,
        CGROUP1_MAGIC => FileSystem::Cgroup1,
        _ => FileSystem::Other,
    })
}

/// Opens a directory for the calls that take one. Readable, not `O_PATH`, since flock(2) needs a real descriptor.
pub(crate) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Whether there are processes in a cgroup or below it, as far as its `cgroup.events` can be read.
pub(crate) fn is_populated(dir: &Path) -> bool {
    read_in(dir, "cgroup.events").is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
}
