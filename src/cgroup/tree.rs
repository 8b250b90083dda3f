//! Cgroups below a cgroup.
//!
//! A walk opens each directory from its parent, since a path of more than `PATH_MAX` bytes can't be
//! opened, and keeps its way in a list, since a thread's stack is small. It goes down to
//! `MAX_DEPTH` and reports anything deeper, so nesting can neither end a walk nor hide.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;

use super::owner::{Asker, Owner};
use super::path::leads_to;
use super::{Mount, open_directory};
use crate::host::proc::errno_of;

/// Maximum number of levels below the top of a mount that a walk descends.
pub(crate) const MAX_DEPTH: usize = 256;

/// Number of levels whose descriptors a walk keeps. It returns to deeper levels by `..`: a cgroup
/// is never moved.
const KEPT_OPEN: usize = 16;

/// Number of links to a directory without directories in it (`kernfs_refresh_inode`,
/// fs/kernfs/inode.c). File systems that don't count them have 1 for all.
const LINKS_OF_LEAF: u64 = 2;

/// Size of the buffer for getdents64(2).
const BUFFER: usize = 16 << 10;

/// Directory below another one.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Path of the directory.
    pub path: PathBuf,
    /// Inode of the directory, which is the id of a cgroup.
    pub id: u64,
    /// True if the directory's name counts: see [`Asker`].
    pub(crate) genuine: bool,
    /// True if the names of directories directly below count.
    pub(crate) genuine_below: bool,
}

/// Returns the paths of the directories directly below `path`, in no particular order. Leaves out
/// directories that vanish in the meantime.
pub(crate) fn children(path: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    children_with_ids(path).map(|(path, _)| path)
}

/// Returns the paths of the directories directly below `path`, each with its id.
pub(crate) fn children_with_ids(path: &Path) -> impl Iterator<Item = (PathBuf, u64)> + use<> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| (entry.path(), entry.ino()))
}

/// Returns all cgroups below the top of a mount, each before those below it. Leaves out a directory
/// that another file system is mounted on, with all below; a directory mounted on itself, as by
/// container managers, is included.
pub fn walk(mount: &Mount) -> impl Iterator<Item = Entry> + use<'_> {
    Walk::new(mount, Asker::of_self(), vec![PathBuf::new()])
}

/// Returns the paths of the top of a mount and of all cgroups below.
pub(crate) fn top_and_walk(mount: &Mount) -> impl Iterator<Item = PathBuf> + use<'_> {
    std::iter::once(mount.point.clone()).chain(walk(mount).map(|entry| entry.path))
}

/// Walk through parts of a hierarchy.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    mount: &'a Mount,
    asker: Asker,
    /// Parts that are still to be walked: paths from the mount point.
    starts: std::vec::IntoIter<PathBuf>,
    /// Levels from the beginning of this part to the directory whose entries are next.
    levels: Vec<Level>,
    /// Path of that directory, and its depth below the mount point.
    path: PathBuf,
    depth: usize,
    /// Name of the last entry, if it may have directories below, and whether their names count.
    ahead: Option<(OsString, bool)>,
    buffer: Vec<u8>,
    trouble: Trouble,
}

/// Directory of which a walk is within.
#[derive(Debug)]
struct Level {
    /// Descriptor; `None` for a distant level of a deep hierarchy.
    dir: Option<OwnedFd>,
    id: u64,
    /// True if the names in this directory count.
    genuine: bool,
    /// Entries that are still to be returned.
    rest: std::vec::IntoIter<(OsString, u64)>,
}

/// Parts of a hierarchy that a walk had to leave out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// First directory at the maximum depth with more below.
    pub(crate) too_deep: Option<PathBuf>,
    /// First directory that couldn't be read, and the error.
    pub(crate) unreadable: Option<(PathBuf, Errno)>,
}

impl Trouble {
    /// Records the error of a directory, unless the directory has vanished.
    fn add(&mut self, path: &Path, errno: Errno) {
        if !matches!(errno, Errno::NOENT | Errno::NODEV) && self.unreadable.is_none() {
            self.unreadable = Some((path.to_owned(), errno));
        }
    }
}

impl<'a> Walk<'a> {
    /// Starts a walk through the parts of a mount below `starts`, which are paths from the mount
    /// point, none of them within another.
    pub(crate) fn new(mount: &'a Mount, asker: Asker, starts: Vec<PathBuf>) -> Self {
        Self {
            mount,
            asker,
            starts: starts.into_iter(),
            levels: Vec::new(),
            path: PathBuf::new(),
            depth: 0,
            ahead: None,
            buffer: Vec::with_capacity(BUFFER),
            trouble: Trouble::default(),
        }
    }

    /// Skips the directories below the entry that was returned last.
    pub(crate) fn skip_below(&mut self) {
        self.ahead = None;
    }

    /// Returns the parts that were left out so far.
    pub(crate) fn trouble(&self) -> &Trouble {
        &self.trouble
    }

    /// Opens a part of the mount, level by level, since its owners matter from the top down.
    fn begin(&mut self, below: &Path) -> Result<(), Errno> {
        self.path.clone_from(&self.mount.point);
        let top = open_directory(&self.mount.point).map_err(|e| errno_of(&e));
        let mut dir = top?;
        let mut stat = rustix::fs::fstat(&dir)?;
        let mut owners = vec![Owner::from(&stat)];
        self.depth = 0;
        for name in below {
            dir = open_below(&dir, name)?;
            stat = rustix::fs::fstat(&dir)?;
            owners.push(Owner::from(&stat));
            self.path.push(name);
            self.depth += 1;
        }
        let genuine = self.asker.accepts(owners);
        let rest = list(&dir, &mut self.buffer)?;
        self.levels.push(Level { dir: Some(dir), id: stat.st_ino, genuine, rest });
        Ok(())
    }

    /// Descends into a directory of the current one.
    fn descend(&mut self, name: &OsStr, genuine: bool) {
        self.path.push(name);
        if self.depth + 1 >= MAX_DEPTH {
            self.trouble.too_deep.get_or_insert_with(|| self.path.clone());
            self.path.pop();
            return;
        }
        let opened =
            self.levels.last().and_then(|level| level.dir.as_ref()).ok_or(Errno::BADF).and_then(|dir| {
                let dir = open_below(dir, name)?;
                let id = rustix::fs::fstat(&dir)?.st_ino;
                let rest = list(&dir, &mut self.buffer)?;
                Ok(Level { dir: Some(dir), id, genuine, rest })
            });
        match opened {
            Ok(level) => {
                if self.levels.len() > KEPT_OPEN
                    && let Some(above) = self.levels.last_mut()
                {
                    above.dir = None;
                }
                self.levels.push(level);
                self.depth += 1;
            }
            Err(errno) => {
                self.trouble.add(&self.path, errno);
                self.path.pop();
            }
        }
    }

    /// Returns to the directory above, or to the nearest one whose descriptor is kept.
    fn ascend(&mut self) {
        let Some(below) = self.levels.pop() else { return };
        self.path.pop();
        self.depth = self.depth.saturating_sub(1);
        let Some(level) = self.levels.last_mut().filter(|level| level.dir.is_none()) else { return };
        let above = below.dir.as_ref().ok_or(Errno::BADF).and_then(|dir| open_below(dir, OsStr::new("..")));
        let is_it = |dir: &OwnedFd| rustix::fs::fstat(dir).is_ok_and(|stat| stat.st_ino == level.id);
        match above {
            Ok(dir) if is_it(&dir) => level.dir = Some(dir),
            other => {
                self.trouble.add(&self.path, other.err().unwrap_or(Errno::STALE));
                while self.levels.last().is_some_and(|level| level.dir.is_none()) {
                    self.levels.pop();
                    self.path.pop();
                    self.depth = self.depth.saturating_sub(1);
                }
            }
        }
    }

    /// Returns the next entry of the current directory: its name, id and properties.
    fn entry(&mut self) -> Option<(OsString, u64, Stat)> {
        let level = self.levels.last_mut()?;
        for (name, id) in level.rest.by_ref() {
            let Some(dir) = &level.dir else { continue };
            match rustix::fs::statat(dir, &*name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                    return Some((name, id, stat));
                }
                Ok(_) => {}
                Err(errno) => self.trouble.add(&self.path.join(name), errno),
            }
        }
        None
    }
}

impl Iterator for Walk<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        if let Some((name, genuine)) = self.ahead.take() {
            self.descend(&name, genuine);
        }
        loop {
            if self.levels.is_empty() {
                let start = self.starts.next()?;
                if let Err(errno) = self.begin(&start) {
                    self.trouble.add(&self.mount.point.join(start), errno);
                }
                continue;
            }
            let Some((name, id, stat)) = self.entry() else {
                self.ascend();
                continue;
            };
            let path = self.path.join(&name);
            if self.mount.inner.contains(&path) && !leads_to(&path, id) {
                continue;
            }
            let genuine = self.levels.last().is_some_and(|level| level.genuine);
            let genuine_below = genuine && self.asker.accepts([Owner::from(&stat)]);
            self.ahead = (links(&stat) != LINKS_OF_LEAF).then_some((name, genuine_below));
            return Some(Entry { path, id, genuine, genuine_below });
        }
    }
}

/// Opens a directory from the one that it is in.
fn open_below(dir: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// Returns the number of links to a file.
#[allow(clippy::useless_conversion)] // It is a u32 on some architectures.
fn links(stat: &Stat) -> u64 {
    u64::from(stat.st_nlink)
}

/// Reads the names and ids of the directories in a directory.
fn list(dir: &OwnedFd, buffer: &mut Vec<u8>) -> Result<std::vec::IntoIter<(OsString, u64)>, Errno> {
    #[cfg(test)]
    tests::READ.set(tests::READ.get() + 1);
    let mut found = Vec::new();
    let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        let may_be = matches!(entry.file_type(), FileType::Directory | FileType::Unknown);
        if may_be && name != b"." && name != b".." {
            found.push((OsStr::from_bytes(name).to_owned(), entry.ino()));
        }
    }
    Ok(found.into_iter())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::cell::Cell;
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};

    thread_local! {
        /// Number of directories that this thread has read.
        pub(crate) static READ: Cell<usize> = const { Cell::new(0) };
    }

    /// Makes directories that no other user may write to.
    pub(crate) fn make(root: &Path, names: &[&str]) {
        for name in names {
            std::fs::DirBuilder::new().recursive(true).mode(0o755).create(root.join(name)).unwrap();
        }
    }

    /// Lets anybody make directories in this one, so that it counts as a stranger's.
    pub(crate) fn give_away(directory: &Path) {
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o777)).unwrap();
    }

    fn names(mount: &Mount, starts: &[&str]) -> Vec<(String, bool)> {
        let starts = starts.iter().map(PathBuf::from).collect();
        let below = |entry: Entry| {
            let path = entry.path.strip_prefix(&mount.point).unwrap().display().to_string();
            (path, entry.genuine)
        };
        let mut found: Vec<_> = Walk::new(mount, Asker::faked(), starts).map(below).collect();
        found.sort();
        found
    }

    #[test]
    fn directories_come_before_those_below_and_files_do_not() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("a/deep")).unwrap();
        std::fs::create_dir_all(root.path().join("b")).unwrap();
        std::fs::write(root.path().join("memory.stat"), "").unwrap();
        let mount = Mount::whole(root.path().into(), false);
        let found: Vec<_> = walk(&mount).map(|entry| entry.path).collect();
        assert_eq!(found.len(), 3);
        let at = |name: &str| found.iter().position(|path| *path == root.path().join(name)).unwrap();
        assert!(at("a") < at("a/deep") && at("b") < 3);
        assert_eq!(children(Path::new("/does/not/exist")).count(), 0);
        // These directories aren't cgroups, so anything mounted on one counts as another file
        // system.
        let inner = Mount { inner: vec![root.path().join("a")], ..mount };
        let found: Vec<_> = walk(&inner).map(|entry| entry.path).collect();
        assert_eq!(found, [root.path().join("b")]);
    }

    #[test]
    fn names_below_a_change_of_owner_do_not_count() {
        let root = tempfile::tempdir().unwrap();
        make(root.path(), &["user/own/deep", "system/app"]);
        give_away(&root.path().join("user"));
        let mount = Mount::whole(root.path().into(), false);
        let all = [
            ("system", true),
            ("system/app", true),
            ("user", true),
            ("user/own", false),
            ("user/own/deep", false),
        ];
        let all = all.map(|(name, genuine)| (name.to_owned(), genuine));
        assert_eq!(names(&mount, &[""]), all);
        assert_eq!(names(&mount, &["user/own", "system"]), [all[1].clone(), all[4].clone()]);
        assert_eq!(names(&mount, &["nothing/here"]), []);
    }

    #[test]
    fn a_path_too_long_to_open_ends_no_walk() {
        let root = tempfile::tempdir().unwrap();
        let name = "n".repeat(250);
        let mut dir = open_directory(root.path()).unwrap();
        for _ in 0..40 {
            rustix::fs::mkdirat(&dir, &*name, Mode::RWXU).unwrap();
            dir = open_below(&dir, OsStr::new(&name)).unwrap();
        }
        std::fs::create_dir(root.path().join("z")).unwrap();
        let mount = Mount::whole(root.path().into(), false);
        let mut walk = Walk::new(&mount, Asker::of_self(), vec![PathBuf::new()]);
        let longest = walk.by_ref().max_by_key(|entry| entry.path.as_os_str().len()).unwrap();
        assert!(longest.path.as_os_str().len() > 40 * 250, "{longest:?}");
        let opened = open_directory(&longest.path).unwrap();
        assert_eq!(rustix::fs::fstat(opened).unwrap().st_ino, longest.id);
        assert_eq!(*walk.trouble(), Trouble::default());
    }

    #[test]
    fn the_depth_is_bounded_and_the_bound_is_reported() {
        let root = tempfile::tempdir().unwrap();
        let deep: PathBuf = std::iter::repeat_n("d", MAX_DEPTH + 50).collect();
        std::fs::create_dir_all(root.path().join(&deep)).unwrap();
        std::fs::create_dir_all(root.path().join("d/e/f")).unwrap();
        let mount = Mount::whole(root.path().into(), false);
        let mut walk = Walk::new(&mount, Asker::of_self(), vec![PathBuf::new()]);
        assert_eq!(walk.by_ref().count(), MAX_DEPTH + 2);
        let too_deep = root.path().join(std::iter::repeat_n("d", MAX_DEPTH).collect::<PathBuf>());
        assert_eq!(*walk.trouble(), Trouble { too_deep: Some(too_deep), unreadable: None });
    }
}
