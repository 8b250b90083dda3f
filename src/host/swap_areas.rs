//! Swap areas of the host: size, free space and speed.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::proc::{flat_keyed, page_size, read_bytes, read_in, unescape};
use super::reader::Reader;
use super::zram::Zram;
use super::zswap;

/// Swap area, a line of `/proc/swaps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SwapDevice {
    /// Path, in the bytes that the administrator chose.
    pub path: PathBuf,
    /// Size, bytes.
    pub size: u64,
    /// Swap in use, bytes.
    pub used: u64,
    /// Priority; the kernel fills areas of higher priority first.
    pub priority: i32,
}

/// Swap areas of the host, taken together. Amounts are bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct SwapSummary {
    /// Size of all areas.
    pub total: u64,
    /// Free swap of all areas.
    pub free: u64,
    /// True if no area lies on a rotating disk, or if zswap precedes them all.
    pub quick: bool,
    /// Memory still taken by a byte of swap, as a share of the byte. This is an average: the memory
    /// used by zram over all that is swapped out.
    pub copied: f64,
    /// True if swapping wears out a disk: not on zram, nor with zswap.
    pub wears: bool,
}

impl SwapDevice {
    /// Returns whether the area is compressed memory (zram).
    #[must_use]
    pub(crate) fn is_zram(&self) -> bool {
        self.path.as_os_str().as_bytes().starts_with(b"/dev/zram")
    }

    /// Returns the free swap, bytes.
    #[must_use]
    pub(crate) fn free(&self) -> u64 {
        self.size.saturating_sub(self.used)
    }
}

impl SwapSummary {
    /// Reads the state of all areas.
    #[must_use]
    pub(crate) fn read() -> Self {
        let devices = devices();
        let zram = devices.iter().any(SwapDevice::is_zram).then(Zram::read_all).flatten().unwrap_or_default();
        Self::new(&devices, zram, zswap::is_on().unwrap_or(false), rotates)
    }

    /// Returns the free swap of all areas, bytes, without examining the areas.
    #[must_use]
    pub(crate) fn free() -> u64 {
        let info = rustix::system::sysinfo();
        // The kernel's type is as wide as a pointer.
        #[allow(clippy::unnecessary_cast)]
        let free = info.freeswap as u64;
        free.saturating_mul(u64::from(info.mem_unit))
    }

    fn new(devices: &[SwapDevice], zram: Zram, zswap: bool, rotates: impl Fn(&Path) -> bool) -> Self {
        let worn: Vec<_> = devices.iter().filter(|device| !device.is_zram() && !zswap).collect();
        let swapped = devices.iter().map(|device| device.used).sum::<u64>().max(zram.original);
        Self {
            copied: zram.used as f64 / swapped.max(1) as f64,
            total: devices.iter().map(|device| device.size).sum(),
            free: devices.iter().map(SwapDevice::free).sum(),
            quick: !worn.iter().any(|device| rotates(&device.path)),
            wears: !worn.is_empty(),
        }
    }
}

/// Returns the host's swap areas, in the order in which the kernel fills them.
#[must_use]
pub(crate) fn devices() -> Vec<SwapDevice> {
    parse(&read_bytes("/proc/swaps").unwrap_or_default())
}

fn parse(text: &[u8]) -> Vec<SwapDevice> {
    let lines = text.split(|&byte| byte == b'\n').skip(1).filter_map(|line| {
        // Blank, tab, newline and backslash are escaped in a path (`swap_show`, mm/swapfile.c), so
        // no field contains any.
        let mut fields = line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
        let path = unescape(fields.next()?);
        let mut numbers = fields.skip(1).map(|field| std::str::from_utf8(field).ok());
        let mut kib = || numbers.next()??.parse::<u64>().ok()?.checked_mul(1024);
        let (size, used) = (kib()?, kib()?);
        Some(SwapDevice { path, size, used, priority: numbers.next()??.parse().ok()? })
    });
    let mut swaps: Vec<_> = lines.collect();
    swaps.sort_by_key(|swap| std::cmp::Reverse(swap.priority));
    swaps
}

/// Counter of swap-outs, from `/proc/vmstat`. The file is held open, since it is read before each
/// action where writes to swap are bounded.
#[derive(Debug, Default)]
pub(crate) struct SwapOutCounter {
    file: Option<Reader>,
    text: String,
}

impl SwapOutCounter {
    /// Returns the memory swapped out since the host was started, bytes; `None` if the counter
    /// can't be read.
    pub(crate) fn read(&mut self) -> Option<u64> {
        if self.file.is_none() {
            self.file = Reader::open("/proc/vmstat").ok();
        }
        self.file.as_ref()?.read(&mut self.text).ok()?;
        flat_keyed(&self.text, "pswpout")?.checked_mul(page_size())
    }
}

/// Returns whether a swap area lies on a rotating disk, as reported by the kernel. An area without
/// a report counts as rotating.
fn rotates(area: &Path) -> bool {
    let device = std::fs::metadata(area).map(|meta| {
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        if meta.file_type().is_block_device() { meta.rdev() } else { meta.dev() }
    });
    let Ok(device) = device else { return true };
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let sysfs = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    // A partition has no queue of its own: its disk, the directory above, does.
    let queue = ["queue/rotational", "../queue/rotational"];
    let said = queue.iter().find_map(|file| read_in(&sysfs, file).ok());
    said.is_none_or(|said| said.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SWAPS: &[u8] = b"Filename\t\t\tType\t\tSize\t\tUsed\t\tPriority\n\
        /dev/zram0 partition\t1000\t400\t100\n/dev/sda2 partition\t3000\t0\t-2\n";

    #[test]
    fn swaps_come_in_the_order_of_filling() {
        let text = b"Filename Type Size Used Priority\n/dev/sda2 partition 1024 0 -2\n/dev/zram0 partition 2048 5 100\n";
        let found = parse(text);
        assert_eq!(
            (found[0].path.as_path(), found[0].size, found[0].priority),
            (Path::new("/dev/zram0"), 2 << 20, 100)
        );
        assert_eq!((found[0].free(), found[1].free()), (2043 << 10, 1 << 20));
        assert!(found[0].is_zram() && !found[1].is_zram());
        assert!(parse(b"").is_empty());
        let odd = parse(
            b"Filename\n/swap\\040file\\012\xe9 file 8 4 -1\n/huge file 99999999999999999999 0 -1\nx\n",
        );
        assert_eq!(odd.len(), 1, "a line that can't be read counts for itself alone");
        assert_eq!(odd[0].path.as_os_str().as_bytes(), b"/swap file\n\xe9");
    }

    #[test]
    fn areas_add_up_and_the_slowest_counts() {
        let zram = Zram { original: 100 * 1024, used: 40 * 1024 };
        let areas = |zswap, rotates: bool| SwapSummary::new(&parse(SWAPS), zram, zswap, |_| rotates);
        let slow = areas(false, true);
        // 400K are swapped out, and the part in zram takes 40K.
        let expected =
            SwapSummary { total: 4000 * 1024, free: 3600 * 1024, copied: 0.1, quick: false, wears: true };
        assert_eq!(slow, expected);
        assert!(areas(false, false).quick, "an SSD");
        let zswap = areas(true, true);
        assert!(zswap.quick && !zswap.wears);
        let none = SwapSummary::new(&[], Zram::default(), false, |_| true);
        assert_eq!((none.total, none.quick, none.wears), (0, true, false));
    }
}
