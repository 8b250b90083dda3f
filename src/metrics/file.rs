//! A file of metrics that is always whole: each version is written beside it, and renamed over it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Stat, fchmod, fstat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

/// Anyone may read what is no secret: node exporter runs as a user of its own.
const MODE: Mode = Mode::from_raw_mode(0o644);

/// Size of the buffer between the text and the file.
const BUFFER: usize = 8 << 10;

/// The file, removed when it is dropped: frozen values would be taken for current ones.
#[derive(Debug)]
pub struct MetricsFile {
    path: PathBuf,
    name: OsString,
    /// Name of the next version until it is whole. Not `*.prom`, so that no collector reads it.
    draft: OsString,
    /// The last version, and its folder.
    last: Option<(Identity, OwnedFd)>,
}

/// Device and inode of a file.
type Identity = (u64, u64);

impl MetricsFile {
    /// Names the file.
    ///
    /// # Errors
    /// `EISDIR` for a path that names no file.
    pub fn at(path: &Path) -> io::Result<Self> {
        let name = path.file_name().filter(|_| !path.as_os_str().as_bytes().ends_with(b"/"));
        let name = name.ok_or(Errno::ISDIR)?.to_owned();
        // Unlike that of any other process, also of one in another PID namespace.
        let random = RandomState::new().hash_one(&name);
        let mut draft = OsString::from(".");
        draft.push(&name);
        draft.push(format!(".{}.{random:016x}.tmp", std::process::id()));
        Ok(Self { path: path.to_owned(), name, draft, last: None })
    }

    /// Checks that the file can be created, or replaced: an error is better told before anything is
    /// reclaimed.
    ///
    /// # Errors
    /// The kernel's.
    pub fn prepare(&self) -> io::Result<()> {
        let folder = self.folder()?;
        self.check(&folder)?;
        self.remove_old_drafts();
        drop(self.create(&folder)?);
        remove(&folder, &self.draft);
        Ok(())
    }

    /// Replaces the file by what `write` writes. On an error the old version stays.
    ///
    /// # Errors
    /// The kernel's.
    pub fn replace(&mut self, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
        // Each time anew: the folder may have been replaced.
        let folder = self.folder()?;
        self.check(&folder)?;
        let mut to = BufWriter::with_capacity(BUFFER, self.create(&folder)?);
        // Even where no process could be stopped in between, a full disk must not leave half.
        let written = write(&mut to).and_then(|()| to.flush()).and_then(|()| {
            let identity = identity(&fstat(to.get_ref())?);
            renameat(&folder, &*self.draft, &folder, &*self.name)?;
            Ok(identity)
        });
        // Without the buffer's second attempt to write.
        drop(to.into_parts());
        match written {
            Ok(identity) => {
                self.last = Some((identity, folder));
                Ok(())
            }
            Err(why) => {
                remove(&folder, &self.draft);
                Err(why)
            }
        }
    }

    fn parent(&self) -> &Path {
        self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    fn folder(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(openat(CWD, self.parent(), flags, Mode::empty())?)
    }

    /// Checks that only a file, or a symlink, would be replaced: neither a device, such as
    /// /dev/null, nor a socket or a folder.
    fn check(&self, folder: &OwnedFd) -> io::Result<()> {
        match statat(folder, &*self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => match FileType::from_raw_mode(found.st_mode) {
                FileType::RegularFile | FileType::Symlink => Ok(()),
                FileType::Directory => Err(Errno::ISDIR.into()),
                _ => Err(io::Error::new(ErrorKind::AlreadyExists, "something else than a file is there")),
            },
            Err(Errno::NOENT) => Ok(()),
            Err(why) => Err(why.into()),
        }
    }

    /// Creates the draft. No symlink is followed.
    fn create(&self, folder: &OwnedFd) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(folder, &*self.draft, flags, MODE)?;
        // Whatever the umask is.
        fchmod(&file, MODE)?;
        Ok(file.into())
    }

    /// Removes drafts of processes that were killed. One that a process in another PID namespace
    /// still writes is only lost to that.
    fn remove_old_drafts(&self) {
        let mut begin = OsString::from(".");
        begin.push(&self.name);
        begin.push(".");
        let is_old = |name: &OsStr| {
            let rest = name.as_bytes().strip_prefix(begin.as_bytes())?.strip_suffix(b".tmp")?;
            let (pid, random) = std::str::from_utf8(rest).ok()?.split_once('.')?;
            let is_hex = random.len() == 16 && random.bytes().all(|c| c.is_ascii_hexdigit());
            let number = pid.parse::<i32>().ok().filter(|number| number.to_string() == pid && is_hex)?;
            let process = rustix::process::Pid::from_raw(number).filter(|_| number > 0)?;
            (rustix::process::test_kill_process(process) == Err(Errno::SRCH)).then_some(())
        };
        for entry in std::fs::read_dir(self.parent()).into_iter().flatten().flatten() {
            if is_old(&entry.file_name()).is_some() {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

fn identity(stat: &Stat) -> Identity {
    (stat.st_dev, stat.st_ino)
}

fn remove(folder: &OwnedFd, name: &OsStr) {
    let _ = unlinkat(folder, name, AtFlags::empty());
}

impl Drop for MetricsFile {
    fn drop(&mut self) {
        // A version of another process isn't removed.
        if let Some((last, folder)) = &self.last
            && statat(folder, &*self.name, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|found| identity(&found) == *last)
        {
            remove(folder, &self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn open(path: &Path) -> io::Result<MetricsFile> {
        let file = MetricsFile::at(path)?;
        file.prepare()?;
        Ok(file)
    }

    fn names(folder: &Path) -> Vec<OsString> {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_version_replaces_the_last_one_and_the_end_removes_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memctl.prom");
        let mut file = open(&path).unwrap();
        assert!(names(folder.path()).is_empty(), "nothing is there before the first version");
        file.replace(|to| to.write_all(b"one\n")).unwrap();
        let first = std::fs::metadata(&path).unwrap();
        assert_eq!(first.permissions().mode() & 0o777, 0o644);
        file.replace(|to| to.write_all(b"two\n")).unwrap();
        assert_ne!(std::fs::metadata(&path).unwrap().ino(), first.ino());
        assert_eq!((std::fs::read(&path).unwrap(), names(folder.path()).len()), (b"two\n".to_vec(), 1));
        drop(file);
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn an_error_leaves_the_last_version() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memctl.prom");
        let mut file = open(&path).unwrap();
        file.replace(|to| to.write_all(b"one\n")).unwrap();
        let full = |to: &mut BufWriter<File>| {
            to.write_all(b"half")?;
            Err(Errno::NOSPC.into())
        };
        assert_eq!(file.replace(full).unwrap_err().raw_os_error(), Some(Errno::NOSPC.raw_os_error()));
        assert_eq!((std::fs::read(&path).unwrap(), names(folder.path()).len()), (b"one\n".to_vec(), 1));
    }

    #[test]
    fn symlinks_are_replaced_and_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        std::fs::write(&victim, "mine").unwrap();
        let path = folder.path().join("memctl.prom");
        let mut file = open(&path).unwrap();
        symlink(&victim, folder.path().join(&file.draft)).unwrap();
        assert!(file.replace(|to| to.write_all(b"one\n")).is_err());
        std::fs::remove_file(folder.path().join(&file.draft)).unwrap();
        symlink(&victim, &path).unwrap();
        file.replace(|to| to.write_all(b"one\n")).unwrap();
        assert_eq!(std::fs::read(&victim).unwrap(), b"mine");
        assert_eq!(std::fs::read(&path).unwrap(), b"one\n");
        assert!(!path.is_symlink());
    }

    #[test]
    fn drafts_of_killed_processes_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let (gone, own) = (child.id(), std::process::id());
        child.wait().unwrap();
        let random = "0123456789abcdef";
        let stays = [
            format!(".memctl.prom.{own}.{random}.tmp"),
            format!(".memctl.prom.+{gone}.{random}.tmp"),
            format!(".memctl.prom.{gone}.tmp"),
            format!(".other.prom.{gone}.{random}.tmp"),
        ];
        for name in stays.iter().chain(&[format!(".memctl.prom.{gone}.{random}.tmp")]) {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let _file = open(&folder.path().join("memctl.prom")).unwrap();
        let mut stays = stays.map(OsString::from).to_vec();
        stays.sort();
        assert_eq!(names(folder.path()), stays);
    }

    #[test]
    fn what_names_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for path in
            [folder.path().to_owned(), folder.path().join("x/"), "/".into(), folder.path().join("no/x")]
        {
            assert!(open(&path).is_err(), "{}", path.display());
        }
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn a_folder_that_is_replaced_is_found_again() {
        let top = tempfile::tempdir().unwrap();
        let (folder, away) = (top.path().join("d"), top.path().join("old"));
        std::fs::create_dir(&folder).unwrap();
        let mut file = open(&folder.join("memctl.prom")).unwrap();
        file.replace(|to| to.write_all(b"one\n")).unwrap();
        std::fs::rename(&folder, &away).unwrap();
        assert!(file.replace(|to| to.write_all(b"two\n")).is_err());
        std::fs::create_dir(&folder).unwrap();
        file.replace(|to| to.write_all(b"three\n")).unwrap();
        assert_eq!(std::fs::read(folder.join("memctl.prom")).unwrap(), b"three\n");
        drop(file);
        assert!(names(&folder).is_empty());
    }

    #[test]
    fn what_is_no_file_is_neither_replaced_nor_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memctl.prom");
        let mut file = open(&path).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(file.replace(|to| to.write_all(b"one\n")).is_err());
        assert!(open(&path).is_err());
        drop(file);
        assert!(path.exists());
    }

    #[test]
    fn a_version_of_another_process_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memctl.prom");
        let [mut one, mut other] = [(), ()].map(|()| open(&path).unwrap());
        one.replace(|to| to.write_all(b"one\n")).unwrap();
        other.replace(|to| to.write_all(b"other\n")).unwrap();
        drop(one);
        assert_eq!(std::fs::read(&path).unwrap(), b"other\n");
    }

    /// A process that replaces a file again and again, until it is killed.
    const REPLACES: &str = "MEMCTL_TEST_REPLACES";

    #[test]
    fn a_kill_leaves_no_half_file() {
        if let Some(path) = std::env::var_os(REPLACES) {
            let mut file = open(Path::new(&path)).unwrap();
            for version in 0u64.. {
                let lines = |to: &mut BufWriter<File>| (0..2000).try_for_each(|_| writeln!(to, "{version}"));
                file.replace(lines).unwrap();
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memctl.prom");
        let mut versions = std::collections::HashSet::new();
        for round in 0..200u64 {
            let mut child = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "metrics::file::tests::a_kill_leaves_no_half_file"])
                .env(REPLACES, &path)
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(std::time::Duration::from_micros(5000 + 137 * (round % 50)));
            child.kill().unwrap();
            child.wait().unwrap();
            let Ok(bytes) = std::fs::read(&path) else { continue };
            let text = String::from_utf8(bytes).unwrap();
            let lines: Vec<_> = text.lines().collect();
            assert!(text.ends_with('\n') && lines.len() == 2000, "round {round}: {} lines", lines.len());
            assert!(lines.iter().all(|line| *line == lines[0]), "round {round}: two versions");
            versions.insert(lines[0].to_owned());
        }
        assert!(versions.len() > 3, "killed before it wrote anything");
        assert!(names(folder.path()).len() <= 2, "old drafts stay: {:?}", names(folder.path()));
    }
}
