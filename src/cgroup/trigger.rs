//! A trigger on a cgroup's `memory.pressure`: the kernel wakes whoever polls it as soon as tasks
//! stall (PSI, since 5.2).
//!
//! Each costs a kernel thread of real-time priority, so it takes `CAP_SYS_RESOURCE`. Without that
//! the kernel looks every 2 s only (since 6.4), which is of no use to somebody who wants to be
//! early.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::Cgroup;

/// When some task was stalled for 10 ms within 500 ms, the shortest window of kernels before 6.5.
/// The kernel takes the last byte for the end.
const STALLED: &[u8] = b"some 10000 500000\0";

/// A trigger, which goes when this does. It becomes readable with `POLLPRI`.
#[derive(Debug)]
pub struct Trigger(OwnedFd);

impl Trigger {
    /// Sets a trigger.
    ///
    /// # Errors
    /// The kernel's: `EPERM` or `EINVAL` without the capability, `EOPNOTSUPP` or `ENOENT` without
    /// PSI.
    pub fn set(cgroup: &Cgroup) -> Result<Self, Errno> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let pressure = rustix::fs::openat(cgroup, "memory.pressure", flags, Mode::empty())?;
        rustix::io::write(&pressure, STALLED)?;
        Ok(Self(pressure))
    }
}

impl AsFd for Trigger {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
