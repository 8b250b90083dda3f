//! Holders of file locks, from `/proc/locks`.
//!
//! Anyone who can open a directory can lock it, for ever. So a lock is honoured only if root or the
//! same user holds it.

use std::io::Read;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::process::geteuid;

/// Maximum length of `/proc/locks` that is read, bytes: some 15,000 locks. Anyone can hold as many
/// as they can open files.
const MAX_READ: u64 = 1 << 20;

/// Process that holds a lock. Values that can't be found out are `None`: of a process that has
/// ended or is in another PID namespace, or that `hidepid` hides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LockHolder {
    /// Process.
    pub pid: Option<u32>,
    /// User who started the process: its real user ID. The effective one is another's in a
    /// set-user-ID program, which can be made to inherit a lock.
    pub uid: Option<u32>,
}

impl LockHolder {
    /// Finds the holder of an flock(2) on an open file. Of several that share it, returns one whose
    /// lock is honoured, if there is any.
    #[must_use]
    pub(crate) fn of(file: impl AsFd) -> Self {
        Self::find(file).unwrap_or_default()
    }

    fn find(file: impl AsFd) -> Result<Self, Errno> {
        let stat = rustix::fs::fstat(file)?;
        let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
        let locked = Locked { major, minor, inode: stat.st_ino };
        let locks = std::fs::File::open("/proc/locks").map_err(|_| Errno::NOENT)?;
        let euid = geteuid().as_raw();
        let mut holder: Option<Self> = None;
        each_line(locks.take(MAX_READ), |line| {
            let is_settled = holder.is_some_and(|holder| holder.is_honoured(euid));
            let Some(pid) = holder_in(line, locked).filter(|_| !is_settled) else { return };
            let pid = pid_of(pid);
            let found = Self { pid, uid: pid.and_then(user_of) };
            if holder.is_none() || found.is_honoured(euid) {
                holder = Some(found);
            }
        });
        Ok(holder.unwrap_or_default())
    }

    /// Returns whether a process of the user `euid` honours the lock: whether root or this user
    /// holds it. An unknown holder is a stranger.
    #[must_use]
    pub(crate) fn is_honoured(&self, euid: u32) -> bool {
        self.uid.is_some_and(|uid| uid == 0 || uid == euid)
    }
}

/// Locked file, as `/proc/locks` spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Locked {
    major: u32,
    minor: u32,
    inode: u64,
}

/// Returns the PID of the holder in a line of `/proc/locks`, if the line is about an flock(2) on the
/// file.
///
/// Format: `1: FLOCK  ADVISORY  WRITE 1234 00:1a:5678 0 EOF` (`lock_get_status`, fs/locks.c); the
/// device in hexadecimal, and `->` before `FLOCK` where a process waits for the lock.
fn holder_in(line: &[u8], file: Locked) -> Option<&str> {
    let text = std::str::from_utf8(line).ok()?;
    let mut fields = text.split_ascii_whitespace().skip(1);
    if fields.next()? != "FLOCK" {
        return None;
    }
    let pid = fields.nth(2)?;
    let mut id = fields.next()?.split(':');
    let mut hex = || u32::from_str_radix(id.next()?, 16).ok();
    let (major, minor) = (hex()?, hex()?);
    let inode = id.next()?.parse().ok()?;
    (Locked { major, minor, inode } == file).then_some(pid)
}

/// Parses a PID; `None` for 0, a process outside of this PID namespace.
fn pid_of(text: &str) -> Option<u32> {
    text.parse().ok().filter(|&pid| pid > 0)
}

/// Returns the real user ID of a process.
fn user_of(pid: u32) -> Option<u32> {
    let mut text = [0; 4096];
    let mut file = std::fs::File::open(format!("/proc/{pid}/status")).ok()?;
    let length = file.read(&mut text).ok()?;
    user_in(&text[..length])
}

/// Returns the real user ID in the text of a `/proc/PID/status`. The process chooses its name, in
/// which the kernel escapes newlines.
fn user_in(status: &[u8]) -> Option<u32> {
    let line = status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
    std::str::from_utf8(line).ok()?.split_ascii_whitespace().next()?.parse().ok()
}

/// Passes each line of a text to `each`, without its newline. Lines that are longer than any of the
/// kernel's are left out.
fn each_line(mut text: impl Read, mut each: impl FnMut(&[u8])) {
    let mut buffer = [0; 4096];
    let (mut length, mut is_cut) = (0, false);
    loop {
        let got = match text.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(got) => got,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let end = length + got;
        let mut begin = 0;
        while let Some(newline) = buffer[begin..end].iter().position(|&byte| byte == b'\n') {
            if !std::mem::take(&mut is_cut) {
                each(&buffer[begin..begin + newline]);
            }
            begin += newline + 1;
        }
        buffer.copy_within(begin..end, 0);
        length = end - begin;
        if length == buffer.len() {
            (length, is_cut) = (0, true);
        }
    }
    if length > 0 && !is_cut {
        each(&buffer[..length]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Locked = Locked { major: 0, minor: 0x1a, inode: 5678 };

    #[test]
    fn only_flocks_on_the_file_count() {
        fn of(line: &str) -> Option<&str> {
            holder_in(line.as_bytes(), FILE)
        }
        assert_eq!(of("1: FLOCK  ADVISORY  WRITE 1234 00:1a:5678 0 EOF"), Some("1234"));
        assert_eq!(of("9: FLOCK  ADVISORY  READ  7 00:1a:5678 0 EOF"), Some("7"));
        assert_eq!(pid_of("1234"), Some(1234));
        for unknown in ["0", "-1", "x", "4294967296"] {
            assert_eq!(pid_of(unknown), None);
        }
        for other in [
            "1: -> FLOCK  ADVISORY  WRITE 1234 00:1a:5678 0 EOF",
            "1: POSIX  ADVISORY  WRITE 1234 00:1a:5678 0 EOF",
            "1: OFDLCK ADVISORY  WRITE -1 00:1a:5678 0 EOF",
            "1: FLOCK  ADVISORY  WRITE 1234 00:1a:567 0 EOF",
            "1: FLOCK  ADVISORY  WRITE 1234 00:1b:5678 0 EOF",
            "1: FLOCK  ADVISORY  WRITE 1234 08:1a:5678 0 EOF",
            "1: FLOCK  ADVISORY  WRITE 1234 <none>:0 0 EOF",
            "1: FLOCK  ADVISORY  WRITE 1234",
            "",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(holder_in(b"1: FLOCK \xff WRITE 1234 00:1a:5678 0 EOF", FILE), None);
    }

    #[test]
    fn the_user_is_the_one_who_started_the_process() {
        assert_eq!(user_in(b"Name:\tsu\nUmask:\t0022\nUid:\t1000\t0\t0\t0\nGid:\t0\t0\t0\t0\n"), Some(1000));
        assert_eq!(user_in(b"Name:\tUid:\\n\xff\nUid:\t0\t7\t7\t7\n"), Some(0));
        assert_eq!((user_in(b"Name:\tx\n"), user_in(b"")), (None, None));
    }

    #[test]
    fn locks_of_root_and_of_the_same_user_are_honoured() {
        let of = |uid| LockHolder { pid: Some(1), uid };
        assert!(of(Some(0)).is_honoured(1000) && of(Some(1000)).is_honoured(1000));
        assert!(!of(Some(1001)).is_honoured(1000) && !of(Some(1000)).is_honoured(0));
        assert!(!of(None).is_honoured(0) && !LockHolder::default().is_honoured(0));
    }

    #[test]
    fn lines_are_found_wherever_reads_end() {
        struct Bytes<'a>(&'a [u8], usize);
        impl Read for Bytes<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                let length = self.0.len().min(self.1).min(buffer.len());
                buffer[..length].copy_from_slice(&self.0[..length]);
                self.0 = &self.0[length..];
                Ok(length)
            }
        }
        let long = "x".repeat(10_000);
        let text = format!("one\n\ntwo\n{long}\nthree\nfour");
        for at_once in [1, 3, 4096, 100_000] {
            let mut lines = Vec::new();
            each_line(Bytes(text.as_bytes(), at_once), |line| lines.push(line.to_vec()));
            assert_eq!(lines, [&b"one"[..], b"", b"two", b"three", b"four"], "{at_once}");
        }
    }

    #[test]
    fn the_holder_of_a_lock_is_this_process() {
        let dir = tempfile::tempdir().unwrap();
        let open = || std::fs::File::open(dir.path()).unwrap();
        let (ours, other) = (open(), open());
        assert_eq!(crate::cgroup::try_lock(&ours), Ok(true));
        assert_eq!(crate::cgroup::try_lock(&other), Ok(false));
        let holder = LockHolder::of(&other);
        // Not every sandbox that runs the tests lists locks.
        let (locks, pid) = (crate::host::proc::read_system_file("/proc/locks"), std::process::id());
        if locks.is_ok_and(|locks| locks.contains(&format!(" {pid} "))) {
            assert_eq!(holder.pid, Some(pid));
            assert_eq!(holder.uid, Some(rustix::process::getuid().as_raw()));
        }
    }
}
