//! Whether the file of rules is still the one that was read.

use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What tells a version of a file from another: device, inode, size, and the time of the last
/// write, in seconds and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp([u64; 3], [i64; 2]);

impl Stamp {
    /// Returns the stamp of a file; `None` for a pipe, which can't be looked at again.
    pub fn of(found: &Metadata) -> Option<Self> {
        found
            .is_file()
            .then(|| Self([found.dev(), found.ino(), found.size()], [found.mtime(), found.mtime_nsec()]))
    }

    /// Returns whether a file is another version; `None` if that can't be seen.
    pub fn differs(self, file: &Path) -> Option<bool> {
        match file.metadata() {
            Ok(found) => Some(Self::of(&found) != Some(self)),
            Err(why) if why.kind() == ErrorKind::NotFound => Some(true),
            Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn another_version_differs() {
        let folder = tempfile::tempdir().unwrap();
        let (file, other) = (folder.path().join("watch.toml"), folder.path().join("new"));
        fs::write(&file, "one").unwrap();
        let stamp = Stamp::of(&fs::metadata(&file).unwrap()).unwrap();
        assert_eq!(stamp.differs(&file), Some(false));
        fs::write(&other, "one").unwrap();
        fs::rename(&other, &file).unwrap();
        assert_eq!(stamp.differs(&file), Some(true));
        let stamp = Stamp::of(&fs::metadata(&file).unwrap()).unwrap();
        fs::write(&file, "three").unwrap();
        assert_eq!(stamp.differs(&file), Some(true));
        fs::remove_file(&file).unwrap();
        assert_eq!(stamp.differs(&file), Some(true));
        assert_eq!(stamp.differs(&folder.path().join("x".repeat(300))), None, "the name is too long");
        assert_eq!(Stamp::of(&fs::metadata("/dev/null").unwrap()), None);
    }
}
