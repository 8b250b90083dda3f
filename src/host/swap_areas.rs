//! Swap areas of the host: size, free space, medium and speed.
//!
//! The size of all swap comes from sysinfo(2): what `/proc` shows may be hidden (`subset=pid`), or
//! written by another program (lxcfs). `/proc/swaps` says only which areas there are.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use super::block::{BlockDevices, Disk, Medium, Number};
use super::proc::{meminfo_bytes, page_size, read_bytes, read_system_file, unescape};

/// Swap area, a line of `/proc/swaps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SwapDevice {
    /// Path, in the bytes that the administrator chose. It may lead nowhere here, or elsewhere: the
    /// kernel prints it as seen from the mount namespace in which the area was switched on.
    pub path: PathBuf,
    /// True for a block device, false for a file.
    pub is_device: bool,
    /// Size, bytes.
    pub size: u64,
    /// Swap in use, bytes.
    pub used: u64,
    /// Priority; the kernel fills areas of higher priority first.
    pub priority: i32,
    /// Disks that hold the area: at least one, which may be an unknown one.
    pub disks: Vec<Disk>,
}

/// Swap areas of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SwapAreas {
    /// Areas that are visible here, in the order in which the kernel fills them.
    pub visible: Vec<SwapDevice>,
    /// True if the kernel has no other areas.
    pub is_complete: bool,
}

/// Size of all swap, from sysinfo(2). Amounts are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SwapSpace {
    /// Size of all areas.
    pub total: u64,
    /// Free swap of all areas.
    pub free: u64,
}

/// Speed of swap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Speed {
    /// Memory, or disks that don't rotate.
    Fast,
    /// A rotating disk among them.
    Slow,
    /// Unknown: some area is hidden, or on a disk that doesn't say.
    #[default]
    Unknown,
}

impl SwapDevice {
    /// Returns the medium: of several disks the slowest, or least known.
    #[must_use]
    pub(crate) fn medium(&self) -> Medium {
        self.disks.iter().map(|disk| disk.medium).max().unwrap_or(Medium::Unknown)
    }

    /// Returns whether the area is compressed memory (zram).
    #[must_use]
    pub(crate) fn is_zram(&self) -> bool {
        self.medium() == Medium::Zram
    }

    /// Finds the disks that hold the area.
    fn find_disks(&mut self, devices: &BlockDevices) {
        let number = if self.is_device { self.device(devices) } else { Number::of_file(&self.path) };
        self.disks = number.map_or_else(|| vec![Disk::UNKNOWN], |number| devices.disks(number));
    }

    /// Returns the number of the block device. Where the path leads nowhere, or to a device too
    /// small to be the area, it is found by its name in sysfs, or by its size.
    fn device(&self, devices: &BlockDevices) -> Option<Number> {
        // The first page of an area is its header.
        let whole = self.size.saturating_add(page_size());
        let fits = |number: &Number| devices.size(*number).is_some_and(|size| size >= whole);
        let meta = std::fs::metadata(&self.path).ok().filter(|meta| meta.file_type().is_block_device());
        let at_path = meta.map(|meta| Number::new(meta.rdev())).filter(fits);
        let by_name = || devices.named(self.path.file_name()?).filter(fits);
        at_path.or_else(by_name).or_else(|| devices.only_one_of(whole))
    }
}

impl SwapAreas {
    /// Reads the areas.
    #[must_use]
    pub(crate) fn read() -> Self {
        let total = SwapSpace::read().map(|space| space.total);
        let listed = read_bytes("/proc/swaps").ok();
        let mut areas = Self::new(listed.as_deref(), total);
        if !areas.visible.is_empty() {
            let devices = BlockDevices::of_host();
            areas.visible.iter_mut().for_each(|area| area.find_disks(&devices));
        }
        areas
    }

    /// Returns the areas in the text of `/proc/swaps`, `None` if that can't be read, on a host with
    /// this much swap in all. During swapoff(2) an area is listed that no longer counts.
    fn new(listed: Option<&[u8]>, total: Option<u64>) -> Self {
        let visible = listed.map(parse).unwrap_or_default();
        let sum = sum(visible.iter().map(|area| area.size));
        let is_complete = total.map_or(listed.is_some(), |total| sum >= total);
        Self { visible, is_complete }
    }

    /// Returns whether some area is zram.
    #[must_use]
    pub(crate) fn has_zram(&self) -> bool {
        self.disks().any(|disk| disk.medium == Medium::Zram)
    }

    /// Returns whether some area can't be examined, and may be zram.
    #[must_use]
    pub(crate) fn may_hide_zram(&self) -> bool {
        !self.is_complete || self.disks().any(|disk| disk.medium == Medium::Unknown)
    }

    /// Returns the speed of the slowest area.
    #[must_use]
    pub(crate) fn speed(&self) -> Speed {
        let slowest = self.visible.iter().map(SwapDevice::medium).max();
        match slowest {
            Some(Medium::Rotating) => Speed::Slow,
            Some(Medium::Disk | Medium::Unknown) => Speed::Unknown,
            _ if !self.is_complete => Speed::Unknown,
            Some(Medium::Zram | Medium::Solid) | None => Speed::Fast,
        }
    }

    /// Returns the directories in sysfs of the disks of all areas; `None` if some aren't known, or
    /// some are zram: what is swapped out to that isn't told apart.
    #[must_use]
    pub(crate) fn disk_dirs(&self) -> Option<Vec<PathBuf>> {
        if !self.is_complete {
            return None;
        }
        let dir = |disk: &Disk| disk.dir.clone().filter(|_| disk.medium != Medium::Zram);
        let mut dirs: Vec<_> = self.disks().map(dir).collect::<Option<_>>()?;
        // Several areas may lie on one disk.
        dirs.sort();
        dirs.dedup();
        Some(dirs)
    }

    /// Returns the disks of all areas.
    pub(crate) fn disks(&self) -> impl Iterator<Item = &Disk> {
        self.visible.iter().flat_map(|area| &area.disks)
    }
}

impl SwapSpace {
    /// Reads the size of all swap; `None` if the system's figures can't be true.
    #[must_use]
    pub(crate) fn read() -> Option<Self> {
        let info = rustix::system::sysinfo();
        // The kernel's types are as wide as a pointer.
        #[allow(clippy::unnecessary_cast)]
        let (total, free) = (info.totalswap as u64, info.freeswap as u64);
        Self::checked(total, free, u64::from(info.mem_unit))
    }

    fn checked(total: u64, free: u64, unit: u64) -> Option<Self> {
        let space = Self { total: total.checked_mul(unit)?, free: free.checked_mul(unit)? };
        (space.free <= space.total).then_some(space)
    }

    /// Returns what `/proc/meminfo` shows instead, if that is something else: total and free.
    #[must_use]
    pub(crate) fn shown_otherwise(self) -> Option<(u64, u64)> {
        self.differs_from(&read_system_file("/proc/meminfo").ok()?)
    }

    fn differs_from(self, meminfo: &str) -> Option<(u64, u64)> {
        let bytes = |key| meminfo_bytes(meminfo, key).unwrap_or(u64::MAX);
        let shown = (bytes("SwapTotal"), bytes("SwapFree"));
        // Free swap changes all the time, the total doesn't.
        (meminfo.contains("SwapTotal:") && (shown.0 != self.total || shown.1 > shown.0)).then_some(shown)
    }
}

pub(super) fn sum(amounts: impl Iterator<Item = u64>) -> u64 {
    amounts.fold(0, u64::saturating_add)
}

fn parse(text: &[u8]) -> Vec<SwapDevice> {
    let lines = text.split(|&byte| byte == b'\n').skip(1).filter_map(|line| {
        // Blank, tab, newline and backslash are escaped in a path (`swap_show`, mm/swapfile.c), so
        // no field contains any.
        let mut fields = line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
        let path = unescape(fields.next()?);
        let is_device = fields.next()? == b"partition";
        let mut numbers = fields.map(|field| std::str::from_utf8(field).ok());
        let mut kib = || numbers.next()??.parse::<u64>().ok()?.checked_mul(1024);
        let (size, used) = (kib()?, kib()?);
        // Impossible: not the kernel's line.
        if used > size {
            return None;
        }
        let priority = numbers.next()??.parse().ok()?;
        Some(SwapDevice { path, is_device, size, used, priority, disks: vec![Disk::UNKNOWN] })
    });
    let mut swaps: Vec<_> = lines.collect();
    swaps.sort_by_key(|swap| std::cmp::Reverse(swap.priority));
    swaps
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    use super::*;
    use crate::host::block::tests::Sysfs;

    const SWAPS: &[u8] = b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n\
        /dev/zram0 partition\t1000\t400\t100\n/dev/sda2 partition\t3000\t0\t-2\n";

    fn area(path: &str, media: &[Medium]) -> SwapDevice {
        let disks = media.iter().map(|&medium| Disk { medium, dir: None }).collect();
        SwapDevice { path: path.into(), is_device: true, size: 1 << 20, used: 1 << 19, priority: 1, disks }
    }

    #[test]
    fn swaps_come_in_the_order_of_filling() {
        let text = b"Filename Type Size Used Priority\n/dev/sda2 partition 1024 0 -2\n/dev/zram0 partition 2048 5 100\n";
        let found = parse(text);
        assert_eq!(
            (found[0].path.as_path(), found[0].size, found[0].priority),
            (Path::new("/dev/zram0"), 2 << 20, 100)
        );
        assert_eq!((found[0].used, found[1].size), (5 << 10, 1 << 20));
        assert!(found[0].is_device && !found[0].is_zram(), "a name is no evidence");
        assert!(parse(b"").is_empty());
        let odd = parse(
            b"Filename\n/swap\\040file\\012\xe9 file 8 4 -1\n/huge file 99999999999999999999 0 -1\nx\n/full file 4 5 0\n",
        );
        assert_eq!(odd.len(), 1, "a line that can't be read counts for itself alone");
        assert_eq!(odd[0].path.as_os_str().as_bytes(), b"/swap file\n\xe9");
        assert!(!odd[0].is_device);
    }

    #[test]
    fn the_disks_of_all_areas_are_known_or_none() {
        let on = |all: &[(Medium, Option<&str>)]| {
            let disks =
                all.iter().map(|&(medium, dir)| Disk { medium, dir: dir.map(PathBuf::from) }).collect();
            SwapAreas { visible: vec![SwapDevice { disks, ..area("/x", &[]) }], is_complete: true }
        };
        let disk = (Medium::Disk, Some("/sys/b"));
        let two = on(&[disk, (Medium::Rotating, Some("/sys/a")), disk]);
        assert_eq!(two.disk_dirs(), Some(vec!["/sys/a".into(), "/sys/b".into()]), "each once");
        assert_eq!(SwapAreas { is_complete: false, ..two }.disk_dirs(), None);
        assert_eq!(on(&[disk, (Medium::Zram, Some("/sys/zram0"))]).disk_dirs(), None);
        assert_eq!(on(&[disk, (Medium::Unknown, None)]).disk_dirs(), None);
        assert_eq!(SwapAreas { visible: Vec::new(), is_complete: true }.disk_dirs(), Some(Vec::new()));
    }

    #[test]
    fn areas_that_are_hidden_are_unknown() {
        let is_complete = |listed, total| SwapAreas::new(listed, total).is_complete;
        assert!(is_complete(Some(SWAPS), Some(4000 << 10)));
        assert!(is_complete(Some(SWAPS), Some(1000 << 10)), "a swapoff");
        assert!(is_complete(Some(b"Filename"), Some(0)) && is_complete(None, Some(0)), "no swap");
        assert!(!is_complete(Some(SWAPS), Some(4001 << 10)));
        assert!(!is_complete(Some(b"Filename"), Some(4096)) && !is_complete(None, Some(4096)));
        assert!(is_complete(Some(b"Filename"), None) && !is_complete(None, None));
    }

    #[test]
    fn impossible_figures_are_refused() {
        let space = SwapSpace { total: 400, free: 100 };
        assert_eq!(SwapSpace::checked(100, 25, 4), Some(space));
        assert_eq!(SwapSpace::checked(100, 101, 1), None);
        assert_eq!(SwapSpace::checked(0, u64::MAX - 9, 1), None);
        assert_eq!(SwapSpace::checked(u64::MAX, 1, 4096), None);
        let space = SwapSpace { total: 4096, free: 1024 };
        let shown = |meminfo| space.differs_from(meminfo);
        assert_eq!(shown("SwapTotal: 4 kB\nSwapFree: 2 kB\n"), None);
        assert_eq!(shown("SwapTotal: 0 kB\nSwapFree: 0 kB\n"), Some((0, 0)));
        assert_eq!(shown("SwapTotal: 4 kB\nSwapFree: 5 kB\n"), Some((4096, 5120)));
        assert_eq!(shown("SwapTotal: 0 kB\nSwapFree: 18446744073709346016 kB\n"), Some((0, u64::MAX)));
        assert_eq!(shown(""), None, "an older kernel, or a kernel without swap");
    }

    #[test]
    fn a_device_is_found_whatever_its_path() {
        let sysfs = Sysfs::new();
        sysfs.add("virtual/block/zram0", "252:0", 1 << 20);
        sysfs.add("virtual/block/zram1", "252:1", 4 << 20);
        sysfs.add("pci0/ata1/block/sda", "8:0", 1 << 20);
        let devices = sysfs.devices();
        let medium = |path: &str, size: u64| {
            let mut area = SwapDevice { size: size - page_size(), ..area(path, &[]) };
            area.find_disks(&devices);
            area.medium()
        };
        for path in ["/zram0", "/dev/block/zram0", "/a b/zram0", "/nowhere/zram1"] {
            assert_eq!(medium(path, 1 << 20), Medium::Zram, "{path}");
        }
        assert_eq!(medium("/nowhere/zram0", 2 << 20), Medium::Unknown, "larger than the device");
        assert_eq!(medium("/by-id/swap", 4 << 20), Medium::Zram, "the only one of that size");
        assert_eq!(medium("/by-id/swap", 1 << 20), Medium::Unknown, "one of two");
        assert_eq!(medium("/dev/null", 1 << 20), Medium::Unknown, "no block device");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("zram0");
        std::fs::write(&path, "").unwrap();
        let mut file = SwapDevice { is_device: false, path, ..area("", &[]) };
        file.find_disks(&devices);
        assert_ne!(file.medium(), Medium::Zram, "a file's name is no device's");
    }
}
