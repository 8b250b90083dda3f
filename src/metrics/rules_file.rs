//! Whether the file of rules is still the one that was read. A [`Task`] looks at it: a file system
//! that hangs doesn't hold up the control loop.

use std::cell::{Cell, RefCell};
use std::fs::{File, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use memctl::clock;
use memctl::task::Task;
use memctl::watch::config::MAX_BYTES;

use super::file_task::HANGS;

/// Version of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    inode: Inode,
    /// Hash of the text, which decides where the rest differs: it may have been written again.
    text: u64,
}

/// Device, inode and size, and the times of the last write and the last change of anything, in seconds
/// and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Inode([u64; 3], [i64; 4]);

impl Inode {
    fn of(found: &Metadata) -> Self {
        let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
        Self([found.dev(), found.ino(), found.size()], times)
    }
}

impl Stamp {
    /// Returns the stamp of a file with this text, by what was found before that was read; `None` for
    /// a pipe, which can't be looked at again.
    fn new(found: &Metadata, text: &[u8]) -> Option<Self> {
        found.is_file().then(|| Self { inode: Inode::of(found), text: hash(text) })
    }

    /// Returns whether a file has another text; `None` if that can't be seen. May hang with the file
    /// system.
    pub fn differs(self, file: &Path) -> Option<bool> {
        match file.metadata() {
            Ok(found) if Inode::of(&found) == self.inode => Some(false),
            // Neither a pipe nor a device, which reading would consume, or wait for.
            Ok(found) if !found.is_file() => Some(true),
            Ok(_) => read(file).ok().map(|(text, _)| hash(&text) != self.text),
            Err(why) if why.kind() == ErrorKind::NotFound => Some(true),
            Err(_) => None,
        }
    }
}

/// Returns the version that a file was compared with, and whether it differs.
type Look = Task<(Stamp, Option<bool>)>;

/// The file of rules of a watch.
pub struct RulesFile {
    path: PathBuf,
    stamp: Cell<Option<Stamp>>,
    differs: Cell<Option<bool>>,
    task: RefCell<Option<Look>>,
    began: Cell<Duration>,
}

impl RulesFile {
    /// Creates it, after this version was read; `None` for one that can't be looked at again.
    pub fn new(path: PathBuf, stamp: Option<Stamp>) -> Self {
        let (task, began) = (RefCell::default(), Cell::default());
        let file = Self { path, stamp: Cell::default(), differs: Cell::default(), task, began };
        file.was_read(stamp);
        file
    }

    /// Records that this version was read.
    pub fn was_read(&self, stamp: Option<Stamp>) {
        self.stamp.set(stamp);
        self.differs.set(stamp.map(|_| false));
    }

    /// Returns whether it had changed since it was read when it was last looked at, and begins to look
    /// again; `None` if that can't be seen.
    pub fn differs(&self) -> Option<bool> {
        let stamp = self.stamp.get()?;
        let done = self.task.borrow().as_ref().map(|task| task.wait(Duration::ZERO));
        match done {
            Some(Ok(None)) => {
                if clock::now().saturating_sub(self.began.get()) >= HANGS {
                    self.differs.set(None);
                }
                return self.differs.get();
            }
            Some(Ok(Some((compared, differs)))) if compared == stamp => self.differs.set(differs),
            _ => {}
        }
        let path = self.path.clone();
        self.began.set(clock::now());
        self.task.replace(Some(Task::start(move || (stamp, stamp.differs(&path)))));
        self.differs.get()
    }
}

fn hash(text: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// Reads as much of a file as a file of rules may have, and a byte more. Returns it with its stamp.
///
/// # Errors
/// The kernel's.
pub fn read(file: &Path) -> io::Result<(Vec<u8>, Option<Stamp>)> {
    let (file, mut text) = (File::open(file)?, Vec::new());
    // Before it is read: what is written meanwhile is another version.
    let found = file.metadata()?;
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut text)?;
    let stamp = Stamp::new(&found, &text);
    Ok((text, stamp))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn stamp(file: &Path) -> Stamp {
        read(file).unwrap().1.unwrap()
    }

    #[test]
    fn another_text_differs() {
        let folder = tempfile::tempdir().unwrap();
        let (file, other) = (folder.path().join("watch.toml"), folder.path().join("new"));
        fs::write(&file, "one").unwrap();
        let first = stamp(&file);
        assert_eq!(first.differs(&file), Some(false));
        // Written again, and replaced by the same.
        fs::write(&file, "one").unwrap();
        assert_eq!(first.differs(&file), Some(false));
        fs::write(&other, "one").unwrap();
        fs::rename(&other, &file).unwrap();
        assert_eq!(first.differs(&file), Some(false));
        // Of the same size, at the same time.
        let modified = fs::metadata(&file).unwrap().modified().unwrap();
        let first = stamp(&file);
        fs::write(&file, "two").unwrap();
        fs::File::options().write(true).open(&file).unwrap().set_modified(modified).unwrap();
        assert_eq!(first.differs(&file), Some(true));
        fs::write(&file, "one").unwrap();
        assert_eq!(first.differs(&file), Some(false));
        fs::remove_file(&file).unwrap();
        assert_eq!(first.differs(&file), Some(true));
        symlink("/dev/zero", &file).unwrap();
        assert_eq!(first.differs(&file), Some(true));
        assert_eq!(first.differs(&folder.path().join("x".repeat(300))), None, "the name is too long");
        assert_eq!(Stamp::new(&fs::metadata("/dev/null").unwrap(), b""), None);
    }
}
