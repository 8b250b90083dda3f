//! Why memory can't be reclaimed in a place, in words that name the thing, and what to do about it.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;
use thiserror::Error;

use super::locate::{not_a_cgroup, shown};
use super::mount::{self, Mount};
use super::{Cgroup, Located, Version, managed, read_bytes, read_in, read_system_file, reclaim, tree};

/// Why memory can't be reclaimed there.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum Unreclaimable {
    #[error("a cgroup's name can't be empty (the root is called /)")]
    NoName,
    #[error("{word}: no such cgroup")]
    NoSuchCgroup { word: String, near: Vec<String> },
    #[error("{word}: {why}")]
    BadName { word: String, why: &'static str },
    #[error("{word}: no cgroup matches")]
    NoMatch { word: String },
    #[error("{word}: malformed glob: {why}")]
    BadGlob { word: String, why: String },
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
    ControllerOff { name: String, parent: String, parent_path: PathBuf },
    #[error("{name}: a threaded cgroup, whose memory is charged to {domain}")]
    Threaded { name: String, domain: String },
    #[error("{name}: this kernel ({release}) has no memory.reclaim, which requires Linux 5.19")]
    OldKernel { name: String, release: String },
    #[error("{}: permission denied", .file.display())]
    Permission { name: String, file: PathBuf },
    #[error("{}: the cgroup file system is mounted read-only", .file.display())]
    ReadOnly { file: PathBuf },
    #[error("{word}: the process is in {name}, outside the mounted subtree ({})", .root.display())]
    OutOfSight { word: String, name: String, root: PathBuf },
    #[error("{word}: no such process")]
    NoProcess { word: String },
    #[error("{word}: no such NUMA node")]
    NoSuchNode { word: String, nodes: Vec<String> },
    #[error("{word}: a NUMA node, not a cgroup")]
    IsNode { word: String },
    #[error("{name}: this kernel ({release}) has no reclaim file for NUMA nodes, which requires Linux 6.17")]
    NodeWithoutReclaim { name: String, release: String },
    #[error("{}: permission denied", .file.display())]
    RootOnly { file: PathBuf },
    #[error("{}: sysfs is mounted read-only", .file.display())]
    SysReadOnly { file: PathBuf },
    #[error("{word}: ambiguous, matches {}", several(.candidates))]
    Ambiguous { word: String, candidates: Vec<String> },
    #[error("{word}: the process has ended, and its cgroup was removed")]
    Ended { word: String },
    #[error("{name}: the cgroup was removed meanwhile")]
    Removed { name: String },
    #[error("{name}: the cgroup was removed meanwhile, and a new one has its name")]
    Replaced { name: String },
    #[error("{path}: {why}")]
    Other { path: String, why: String },
}

impl Unreclaimable {
    pub(crate) fn io(path: impl AsRef<Path>, error: &io::Error) -> Self {
        let path = path.as_ref().display().to_string();
        Self::Other { path, why: plain(error) }
    }

    pub(crate) fn no_cgroup2() -> Self {
        let mountinfo = read_bytes("/proc/self/mountinfo").unwrap_or_default();
        Self::NoCgroup2 { memory_v1: mount::memory_on_v1(&mountinfo) }
    }

    /// The word that names nothing that is there, if that is all that is wrong.
    #[must_use]
    pub fn word(&self) -> Option<&str> {
        match self {
            Self::NoSuchCgroup { word, .. } | Self::NoMatch { word } | Self::NoProcess { word } => Some(word),
            _ => None,
        }
    }

    /// What the user can do about it, where something can be done.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        const UNIFY: &str = "boot with systemd.unified_cgroup_hierarchy=1 (and without cgroup v1 mounts)";
        Some(match self {
            Self::NoSuchCgroup { near, .. } if !near.is_empty() => {
                format!("similar names: {}", near.join(", "))
            }
            Self::NoSuchCgroup { .. } | Self::NoMatch { .. } => {
                "list the cgroups with: memctl stat -r".into()
            }
            Self::NotACgroup { .. } => {
                "name a directory below the cgroup2 mount, such as /sys/fs/cgroup/app".into()
            }
            Self::NoCgroup2 { memory_v1: None } => "mount -t cgroup2 none /sys/fs/cgroup".into(),
            Self::Version1 { .. } | Self::NoCgroup2 { .. } | Self::ControllerOnV1 { .. } => UNIFY.into(),
            Self::ControllerDisabled { .. } => "look for cgroup_disable=memory in /proc/cmdline".into(),
            Self::ControllerOff { name, parent_path, .. } => {
                let file = parent_path.join("cgroup.subtree_control");
                managed::account(name, &file.display().to_string(), managed::by_systemd())
            }
            Self::Threaded { domain, .. } => format!("reclaim from {domain} instead"),
            Self::OldKernel { .. } => "upgrade to Linux 5.19 or later".into(),
            Self::Permission { name, file } => {
                managed::permit(name, &file.display().to_string(), managed::by_systemd())
            }
            Self::NoSuchNode { nodes, .. } if nodes.is_empty() => {
                "this host shows no NUMA nodes (/sys/devices/system/node)".into()
            }
            Self::NoSuchNode { nodes, .. } => format!("this host has {}", several(nodes)),
            Self::IsNode { word } => {
                let node = word.replace(super::node::PREFIX, "node");
                format!(
                    "use reclaim or check; the node's figures are in /sys/devices/system/node/{node}/meminfo"
                )
            }
            Self::NodeWithoutReclaim { release, .. } if Version::parse(release) < Some(Version(5, 19)) => {
                "upgrade to Linux 6.17 or later (5.19 for memory.reclaim itself)".into()
            }
            Self::NodeWithoutReclaim { .. } => {
                "use the root cgroup, which covers all nodes: memctl reclaim / SIZE".into()
            }
            Self::RootOnly { .. } => "run as root: only root may reclaim from a node".into(),
            Self::ReadOnly { .. } | Self::SysReadOnly { .. } => {
                "run memctl on the host, or mount the file system rw (usually read-only in containers)".into()
            }
            // Of an ID there is more to say, of a unit's name there isn't.
            Self::Ambiguous { word, .. } if word.contains(':') => {
                "name the cgroup by its path, or by a longer ID".into()
            }
            Self::Ambiguous { .. } => "name the cgroup by its path".into(),
            Self::NoName
            | Self::BadName { .. }
            | Self::NoProcess { .. }
            | Self::BadGlob { .. }
            | Self::NoneReclaimable { .. }
            | Self::OutOfSight { .. }
            | Self::Ended { .. }
            | Self::Removed { .. }
            | Self::Replaced { .. }
            | Self::Other { .. } => return None,
        })
    }
}

/// The first of several names, and how many more there are.
fn several(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// An error without the `(os error 13)` that the standard library appends, and in lower case.
#[must_use]
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// Says why opening the `memory.reclaim` of `cgroup` gave `errno`.
#[must_use]
pub fn explain(cgroup: &Cgroup, located: &Located, errno: Errno) -> Unreclaimable {
    let file = cgroup.path().join(reclaim::FILE);
    match errno {
        Errno::ACCESS | Errno::PERM => Unreclaimable::Permission { name: cgroup.name().to_string(), file },
        Errno::ROFS => Unreclaimable::ReadOnly { file },
        Errno::NODEV => removed(located),
        Errno::NOENT => absent(cgroup, &located.mount),
        _ => Unreclaimable::io(file, &errno.into()),
    }
}

/// Says why reading the `memory.stat` of what was located gave `errno`.
#[must_use]
pub fn unreadable(located: &Located, errno: Errno) -> Unreclaimable {
    match open(located) {
        Ok(cgroup) if errno == Errno::NOENT => absent(&cgroup, &located.mount),
        _ if errno == Errno::STALE => replaced(located),
        _ if errno == Errno::NODEV => removed(located),
        _ => Unreclaimable::io(&*located.name, &errno.into()),
    }
}

/// Opens what was located.
///
/// # Errors
/// [`Unreclaimable`], naming what is there instead.
pub fn open(located: &Located) -> Result<Cgroup, Unreclaimable> {
    located.open().map_err(|e| match Errno::from_io_error(&e) {
        Some(Errno::STALE) => replaced(located),
        Some(Errno::NOENT | Errno::NODEV) => removed(located),
        _ => not_a_cgroup(&located.path, &located.path, &e),
    })
}

fn removed(located: &Located) -> Unreclaimable {
    Unreclaimable::Removed { name: located.name.to_string() }
}

fn replaced(located: &Located) -> Unreclaimable {
    Unreclaimable::Replaced { name: located.name.to_string() }
}

/// Says why there is no `memory.reclaim` at all.
fn absent(cgroup: &Cgroup, mount: &Mount) -> Unreclaimable {
    let name = cgroup.name().to_string();
    // Every cgroup has that file as long as it is there.
    if !cgroup.has("cgroup.controllers") {
        return Unreclaimable::Removed { name };
    }
    if cgroup.read("cgroup.type").is_ok_and(|kind| kind.trim() == "threaded") {
        return Unreclaimable::Threaded { domain: domain_of(cgroup.path(), mount), name };
    }
    // memory.stat is there wherever the controller is, at the root as well.
    if cgroup.has("memory.stat") {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        return Unreclaimable::OldKernel { name, release };
    }
    if let Some(parent) = lacking_parent(cgroup.path(), mount) {
        let parent_name = mount.name_of(&parent).unwrap_or_default().to_string();
        return Unreclaimable::ControllerOff { name, parent: parent_name, parent_path: parent };
    }
    match controller_on_v1() {
        Some(v1) => Unreclaimable::ControllerOnV1 { name, v1 },
        None => Unreclaimable::ControllerDisabled { name },
    }
}

/// Says why no cgroup below has figures to show, if some are there.
#[must_use]
pub fn none_below(located: &Located) -> Option<Unreclaimable> {
    let tree::Entry { path, id } = tree::entries(&located.path).next()?;
    let name = located.mount.name_of(&path)?;
    let located = Located { name, path: path.into(), mount: Arc::clone(&located.mount), id };
    let cgroup = open(&located).ok().filter(|cgroup| !cgroup.has("memory.stat"))?;
    Some(absent(&cgroup, &located.mount))
}

/// Says why there is no cgroup that `word` names, whose path would be `path`. Where the memory controller is on
/// version 1, no name would do.
pub(super) fn missing(word: &OsStr, path: &Path, mount: &Mount) -> Unreclaimable {
    let none =
        || Unreclaimable::NoSuchCgroup { word: shown(word), near: super::locate::nearest(path, mount) };
    elsewhere(&shown(word), mount).unwrap_or_else(none)
}

/// Says why nothing matches a glob.
pub(super) fn no_match(word: &OsStr, mount: &Mount) -> Unreclaimable {
    let word = shown(word);
    elsewhere(&word, mount).unwrap_or(Unreclaimable::NoMatch { word })
}

/// The reason that there is if the memory controller isn't in this hierarchy at all.
fn elsewhere(word: &str, mount: &Mount) -> Option<Unreclaimable> {
    let v1 = controller_on_v1().filter(|_| !mount.point.join("memory.stat").exists())?;
    Some(Unreclaimable::ControllerOnV1 { name: word.to_owned(), v1 })
}

/// Where the memory controller is, if that is a hierarchy of version 1, mounted or not.
fn controller_on_v1() -> Option<PathBuf> {
    let mountinfo = read_bytes("/proc/self/mountinfo").unwrap_or_default();
    mount::memory_on_v1(&mountinfo).or_else(|| {
        let cgroups = read_system_file("/proc/cgroups").unwrap_or_default();
        let found = controller(&cgroups, "memory").filter(|found| found.enabled && found.hierarchy != 0)?;
        Some(PathBuf::from(format!("hierarchy {}", found.hierarchy)))
    })
}

/// The topmost ancestor that has the memory controller and doesn't pass it on.
fn lacking_parent(path: &Path, mount: &Mount) -> Option<PathBuf> {
    let mut up: Vec<_> = path.ancestors().skip(1).take_while(|p| p.starts_with(&mount.point)).collect();
    up.reverse();
    let lists = |dir: &Path, file: &str| {
        let text = read_in(dir, file).unwrap_or_default();
        text.split_whitespace().any(|controller| controller == "memory")
    };
    let lacking = up.into_iter().find(|dir| !lists(dir, "cgroup.subtree_control"))?;
    lists(lacking, "cgroup.controllers").then(|| lacking.to_path_buf())
}

/// The nearest ancestor that isn't threaded: the domain to which the memory is charged.
fn domain_of(path: &Path, mount: &Mount) -> String {
    let threaded = |dir: &&Path| read_in(dir, "cgroup.type").is_ok_and(|kind| kind.trim() == "threaded");
    let domain = path.ancestors().skip(1).find(|dir| !threaded(dir));
    domain.and_then(|dir| mount.name_of(dir)).map_or_else(|| "the parent".to_owned(), |name| name.to_string())
}

/// A line of `/proc/cgroups`.
#[derive(Debug, PartialEq, Eq)]
struct Controller {
    hierarchy: u32,
    enabled: bool,
}

fn controller(text: &str, name: &str) -> Option<Controller> {
    let line = text.lines().map(str::split_whitespace).find_map(|mut f| (f.next()? == name).then_some(f))?;
    let mut fields = line;
    let hierarchy = fields.next()?.parse().ok()?;
    Some(Controller { hierarchy, enabled: fields.nth(1)? == "1" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_cgroups_tells_of_version_one_and_of_disabling() {
        let text =
            "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t3\t1\nmemory\t7\t9\t1\npids\t0\t1\t0\n";
        assert_eq!(controller(text, "memory"), Some(Controller { hierarchy: 7, enabled: true }));
        assert_eq!(controller(text, "pids"), Some(Controller { hierarchy: 0, enabled: false }));
        assert_eq!(controller(text, "hugetlb"), None);
    }

    #[test]
    fn errors_are_lower_case_and_carry_no_numbers() {
        let denied = io::Error::from_raw_os_error(13);
        assert_eq!(plain(&denied), "permission denied");
    }
}
