//! Detection of the OOM killer that runs on this host.

use std::io;
use std::path::Path;

use crate::cgroup::error::error_text;
use crate::cgroup::is_populated;
use crate::host::files::optional;
use crate::host::proc::{errno_of, read_system_file};

/// Directories of systemd-oomd's rulesets (systemd.resource-control(5), `OOMRules=`).
pub(super) const RULES: [&str; 4] = [
    "/etc/systemd/oomd/rules.d",
    "/run/systemd/oomd/rules.d",
    "/usr/local/lib/systemd/oomd/rules.d",
    "/usr/lib/systemd/oomd/rules.d",
];

/// Units of the killers, below the root of the hierarchy.
const UNITS: [(&str, Killer); 2] =
    [("system.slice/systemd-oomd.service", Killer::SystemdOomd), ("system.slice/oomd.service", Killer::Oomd)];

/// Link of the initial PID namespace (`PROC_PID_INIT_INO`, `include/linux/proc_ns.h`).
const INITIAL: &str = "pid:[4026531836]";

/// Killer that chooses its victim by `pgscan`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Killer {
    /// systemd-oomd.
    SystemdOomd,
    /// facebook's oomd.
    Oomd,
}

impl Killer {
    /// Returns the name of the program.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SystemdOomd => "systemd-oomd",
            Self::Oomd => "oomd",
        }
    }

    /// Returns the killer with this process name.
    fn of_process(comm: &str) -> Option<Self> {
        [Self::SystemdOomd, Self::Oomd].into_iter().find(|killer| comm.trim_end() == killer.name())
    }
}

/// Result of the search for a running killer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Running {
    /// Running killer; facebook's oomd where both run, since only systemd-oomd can be queried.
    Killer(Killer),
    /// No killer runs.
    No,
    /// Other users' processes are hidden.
    Hidden,
    /// The search failed: the reason.
    Unknown(String),
}

/// Searches for a running killer: by its unit in the hierarchy mounted at `point`, which is visible
/// from any PID namespace, or else by its process.
pub(super) fn running(point: &Path) -> Running {
    let units = UNITS.into_iter().filter(|(unit, _)| is_populated(&point.join(unit)));
    let units: Vec<_> = units.map(|(_, killer)| killer).collect();
    if let Some(&killer) = units.last() {
        return Running::Killer(killer);
    }
    if std::fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() != INITIAL) {
        // The host's processes are hidden here, but the killers' cgroups would be visible.
        return Running::No;
    }
    by_processes(Path::new("/proc")).unwrap_or_else(|why| Running::Unknown(error_text(&why)))
}

/// Searches all processes. `/proc` may hide other users' processes (`hidepid=`), and PID 1 with
/// them.
fn by_processes(proc: &Path) -> io::Result<Running> {
    // `None` if the process is hidden or has ended.
    let name = |process: &Path| {
        let comm = read_system_file(&process.join("comm").to_string_lossy());
        optional(comm.map_err(|why| errno_of(&why)))
    };
    if name(&proc.join("1"))?.is_none() {
        return Ok(Running::Hidden);
    }
    let mut running = Running::No;
    for entry in std::fs::read_dir(proc)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit) {
            continue;
        }
        match name(&entry.path())?.and_then(|comm| Killer::of_process(&comm)) {
            Some(Killer::Oomd) => return Ok(Running::Killer(Killer::Oomd)),
            Some(killer) => running = Running::Killer(killer),
            None => {}
        }
    }
    Ok(running)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killer_is_known_by_its_process() {
        let proc = tempfile::tempdir().unwrap();
        let process = |pid: &str, comm: &str| {
            std::fs::create_dir_all(proc.path().join(pid)).unwrap();
            std::fs::write(proc.path().join(pid).join("comm"), format!("{comm}\n")).unwrap();
        };
        assert_eq!(by_processes(proc.path()).unwrap(), Running::Hidden);
        process("1", "systemd");
        process("sys", "oomd");
        process("7", "oomd_reaper");
        assert_eq!(by_processes(proc.path()).unwrap(), Running::No);
        process("8", "systemd-oomd");
        assert_eq!(by_processes(proc.path()).unwrap(), Running::Killer(Killer::SystemdOomd));
        process("9", "oomd");
        assert_eq!(by_processes(proc.path()).unwrap(), Running::Killer(Killer::Oomd));
    }

    #[test]
    fn a_killer_is_known_by_its_unit() {
        let root = tempfile::tempdir().unwrap();
        let unit = root.path().join(UNITS[0].0);
        std::fs::create_dir_all(&unit).unwrap();
        std::fs::write(unit.join("cgroup.events"), "populated 0\nfrozen 0\n").unwrap();
        assert_ne!(running(root.path()), Running::Killer(Killer::SystemdOomd));
        std::fs::write(unit.join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        assert_eq!(running(root.path()), Running::Killer(Killer::SystemdOomd));
    }
}
