//! The host's counters of memory: `/proc/vmstat`.

use super::proc::{flat_keyed, page_size, read_system_file};
use super::reader::Reader;

const VMSTAT: &str = "/proc/vmstat";

/// Counters that are read again and again. The file is held open, since it is read before each action
/// where writes to swap are bounded.
#[derive(Debug, Default)]
pub(crate) struct HostCounters {
    file: Option<Reader>,
    text: String,
}

impl HostCounters {
    /// Returns the memory swapped out since the host was started, bytes; `None` if the counter
    /// can't be read.
    pub(crate) fn swapped_out(&mut self) -> Option<u64> {
        self.bytes("pswpout")
    }

    /// Returns the memory scanned by kswapd since then; `None` if the counter can't be read.
    pub(crate) fn kswapd_scanned(&mut self) -> Option<u64> {
        self.bytes("pgscan_kswapd")
    }

    fn bytes(&mut self, key: &str) -> Option<u64> {
        if self.file.is_none() {
            self.file = Reader::open(VMSTAT).ok();
        }
        self.file.as_ref()?.read(&mut self.text).ok()?;
        flat_keyed(&self.text, key)?.checked_mul(page_size())
    }
}

/// Returns the memory pinned now, bytes; `None` if unknown.
pub(super) fn pinned() -> Option<u64> {
    pinned_by(&read_system_file(VMSTAT).ok()?)
}

/// Returns the same from the text of a `/proc/vmstat`.
fn pinned_by(vmstat: &str) -> Option<u64> {
    let count = |key| flat_keyed(vmstat, key);
    let pages = count("nr_foll_pin_acquired")?.saturating_sub(count("nr_foll_pin_released")?);
    Some(pages.saturating_mul(page_size()))
}

/// Returns how often tasks had to reclaim memory of the whole host in their own time so far; `None`
/// if unknown: that of their own NUMA node alone (`vm.zone_reclaim_mode`) isn't counted.
pub(crate) fn allocation_stalls() -> Option<u64> {
    match read_system_file("/proc/sys/vm/zone_reclaim_mode") {
        Ok(mode) if mode.trim() != "0" => return None,
        Ok(_) => {}
        // Without NUMA there is no such file.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(_) => return None,
    }
    stalls(&read_system_file(VMSTAT).ok()?)
}

/// Returns the sum over all zones, from the text of a `/proc/vmstat`.
fn stalls(vmstat: &str) -> Option<u64> {
    let zones = vmstat.lines().filter_map(|line| line.strip_prefix("allocstall")?.split_once(' '));
    zones.map(|(_, count)| count.trim().parse::<u64>().ok()).reduce(|all, zone| Some(all? + zone?))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stalls_are_added_up_over_the_zones() {
        let vmstat =
            "nr_dirty 5\nallocstall_dma 1\nallocstall_normal 20\nallocstall_movable 300\npgsteal 9\n";
        assert_eq!(stalls(vmstat), Some(321));
        assert_eq!(
            (stalls("nr_dirty 5\n"), stalls("allocstall_dma x\nallocstall_normal 20\n")),
            (None, None)
        );
    }

    #[test]
    fn what_is_pinned_is_what_was_not_released() {
        let page = rustix::param::page_size() as u64;
        let text = "nr_dirty 5\nnr_foll_pin_acquired 30\nnr_foll_pin_released 10\n";
        assert_eq!(pinned_by(text), Some(20 * page));
        assert_eq!(pinned_by("nr_dirty 5\n"), None);
    }
}
