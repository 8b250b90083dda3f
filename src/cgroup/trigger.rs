//! Trigger on a cgroup's `memory.pressure`: the kernel wakes a poller as soon as tasks stall (PSI,
//! since 5.2).
//!
//! Each trigger costs a kernel thread of real-time priority, so it takes `CAP_SYS_RESOURCE`.
//! Without that capability the kernel checks only every 2 s (since 6.4), which is too late for an
//! early warning.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::Cgroup;

/// Condition of the trigger: a task was stalled for 10 ms within 500 ms, the shortest window of
/// kernels before 6.5. The kernel takes the last byte for the end.
const STALLED: &[u8] = b"some 10000 500000\0";

/// Pressure trigger, which lasts as long as this value. It becomes readable with `POLLPRI`.
#[derive(Debug)]
pub(crate) struct Trigger(OwnedFd);

impl Trigger {
    /// Sets a trigger.
    ///
    /// # Errors
    /// The kernel's error: `EPERM` or `EINVAL` without the capability, `EOPNOTSUPP` or `ENOENT`
    /// without PSI.
    pub(crate) fn set(cgroup: &Cgroup) -> Result<Self, Errno> {
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
