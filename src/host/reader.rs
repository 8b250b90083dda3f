//! Reader of a kernel file, which is held open and read repeatedly.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::path::Arg;

use super::proc::text_of;

/// Initial size of a buffer, bytes: enough for any file of a cgroup.
const ROOM: usize = 8192;

const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC);

/// Kernel file, held open.
#[derive(Debug)]
pub struct Reader {
    file: OwnedFd,
    /// True if the kernel writes the file in one go (`seq_show` of kernfs): a read that returns
    /// less than the buffer has room for has returned everything, and no empty read need follow.
    in_one: bool,
}

impl Reader {
    /// Opens a file of a cgroup, or of a directory in sysfs.
    ///
    /// # Errors
    /// The kernel's error from openat(2).
    pub(crate) fn at(dir: impl AsFd, file: impl Arg) -> Result<Self, Errno> {
        let file = rustix::fs::openat(dir, file, FLAGS, Mode::empty())?;
        Ok(Self { file, in_one: true })
    }

    /// Opens a file elsewhere. Files of procfs arrive record by record, in as many reads as the
    /// kernel chooses.
    pub(crate) fn open(path: impl Arg) -> Result<Self, Errno> {
        let file = rustix::fs::open(path, FLAGS, Mode::empty())?;
        Ok(Self { file, in_one: false })
    }

    /// Reads the whole file again into `text`, whose memory is reused.
    ///
    /// # Errors
    /// The kernel's error: `ENODEV` once the cgroup was removed.
    pub(crate) fn read(&self, text: &mut String) -> Result<(), Errno> {
        let mut bytes = std::mem::take(text).into_bytes();
        bytes.clear();
        loop {
            if bytes.capacity() - bytes.len() < ROOM / 2 {
                bytes.reserve(ROOM);
            }
            let room = bytes.capacity() - bytes.len();
            let offset = bytes.len() as u64;
            match rustix::io::pread(&self.file, rustix::buffer::spare_capacity(&mut bytes), offset) {
                Ok(0) => break,
                Ok(got) if self.in_one && got < room => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        *text = text_of(bytes);
        Ok(())
    }
}

impl AsFd for Reader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_any_length_is_read_whole_and_anew() {
        let dir = tempfile::tempdir().unwrap();
        let open = std::fs::File::open(dir.path()).unwrap();
        let mut text = String::new();
        for length in [0, 1, ROOM - 1, ROOM, ROOM + 1, 5 * ROOM, 3] {
            let whole: String = "0123456789".chars().cycle().take(length).collect();
            std::fs::write(dir.path().join("file"), &whole).unwrap();
            Reader::at(&open, "file").unwrap().read(&mut text).unwrap();
            assert!(text == whole, "{length}");
        }
        // A read from procfs returns at most a page.
        Reader::open("/proc/self/smaps").unwrap().read(&mut text).unwrap();
        assert!(text.len() > 4096 && text.lines().last().unwrap().starts_with("VmFlags"), "{text}");
    }
}
