//! NUMA node to sample and to reclaim from, through its files under `/sys/devices/system/node`.
//!
//! A node is no cgroup, but its `reclaim` file (since 6.17) is written as `memory.reclaim` is, and
//! its counters are the same, in pages. Two things differ: the threshold below which the kernel
//! does nothing ([`NodeThreshold`]), and the errors. Up to 7.2 every failure is `EAGAIN`, even of a
//! malformed request; since 7.3 `EBUSY` means that another process reclaims from the node.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use crate::cgroup::conditions::{Conditions, NodeThreshold};
use crate::cgroup::error::CgroupError;
use crate::cgroup::owner::{Denied, Owner};
use crate::cgroup::reclaim::ReclaimFile;
use crate::cgroup::stat::MemoryStat;
use crate::cgroup::{Name, open_directory, pressure};
use crate::host::files::optional;
use crate::host::kernel::kernel_release;
use crate::host::proc::{cpus, page_size, read_system_file};
use crate::host::{LockHolder, PsiState, Reader, zram};
use crate::kind::Swappiness;

/// Directory of the nodes.
const NODES: &str = "/sys/devices/system/node";

/// Name of the file in a node's directory.
pub(crate) const FILE: &str = "reclaim";

/// Prefix of a word that names a node.
pub(crate) const PREFIX: &str = "node:";

/// Maximum lag of each of a node's counters on every CPU, pages (`calculate_normal_threshold`,
/// mm/vmstat.c). A timer folds the counters every second.
const LAG_PAGES: u64 = 125;

/// NUMA node whose memory can be reclaimed.
#[derive(Debug)]
pub struct Node {
    number: u32,
    name: Name,
    path: PathBuf,
    dir: OwnedFd,
    reclaim: ReclaimFile,
    meminfo: Reader,
    vmstat: Reader,
    /// Counters of the whole host, read where the node doesn't count for itself.
    host: Option<Reader>,
    pressure: Option<Reader>,
    /// Sysctl `vm.stat_refresh`: a read makes every CPU fold its part of the counters.
    refresh: Option<Reader>,
    zram: zram::Devices,
    text: String,
}

/// Returns the number of the node that a word names: `node:0`. `None` if the word doesn't name a
/// node, `Err` if the rest is no number.
#[must_use]
pub(crate) fn parse(word: &str) -> Option<Result<u32, CgroupError>> {
    let digits = word.strip_prefix(PREFIX)?;
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    let number = digits.parse().ok().filter(|_| plain);
    Some(number.ok_or_else(|| no_such_node(word)))
}

/// Returns the online nodes, in order, and their `MemUsed`, bytes.
#[must_use]
pub(crate) fn online() -> Vec<(u32, Option<u64>)> {
    let entries = std::fs::read_dir(NODES).into_iter().flatten().flatten();
    let number = |name: &str| name.strip_prefix("node")?.parse::<u32>().ok();
    let mut numbers: Vec<_> = entries.filter_map(|entry| number(entry.file_name().to_str()?)).collect();
    numbers.sort_unstable();
    let used = |number| used(&read_system_file(&format!("{NODES}/node{number}/meminfo")).ok()?);
    numbers.into_iter().map(|number| (number, used(number))).collect()
}

fn no_such_node(word: &str) -> CgroupError {
    let nodes = online().into_iter().map(|(number, _)| format!("{PREFIX}{number}")).collect();
    CgroupError::NoSuchNode { word: word.to_owned(), nodes }
}

impl Node {
    /// Opens a node for reclaim.
    ///
    /// # Errors
    /// [`CgroupError`], the reason why nothing can be reclaimed there. Nothing was changed.
    pub(crate) fn open(number: u32) -> Result<Self, CgroupError> {
        Self::open_below(Path::new(NODES), number)
    }

    /// Opens a node whose directory is in `nodes`.
    pub(crate) fn open_below(nodes: &Path, number: u32) -> Result<Self, CgroupError> {
        let name = format!("{PREFIX}{number}");
        let path = nodes.join(format!("node{number}"));
        let dir = open_directory(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => no_such_node(&name),
            _ => CgroupError::io(&path, &e),
        })?;
        let io = |file: &Path, errno: Errno| CgroupError::io(file, &errno.into());
        let reader = |file: &str| Reader::at(&dir, file).map_err(|errno| io(&path.join(file), errno));
        let has = |file: &str| optional(Reader::open(file)).map_err(|errno| io(Path::new(file), errno));
        let reclaim = ReclaimFile::open_in(&dir, FILE).map_err(|errno| shut(&name, &path, errno))?;
        Ok(Self {
            number,
            reclaim,
            meminfo: reader("meminfo")?,
            vmstat: reader("vmstat")?,
            host: has("/proc/vmstat")?,
            pressure: has("/proc/pressure/memory")?,
            refresh: has("/proc/sys/vm/stat_refresh")?,
            zram: zram::Devices::find(),
            text: String::new(),
            name: name.into(),
            path,
            dir,
        })
    }

    /// Returns the node's number.
    #[must_use]
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Returns the node's name, `node:0`.
    #[must_use]
    pub(crate) fn name(&self) -> &Name {
        &self.name
    }

    /// Returns the node's directory.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the advisory lock on the node's directory if no other process holds the lock, and
    /// returns whether this succeeded. The lock is held as long as this value lives.
    ///
    /// # Errors
    /// The kernel's error from flock(2), except `EWOULDBLOCK`, for which this returns false.
    pub(crate) fn try_lock(&self) -> Result<bool, Errno> {
        crate::cgroup::try_lock(&self.dir)
    }

    /// Finds the process that holds the lock.
    pub(crate) fn lock_holder(&self) -> LockHolder {
        LockHolder::of(&self.dir)
    }

    /// Returns the size of the node's LRU lists, bytes. `MemUsed` is unsuitable: freed pages count
    /// as used while they wait on the lists of a CPU, and those lists hold up to an eighth of a
    /// zone.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn usage(&mut self) -> Result<u64, Errno> {
        self.vmstat.read(&mut self.text)?;
        let stat = counters(&self.text);
        Ok(stat.evictable_file() + stat.evictable_anon() + stat.unevictable.unwrap_or(0))
    }

    /// Reads the node's counters, under the names that `memory.stat` has for them. Where the node
    /// doesn't count reclaimed pages, the host's counters take their place
    /// ([`Node::counts_for_itself`]). `flush` makes all CPUs fold their part first.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn stat(&mut self, flush: bool) -> Result<MemoryStat, Errno> {
        if flush && let Some(refresh) = &self.refresh {
            // Ignore failure: the counters then lag, which the ledger allows for.
            let _ = refresh.read(&mut self.text);
        }
        self.vmstat.read(&mut self.text)?;
        let mut stat = counters(&self.text);
        if stat.pgsteal_proactive.is_none()
            && let Some(host) = &self.host
        {
            host.read(&mut self.text)?;
            let host = MemoryStat::parse(&self.text);
            (stat.pgsteal_proactive, stat.pgdemote_proactive) =
                (host.pgsteal_proactive, host.pgdemote_proactive);
        }
        Ok(stat)
    }

    /// Returns whether the node's own vmstat has `pgsteal_proactive`: 7.3 has this counter, and
    /// 6.17 counts for the host alone.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn counts_for_itself(&mut self) -> Result<bool, Errno> {
        self.vmstat.read(&mut self.text)?;
        Ok(counters(&self.text).pgsteal_proactive.is_some())
    }

    /// Returns the maximum lag of the counters, bytes.
    #[must_use]
    pub fn blind_spot(&self) -> u64 {
        LAG_PAGES * cpus() * page_size()
    }

    /// Returns the `some` total of the host's memory pressure, if the kernel keeps it: nodes have
    /// none of their own.
    pub(crate) fn stalled(&mut self) -> Option<Duration> {
        self.pressure.as_ref()?.read(&mut self.text).ok()?;
        pressure::some_total(&self.text).map(Duration::from_micros)
    }

    /// Returns the content of the host's zram swap, if the host swaps to zram.
    pub(crate) fn zram(&mut self) -> Option<zram::Zram> {
        self.zram.read(&mut self.text)
    }

    /// Returns the state of PSI for it.
    #[must_use]
    pub(crate) fn psi(&self) -> PsiState {
        if self.pressure.is_some() { PsiState::On } else { PsiState::of_host() }
    }

    /// Returns whether all memory that swap takes in zram is visible.
    #[must_use]
    pub(crate) fn sees_zram(&self) -> bool {
        self.zram.is_complete()
    }

    /// Gathers the conditions that can prevent reclaim.
    pub(crate) fn conditions(&mut self) -> Conditions {
        let total = self.meminfo.read(&mut self.text).ok().and_then(|()| node_bytes(&self.text, "MemTotal"));
        Conditions { node_threshold: total.map(gate), ..Conditions::of_node(self.number) }
    }

    /// Requests reclaim of `bytes` with one write(2).
    ///
    /// # Errors
    /// As for [`ReclaimFile::request`], and `EBUSY` (see above).
    pub(crate) fn reclaim(&mut self, bytes: u64, swappiness: Option<Swappiness>) -> Result<(), Errno> {
        self.reclaim.request(bytes, swappiness)
    }

    /// Returns whether the kernel knows `swappiness=` with this value. A request for 0 bytes fails
    /// for no other reason.
    ///
    /// # Errors
    /// The kernel's error, except `EINVAL` and `EAGAIN`, for which this returns false. Up to 7.2
    /// `EAGAIN` hides `EINVAL`.
    pub(crate) fn accepts(&mut self, swappiness: Swappiness) -> Result<bool, Errno> {
        match self.reclaim.accepts(swappiness) {
            Err(Errno::AGAIN) => Ok(false),
            answer => answer,
        }
    }
}

/// Returns why the `reclaim` file can't be opened.
fn shut(name: &str, path: &Path, errno: Errno) -> CgroupError {
    let file = path.join(FILE);
    match errno {
        Errno::NOENT => {
            let release = kernel_release().unwrap_or_default();
            CgroupError::NodeWithoutReclaim { name: name.to_owned(), release }
        }
        Errno::ACCESS | Errno::PERM => {
            let owner = rustix::fs::stat(&file).ok().map(|stat| Owner::from(&stat));
            CgroupError::RootOnly { denied: Denied::of(owner), file }
        }
        Errno::ROFS => CgroupError::SysReadOnly { file },
        _ => CgroupError::io(file, &errno.into()),
    }
}

/// Returns the value of a line in a node's meminfo (`Node 0 MemTotal:  984076 kB`), bytes.
fn node_bytes(meminfo: &str, key: &str) -> Option<u64> {
    let value = meminfo.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(2);
        (words.next()?.strip_suffix(':')? == key).then(|| words.next())?
    });
    value?.parse::<u64>().ok()?.checked_mul(1024)
}

fn used(meminfo: &str) -> Option<u64> {
    node_bytes(meminfo, "MemUsed")
}

/// Bit of `vm.zone_reclaim_mode`.
const RECLAIM_UNMAP: u64 = 4;

fn gate(total: u64) -> NodeThreshold {
    let sysctl =
        |name: &str| read_system_file(&format!("/proc/sys/vm/{name}")).ok()?.trim().parse::<u64>().ok();
    // The kernel's defaults, where a sysctl can't be read.
    let part = |name, percent| total / 100 * sysctl(name).unwrap_or(percent).min(100);
    let mapped = sysctl("zone_reclaim_mode").is_some_and(|mode| mode & RECLAIM_UNMAP != 0);
    NodeThreshold { cache: part("min_unmapped_ratio", 1), slab: part("min_slab_ratio", 5), mapped }
}

/// Converts a node's vmstat, which counts in pages, to the fields of `memory.stat`. Events have the
/// same names.
fn counters(vmstat: &str) -> MemoryStat {
    let page = page_size();
    let lines = vmstat.lines().filter_map(|line| line.split_once(' '));
    let amounts: HashMap<_, _> = lines
        .filter_map(|(key, value)| Some((key.strip_prefix("nr_")?, value.parse::<u64>().ok()?)))
        .collect();
    let bytes = |key: &str| amounts.get(key).map(|pages| pages * page);
    let (slab_reclaimable, slab_unreclaimable) = (bytes("slab_reclaimable"), bytes("slab_unreclaimable"));
    MemoryStat {
        anon: bytes("anon_pages"),
        file: bytes("file_pages"),
        shmem: bytes("shmem"),
        file_mapped: bytes("mapped"),
        file_dirty: bytes("dirty"),
        file_writeback: bytes("writeback"),
        swapcached: bytes("swapcached"),
        inactive_anon: bytes("inactive_anon"),
        active_anon: bytes("active_anon"),
        inactive_file: bytes("inactive_file"),
        active_file: bytes("active_file"),
        unevictable: bytes("unevictable"),
        slab: slab_reclaimable.zip(slab_unreclaimable).map(|(one, other)| one + other),
        slab_reclaimable,
        slab_unreclaimable,
        pagetables: bytes("page_table_pages"),
        ..MemoryStat::parse(vmstat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_by_its_number() {
        assert_eq!(parse("node:0").unwrap().unwrap(), 0);
        assert_eq!(parse("node:12").unwrap().unwrap(), 12);
        for word in ["node:", "node:x", "node:-1", "node:+1", "node:01", "node:0x1", "node:4294967296"] {
            let why = parse(word).unwrap().unwrap_err();
            assert!(matches!(why, CgroupError::NoSuchNode { .. }), "{word}");
        }
        for word in ["node0", "node", "/node:0", "nodes:0", ""] {
            assert!(parse(word).is_none(), "{word}");
        }
    }

    const VMSTAT: &str = "nr_free_pages 182182\nnr_inactive_file 1000\nnr_active_file 24\nnr_slab_reclaimable 10\n\
        nr_slab_unreclaimable 20\nworkingset_refault_file 5\nnr_anon_pages 49\nnr_mapped 433\nnr_file_pages 1586\n\
        nr_dirty 91\nnr_shmem 562\nnr_swapcached 3\npgdemote_proactive 1\npgsteal_anon 2\npgsteal_proactive 2560\n";

    #[test]
    fn counters_are_read_under_the_names_of_memory_stat() {
        let page = page_size();
        let stat = counters(VMSTAT);
        assert_eq!((stat.pgsteal_proactive, stat.pgdemote_proactive), (Some(2560), Some(1)));
        assert_eq!((stat.pgsteal_anon, stat.workingset_refault_file), (Some(2), Some(5)));
        assert_eq!((stat.evictable_file(), stat.slab), (1024 * page, Some(30 * page)));
        assert_eq!((stat.anon, stat.unevictable, stat.pswpout), (Some(49 * page), None, None));
    }

    #[test]
    fn meminfo_of_a_node_has_its_number_in_front() {
        let meminfo = "Node 0 MemTotal:         984076 kB\nNode 0 MemUsed:           44472 kB\n";
        assert_eq!(
            (node_bytes(meminfo, "MemTotal"), used(meminfo)),
            (Some(984_076 << 10), Some(44_472 << 10))
        );
        assert_eq!((node_bytes(meminfo, "Mem"), used("Node 0 MemUsed: x kB\n")), (None, None));
    }

    #[test]
    fn the_gate_counts_clean_unmapped_cache_or_slab() {
        let page = page_size();
        let stat = counters(VMSTAT);
        let gate = NodeThreshold { cache: 500 * page, slab: 10 * page, mapped: false };
        assert_eq!(gate.countable(&stat), (1024 - 433 - 91) * page);
        assert!(gate.is_below(&stat), "exactly that much isn't more");
        assert!(!NodeThreshold { cache: 499 * page, ..gate }.is_below(&stat));
        assert!(!NodeThreshold { slab: 9 * page, ..gate }.is_below(&stat));
        assert!(!NodeThreshold { mapped: true, ..gate }.is_below(&stat));
        let dirty = MemoryStat { file_dirty: Some(u64::MAX), ..stat };
        assert_eq!(gate.countable(&dirty), 0);
    }
}
