//! The cgroups below a cgroup.

use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};

/// A directory below another one.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its path.
    pub path: PathBuf,
    /// Its inode, which is the id of a cgroup.
    pub id: u64,
}

/// The directories directly below `path`, in no particular order. What vanishes meanwhile is left out.
pub fn entries(path: &Path) -> impl Iterator<Item = Entry> + use<> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| Entry { path: entry.path(), id: entry.ino() })
}

/// The paths of the directories directly below `path`.
pub fn children(path: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    entries(path).map(|entry| entry.path)
}

/// All directories below `path`, nearer ones first.
pub fn below(path: &Path) -> impl Iterator<Item = Entry> + use<> {
    let mut ahead: std::collections::VecDeque<Entry> = entries(path).collect();
    std::iter::from_fn(move || {
        let next = ahead.pop_front()?;
        ahead.extend(entries(&next.path));
        Some(next)
    })
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
        let found: Vec<_> = below(root.path()).collect();
        assert_eq!(found.len(), 3);
        assert_eq!(found[2].path, root.path().join("a/deep"));
        assert_eq!(children(Path::new("/does/not/exist")).count(), 0);
    }
}
