//! Cgroups below a cgroup.

use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};

use super::Mount;
use super::path::leads_to;

/// Directory below another one.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Path of the directory.
    pub path: PathBuf,
    /// Inode of the directory, which is the id of a cgroup.
    pub id: u64,
}

/// Returns the directories directly below `path`, in no particular order. Leaves out directories
/// that vanish in the meantime.
pub(crate) fn entries(path: &Path) -> impl Iterator<Item = Entry> + use<> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| Entry { path: entry.path(), id: entry.ino() })
}

/// Returns the paths of the directories directly below `path`.
pub(crate) fn children(path: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    entries(path).map(|entry| entry.path)
}

/// Returns all cgroups below the top of a mount, nearer ones first. Leaves out a directory that
/// another file system is mounted on, with all below; a directory mounted on itself, as by
/// container managers, is included.
pub fn walk(mount: &Mount) -> impl Iterator<Item = Entry> + use<'_> {
    let covered = |entry: &Entry| mount.inner.contains(&entry.path) && !leads_to(&entry.path, entry.id);
    let mut ahead: std::collections::VecDeque<Entry> =
        entries(&mount.point).filter(|entry| !covered(entry)).collect();
    std::iter::from_fn(move || {
        let next = ahead.pop_front()?;
        ahead.extend(entries(&next.path).filter(|entry| !covered(entry)));
        Some(next)
    })
}

/// Returns the paths of the top of a mount and of all cgroups below.
pub(crate) fn top_and_walk(mount: &Mount) -> impl Iterator<Item = PathBuf> + use<'_> {
    std::iter::once(mount.point.clone()).chain(walk(mount).map(|entry| entry.path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearer_directories_come_first_and_files_do_not() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("a/deep")).unwrap();
        std::fs::create_dir_all(root.path().join("b")).unwrap();
        std::fs::write(root.path().join("memory.stat"), "").unwrap();
        let mount = Mount::whole(root.path().into(), false);
        let found: Vec<_> = walk(&mount).collect();
        assert_eq!(found.len(), 3);
        assert_eq!(found[2].path, root.path().join("a/deep"));
        assert_eq!(children(Path::new("/does/not/exist")).count(), 0);
        // These directories aren't cgroups, so anything mounted on one counts as another file
        // system.
        let inner = Mount { inner: vec![root.path().join("a")], ..mount };
        let found: Vec<_> = walk(&inner).map(|entry| entry.path).collect();
        assert_eq!(found, [root.path().join("b")]);
    }
}
