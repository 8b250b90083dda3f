//! Survey of many cgroups, by one thread or several: through directory descriptors, with one buffer
//! per thread, reading only the files that are needed.
//!
//! Values that a kernel or a cgroup doesn't offer are absent, not zero. Cgroups that vanish in the
//! meantime are left out.

use std::cell::RefCell;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::conditions::Protected;
use super::limit::{BindingLimit, Ceiling};
use super::path::id_of;
use super::pressure::Pressure;
use super::stat::{MemoryStat, PackedStat, StatParser};
use super::swap_room::SwapRoom;
use super::{CgroupPath, Conditions, Name, open_directory};
use crate::host::Reader;
use crate::host::proc::{parse_number, swappiness};

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
    room: SwapRoom,
}

/// Position of a survey.
#[derive(Clone, Copy)]
struct At<'a> {
    /// Requested cgroup.
    located: &'a CgroupPath,
    name: &'a Name,
    /// Number of levels below the requested cgroup.
    depth: usize,
    above: &'a Above,
}

impl At<'_> {
    fn name_of_child(&self, file_name: &OsStr) -> Name {
        // Paths are built only for the few names that aren't UTF-8.
        match (self.name.path_not_utf8(), file_name.to_str()) {
            (None, Some(text)) => {
                let slash = if self.name.ends_with('/') { "" } else { "/" };
                Name::from([&**self.name, slash, text].concat())
            }
            (Some(parent), _) => Name::new(&Path::new(&**self.name).join(file_name), &parent.join(file_name)),
            (None, None) => {
                let CgroupPath { name, path, .. } = self.located;
                let below = self.name.strip_prefix(&**name).unwrap_or_default().trim_start_matches('/');
                let parent = if below.is_empty() { path.to_path_buf() } else { path.join(below) };
                Name::new(&Path::new(&**self.name).join(file_name), &parent.join(file_name))
            }
        }
    }
}

/// Reader of many cgroups, with one buffer per thread.
#[derive(Debug)]
pub struct Survey {
    swappiness: Option<u8>,
    /// Number of levels below the requested cgroup to read as well.
    depth: usize,
    /// Pool of threads; `None` to read with the calling thread alone.
    threads: Option<ThreadPool>,
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

/// Result for a child: readings of the child and all below, and the memory it holds under
/// protection.
type Child = (Readings, Option<Protected>);

impl Survey {
    /// Returns a survey of the requested cgroup and `depth` levels below, with `jobs` threads.
    #[must_use]
    pub fn new(depth: usize, jobs: usize) -> Self {
        // Without threads the survey only takes longer.
        let threads = (jobs > 1).then(|| ThreadPoolBuilder::new().num_threads(jobs).build().ok()).flatten();
        Self { swappiness: swappiness(), depth, threads, unreadable: Mutex::default() }
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
        let above = Self::above(located);
        match located.open_directory() {
            Ok(dir) => {
                let above = &above;
                let visit = || self.visit(&dir, At { located, name: &located.name, depth: 0, above });
                self.threads.as_ref().map_or_else(visit, |threads| threads.install(visit))
            }
            Err(errno) => {
                self.cannot(&located.name, errno);
                Vec::new()
            }
        }
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

    fn visit(&self, dir: &OwnedFd, at: At<'_>) -> Readings {
        let At { name, depth, above, .. } = at;
        let mut reading = match read(dir, name, depth) {
            Ok(reading) => reading,
            // A vanished cgroup need not be reported.
            Err(Errno::NODEV | Errno::NOENT) if depth > 0 => return Vec::new(),
            Err(errno) => {
                self.cannot(name, errno);
                return Vec::new();
            }
        };
        let below = limits(dir, &mut reading, above);
        reading.conditions.swap = Some(below.room.clone());
        reading.conditions.swappiness = self.swappiness;
        let at = At { above: &below, ..at };
        let child = |child: &(CString, u64)| self.child(dir, at, child);
        let file_names = directories(dir);
        let children: Vec<Child> = if self.threads.is_some() {
            file_names.par_iter().map(child).collect()
        } else {
            file_names.iter().map(child).collect()
        };
        let mut readings = vec![Box::new(reading)];
        for (below, protected) in children {
            readings[0].conditions.protected.extend(protected);
            readings.extend(below);
        }
        readings
    }

    /// Reads a child: its protection counts, requested or not.
    fn child(&self, dir: &OwnedFd, parent: At<'_>, (file_name, id): &(CString, u64)) -> Child {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let (depth, name) = (parent.depth, parent.name_of_child(OsStr::from_bytes(file_name.to_bytes())));
        // Where mounts lie within the hierarchy, a directory may lead elsewhere.
        let covered = |child: &OwnedFd| {
            !parent.located.mount.inner.is_empty() && id_of(child).is_ok_and(|found| found != *id)
        };
        match rustix::fs::openat(dir, file_name, flags, Mode::empty()) {
            Ok(child) if covered(&child) => (Vec::new(), None),
            Ok(child) if depth < self.depth => {
                let readings = self.visit(&child, At { name: &name, depth: depth + 1, ..parent });
                let protected = readings.first().and_then(|reading| reading.as_protected());
                (readings, protected)
            }
            Ok(child) => (Vec::new(), protection(&child, &name)),
            Err(errno) => {
                if !matches!(errno, Errno::NOENT | Errno::NODEV) {
                    self.cannot(&name, errno);
                }
                (Vec::new(), None)
            }
        }
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
    let room =
        above.room.clone().within(&reading.name, reading.swap_max.and_then(Ceiling::bytes), reading.swap);
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
fn directories(dir: &OwnedFd) -> Vec<(CString, u64)> {
    let Ok(entries) = Dir::read_from(dir) else { return Vec::new() };
    let directories = entries.flatten().filter(|entry| {
        entry.file_type() == FileType::Directory && !matches!(entry.file_name().to_bytes(), b"." | b"..")
    });
    directories.map(|entry| (entry.file_name().to_owned(), entry.ino())).collect()
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
