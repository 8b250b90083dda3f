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

/// Interval between two looks at the file.
const INTERVAL: Duration = Duration::from_secs(10);

/// Time until another look at a version that is new: it may still be being written.
const SETTLED: Duration = Duration::from_secs(1);

/// Time after which a look counts as hanging.
const HANGS: Duration = Duration::from_secs(30);

/// A file's inode, and its text.
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
}

/// Version of a file, as far as it can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Hash of its text.
    Text(u64),
    /// Something else than a file with text.
    NotAFile,
    /// Error of reading it.
    Error(ErrorKind, Option<i32>),
}

impl Version {
    /// Returns the version of a file that was read with this stamp.
    pub fn of(read: Result<Option<Stamp>, &io::Error>) -> Self {
        match read {
            Ok(Some(stamp)) => Self::Text(stamp.text),
            Ok(None) => Self::NotAFile,
            Err(why) if why.kind() == ErrorKind::IsADirectory => Self::NotAFile,
            Err(why) => Self::Error(why.kind(), why.raw_os_error()),
        }
    }

    /// Looks at a file, whose last stamp is known. Returns the stamp for the next time. May hang with
    /// the file system.
    fn look(path: &Path, last: Option<Stamp>) -> (Self, Option<Stamp>) {
        let found = match path.metadata() {
            Ok(found) => found,
            Err(why) => return (Self::of(Err(&why)), None),
        };
        match last {
            Some(last) if Inode::of(&found) == last.inode => (Self::Text(last.text), Some(last)),
            // Neither a pipe nor a device, which reading would consume, or wait for.
            _ if !found.is_file() => (Self::NotAFile, None),
            _ => match read(path) {
                Ok((_, stamp)) => (Self::of(Ok(stamp)), stamp),
                Err(why) => (Self::of(Err(&why)), None),
            },
        }
    }
}

/// Returns the version of a file, and its stamp.
type Look = Task<(Version, Option<Stamp>)>;

/// The file of rules of a watch.
pub struct RulesFile {
    path: PathBuf,
    /// Hash of the text in force; `None` for a pipe, which can't be looked at again.
    in_force: Cell<Option<u64>>,
    /// Version that was read last, whether it came into force or not.
    tried: Cell<Option<Version>>,
    /// Version at the last look, and the stamp to compare with.
    seen: Cell<Option<Version>>,
    stamp: Cell<Option<Stamp>>,
    task: RefCell<Option<Look>>,
    /// Time of the last look, or of the next.
    began: Cell<Duration>,
    next: Cell<Duration>,
}

impl RulesFile {
    /// Creates it, after this version was read; `None` for one that can't be looked at again.
    pub fn new(path: PathBuf, stamp: Option<Stamp>) -> Self {
        let file = Self {
            path,
            in_force: Cell::default(),
            tried: Cell::default(),
            seen: Cell::default(),
            stamp: Cell::default(),
            task: RefCell::default(),
            began: Cell::default(),
            next: Cell::new(clock::now() + INTERVAL),
        };
        file.is_in_force(stamp);
        file
    }

    /// Records that the rules of a version are in force.
    pub fn is_in_force(&self, stamp: Option<Stamp>) {
        self.in_force.set(stamp.map(|stamp| stamp.text));
        self.stamp.set(stamp);
        let version = stamp.map(|stamp| Version::Text(stamp.text));
        self.seen.set(version);
        self.tried.set(version);
    }

    /// Records that a version was read whose rules can't be used.
    pub fn was_refused(&self, version: Version) {
        self.tried.set(Some(version));
    }

    /// Returns whether the file can be looked at again.
    pub fn can_change(&self) -> bool {
        self.in_force.get().is_some()
    }

    /// Returns whether the file had changed since the rules in force were read, when it was last
    /// looked at; `None` if that couldn't be seen.
    pub fn differs(&self) -> Option<bool> {
        let in_force = self.in_force.get()?;
        match self.seen.get()? {
            Version::Text(text) => Some(text != in_force),
            Version::NotAFile | Version::Error(ErrorKind::NotFound, _) => Some(true),
            Version::Error(..) => None,
        }
    }

    /// Returns whether the last look hasn't come back.
    pub fn hangs(&self) -> bool {
        matches!(self.seen.get(), Some(Version::Error(ErrorKind::TimedOut, None)))
    }

    /// Looks at the file, if that is due. Returns true once for each version that wasn't read yet, as
    /// soon as two looks in a row have found it.
    pub fn look(&self) -> bool {
        let now = clock::now();
        if !self.can_change() {
            return false;
        }
        if self.task.borrow().is_none() {
            if now < self.next.get() {
                return false;
            }
            let (path, last) = (self.path.clone(), self.stamp.get());
            self.began.set(now);
            self.task.replace(Some(Task::start(move || Version::look(&path, last))));
        }
        match self.task.borrow().as_ref().map(Task::poll) {
            Some(Ok(Some((version, stamp)))) => self.found(version, stamp, now),
            Some(Ok(None)) => {
                if now.saturating_sub(self.began.get()) >= HANGS {
                    self.seen.set(Some(Version::Error(ErrorKind::TimedOut, None)));
                }
                return false;
            }
            _ => self.next.set(now + INTERVAL),
        }
        self.task.replace(None);
        let is_new = self.seen.get().is_some_and(|seen| {
            self.tried.get() != Some(seen) && self.next.get().saturating_sub(now) == INTERVAL
        });
        if is_new {
            self.tried.set(self.seen.get());
        }
        is_new
    }

    /// Records what a look found. A version that is new is looked at again soon.
    fn found(&self, version: Version, stamp: Option<Stamp>, now: Duration) {
        let is_settled = self.seen.replace(Some(version)) == Some(version);
        self.stamp.set(stamp);
        let is_known = self.tried.get() == Some(version);
        self.next.set(now + if is_settled || is_known { INTERVAL } else { SETTLED });
    }

    /// Returns the time until the next look is due.
    pub fn due(&self) -> Duration {
        match &*self.task.borrow() {
            _ if !self.can_change() => Duration::MAX,
            Some(_) => SETTLED,
            None => self.next.get().saturating_sub(clock::now()),
        }
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

    /// Looks at a file that was read before.
    fn differs(first: Stamp, path: &Path) -> Option<bool> {
        let file = RulesFile::new(path.to_owned(), Some(first));
        looked(&file);
        file.differs()
    }

    /// Looks at once.
    fn looked(file: &RulesFile) -> bool {
        file.next.set(Duration::ZERO);
        while {
            let is_new = file.look();
            if is_new {
                return true;
            }
            file.task.borrow().is_some()
        } {}
        false
    }

    #[test]
    fn another_text_differs() {
        let folder = tempfile::tempdir().unwrap();
        let (file, other) = (folder.path().join("watch.toml"), folder.path().join("new"));
        fs::write(&file, "one").unwrap();
        let first = stamp(&file);
        assert_eq!(differs(first, &file), Some(false));
        // Written again, and replaced by the same.
        fs::write(&file, "one").unwrap();
        assert_eq!(differs(first, &file), Some(false));
        fs::write(&other, "one").unwrap();
        fs::rename(&other, &file).unwrap();
        assert_eq!(differs(first, &file), Some(false));
        // Of the same size, at the same time.
        let modified = fs::metadata(&file).unwrap().modified().unwrap();
        let first = stamp(&file);
        fs::write(&file, "two").unwrap();
        fs::File::options().write(true).open(&file).unwrap().set_modified(modified).unwrap();
        assert_eq!(differs(first, &file), Some(true));
        fs::write(&file, "one").unwrap();
        assert_eq!(differs(first, &file), Some(false));
        fs::remove_file(&file).unwrap();
        assert_eq!(differs(first, &file), Some(true));
        symlink("/dev/zero", &file).unwrap();
        assert_eq!(differs(first, &file), Some(true));
        assert_eq!(differs(first, &folder.path().join("x".repeat(300))), None, "the name is too long");
        assert_eq!(Stamp::new(&fs::metadata("/dev/null").unwrap(), b""), None);
    }

    #[test]
    fn a_version_is_new_once_and_only_when_it_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("watch.toml");
        fs::write(&path, "one").unwrap();
        let file = RulesFile::new(path.clone(), Some(stamp(&path)));
        assert!(!file.look() && file.due() > SETTLED, "not due");
        assert!(!looked(&file) && !looked(&file));
        // As kubelet swaps a folder.
        for name in ["a", "b"] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("watch.toml"), name).unwrap();
        }
        fs::remove_file(&path).unwrap();
        symlink("a", folder.path().join("..data")).unwrap();
        symlink("..data/watch.toml", &path).unwrap();
        assert!(!looked(&file) && file.due() <= SETTLED, "it may still be being written");
        assert!(looked(&file) && !looked(&file) && file.due() > SETTLED);
        symlink("b", folder.path().join("..new")).unwrap();
        fs::rename(folder.path().join("..new"), folder.path().join("..data")).unwrap();
        assert!(!looked(&file) && looked(&file) && !looked(&file));
        assert_eq!(file.differs(), Some(true));
        // One that can't be read is new, too, and so is the one in force after it.
        fs::remove_file(&path).unwrap();
        assert!(!looked(&file) && looked(&file) && !looked(&file));
        fs::write(&path, "one").unwrap();
        assert!(!looked(&file) && looked(&file) && !looked(&file));
        assert_eq!(file.differs(), Some(false));
        // SIGHUP may be faster.
        fs::write(&path, "two").unwrap();
        file.was_refused(Version::of(Ok(Some(stamp(&path)))));
        assert!(!looked(&file) && !looked(&file));
    }

    #[test]
    fn a_pipe_is_never_looked_at() {
        let file = RulesFile::new("/dev/stdin".into(), None);
        assert!(!looked(&file) && !file.can_change() && file.due() == Duration::MAX);
        assert_eq!(file.differs(), None);
    }
}
