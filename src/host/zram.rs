//! Swap on zram. Memory swapped out from a cgroup to zram stays in memory, compressed, and is
//! charged to no cgroup.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use super::files::optional;
use super::proc::{errno_of, read_system_file};
use super::reader::Reader;

/// Content of all zram devices used as swap, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Zram {
    /// Uncompressed size (`orig_data_size` of `mm_stat`).
    pub original: u64,
    /// Memory taken by the content (`mem_used_total`).
    pub used: u64,
}

impl Zram {
    /// Estimates the memory taken by `swapped` bytes, from the growth of the devices in the
    /// meantime. The devices don't report whose pages they hold, and others may have swapped at the
    /// same time.
    #[must_use]
    pub(crate) fn taken(before: Self, after: Self, swapped: u64) -> u64 {
        let (original, used) =
            (after.original.saturating_sub(before.original), after.used.saturating_sub(before.used));
        // Where the devices grew by less than was swapped, the rest went to other swap.
        let here = swapped.min(original);
        if original == 0 { 0 } else { (u128::from(used) * u128::from(here) / u128::from(original)) as u64 }
    }

    /// Reads the content of all zram devices used as swap; `None` if there are none.
    #[must_use]
    pub(crate) fn read_all() -> Option<Self> {
        Devices::find().ok()?.read(&mut String::new())
    }

    /// Parses an `mm_stat`.
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split_ascii_whitespace().map(str::parse);
        let original = fields.next()?.ok()?;
        let used = fields.nth(1)?.ok()?;
        Some(Self { original, used })
    }
}

/// Zram devices used as swap, held open.
#[derive(Debug)]
pub(crate) struct Devices(Vec<Reader>);

impl Devices {
    /// Finds and opens the devices.
    ///
    /// # Errors
    /// The kernel's error, if descriptors or memory are short.
    pub(crate) fn find() -> Result<Self, Errno> {
        let swaps = optional(read_system_file("/proc/swaps").map_err(|e| errno_of(&e)))?.unwrap_or_default();
        let open = |name: &str| optional(Reader::open(format!("/sys/block/{name}/mm_stat"))).transpose();
        names(&swaps).filter_map(open).collect::<Result<_, _>>().map(Self)
    }

    /// Returns the descriptors that they hold.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(AsFd::as_fd)
    }

    /// Reads the devices' content; `None` if there are no devices.
    pub(crate) fn read(&self, text: &mut String) -> Option<Zram> {
        let mut all: Option<Zram> = None;
        for device in &self.0 {
            device.read(text).ok()?;
            let one = Zram::parse(text)?;
            let sum = all.get_or_insert_default();
            sum.original += one.original;
            sum.used += one.used;
        }
        all
    }
}

/// Returns the names of the zram devices in the text of `/proc/swaps`.
fn names(swaps: &str) -> impl Iterator<Item = &str> {
    let devices = swaps.lines().skip(1).filter_map(|line| line.split_ascii_whitespace().next());
    devices.filter_map(|path| path.strip_prefix("/dev/")).filter(|name| name.starts_with("zram"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: u64 = 1 << 20;

    #[test]
    fn devices_and_their_figures_are_read() {
        let swaps =
            "Filename\tType\tSize\tUsed\tPriority\n/dev/sda2 partition 9 0 -2\n/dev/zram0 partition 9 0 -3\n";
        assert_eq!(names(swaps).collect::<Vec<_>>(), ["zram0"]);
        let text = "    4096       63    20480        0    20480        0        0        0        0\n";
        assert_eq!(Zram::parse(text), Some(Zram { original: 4096, used: 20480 }));
        assert_eq!((Zram::parse(""), Zram::parse("1 2\n"), Zram::parse("a b c")), (None, None, None));
    }

    #[test]
    fn what_was_taken_goes_by_the_growth() {
        let before = Zram { original: 100 * M, used: 40 * M };
        let after = Zram { original: 140 * M, used: 50 * M };
        assert_eq!(Zram::taken(before, after, 40 * M), 10 * M);
        assert_eq!(Zram::taken(before, after, 20 * M), 5 * M, "others swapped as well");
        assert_eq!(Zram::taken(before, after, 90 * M), 10 * M, "the rest went to a disk");
        assert_eq!(Zram::taken(before, before, 40 * M), 0);
        assert_eq!(Zram::taken(after, before, 40 * M), 0);
    }
}
