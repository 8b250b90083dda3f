//! Swap on zram. Memory swapped out from a cgroup to zram stays in memory, compressed, and is
//! charged to no cgroup.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use super::block::Medium;
use super::files::optional;
use super::reader::Reader;
use super::swap_areas::SwapAreas;

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

    /// Reads the content of the zram devices among the areas; `None` if there are none, or one
    /// can't be read.
    #[must_use]
    pub(crate) fn read(areas: &SwapAreas) -> Option<Self> {
        Devices::among(areas).ok()?.read(&mut String::new())
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
pub(crate) struct Devices {
    files: Vec<Reader>,
    /// True if every area was examined, and every zram device can be read.
    is_complete: bool,
}

impl Devices {
    /// Finds and opens the devices. Where descriptors or memory are short, they count as hidden.
    #[must_use]
    pub(crate) fn find() -> Self {
        Self::among(&SwapAreas::read()).unwrap_or(Self { files: Vec::new(), is_complete: false })
    }

    fn among(areas: &SwapAreas) -> Result<Self, Errno> {
        let (mut files, mut is_complete) = (Vec::new(), !areas.may_hide_zram());
        for disk in areas.disks().filter(|disk| disk.medium == Medium::Zram) {
            let file = disk.dir.as_ref().map(|dir| optional(Reader::open(dir.join("mm_stat"))));
            match file.transpose()?.flatten() {
                Some(file) => files.push(file),
                None => is_complete = false,
            }
        }
        Ok(Self { files, is_complete })
    }

    /// Returns whether all memory that swap takes in zram is visible.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Returns the descriptors that they hold.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.files.iter().map(AsFd::as_fd)
    }

    /// Reads the devices' content; `None` if there are no devices.
    pub(crate) fn read(&self, text: &mut String) -> Option<Zram> {
        let mut all: Option<Zram> = None;
        for device in &self.files {
            device.read(text).ok()?;
            let one = Zram::parse(text)?;
            let sum = all.get_or_insert_default();
            sum.original = sum.original.saturating_add(one.original);
            sum.used = sum.used.saturating_add(one.used);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: u64 = 1 << 20;

    #[test]
    fn figures_are_read() {
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
