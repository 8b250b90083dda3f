//! Survey of many cgroups, by one thread or several: through directory descriptors, with one buffer
//! per thread, reading only the files that are needed. Children are opened from the directory of
//! their parent, so paths may be longer than the kernel takes at once.
//!
//! Values that a kernel or a cgroup doesn't offer are absent, not zero. Cgroups that vanish in the
//! meantime are left out.

use std::cell::RefCell;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::conditions::Protected;
use super::limit::{BindingLimit, Ceiling};
use super::path::id_of;
use super::pressure::{self, Pressure};
use super::stat::{MemoryStat, PackedStat, StatParser};
use super::swap_room::SwapRoom;
use super::{CgroupPath, Conditions, Name, open_directory};
use crate::host::proc::{parse_number, swappiness};
use crate::host::{PsiState, Reader};

mod walk;

/// Figures of one cgroup. Amounts are bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Name, from the mount point.
    pub name: Name,
    /// Number of levels below the requested cgroup.
    pub depth: usize,
    /// `memory.current`.
    pub current: Option<u64>,
    /// `memory.stat`.
    pub(super) stat: PackedStat,
    /// `memory.swap.current`.
    pub swap: Option<u64>,
    /// `memory.swap.max`.
    pub swap_max: Option<Ceiling>,
    /// `memory.high`.
    pub high: Option<Ceiling>,
    /// `memory.max`.
    pub max: Option<Ceiling>,
    /// `memory.min`.
    pub min: Option<Ceiling>,
    /// `memory.low`.
    pub low: Option<Ceiling>,
    /// `memory.pressure`.
    pub pressure: Option<Pressure>,
    /// State of PSI, which says why there is no pressure, if there is none.
    pub psi: PsiState,
    /// Limit that binds, as far as this namespace can see.
    pub bound: Option<BindingLimit>,
    /// Conditions that can prevent reclaim.
    pub conditions: Conditions,
}

impl Reading {
    /// Unpacks `memory.stat`.
    #[must_use]
    pub fn stat(&self) -> MemoryStat {
        self.stat.unpack()
    }

    /// Returns `memory.stat` in a smaller form for storage.
    #[must_use]
    pub fn packed(&self) -> &PackedStat {
        &self.stat
    }

    /// Returns usage minus inactive page cache, bytes: the memory that the cgroup seems to need.
    #[must_use]
    pub fn working_set(&self) -> Option<u64> {
        Some(self.current?.saturating_sub(self.stat().inactive_file?))
    }
}

impl Reading {
    /// Returns the memory that the cgroup holds under protection against reclaim from its parent.
    fn as_protected(&self) -> Option<Protected> {
        let (min, current) = (self.min?.bytes().unwrap_or(u64::MAX), self.current?);
        (min.min(current) > 0).then(|| {
            let stat = self.stat();
            let (file, anon) = (stat.evictable_file(), stat.evictable_anon());
            let slab = stat.slab_reclaimable.unwrap_or(0);
            Protected { name: self.name.to_string(), min, current, file, anon, slab }
        })
    }
}

/// Limits set by ancestors.
#[derive(Clone, Debug)]
struct Above {
    bound: Option<BindingLimit>,
    room: Option<SwapRoom>,
}

/// Cgroup whose children are visited.
struct Parent {
    /// Directory, open until the last of the children is.
    dir: OwnedFd,
    name: Name,
    /// Number of levels below the requested cgroup.
    depth: usize,
    /// Limits for the children.
    limits: Above,
}

impl Parent {
    fn name_of_child(&self, located: &CgroupPath, file_name: &OsStr) -> Name {
        // Paths are built only for the few names that aren't UTF-8.
        match (self.name.path_not_utf8(), file_name.to_str()) {
            (None, Some(text)) => {
                let slash = if self.name.ends_with('/') { "" } else { "/" };
                Name::from([&*self.name, slash, text].concat())
            }
            (Some(parent), _) => Name::new(&Path::new(&*self.name).join(file_name), &parent.join(file_name)),
            (None, None) => {
                let CgroupPath { name, path, .. } = located;
                let below = self.name.strip_prefix(&**name).unwrap_or_default().trim_start_matches('/');
                let parent = if below.is_empty() { path.to_path_buf() } else { path.join(below) };
                Name::new(&Path::new(&*self.name).join(file_name), &parent.join(file_name))
            }
        }
    }
}

/// Cgroup to visit.
enum Place {
    /// The requested cgroup, and the limits of its ancestors.
    Requested(OwnedFd, Above),
    /// A child, by the name and the inode of its directory.
    Child(Arc<Parent>, CString, u64),
}

/// Result of a visit.
#[derive(Default)]
struct Found {
    /// Figures, if the cgroup is within the requested depth and could be read.
    reading: Option<Box<Reading>>,
    /// Memory held under protection, which counts for the parent, requested or not.
    protected: Option<Protected>,
}

/// Reader of many cgroups, with one buffer per thread.
#[derive(Debug)]
pub struct Survey {
    swappiness: Option<u8>,
    /// State of PSI on the host, read for the first cgroup without figures.
    psi: OnceLock<PsiState>,
    /// Number of levels below the requested cgroup to read as well.
    depth: usize,
    /// Maximum number of threads, the calling one among them.
    threads: usize,
    /// Number of cgroups left out, each with all below it.
    left_out: AtomicUsize,
    /// Names of cgroups that couldn't be read, and the errors.
    unreadable: Mutex<Vec<(Name, Errno)>>,
}

/// Buffers of a thread.
#[derive(Default)]
struct Scratch {
    text: String,
    parser: StatParser,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Readings, passed on as they were read: a reading is too large to be moved again and again.
#[allow(clippy::vec_box)]
type Readings = Vec<Box<Reading>>;

/// Maximum number of levels below the requested cgroup, and maximum length of a name in bytes. The
/// names of all levels together grow with the square of the depth, and anyone with a delegated
/// cgroup can nest cgroups without end.
const MAX_DEPTH: usize = 4096;
const MAX_NAME: usize = 64 << 10;

impl Survey {
    /// Returns a survey of the requested cgroup and `depth` levels below, with `jobs` threads, or
    /// as many of them as can be started.
    #[must_use]
    pub fn new(depth: usize, jobs: usize) -> Self {
        let (left_out, unreadable) = (AtomicUsize::new(0), Mutex::default());
        Self { swappiness: swappiness(), psi: OnceLock::new(), depth, threads: jobs, left_out, unreadable }
    }

    /// Returns the number of cgroups that were left out so far, each with all below it, since they
    /// are nested too deeply.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out.load(Ordering::Relaxed)
    }

    /// Returns the cgroups that couldn't be read so far, sorted by name, and the errors.
    #[must_use]
    pub fn unreadable(self) -> Vec<(Name, Errno)> {
        let mut unreadable = self.unreadable.into_inner().unwrap_or_else(PoisonError::into_inner);
        unreadable.sort_by(|(one, _), (other, _)| one.cmp(other));
        unreadable
    }

    /// Reads a cgroup and the cgroups below, parents first.
    pub fn of(&self, located: &CgroupPath) -> Readings {
        let dir = match located.open_directory() {
            Ok(dir) => dir,
            Err(errno) => {
                self.cannot(&located.name, errno);
                return Vec::new();
            }
        };
        let requested = Place::Requested(dir, Self::above(located));
        let walked = walk::walk(requested, self.threads, walk::spawn, |place| self.visit(located, place));
        let found = walked.in_order(|parent, child| {
            if let Some(parent) = &mut parent.reading {
                parent.conditions.protected.extend(child.protected.take());
            }
        });
        found.into_iter().filter_map(|found| found.reading).collect()
    }

    /// Collects the limits of a cgroup's ancestors, from the mount down.
    fn above(located: &CgroupPath) -> Above {
        let mut above = Above { bound: None, room: SwapRoom::of_host() };
        let top = &located.mount.point;
        let mut levels: Vec<_> =
            located.path.ancestors().skip(1).take_while(|dir| dir.starts_with(top)).collect();
        levels.reverse();
        for level in levels {
            let (Some(name), Ok(dir)) = (located.mount.name_of(level), open_directory(level)) else {
                continue;
            };
            let mut reading =
                Reading { name, current: number(&dir, c"memory.current"), ..Reading::default() };
            above = limits(&dir, &mut reading, &above);
        }
        above
    }

    /// Reads a cgroup, and returns its children for further visits.
    fn visit(&self, located: &CgroupPath, place: Place) -> (Found, Vec<Place>) {
        let (parent, file_name, id) = match place {
            Place::Requested(dir, above) => return self.read(dir, located.name.clone(), 0, &above),
            Place::Child(parent, file_name, id) => (parent, file_name, id),
        };
        let depth = parent.depth + 1;
        let name = parent.name_of_child(located, OsStr::from_bytes(file_name.to_bytes()));
        if depth > MAX_DEPTH || name.len() > MAX_NAME {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return Default::default();
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // Where mounts lie within the hierarchy, a directory may lead elsewhere.
        let is_covered =
            |child: &OwnedFd| !located.mount.inner.is_empty() && id_of(child).is_ok_and(|found| found != id);
        match rustix::fs::openat(&parent.dir, file_name, flags, Mode::empty()) {
            Ok(child) if is_covered(&child) => Default::default(),
            Ok(child) if depth <= self.depth => self.read(child, name, depth, &parent.limits),
            Ok(child) => (Found { reading: None, protected: protection(&child, &name) }, Vec::new()),
            Err(errno) => {
                if !matches!(errno, Errno::NOENT | Errno::NODEV) {
                    self.cannot(&name, errno);
                }
                Default::default()
            }
        }
    }

    fn read(&self, dir: OwnedFd, name: Name, depth: usize, above: &Above) -> (Found, Vec<Place>) {
        let mut reading = match read(&dir, &name, depth) {
            Ok(reading) => Box::new(reading),
            Err(errno) => {
                // A vanished cgroup need not be reported.
                if depth == 0 || !matches!(errno, Errno::NODEV | Errno::NOENT) {
                    self.cannot(&name, errno);
                }
                return Default::default();
            }
        };
        reading.psi = match reading.pressure {
            Some(_) => PsiState::On,
            None => pressure::state_without_figures(&dir, || *self.psi.get_or_init(PsiState::of_host)),
        };
        let limits = limits(&dir, &mut reading, above);
        reading.conditions.swap.clone_from(&limits.room);
        reading.conditions.swappiness = self.swappiness;
        let children = directories(&dir).unwrap_or_else(|errno| {
            if !matches!(errno, Errno::NODEV | Errno::NOENT) {
                self.cannot(&name, errno);
            }
            Vec::new()
        });
        let parent = Arc::new(Parent { dir, name, depth, limits });
        let child = |(file_name, id)| Place::Child(Arc::clone(&parent), file_name, id);
        let children = children.into_iter().map(child).collect();
        (Found { protected: reading.as_protected(), reading: Some(reading) }, children)
    }

    fn cannot(&self, name: &Name, errno: Errno) {
        let mut unreadable = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        unreadable.push((name.clone(), errno));
    }
}

fn read(dir: &OwnedFd, name: &Name, depth: usize) -> Result<Reading, Errno> {
    Ok(Reading {
        name: name.clone(),
        depth,
        current: number(dir, c"memory.current"),
        stat: stat(dir)?,
        min: ceiling(dir, c"memory.min"),
        low: ceiling(dir, c"memory.low"),
        pressure: with_text(dir, c"memory.pressure", |text, _| Pressure::parse(text)).ok().flatten(),
        ..Reading::default()
    })
}

/// Reads the limits of a level, and returns those for the level below.
fn limits(dir: &OwnedFd, reading: &mut Reading, above: &Above) -> Above {
    reading.high = ceiling(dir, c"memory.high");
    reading.max = ceiling(dir, c"memory.max");
    reading.swap = number(dir, c"memory.swap.current");
    reading.swap_max = ceiling(dir, c"memory.swap.max");
    let own = BindingLimit::of(&reading.name, reading.high, reading.max, reading.current);
    reading.bound = BindingLimit::tighter(own, above.bound.as_ref());
    let room = SwapRoom::within(
        above.room.clone(),
        &reading.name,
        reading.swap_max.and_then(Ceiling::bytes),
        reading.swap,
    );
    Above { bound: reading.bound.clone(), room }
}

fn protection(dir: &OwnedFd, name: &str) -> Option<Protected> {
    let min = ceiling(dir, c"memory.min")?.bytes().unwrap_or(u64::MAX);
    let current = if min > 0 { number(dir, c"memory.current")? } else { 0 };
    if min.min(current) == 0 {
        return None;
    }
    let stat = stat(dir).ok()?.unpack();
    let (file, anon) = (stat.evictable_file(), stat.evictable_anon());
    let slab = stat.slab_reclaimable.unwrap_or(0);
    Some(Protected { name: name.to_owned(), min, current, file, anon, slab })
}

/// Returns the names and inodes of the directories in a directory.
fn directories(dir: &OwnedFd) -> Result<Vec<(CString, u64)>, Errno> {
    let mut directories = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() == FileType::Directory && !matches!(name.to_bytes(), b"." | b"..") {
            directories.push((name.to_owned(), entry.ino()));
        }
    }
    Ok(directories)
}

/// Reads a file's text into this thread's buffer, and passes the text to `look`.
fn with_text<T>(
    dir: &OwnedFd,
    file: &CStr,
    look: impl FnOnce(&str, &mut StatParser) -> T,
) -> Result<T, Errno> {
    let reader = Reader::at(dir, file)?;
    SCRATCH.with_borrow_mut(|Scratch { text, parser }| {
        reader.read(text)?;
        Ok(look(text, parser))
    })
}

fn stat(dir: &OwnedFd) -> Result<PackedStat, Errno> {
    with_text(dir, c"memory.stat", |text, parser| parser.parse(text))
}

/// Reads a number; `None` for `max` too.
fn number(dir: &OwnedFd, file: &CStr) -> Option<u64> {
    ceiling(dir, file)?.bytes()
}

fn ceiling(dir: &OwnedFd, file: &CStr) -> Option<Ceiling> {
    let number = with_text(dir, file, |text, _| parse_number(text)).ok()?.ok()?;
    Some(number.map_or(Ceiling::Max, Ceiling::Bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Mount;

    const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

    /// A chain of directories, deeper than any path can name, with a `memory.stat` in each.
    struct Chain(tempfile::TempDir, usize);

    impl Chain {
        fn new(levels: usize) -> Self {
            let top = tempfile::tempdir().unwrap();
            let mut dir = open_directory(top.path()).unwrap();
            for level in 0..=levels {
                let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
                let stat = rustix::fs::openat(&dir, "memory.stat", flags, Mode::RUSR).unwrap();
                rustix::io::write(&stat, b"anon 4096\n").unwrap();
                if level < levels {
                    rustix::fs::mkdirat(&dir, "d", Mode::RWXU).unwrap();
                    dir = rustix::fs::openat(&dir, "d", DIRECTORY, Mode::empty()).unwrap();
                }
            }
            Self(top, levels)
        }
    }

    fn located(path: &Path) -> CgroupPath {
        let id = id_of(open_directory(path).unwrap()).unwrap();
        let mount = Mount {
            id: None,
            point: path.to_owned(),
            root: "/".into(),
            read_only: false,
            local_events: false,
            top: "/".into(),
            inner: Vec::new(),
        };
        CgroupPath { path: path.into(), name: "/".into(), mount: Arc::new(mount), id }
    }

    impl Drop for Chain {
        fn drop(&mut self) {
            use rustix::fs::{AtFlags, openat, unlinkat};
            let mut dir = open_directory(self.0.path()).unwrap();
            for _ in 0..self.1 {
                dir = openat(&dir, "d", DIRECTORY, Mode::empty()).unwrap();
            }
            for _ in 0..self.1 {
                unlinkat(&dir, "memory.stat", AtFlags::empty()).unwrap();
                dir = openat(&dir, "..", DIRECTORY, Mode::empty()).unwrap();
                unlinkat(&dir, "d", AtFlags::REMOVEDIR).unwrap();
            }
        }
    }

    fn survey(chain: &Chain, jobs: usize) -> (usize, usize, usize) {
        let located = located(chain.0.path());
        let read = move || {
            let survey = Survey::new(usize::MAX, jobs);
            let readings = survey.of(&located);
            assert!(readings.iter().enumerate().all(|(level, reading)| reading.depth == level));
            assert!(readings.iter().all(|reading| reading.stat().anon == Some(4096)));
            (readings.len(), survey.left_out(), survey.unreadable().len())
        };
        std::thread::Builder::new().stack_size(2 << 20).spawn(read).unwrap().join().unwrap()
    }

    #[test]
    fn depth_takes_no_stack_and_few_descriptors() {
        let chain = Chain::new(3000);
        assert_eq!(survey(&chain, 1), (3001, 0, 0));
        assert_eq!(survey(&chain, 4), (3001, 0, 0));
    }

    /// Each level has three children, one of which has children itself: their parents stay open.
    /// Run in a process of its own, since the limit is the process's.
    #[test]
    fn a_branch_without_descriptors_is_told_and_no_other_is_lost() {
        const LEVELS: usize = 100;
        const TREE: &str = "MEMCTL_TEST_TREE";
        let Some(tree) = std::env::var_os(TREE) else {
            let chain = Chain::new(0);
            let mut dir = chain.0.path().to_owned();
            for _ in 0..LEVELS {
                for child in ["a", "d", "z"] {
                    std::fs::create_dir(dir.join(child)).unwrap();
                    std::fs::write(dir.join(child).join("memory.stat"), "anon 4096\n").unwrap();
                }
                dir.push("d");
            }
            let name = std::thread::current().name().unwrap_or_default().to_owned();
            let mut child = std::process::Command::new(std::env::current_exe().unwrap());
            let status = child.args(["--exact", &name]).env(TREE, chain.0.path()).status().unwrap();
            assert!(status.success());
            return;
        };
        let limit = rustix::process::Rlimit { current: Some(50), maximum: Some(50) };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
        let survey = Survey::new(usize::MAX, 2);
        let count = survey.of(&located(Path::new(&tree))).len();
        let unreadable = survey.unreadable();
        assert!(unreadable.iter().all(|&(_, errno)| errno == Errno::MFILE), "{unreadable:?}");
        assert!(count > 60 && (count > 3 * LEVELS || !unreadable.is_empty()), "{count} {unreadable:?}");
    }

    #[test]
    fn cgroups_that_are_nested_without_end_are_left_out_and_counted() {
        let chain = Chain::new(MAX_DEPTH + 10);
        assert_eq!(survey(&chain, 2), (MAX_DEPTH + 1, 1, 0));
    }
}
