//! The benchmark's guest: its swap, and the kernel's counters.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::load::PAGE;

/// Switch of zswap, where the kernel has it.
const ZSWAP: &str = "/sys/module/zswap/parameters/enabled";

/// Swap of the guest.
#[derive(Clone, Copy, PartialEq)]
pub enum Swap {
    Zram,
    /// zswap in front of the guest's ordinary disk.
    Zswap,
    /// The guest's ordinary disk.
    Disk,
    /// A disk of 4 MB/s.
    Slow,
    None,
}

pub fn number(app: &Path, file: &str) -> Result<u64> {
    Ok(std::fs::read_to_string(app.join(file))?.trim().parse()?)
}

/// Returns the usage without what zswap keeps compressed.
pub fn used(app: &Path) -> Result<u64> {
    let stat = std::fs::read_to_string(app.join("memory.stat"))?;
    let copies = stat.lines().find_map(|line| line.strip_prefix("zswap "));
    let copies = copies.map(str::parse).transpose()?.unwrap_or(0);
    Ok(number(app, "memory.current")?.saturating_sub(copies))
}

/// Returns PSI some, in microseconds.
pub fn stall(app: &Path) -> Result<u64> {
    let text = std::fs::read_to_string(app.join("memory.pressure"))?;
    let total = text.lines().next().and_then(|line| line.rsplit_once("total=")).context("PSI")?.1;
    Ok(total.parse()?)
}

/// Returns a counter of memory.stat that counts pages, in bytes.
pub fn counter(app: &Path, key: &str) -> Result<u64> {
    let stat = std::fs::read_to_string(app.join("memory.stat"))?;
    let value = stat.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    Ok(PAGE * value.with_context(|| key.to_owned())?.parse::<u64>()?)
}

/// Returns the pages scanned for reclaim, and the pages reclaimed, so far.
pub fn scanned(app: &Path) -> Result<String> {
    let stat = std::fs::read_to_string(app.join("memory.stat"))?;
    let pages = |key: &str| stat.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("-");
    Ok(format!("scanned {}, taken {} pages", pages("pgscan "), pages("pgsteal ")))
}

/// The guest's swap while a shape runs: zram of 1 GiB, zswap, the slow disk, or none.
pub struct Swapped(Option<&'static str>);

impl Swapped {
    pub fn on(swap: Swap) -> Result<Self> {
        let device = match swap {
            Swap::None => return Ok(Self(None)),
            Swap::Slow => "/dev/vdc",
            Swap::Zswap | Swap::Disk => "/dev/vdb",
            Swap::Zram => "/dev/zram0",
        };
        if swap == Swap::Zram {
            std::fs::write("/sys/block/zram0/disksize", "1G")?;
            shell("mkswap /dev/zram0 >/dev/null")?;
        }
        if swap == Swap::Zswap {
            std::fs::write(ZSWAP, "Y").context(ZSWAP)?;
        }
        shell(&format!("swapon {device}"))?;
        Ok(Self(Some(device)))
    }
}

impl Drop for Swapped {
    fn drop(&mut self) {
        let Some(device) = self.0 else { return };
        let _ = shell(&format!("swapoff {device}"));
        match device {
            "/dev/zram0" => drop(std::fs::write("/sys/block/zram0/reset", "1")),
            // Off before as well, or not there.
            "/dev/vdb" => drop(std::fs::write(ZSWAP, "N")),
            _ => {}
        }
    }
}

pub fn shell(command: &str) -> Result<()> {
    let status = Command::new("/bin/sh").args(["-c", command]).status()?;
    ensure!(status.success(), "{command}: {status}");
    Ok(())
}
