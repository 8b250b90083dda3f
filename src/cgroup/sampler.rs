//! Sampling of a cgroup under watch, with as few files held open as possible. A sample allocates
//! nothing.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use super::limit::LimitFile;
use super::stat::MemoryStat;
use super::{Cgroup, CgroupPath, pressure};
use crate::host::Reader;
use crate::host::files::optional;
use crate::host::proc::{flat_keyed, parse_number};

/// Sampler of one cgroup under watch.
#[derive(Debug)]
pub struct Sampler {
    cgroup: Cgroup,
    id: u64,
    owner: u32,
    current: Reader,
    events: Option<Reader>,
}

/// Counts of a cgroup's own limits being met, from `memory.events.local`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LimitEvents {
    /// Number of times that tasks were throttled and made to reclaim, beyond `memory.high`.
    pub high: u64,
    /// Number of times that usage was about to exceed `memory.max`.
    pub max: u64,
}

impl Sampler {
    /// Opens the files to sample.
    ///
    /// # Errors
    /// The kernel's error: `ENOENT` where there is no such cgroup, or no `memory.current` in it.
    pub(crate) fn open(located: &CgroupPath) -> Result<Self, Errno> {
        let cgroup = located.open_to_read()?;
        let directory = rustix::fs::fstat(&cgroup)?;
        let (id, owner) = (directory.st_ino, directory.st_uid);
        let current = cgroup.reader("memory.current")?;
        let events = optional(cgroup.reader("memory.events.local"))?;
        Ok(Self { cgroup, id, owner, current, events })
    }

    /// Returns the descriptors that it holds.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [self.cgroup.as_fd(), self.current.as_fd()].into_iter().chain(self.events())
    }

    /// Returns the cgroup.
    #[must_use]
    pub(crate) fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Returns the cgroup's id, which no other cgroup has while the host runs.
    #[must_use]
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Returns the owner of the cgroup's directory.
    #[must_use]
    pub(crate) fn owner(&self) -> u32 {
        self.owner
    }

    /// Reads `memory.current`, bytes. `text` is a reusable buffer.
    ///
    /// # Errors
    /// `ENODEV` when the cgroup was removed.
    pub(crate) fn current(&self, text: &mut String) -> Result<u64, Errno> {
        self.current.read(text)?;
        parse_number(text)?.ok_or(Errno::INVAL)
    }

    /// Reads the lower of `memory.high` and `memory.max`, bytes, if there is a limit.
    ///
    /// # Errors
    /// `ENODEV` when the cgroup was removed.
    pub(crate) fn limit(&self, text: &mut String) -> Result<Option<(u64, LimitFile)>, Errno> {
        let max = self.number("memory.max", text)?.map(|max| (max, LimitFile::Max));
        let high = self.number("memory.high", text)?.map(|high| (high, LimitFile::High));
        Ok([max, high].into_iter().flatten().min_by_key(|(limit, _)| *limit))
    }

    /// Reads the larger of `memory.min` and `memory.low`, bytes.
    ///
    /// # Errors
    /// `ENODEV` when the cgroup was removed.
    pub(crate) fn protection(&self, text: &mut String) -> Result<u64, Errno> {
        let min = self.number("memory.min", text)?.unwrap_or(u64::MAX);
        Ok(min.max(self.number("memory.low", text)?.unwrap_or(u64::MAX)))
    }

    /// Reads the counts of limits met so far; `None` where they can't be read, as before 5.2.
    pub(crate) fn hits(&self, text: &mut String) -> Option<LimitEvents> {
        self.events.as_ref()?.read(text).ok()?;
        let count = |key| flat_keyed(text, key);
        Some(LimitEvents { high: count("high")?, max: count("max")? })
    }

    /// Returns the descriptor that becomes readable with `POLLPRI` when a limit is met.
    #[must_use]
    pub(crate) fn events(&self) -> Option<BorrowedFd<'_>> {
        self.events.as_ref().map(AsFd::as_fd)
    }

    /// Reads `memory.stat`.
    ///
    /// # Errors
    /// `ENODEV` when the cgroup was removed.
    pub(crate) fn stat(&self, text: &mut String) -> Result<MemoryStat, Errno> {
        self.cgroup.reader("memory.stat")?.read(text)?;
        Ok(MemoryStat::parse(text))
    }

    /// Reads `memory.swap.current`, bytes; `None` without swap, or without a controller for it.
    pub(crate) fn swapped(&self, text: &mut String) -> Option<u64> {
        self.number("memory.swap.current", text).ok()?
    }

    /// Reads the `some` total of `memory.pressure`, microseconds, if the kernel keeps it.
    pub(crate) fn stalled(&self, text: &mut String) -> Option<u64> {
        self.cgroup.reader("memory.pressure").ok()?.read(text).ok()?;
        pressure::some_total(text)
    }

    /// Reads the `some` total of `io.pressure`, microseconds, if the kernel keeps it.
    pub(crate) fn waited(&self, text: &mut String) -> Option<u64> {
        self.cgroup.reader("io.pressure").ok()?.read(text).ok()?;
        pressure::some_total(text)
    }

    /// Reads the share of the last five minutes, from 0 to 1, in which tasks were stalled for want
    /// of memory (PSI `some`).
    pub(crate) fn pressure_before(&self, text: &mut String) -> Option<f64> {
        self.cgroup.reader("memory.pressure").ok()?.read(text).ok()?;
        let field = text.lines().next()?.split(' ').find_map(|field| field.strip_prefix("avg300="))?;
        Some(field.parse::<f64>().ok()? / 100.0)
    }

    /// Returns whether all its tasks are frozen (paused), as far as `cgroup.events` says so.
    pub(crate) fn is_frozen(&self, text: &mut String) -> bool {
        self.flat("cgroup.events", "frozen", text) == Some(1)
    }

    /// Reads the CPU time used so far (`usage_usec` of `cpu.stat`), microseconds.
    pub(crate) fn cpu(&self, text: &mut String) -> Option<u64> {
        self.flat("cpu.stat", "usage_usec", text)
    }

    fn flat(&self, file: &str, key: &str, text: &mut String) -> Option<u64> {
        self.cgroup.reader(file).ok()?.read(text).ok()?;
        flat_keyed(text, key)
    }

    fn number(&self, file: &str, text: &mut String) -> Result<Option<u64>, Errno> {
        self.cgroup.reader(file)?.read(text)?;
        parse_number(text)
    }
}
