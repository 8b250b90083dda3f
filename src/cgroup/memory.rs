//! Cgroup to sample and to reclaim from, with its files held open.

use std::cell::OnceCell;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::io::Errno;

use super::reclaim::ReclaimFile;
use super::stat::MemoryStat;
use super::{Cgroup, CgroupPath, Conditions, diagnose, pressure};
use crate::cgroup::error::CgroupError;
use crate::host::files::optional;
use crate::host::proc::{cpus, page_size, parse_number};
use crate::host::{PsiState, Reader, zram};
use crate::kind::Swappiness;

/// Names of the LRU lists in `/proc/vmstat`, without their `nr_`.
const LRU_LISTS: [&str; 5] = ["inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable"];

/// Cgroup whose memory can be reclaimed.
#[derive(Debug)]
pub struct MemoryCgroup {
    cgroup: Cgroup,
    located: CgroupPath,
    reclaim: ReclaimFile,
    stat: Reader,
    /// Optional files: the root lacks two, PSI may be off, swap may not be built in.
    current: Option<Reader>,
    vmstat: Option<Reader>,
    swap_current: Option<Reader>,
    pressure: Option<Reader>,
    /// `cpu.stat`: a read makes kernels before 6.16 or so fold the counters of all controllers.
    folding: Option<Reader>,
    /// `cpu.pressure`, opened when it is first asked for: a request never does.
    waits: OnceCell<Option<Reader>>,
    /// Found when it is first asked for: a watch, which opens many cgroups, never does.
    zram: OnceCell<zram::Devices>,
    blind_spot: u64,
    text: String,
}

impl MemoryCgroup {
    /// Opens the cgroup for reclaim.
    ///
    /// # Errors
    /// [`CgroupError`], the reason why nothing can be reclaimed there. Nothing was changed.
    pub fn open(located: &CgroupPath) -> Result<Self, CgroupError> {
        let cgroup = diagnose::open(located)?;
        let explain = |errno| diagnose::explain(&cgroup, located, errno);
        let reclaim = ReclaimFile::open(&cgroup).map_err(explain)?;
        let stat = cgroup.reader("memory.stat").map_err(explain)?;
        let path = cgroup.path().to_path_buf();
        Self::with(cgroup, reclaim, stat, located).map_err(|errno| CgroupError::io(path, &errno.into()))
    }

    /// Opens the cgroup as [`MemoryCgroup::open`] does, but without looking for the reason of an
    /// error.
    ///
    /// # Errors
    /// The kernel's error; `ENODEV` if the cgroup is gone, or another one has its path.
    pub(crate) fn reopen(located: &CgroupPath) -> Result<Self, Errno> {
        let cgroup = located.open().map_err(|e| match Errno::from_io_error(&e) {
            Some(Errno::NOENT | Errno::STALE) => Errno::NODEV,
            errno => errno.unwrap_or(Errno::INVAL),
        })?;
        let (reclaim, stat) = (ReclaimFile::open(&cgroup)?, cgroup.reader("memory.stat")?);
        Self::with(cgroup, reclaim, stat, located)
    }

    fn with(cgroup: Cgroup, reclaim: ReclaimFile, stat: Reader, located: &CgroupPath) -> Result<Self, Errno> {
        let has = |file| optional(cgroup.reader(file));
        let vmstat =
            if cgroup.has("memory.current") { None } else { optional(Reader::open("/proc/vmstat"))? };
        Ok(Self {
            located: located.clone(),
            reclaim,
            stat,
            vmstat,
            current: has("memory.current")?,
            swap_current: has("memory.swap.current")?,
            pressure: has("memory.pressure")?,
            folding: has("cpu.stat")?,
            waits: OnceCell::new(),
            zram: OnceCell::new(),
            blind_spot: blind_spot(),
            text: String::new(),
            cgroup,
        })
    }

    /// Returns the descriptors that it holds.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let optional = [&self.current, &self.vmstat, &self.swap_current, &self.pressure, &self.folding];
        [self.cgroup.as_fd(), self.reclaim.as_fd(), self.stat.as_fd()]
            .into_iter()
            .chain(optional.into_iter().flatten().map(AsFd::as_fd))
            .chain(self.waits.get().into_iter().flatten().map(AsFd::as_fd))
            .chain(self.zram.get().into_iter().flat_map(zram::Devices::descriptors))
    }

    /// Returns the cgroup.
    #[must_use]
    pub(crate) fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Returns `memory.current`, bytes. For the root, which has no such file, returns the size of
    /// the host's LRU lists, which is as fresh.
    ///
    /// # Errors
    /// `ENODEV` when the cgroup was removed.
    pub(crate) fn usage(&mut self) -> Result<u64, Errno> {
        if let Some(text) = self.read(|files| files.current.as_ref())? {
            return parse_number(text)?.ok_or(Errno::INVAL);
        }
        let text = self.read(|files| files.vmstat.as_ref())?.unwrap_or_default();
        let pages = text.lines().filter_map(|line| line.strip_prefix("nr_")?.split_once(' '));
        let lru = pages.filter(|(key, _)| LRU_LISTS.contains(key));
        Ok(lru.filter_map(|(_, pages)| pages.parse::<u64>().ok()).sum::<u64>() * page_size())
    }

    /// Returns the path by which it was opened.
    #[must_use]
    pub(crate) fn located(&self) -> &CgroupPath {
        &self.located
    }

    /// Returns whether the cgroup has a `memory.current`.
    #[must_use]
    pub(crate) fn has_current(&self) -> bool {
        self.current.is_some()
    }

    /// Reads `memory.stat`; `flush` tries to make the kernel fold its counters first.
    ///
    /// # Errors
    /// `ENODEV` when the cgroup was removed.
    pub(crate) fn stat(&mut self, flush: bool) -> Result<MemoryStat, Errno> {
        if flush {
            // Ignore failure: the counters then lag, which the ledger allows for.
            let _ = self.read(|files| files.folding.as_ref());
        }
        let text = self.read(|files| Some(&files.stat))?;
        Ok(text.map(MemoryStat::parse).unwrap_or_default())
    }

    /// Returns the maximum lag of the counters while nothing folds them, bytes.
    #[must_use]
    pub(crate) fn blind_spot(&self) -> u64 {
        self.blind_spot
    }

    /// Returns the `some` total of `cpu.pressure`, if the kernel keeps it.
    pub(crate) fn waited(&mut self) -> Option<Duration> {
        self.waits.get_or_init(|| self.cgroup.reader("cpu.pressure").ok());
        let text = self.read(|files| files.waits.get().and_then(Option::as_ref)).ok()??;
        pressure::some_total(text).map(Duration::from_micros)
    }

    /// Returns the `some` total of `memory.pressure`, if the kernel keeps it.
    pub(crate) fn stalled(&mut self) -> Option<Duration> {
        let text = self.read(|files| files.pressure.as_ref()).ok()??;
        pressure::some_total(text).map(Duration::from_micros)
    }

    /// Returns `memory.swap.current`, bytes.
    pub(crate) fn swap_usage(&mut self) -> Option<u64> {
        let text = self.read(|files| files.swap_current.as_ref()).ok()??;
        parse_number(text).ok()?
    }

    /// Returns the content of the host's zram swap, if the host swaps to zram.
    pub(crate) fn zram(&mut self) -> Option<zram::Zram> {
        self.zram.get_or_init(zram::Devices::find).read(&mut self.text)
    }

    /// Returns the state of PSI for it.
    #[must_use]
    pub(crate) fn psi(&self) -> PsiState {
        pressure::state(&self.cgroup)
    }

    /// Returns whether all memory that swap takes in zram is visible.
    #[must_use]
    pub(crate) fn sees_zram(&self) -> bool {
        self.zram.get_or_init(zram::Devices::find).is_complete()
    }

    /// Gathers the conditions that can prevent reclaim.
    #[must_use]
    pub(crate) fn conditions(&self) -> Conditions {
        Conditions::of(&self.cgroup, &self.located.mount)
    }

    /// Requests reclaim of `bytes` with one write(2).
    ///
    /// # Errors
    /// As for [`ReclaimFile::request`].
    pub(crate) fn reclaim(&mut self, bytes: u64, swappiness: Option<Swappiness>) -> Result<(), Errno> {
        self.reclaim.request(bytes, swappiness)
    }

    /// Returns whether the kernel knows `swappiness=` with this value.
    ///
    /// # Errors
    /// As for [`ReclaimFile::accepts`].
    pub(crate) fn accepts(&mut self, swappiness: Swappiness) -> Result<bool, Errno> {
        self.reclaim.accepts(swappiness)
    }

    fn read(&mut self, file: impl Fn(&Self) -> Option<&Reader>) -> Result<Option<&str>, Errno> {
        let mut text = std::mem::take(&mut self.text);
        let result = file(self).map(|reader| reader.read(&mut text)).transpose();
        self.text = text;
        Ok(result?.map(|()| self.text.as_str()))
    }
}

/// Returns the maximum lag of the counters, bytes. `memory.stat` is folded on reading only when
/// more than 64 updates per CPU are pending (`MEMCG_CHARGE_BATCH`, mm/memcontrol.c), each of a
/// page.
pub(crate) fn blind_spot() -> u64 {
    const UPDATES: u64 = 64;
    UPDATES * cpus() * page_size()
}
