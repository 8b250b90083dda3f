//! Errors of reclaim from a cgroup, with messages that name the cause, and hints for the user.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use thiserror::Error;

use super::owner::{BY_POLICY, Denied};
use super::{systemd, v1};
use crate::host::files::is_shortage;
use crate::host::kernel::Version;
use crate::host::proc::read_bytes;

/// Advice where descriptors are short.
pub(crate) const MORE_FILES: &str = "raise the limit of open files: ulimit -n, LimitNOFILE=";

/// Reason why memory can't be reclaimed from a cgroup.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum CgroupError {
    #[error("a cgroup's name can't be empty (the root is called /)")]
    NoName,
    #[error("{word}: no such cgroup")]
    NoSuchCgroup { word: String, near: Vec<String> },
    #[error("{word}: no cgroup of root or of this user has this name")]
    OthersName { word: String, candidates: Vec<String> },
    #[error("{word}: {why}")]
    BadName { word: String, why: &'static str },
    #[error("{why}")]
    Misspelt { why: Box<Self>, meant: String },
    #[error("{word}: no cgroup matches")]
    NoMatch { word: String },
    #[error("{word}: the names of pods can't be read: {why}")]
    PodNamesUnread { word: String, why: String },
    #[error("{}", pods_unnamed(*.count, *.containers, .why.as_deref()))]
    PodsUnnamed { count: usize, containers: bool, why: Option<String> },
    #[error("{word}: malformed glob: {why}")]
    BadGlob { word: String, why: GlobError },
    #[error("{word}: no matching cgroup can be reclaimed from")]
    NoneReclaimable { word: String },
    #[error("{}: not a cgroup", .path.display())]
    NotACgroup { path: PathBuf },
    #[error("{}: a cgroup of version 1, which has no memory.reclaim", .path.display())]
    Version1 { path: PathBuf },
    #[error("cgroup2 is not mounted")]
    NoCgroup2 { memory_v1: Option<PathBuf> },
    #[error("{name}: the memory controller is on cgroup v1 ({}), which has no memory.reclaim", .v1.display())]
    ControllerOnV1 { name: String, v1: PathBuf },
    #[error("{name}: the memory controller is disabled on this host")]
    ControllerDisabled { name: String },
    #[error("{name}: the memory controller is not enabled in cgroup.subtree_control of {parent}")]
    ControllerOff { name: String, parent: String, lacking: Vec<PathBuf>, occupied: bool },
    #[error("{name}: the memory controller was switched off meanwhile, and on again")]
    ControllerAway { name: String },
    #[error("{name}: the memory controller is not enabled above what is mounted here")]
    ControllerHidden { name: String },
    #[error("{name}: a threaded cgroup, whose memory is charged to {domain}")]
    Threaded { name: String, domain: String },
    #[error("{name}: a cgroup within a threaded one (domain invalid), whose memory is charged to {domain}")]
    DomainInvalid { name: String, domain: String },
    #[error("{name}: this kernel ({release}) has no memory.reclaim, which requires Linux 5.19")]
    OldKernel { name: String, release: String },
    #[error("{}: permission denied", .file.display())]
    Permission { name: String, file: PathBuf, denied: Denied },
    #[error("{}: the cgroup file system is mounted read-only", .file.display())]
    ReadOnly { file: PathBuf },
    #[error("{word}: the process is in {name}, outside the mounted subtree ({})", .root.display())]
    OutOfSight { word: String, name: String, root: PathBuf },
    #[error("{word}: no such process")]
    NoProcess { word: String },
    #[error("{word}: a process of another user, which /proc doesn't show (hidepid)")]
    HiddenProcess { word: String },
    #[error("{word}: no such NUMA node")]
    NoSuchNode { word: String, nodes: Vec<String> },
    #[error("{word}: a NUMA node, not a cgroup")]
    IsNode { word: String, number: u32 },
    #[error("{name}: this kernel ({release}) has no reclaim file for NUMA nodes, which requires Linux 6.17")]
    NodeWithoutReclaim { name: String, release: String },
    #[error("{}: permission denied", .file.display())]
    RootOnly { file: PathBuf, denied: Denied },
    #[error("{}: sysfs is mounted read-only", .file.display())]
    SysReadOnly { file: PathBuf },
    #[error("{word}: ambiguous, matches {}", several(.candidates))]
    Ambiguous { word: String, candidates: Vec<String> },
    #[error("{name}: more than {levels} levels deep; cgroups below are not searched")]
    TooDeep { name: String, levels: usize },
    #[error("{name}: can't be searched: {why}")]
    NotSearched { name: String, why: String },
    #[error("{word}: the process has ended, and its cgroup was removed")]
    Ended { word: String },
    #[error("{name}: the cgroup was removed meanwhile")]
    Removed { name: String },
    #[error("{name}: the cgroup was removed meanwhile, and a new one has its name")]
    Replaced { name: String },
    #[error("{path}: {}", error_text(&(*.errno).into()))]
    Shortage { path: String, errno: Errno },
    #[error("{path}: {why}")]
    Other { path: String, why: String },
}

/// The mistake in a glob.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GlobError {
    /// The syntax is wrong, or the glob too large.
    #[error("{0}")]
    Syntax(globset::ErrorKind),
    /// A character class has bytes that aren't UTF-8.
    #[error("a character class can't hold bytes that are not UTF-8")]
    BytesInClass,
    /// The regular expression made of it is refused: the reason.
    #[error("{0}")]
    Regex(String),
}

impl CgroupError {
    /// Returns whether the word itself is wrong, whatever cgroups there are.
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        match self {
            Self::NoName | Self::BadName { .. } | Self::BadGlob { .. } => true,
            Self::Misspelt { why, .. } => why.is_malformed(),
            _ => false,
        }
    }

    pub(crate) fn io(path: impl AsRef<Path>, error: &io::Error) -> Self {
        let path = path.as_ref().display().to_string();
        match Errno::from_io_error(error) {
            Some(errno) if is_shortage(errno) => Self::Shortage { path, errno },
            _ => Self::Other { path, why: error_text(error) },
        }
    }

    pub(crate) fn no_cgroup2() -> Self {
        let mountinfo = read_bytes("/proc/self/mountinfo").unwrap_or_default();
        Self::NoCgroup2 { memory_v1: v1::memory_on_v1(&mountinfo) }
    }

    /// Returns the word that names nothing existing, if the error is only that.
    #[must_use]
    pub fn word(&self) -> Option<&str> {
        match self {
            Self::NoSuchCgroup { word, .. }
            | Self::OthersName { word, .. }
            | Self::NoMatch { word }
            | Self::NoProcess { word } => Some(word),
            Self::Misspelt { why, .. } => why.word(),
            _ => None,
        }
    }

    /// Returns advice for the user, where the user can do something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        const GLOBS: &str = "use *, ?, [...], {a,b}; ** crosses levels";
        const UNIFY: &str = "boot with systemd.unified_cgroup_hierarchy=1 (and without cgroup v1 mounts)";
        Some(match self {
            Self::NoSuchCgroup { near, .. } if !near.is_empty() => {
                format!("similar names: {}", near.join(", "))
            }
            Self::Misspelt { meant, .. } => meant.clone(),
            Self::PodNamesUnread { .. } | Self::PodsUnnamed { why: Some(_), .. } => POD_LOGS.into(),
            Self::BadGlob { .. } => GLOBS.into(),
            Self::NoMatch { word } if !word.contains('/') && !word.contains("**") => format!(
                "list the cgroups with: memctl stat -r ({} matches at every level)",
                systemd::quoted(&format!("**/{word}"))
            ),
            Self::NoSuchCgroup { .. } | Self::NoMatch { .. } => {
                "list the cgroups with: memctl stat -r".into()
            }
            Self::OthersName { candidates, .. } => {
                format!("name another user's cgroup by its path: {}", several(candidates))
            }
            Self::NotACgroup { .. } => {
                "name a directory below the cgroup2 mount, such as /sys/fs/cgroup/app".into()
            }
            Self::NoCgroup2 { memory_v1: None } => "mount -t cgroup2 none /sys/fs/cgroup".into(),
            Self::Version1 { .. } | Self::NoCgroup2 { .. } | Self::ControllerOnV1 { .. } => UNIFY.into(),
            Self::ControllerDisabled { .. } => "look for cgroup_disable=memory in /proc/cmdline".into(),
            Self::ControllerOff { name, parent, lacking, occupied } => {
                let file = |path: &PathBuf| path.join("cgroup.subtree_control").display().to_string();
                let files: Vec<_> = lacking.iter().map(file).collect();
                let command = systemd::account(name, &files, systemd::by_systemd());
                if *occupied {
                    format!("move the processes of {parent} to a cgroup below it, then: {command}")
                } else {
                    command
                }
            }
            Self::ControllerHidden { .. } => {
                "add +memory to cgroup.subtree_control of each cgroup above, where these are mounted".into()
            }
            Self::Threaded { domain, .. } | Self::DomainInvalid { domain, .. } => {
                format!("reclaim from {domain} instead")
            }
            Self::OldKernel { .. } => "upgrade to Linux 5.19 or later".into(),
            Self::Permission { name, file, denied } => {
                systemd::permit(name, &file.display().to_string(), *denied, systemd::by_systemd())
            }
            Self::HiddenProcess { .. } => "run as root, or name its cgroup".into(),
            Self::NoSuchNode { nodes, .. } if nodes.is_empty() => {
                "this host shows no NUMA nodes (/sys/devices/system/node)".into()
            }
            Self::NoSuchNode { nodes, .. } => format!("this host has {}", several(nodes)),
            Self::IsNode { number, .. } => {
                format!(
                    "use reclaim or check; the node's figures are in /sys/devices/system/node/node{number}/meminfo"
                )
            }
            Self::NodeWithoutReclaim { release, .. } if Version::parse(release) < Some(Version(5, 19)) => {
                "upgrade to Linux 6.17 or later (5.19 for memory.reclaim itself)".into()
            }
            Self::NodeWithoutReclaim { .. } => {
                "use the root cgroup, which covers all nodes: memctl reclaim / SIZE".into()
            }
            Self::RootOnly { denied: Denied::ByNamespace { .. }, .. } => {
                "run as root outside of this user namespace: only the host's root may reclaim from a node"
                    .into()
            }
            Self::RootOnly { denied: Denied::ByPolicy, .. } => BY_POLICY.into(),
            Self::RootOnly { .. } => "run as root: only root may reclaim from a node".into(),
            Self::ReadOnly { .. } | Self::SysReadOnly { .. } => {
                "run memctl on the host, or mount the file system rw (usually read-only in containers)".into()
            }
            Self::Shortage { errno: Errno::MFILE, .. } => MORE_FILES.into(),
            Self::Ambiguous { word, .. } if word.starts_with("pod:") && word.contains('/') => {
                "name the cgroup by its path, or as pod:UID or container:ID".into()
            }
            // An ID can be continued, a unit's name can't.
            Self::Ambiguous { word, .. } if word.contains(':') => {
                "name the cgroup by its path, or by a longer ID".into()
            }
            Self::Ambiguous { .. } => "name the cgroup by its path".into(),
            Self::NoName
            | Self::PodsUnnamed { .. }
            | Self::BadName { .. }
            | Self::NoProcess { .. }
            | Self::NoneReclaimable { .. }
            | Self::OutOfSight { .. }
            | Self::TooDeep { .. }
            | Self::NotSearched { .. }
            | Self::Ended { .. }
            | Self::ControllerAway { .. }
            | Self::Removed { .. }
            | Self::Replaced { .. }
            | Self::Shortage { .. }
            | Self::Other { .. } => return None,
        })
    }
}

/// Describes cgroups that aren't watched since the names of their pods aren't known, or those of their
/// `containers`.
fn pods_unnamed(count: usize, containers: bool, why: Option<&str>) -> String {
    let why = why.map(|why| format!("the names of pods can't be read: {why}"));
    let lacking = match count {
        0 => None,
        1 => Some("1 cgroup in a pod isn't watched".to_owned()),
        _ => Some(format!("{count} cgroups in pods aren't watched")),
    };
    let sandboxes = if containers { " (those of sandboxes never are)" } else { "" };
    let lacking =
        lacking.map(|lacking| format!("{lacking}: names that the rules need are not in /var/log{sandboxes}"));
    why.into_iter().chain(lacking).collect::<Vec<_>>().join("; ")
}

/// Advice where the names of pods can't be read.
const POD_LOGS: &str =
    "in a pod, mount the host's /var/log/pods and /var/log/containers; pod:UID and container:ID need neither";

/// Lists the first of several names, and the number of further ones.
pub(crate) fn several(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Formats an error in lower case, without the `(os error 13)` that the standard library appends.
#[must_use]
pub fn error_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_lower_case_and_carry_no_numbers() {
        let denied = io::Error::from_raw_os_error(13);
        assert_eq!(error_text(&denied), "permission denied");
    }
}
