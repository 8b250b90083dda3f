//! Many cgroups read one after the other: through directory descriptors, into one buffer, and only the files that are
//! asked for.
//!
//! What a kernel or a cgroup doesn't offer is absent, not zero. A cgroup that vanishes meanwhile is left out.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::conditions::Protected;
use super::limit::{Bound, Ceiling};
use super::locate::Located;
use super::pressure::Pressure;
use super::stat::MemoryStat;
use super::swap::SwapRoom;
use super::{Conditions, Reader, open_directory, parse_number, read_system_file};

/// What one look at a cgroup gave. Amounts are bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Its name, from the mount point.
    pub name: String,
    /// How many levels below the one that was asked for.
    pub depth: usize,
    /// `memory.current`.
    pub current: Option<u64>,
    /// `memory.stat`.
    pub stat: MemoryStat,
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
    /// The limit that binds, as far as this namespace can see.
    pub bound: Option<Bound>,
    /// What could stand in the way of reclaim.
    pub conditions: Conditions,
}

impl Reading {
    /// The usage less page cache that is inactive: what the cgroup seems to need.
    #[must_use]
    pub fn working_set(&self) -> Option<u64> {
        Some(self.current?.saturating_sub(self.stat.inactive_file?))
    }
}

impl Reading {
    /// What it holds under protection against reclaim from its parent.
    fn as_protected(&self) -> Option<Protected> {
        let (min, current) = (self.min?.bytes().unwrap_or(u64::MAX), self.current?);
        let (file, anon) = (self.stat.evictable_file(), self.stat.evictable_anon());
        (min.min(current) > 0).then(|| Protected { name: self.name.clone(), min, current, file, anon })
    }
}

/// What ancestors hand down.
#[derive(Clone, Debug)]
struct Above {
    bound: Option<Bound>,
    room: SwapRoom,
}

/// Reads cgroups, all with one buffer.
#[derive(Debug)]
pub struct Survey {
    text: String,
    swappiness: Option<u8>,
    /// How many levels below what is asked for are read as well.
    depth: usize,
    /// What couldn't be read, and why.
    unreadable: Vec<(String, Errno)>,
}

impl Survey {
    /// A survey of what is asked for and of so many levels below.
    #[must_use]
    pub fn new(depth: usize) -> Self {
        let swappiness = read_system_file("/proc/sys/vm/swappiness").ok();
        let swappiness = swappiness.and_then(|text| text.trim().parse().ok());
        Self { text: String::new(), swappiness, depth, unreadable: Vec::new() }
    }

    /// What couldn't be read so far, by name, and why.
    pub fn unreadable(&mut self) -> Vec<(String, Errno)> {
        std::mem::take(&mut self.unreadable)
    }

    /// Reads a cgroup and what is below it, each before what is below it.
    pub fn of(&mut self, located: &Located) -> Vec<Reading> {
        let mut readings = Vec::new();
        let above = self.above(located);
        match open_directory(&located.path) {
            Ok(dir) => {
                self.visit(&dir, &located.name, 0, &above, &mut readings);
            }
            Err(e) => self.cannot(&located.name, Errno::from_io_error(&e).unwrap_or(Errno::IO)),
        }
        readings
    }

    /// What the ancestors of a cgroup set, from the mount down.
    fn above(&mut self, located: &Located) -> Above {
        let mut above = Above { bound: None, room: SwapRoom::of_host() };
        let top = &located.mount.point;
        let mut levels: Vec<_> =
            located.path.ancestors().skip(1).take_while(|dir| dir.starts_with(top)).collect();
        levels.reverse();
        for level in levels {
            let (Some(name), Ok(dir)) = (located.mount.name_of(level), open_directory(level)) else {
                continue;
            };
            let reading =
                Reading { name, current: self.number(&dir, c"memory.current"), ..Reading::default() };
            let (_, below) = self.limits(&dir, reading, &above);
            above = below;
        }
        above
    }

    /// Says where the reading went, if there is one.
    fn visit(
        &mut self,
        dir: &OwnedFd,
        name: &str,
        depth: usize,
        above: &Above,
        into: &mut Vec<Reading>,
    ) -> Option<usize> {
        let reading = match self.read(dir, name, depth) {
            Ok(reading) => reading,
            // It vanished: nobody needs to know.
            Err(Errno::NODEV | Errno::NOENT) if depth > 0 => return None,
            Err(errno) => {
                self.cannot(name, errno);
                return None;
            }
        };
        let (mut reading, below) = self.limits(dir, reading, above);
        let place = into.len();
        reading.conditions.swap = Some(below.room.clone());
        reading.conditions.swappiness = self.swappiness;
        into.push(reading);
        let mut protected = Vec::new();
        self.each_child(dir, name, |survey, child, name| {
            // Protection of direct children counts, whether they are asked for or not.
            if depth < survey.depth {
                let child = survey.visit(child, name, depth + 1, &below, into);
                protected.extend(child.and_then(|at| into[at].as_protected()));
            } else {
                protected.extend(survey.protection(child, name));
            }
        });
        into[place].conditions.protected = protected;
        Some(place)
    }

    fn read(&mut self, dir: &OwnedFd, name: &str, depth: usize) -> Result<Reading, Errno> {
        let current = self.number(dir, c"memory.current");
        let stat = MemoryStat::parse(self.text(dir, c"memory.stat")?);
        let pressure = self.text(dir, c"memory.pressure").ok().and_then(Pressure::parse);
        let low = self.ceiling(dir, c"memory.low");
        let min = self.ceiling(dir, c"memory.min");
        Ok(Reading { name: name.to_owned(), depth, current, stat, min, low, pressure, ..Reading::default() })
    }

    /// Reads the limits of a level, and what it hands down.
    fn limits(&mut self, dir: &OwnedFd, mut reading: Reading, above: &Above) -> (Reading, Above) {
        reading.high = self.ceiling(dir, c"memory.high");
        reading.max = self.ceiling(dir, c"memory.max");
        reading.swap = self.number(dir, c"memory.swap.current");
        reading.swap_max = self.ceiling(dir, c"memory.swap.max");
        reading.bound = Bound::tighter(Bound::of(&reading), above.bound.as_ref());
        let room =
            above.room.clone().within(&reading.name, reading.swap_max.and_then(Ceiling::bytes), reading.swap);
        let below = Above { bound: reading.bound.clone(), room };
        (reading, below)
    }

    fn protection(&mut self, dir: &OwnedFd, name: &str) -> Option<Protected> {
        let min = self.number_or_max(dir, c"memory.min")?;
        let current = if min > 0 { self.number(dir, c"memory.current")? } else { 0 };
        if min.min(current) == 0 {
            return None;
        }
        let stat = MemoryStat::parse(self.text(dir, c"memory.stat").ok()?);
        let (file, anon) = (stat.evictable_file(), stat.evictable_anon());
        Some(Protected { name: name.to_owned(), min, current, file, anon })
    }

    fn each_child(&mut self, dir: &OwnedFd, name: &str, mut visit: impl FnMut(&mut Self, &OwnedFd, &str)) {
        let Ok(mut entries) = Dir::read_from(dir) else { return };
        while let Some(Ok(entry)) = entries.next() {
            let file_name = entry.file_name();
            if entry.file_type() != FileType::Directory || matches!(file_name.to_bytes(), b"." | b"..") {
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let name = Path::new(name).join(&*file_name.to_string_lossy()).to_string_lossy().into_owned();
            match rustix::fs::openat(dir, file_name, flags, Mode::empty()) {
                Ok(child) => visit(self, &child, &name),
                Err(Errno::NOENT | Errno::NODEV) => {}
                Err(errno) => self.cannot(&name, errno),
            }
        }
    }

    fn cannot(&mut self, name: &str, errno: Errno) {
        self.unreadable.push((name.to_owned(), errno));
    }

    fn text(&mut self, dir: impl AsFd, file: &CStr) -> Result<&str, Errno> {
        Reader::at(dir.as_fd(), file)?.read(&mut self.text)?;
        Ok(&self.text)
    }

    /// A number; `None` for `max` too.
    fn number(&mut self, dir: &OwnedFd, file: &CStr) -> Option<u64> {
        parse_number(self.text(dir, file).ok()?).ok()?
    }

    fn ceiling(&mut self, dir: &OwnedFd, file: &CStr) -> Option<Ceiling> {
        let number = parse_number(self.text(dir, file).ok()?).ok()?;
        Some(number.map_or(Ceiling::Max, Ceiling::Bytes))
    }

    fn number_or_max(&mut self, dir: &OwnedFd, file: &CStr) -> Option<u64> {
        Some(parse_number(self.text(dir, file).ok()?).ok()?.unwrap_or(u64::MAX))
    }
}

impl Reader {
    fn at(dir: BorrowedFd<'_>, file: &CStr) -> Result<Self, Errno> {
        rustix::fs::openat(dir, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map(Self)
    }
}
