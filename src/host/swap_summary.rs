//! Swap areas of the host, taken together.

use super::swap_areas::{Speed, SwapAreas, SwapDevice, SwapSpace, sum};
use super::zram::Zram;
use super::zswap;

/// Swap areas of the host, taken together. Amounts are bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SwapSummary {
    /// Size and free space of all areas; `None` if the system's figures can't be true.
    pub space: Option<SwapSpace>,
    /// Speed of the slowest area; fast where zswap precedes them all.
    pub speed: Speed,
    /// Memory still taken by a byte of swap, as a share of the byte. This is an average: the memory
    /// used by zram over all that is swapped out. `None` if some area may be zram, and can't be
    /// examined.
    pub copied: Option<f64>,
    /// True if swapping may wear out a disk: not on zram, nor with zswap.
    pub wears: bool,
}

impl SwapSummary {
    /// Reads the state of these areas.
    #[must_use]
    pub(crate) fn of(areas: &SwapAreas) -> Self {
        let zram = if areas.has_zram() { Zram::read(areas) } else { Some(Zram::default()) };
        Self::new(areas, SwapSpace::read(), zram, zswap::is_on().unwrap_or(false))
    }

    fn new(areas: &SwapAreas, space: Option<SwapSpace>, zram: Option<Zram>, zswap: bool) -> Self {
        let all_zram = areas.is_complete && areas.visible.iter().all(SwapDevice::is_zram);
        let used = sum(areas.visible.iter().map(|device| device.used));
        let zram = zram.filter(|_| !areas.may_hide_zram());
        Self {
            space,
            speed: if zswap { Speed::Fast } else { areas.speed() },
            copied: zram.map(|zram| zram.used as f64 / used.max(zram.original).max(1) as f64),
            wears: !all_zram && !zswap,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::block::{Disk, Medium};

    fn area(path: &str, media: &[Medium]) -> SwapDevice {
        let disks = media.iter().map(|&medium| Disk { medium, dir: None }).collect();
        SwapDevice { path: path.into(), is_device: true, size: 1 << 20, used: 1 << 19, priority: 1, disks }
    }

    fn areas(media: &[&[Medium]]) -> SwapAreas {
        SwapAreas { visible: media.iter().map(|media| area("/x", media)).collect(), is_complete: true }
    }

    #[test]
    fn the_slowest_area_counts() {
        let zram = Some(Zram { original: 100 << 10, used: 40 << 10 });
        let of = |areas: &SwapAreas, zswap| SwapSummary::new(areas, None, zram, zswap);
        let mixed = areas(&[&[Medium::Zram], &[Medium::Solid, Medium::Rotating]]);
        let slow = of(&mixed, false);
        assert_eq!((slow.speed, slow.wears), (Speed::Slow, true));
        // 1 MiB is swapped out, and the part in zram takes 40 KiB.
        assert_eq!(slow.copied, Some(40.0 / 1024.0));
        let zswap = of(&mixed, true);
        assert_eq!((zswap.speed, zswap.wears), (Speed::Fast, false));
        let fast = of(&areas(&[&[Medium::Zram], &[Medium::Solid]]), false);
        assert_eq!((fast.speed, fast.wears), (Speed::Fast, true), "an SSD");
        let all_zram = of(&areas(&[&[Medium::Zram]]), false);
        assert_eq!((all_zram.speed, all_zram.wears), (Speed::Fast, false));
        let silent = of(&areas(&[&[Medium::Zram], &[Medium::Disk]]), false);
        assert_eq!((silent.speed, silent.wears, silent.copied.is_some()), (Speed::Unknown, true, true));
        for unknown in [
            areas(&[&[Medium::Zram], &[Medium::Unknown]]),
            SwapAreas { is_complete: false, ..areas(&[&[Medium::Zram]]) },
            SwapAreas { is_complete: false, ..areas(&[]) },
        ] {
            let unknown = of(&unknown, false);
            assert_eq!((unknown.speed, unknown.wears, unknown.copied), (Speed::Unknown, true, None));
        }
        let none = of(&areas(&[]), false);
        assert_eq!((none.speed, none.wears), (Speed::Fast, false));
    }
}
