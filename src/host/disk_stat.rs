//! Counters of a disk: `stat` in its directory in sysfs (Documentation/block/stat.rst).

use std::path::Path;
use std::time::Duration;

use super::block::SECTOR;
use super::proc::read_in;

/// Counters of a disk since it appeared, or the sums of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DiskStat {
    /// Bytes written.
    pub written: u64,
    /// Requests that it has and hasn't finished. What waits above it, for a limit of a cgroup
    /// (`io.max`), is none.
    pub in_flight: u64,
    /// Time for which it had requests; of several disks the sum.
    pub busy: Duration,
}

impl DiskStat {
    /// Reads the counters of the disk with this directory in sysfs; `None` if they can't be read.
    #[must_use]
    pub(crate) fn read(dir: &Path) -> Option<Self> {
        Self::parse(&read_in(dir, "stat").ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split_ascii_whitespace().map(str::parse::<u64>);
        // Reads, reads merged, sectors read, their time; writes, writes merged: the seventh is next.
        let written = fields.nth(6)?.ok()?.checked_mul(SECTOR)?;
        let in_flight = fields.nth(1)?.ok()?;
        let busy = Duration::from_millis(fields.next()?.ok()?);
        Some(Self { written, in_flight, busy })
    }

    /// Returns the sums of this disk and another.
    #[must_use]
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            written: self.written.saturating_add(other.written),
            in_flight: self.in_flight.saturating_add(other.in_flight),
            busy: self.busy.saturating_add(other.busy),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_those_of_the_kernel() {
        // 7.3, of a disk that wrote 300 MiB; before 5.5 and 4.18 there are fewer fields.
        let text = "     101        5     4444      300    39000      200   614400    28000        3     9000    29000 \
                    7        0     8888       20       11      700\n";
        let stat = DiskStat { written: 300 << 20, in_flight: 3, busy: Duration::from_secs(9) };
        assert_eq!(DiskStat::parse(text), Some(stat));
        assert_eq!(DiskStat::parse("1 0 8 0 0 0 0 0 0 4 4\n").map(|stat| stat.written), Some(0));
        let sum = DiskStat { written: 600 << 20, in_flight: 6, busy: Duration::from_secs(18) };
        assert_eq!(stat.plus(stat), sum);
        for text in ["", "1 2 3", "1 0 8 0 0 0 -1 0 0 4 4", "1 0 8 0 0 0 18446744073709551615 0 0 4 4"] {
            assert_eq!(DiskStat::parse(text), None, "{text}");
        }
        assert_eq!(DiskStat::read(Path::new("/sys/block/none")), None);
    }
}
