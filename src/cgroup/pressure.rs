//! `memory.pressure`: time in which tasks of the cgroup were stalled for want of memory (PSI).

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::Cgroup;
use crate::host::{PsiState, Reader};

/// Returns the state of PSI for a cgroup.
#[must_use]
pub(crate) fn state(cgroup: &Cgroup) -> PsiState {
    let is_read = cgroup.read("memory.pressure").is_ok_and(|text| some_total(&text).is_some());
    if is_read { PsiState::On } else { state_without_figures(cgroup, PsiState::of_host) }
}

/// Returns the state of PSI for the cgroup in `dir`, whose `memory.pressure` has no figures; `host`
/// returns the state of the host. An owner can switch PSI off for the cgroup alone
/// (`cgroup.pressure`, since 6.1): the cgroup then has no `memory.pressure`.
#[must_use]
pub(crate) fn state_without_figures(dir: impl AsFd, host: impl FnOnce() -> PsiState) -> PsiState {
    let mut text = String::new();
    let is_read = Reader::at(dir, "cgroup.pressure").and_then(|file| file.read(&mut text)).is_ok();
    if is_read && text.trim() == "0" {
        return PsiState::OffHere;
    }
    match host() {
        PsiState::Off => PsiState::Off,
        _ => PsiState::Unknown,
    }
}

/// Returns the `some` total of a pressure file's text: microseconds in which at least one task was
/// stalled.
#[must_use]
pub(crate) fn some_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    line.split(' ').find_map(|field| field.strip_prefix("total="))?.parse().ok()
}

/// Content of a pressure file: stalls of `some` tasks, or of all (`full`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Stalls of at least one task.
    pub some: Stall,
    /// Stalls of all tasks; `None` where the kernel doesn't report them.
    pub full: Option<Stall>,
}

/// Share and duration of stalls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    /// Share of the last 10 s, hundredths of a percent.
    pub avg10: u16,
    /// Total, microseconds.
    pub total: u64,
}

impl Pressure {
    /// Parses the text of a pressure file.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(Self { some: stall(text, "some ")?, full: stall(text, "full ") })
    }
}

/// Returns the file with the memory pressure of the cgroup in `dir`. For the root of a hierarchy
/// mounted at `point`, this is the host's file, as in systemd-oomd.
#[must_use]
pub(crate) fn file(dir: &Path, point: &Path) -> PathBuf {
    let is_host = dir == point && !dir.join("cgroup.type").exists();
    if is_host { "/proc/pressure/memory".into() } else { dir.join("memory.pressure") }
}

/// Reads `full` avg10 from a file of memory pressure, hundredths of a percent; `None` if the file
/// can't be read. `text` is a reusable buffer.
#[must_use]
pub(crate) fn full_avg10(file: &Path, text: &mut String) -> Option<u16> {
    Reader::open(file).ok()?.read(text).ok()?;
    Some(Pressure::parse(text)?.full?.avg10)
}

fn stall(text: &str, of: &str) -> Option<Stall> {
    let line = text.lines().find_map(|line| line.strip_prefix(of))?;
    let field = |key| line.split(' ').find_map(|field| field.strip_prefix(key));
    let (whole, hundredths) = field("avg10=")?.split_once('.')?;
    let avg10 = whole.parse::<u16>().ok()?.checked_mul(100)?.checked_add(hundredths.parse().ok()?)?;
    // A share of time can't exceed 100%.
    let avg10 = Some(avg10).filter(|&avg10| avg10 <= 10_000)?;
    Some(Stall { avg10, total: field("total=")?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_some_is_read() {
        let text = "some avg10=0.12 avg60=0.03 avg300=0.00 total=12345\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n";
        assert_eq!(some_total(text), Some(12345));
        let pressure = Pressure::parse(text).unwrap();
        assert_eq!((pressure.some.avg10, pressure.full.unwrap().total), (12, 9));
        let all = Pressure::parse("some avg10=100.00 avg60=1.00 total=1\n").unwrap();
        assert_eq!((all.some.avg10, all.full), (10_000, None));
        assert_eq!(Pressure::parse("some avg10=655.99 total=1\n"), None);
        assert_eq!(Pressure::parse("some avg10=65599.00 total=1\n"), None);
        assert_eq!((Pressure::parse(""), Pressure::parse("some avg10=x.y total=1\n")), (None, None));
        assert_eq!(some_total(""), None);
        assert_eq!(some_total("full total=3\n"), None);
    }

    #[test]
    fn no_figures_are_no_proof_that_psi_is_off() {
        let dir = tempfile::tempdir().unwrap();
        let cgroup = super::super::open_directory(dir.path()).unwrap();
        let state = |host| state_without_figures(&cgroup, || host);
        assert_eq!(
            [PsiState::On, PsiState::Off, PsiState::Unknown].map(state),
            [PsiState::Unknown, PsiState::Off, PsiState::Unknown]
        );
        std::fs::write(dir.path().join("cgroup.pressure"), "1\n").unwrap();
        assert_eq!(state(PsiState::On), PsiState::Unknown);
        std::fs::write(dir.path().join("cgroup.pressure"), "0\n").unwrap();
        assert_eq!(state(PsiState::On), PsiState::OffHere);
    }
}
