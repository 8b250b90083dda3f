//! OOM killers that choose their victim by `pgscan`: which of them runs, which cgroups it monitors,
//! and with which limits. `pgscan` includes the pages that memctl scans.
//!
//! systemd-oomd (`oomd_select_by_pgscan_rate`, src/oom/oomd-util.c) and facebook's oomd
//! (`kill_by_pg_scan`) take the cgroup below a monitored one whose `pgscan` in memory.stat grew
//! most within their last interval, a second or a few. Both compare `full` avg10 of the monitored
//! cgroup's memory.pressure with its limit (`oomd_cgroup_context_acquire` reads
//! `PRESSURE_TYPE_FULL`; oomd's `mem_pressure()`). The attributes `user.oomd_avoid` and
//! `user.oomd_omit` are preferences among the victims: they don't show which cgroups are monitored.
//!
//! PID 1 passes the list on `/run/systemd/io.systemd.ManagedOOM` to systemd-oomd.service alone
//! (`vl_method_subscribe_managed_oom_cgroups`, src/core/core-varlink.c), and doesn't know what the
//! users' own managers report. systemd-oomd itself shows both lists, with the limits in force, to
//! any user: `oomctl`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::mount::Mount;

mod oomctl;
mod running;

pub use running::Killer;
use running::{RULES, Running};

/// Default of `SwapUsedLimit=`, hundredths of a percent (oomd.conf(5)).
const SWAP_USED_LIMIT: u16 = 9000;

/// State of the OOM killers of this host, as far as known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Killers {
    /// Running killer; `None` if none runs, or if that isn't known.
    pub killer: Option<Killer>,
    /// Cgroups monitored for memory pressure.
    pub by_pressure: Vec<Monitored>,
    /// Directories of the cgroups monitored for swap.
    pub by_swap: Vec<PathBuf>,
    /// Shares of swap and of memory in use above which the largest user of swap is killed,
    /// hundredths of a percent.
    pub swap_used_limit: u16,
    /// Reason why more may be monitored than listed here.
    pub unknown: Option<Unknown>,
}

/// Cgroup monitored for memory pressure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Monitored {
    /// Directory of the cgroup.
    pub dir: PathBuf,
    /// `full` avg10 above which a cgroup below this one is killed, hundredths of a percent.
    pub limit: u16,
}

/// Reason why the monitored cgroups aren't known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// Only a part of the hierarchy is visible: a cgroup namespace, or a mount of a part.
    #[error("cgroups above the visible hierarchy are unknown")]
    OutOfSight,
    /// `oomctl` gave no list.
    #[error("systemd-oomd runs, but can't be queried: {0}")]
    NotAsked(String),
    /// `OOMRules=` (since systemd 261), which `oomctl` doesn't show.
    #[error("systemd-oomd has rulesets (*.oomrule), but doesn't list their units")]
    Rules,
    /// facebook's oomd, which has a configuration of its own.
    #[error("oomd runs, but doesn't report what it monitors")]
    Oomd,
    /// `/proc` hides the processes of others.
    #[error("other users' processes are hidden, possibly an OOM killer")]
    Hidden,
    /// The processes couldn't be searched.
    #[error("processes can't be searched: {0}")]
    NotSearched(String),
}

impl Killers {
    /// Finds out which cgroups of a mount's hierarchy are monitored. Takes up to some seconds.
    #[must_use]
    pub(crate) fn ask(mount: &Mount) -> Self {
        if mount.hidden().is_some() {
            return Self::unknown(None, Unknown::OutOfSight);
        }
        match running::running(&mount.point) {
            Running::No => Self::default(),
            Running::Unknown(why) => Self::unknown(None, Unknown::NotSearched(why)),
            Running::Hidden => Self::unknown(None, Unknown::Hidden),
            Running::Killer(Killer::Oomd) => Self::unknown(Some(Killer::Oomd), Unknown::Oomd),
            Running::Killer(Killer::SystemdOomd) => Self::of_systemd(mount, oomctl::dump(), has_rules()),
        }
    }

    /// Returns a directory known to be monitored for swap that is above, at or below `dir`.
    #[must_use]
    pub(crate) fn swap_monitor(&self, dir: &Path) -> Option<&Path> {
        self.by_swap.iter().map(PathBuf::as_path).find(|monitored| is_related(monitored, dir))
    }

    /// Returns the cgroups monitored for pressure above, at or below `dir`: reclaim from `dir`
    /// scans candidates of each.
    pub(crate) fn pressure_monitors<'a>(&'a self, dir: &'a Path) -> impl Iterator<Item = &'a Monitored> {
        self.by_pressure.iter().filter(move |monitored| is_related(&monitored.dir, dir))
    }

    fn unknown(killer: Option<Killer>, why: Unknown) -> Self {
        Self { killer, unknown: Some(why), ..Self::default() }
    }

    fn of_systemd(mount: &Mount, dump: Result<Vec<u8>, String>, has_rules: bool) -> Self {
        let killer = Some(Killer::SystemdOomd);
        let parsed = dump.and_then(|dump| {
            Self::parse(&dump, &mount.point).ok_or_else(|| "oomctl's output can't be parsed".to_owned())
        });
        match parsed {
            Ok(killers) => Self { unknown: has_rules.then_some(Unknown::Rules), ..killers },
            Err(why) => Self::unknown(killer, Unknown::NotAsked(why)),
        }
    }

    /// Parses the output of `oomctl` (`manager_get_dump_string`, src/oom/oomd-manager.c), for
    /// cgroups below `point`. A cgroup with an unreadable limit counts with the lowest possible
    /// limit.
    fn parse(dump: &[u8], point: &Path) -> Option<Self> {
        let mut killers =
            Self { killer: Some(Killer::SystemdOomd), swap_used_limit: SWAP_USED_LIMIT, ..Self::default() };
        let (mut section, mut sections) = (Section::Host, 0);
        for line in dump.split(|&byte| byte == b'\n') {
            let text = line.trim_ascii_start();
            match text {
                b"Swap Monitored CGroups:" => (section, sections) = (Section::Swap, sections + 1),
                b"Memory Pressure Monitored CGroups:" => {
                    (section, sections) = (Section::Pressure, sections + 1);
                }
                _ => {}
            }
            if let Some(path) = text.strip_prefix(b"Path: ") {
                let below = path.strip_prefix(b"/").unwrap_or(path);
                let dir = if below.is_empty() { point.into() } else { point.join(OsStr::from_bytes(below)) };
                match section {
                    Section::Host => {}
                    Section::Swap => killers.by_swap.push(dir),
                    Section::Pressure => killers.by_pressure.push(Monitored { dir, limit: 0 }),
                }
            } else if let Some(limit) = text.strip_prefix(b"Memory Pressure Limit: ") {
                if let Some(monitored) = killers.by_pressure.last_mut() {
                    monitored.limit = percent(limit).unwrap_or(0);
                }
            } else if let Some(limit) = text.strip_prefix(b"Swap Used Limit: ") {
                killers.swap_used_limit = percent(limit).unwrap_or(SWAP_USED_LIMIT);
            }
        }
        (sections == 2).then_some(killers)
    }
}

enum Section {
    Host,
    Swap,
    Pressure,
}

/// Returns whether two paths are the same, or one is above the other.
fn is_related(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// Parses `5.00%`, or `60%` before systemd 249, into hundredths of a percent.
fn percent(text: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(text).ok()?.trim_end().strip_suffix('%')?;
    let (whole, part) = text.split_once('.').unwrap_or((text, "00"));
    let (whole, part) = (whole.parse::<u16>().ok()?, part.parse::<u16>().ok().filter(|_| part.len() == 2)?);
    (whole < 100 || (whole, part) == (100, 0)).then_some(whole * 100 + part)
}

fn has_rules() -> bool {
    let of_rules = |entry: std::fs::DirEntry| {
        let name = entry.file_name();
        Path::new(&name).extension().is_some_and(|extension| extension == "oomrule")
    };
    RULES.iter().any(|dir| std::fs::read_dir(dir).is_ok_and(|dir| dir.flatten().any(of_rules)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POINT: &str = "/sys/fs/cgroup";

    /// Output of systemd 257.
    const DUMP: &str = "Dry Run: no\nSwap Used Limit: 85.00%\nDefault Memory Pressure Limit: 60.00%\n\
        Default Memory Pressure Duration: 3s\nSystem Context:\n\tMemory: Used: 135.4M, Total: 966.6M\n\
        \tSwap: Used: 0B, Total: 511.9M\nSwap Monitored CGroups:\n\tPath: /\n\t\tSwap Usage: (see System Context)\n\
        \tPath: /t.slice\n\t\tSwap Usage: 0B\nMemory Pressure Monitored CGroups:\n\tPath: /t.slice\n\
        \t\tMemory Pressure Limit: 5.00%\n\t\tMemory Pressure Duration: 3s\n\
        \t\tPressure: Avg10: 0.00, Avg60: 0.00, Avg300: 0.00, Total: 0\n\t\tCurrent Memory Usage: 924K\n\
        \tPath: /t.slice/c.service\n\t\tMemory Pressure Limit: 60.00%\n";

    fn parse(dump: &str) -> Option<Killers> {
        Killers::parse(dump.as_bytes(), Path::new(POINT))
    }

    fn dirs<'a>(monitored: impl IntoIterator<Item = &'a Monitored>) -> Vec<(&'a str, u16)> {
        let of = |one: &'a Monitored| (one.dir.to_str().unwrap().strip_prefix(POINT).unwrap(), one.limit);
        monitored.into_iter().map(of).collect()
    }

    #[test]
    fn what_oomctl_prints_is_understood() {
        let killers = parse(DUMP).unwrap();
        assert_eq!((killers.killer, killers.swap_used_limit), (Some(Killer::SystemdOomd), 8500));
        assert_eq!(dirs(&killers.by_pressure), [("/t.slice", 500), ("/t.slice/c.service", 6000)]);
        assert_eq!(killers.by_swap, [Path::new(POINT), Path::new("/sys/fs/cgroup/t.slice")]);
        // Output of systemd 247, with nothing monitored for swap.
        let old = "Swap Used Limit: 90%\nDefault Memory Pressure Limit: 60%\nSwap Monitored CGroups:\n\
                   Memory Pressure Monitored CGroups:\n\tPath: \n\t\tMemory Pressure Limit: 60%\n";
        let killers = parse(old).unwrap();
        assert_eq!((killers.swap_used_limit, dirs(&killers.by_pressure)), (9000, vec![("", 6000)]));
    }

    #[test]
    fn what_cannot_be_understood_is_not_taken_for_nothing() {
        for odd in ["", "Dry Run: no\n", "Swap Monitored CGroups:\n\tPath: /\n", "\u{0}\u{1}"] {
            assert_eq!(parse(odd), None, "{odd:?}");
        }
        for odd in ["x%", "5", "5.0%", "5.000%", "-5.00%", "101.00%", "99999999999%", "", "5,00%"] {
            let killers =
                parse(&DUMP.replace("5.00%\n\t\tMemory P", &format!("{odd}\n\t\tMemory P"))).unwrap();
            assert_eq!(dirs(&killers.by_pressure)[0], ("/t.slice", 0), "{odd}");
        }
        // Names that aren't UTF-8 are valid.
        let mut bytes = DUMP.as_bytes().to_vec();
        let at = DUMP.rfind("c.service").unwrap();
        bytes[at] = 0xff;
        let killers = Killers::parse(&bytes, Path::new(POINT)).unwrap();
        assert_eq!(killers.by_pressure[1].dir.as_os_str().as_bytes(), b"/sys/fs/cgroup/t.slice/\xff.service");
        let mount = Mount::whole(POINT.into(), false);
        let unknown = |dump: Result<&str, &str>, rules| {
            let dump = dump.map(|dump| dump.as_bytes().to_vec()).map_err(str::to_owned);
            Killers::of_systemd(&mount, dump, rules).unknown
        };
        assert_eq!(unknown(Ok(DUMP), false), None);
        assert_eq!(unknown(Ok(DUMP), true), Some(Unknown::Rules));
        assert!(matches!(unknown(Err("late"), false), Some(Unknown::NotAsked(why)) if why == "late"));
        assert!(matches!(unknown(Ok(""), false), Some(Unknown::NotAsked(_))));
    }

    #[test]
    fn who_is_above_or_below_counts() {
        let killers = parse(DUMP).unwrap();
        let of = |dir: &str| {
            let dir = Path::new(POINT).join(dir);
            killers.pressure_monitors(&dir).map(|one| one.limit).collect::<Vec<_>>()
        };
        assert_eq!(of("t.slice/a.service"), [500]);
        assert_eq!(of("t.slice/c.service"), [500, 6000]);
        assert_eq!(of("t.slice"), [500, 6000], "what is below is scanned with it");
        assert_eq!(of("t.slice2/a.service"), [0; 0]);
        assert_eq!(of("u.slice"), [0; 0]);
        assert!(killers.swap_monitor(Path::new("/sys/fs/cgroup/u.slice")).is_some());
        let without = Killers { by_swap: vec!["/sys/fs/cgroup/t.slice".into()], ..killers };
        assert_eq!(without.swap_monitor(Path::new("/sys/fs/cgroup/u.slice")), None);
    }
}
