//! Where cgroup2 is mounted, and which controllers are still on cgroup v1.
//!
//! Parsers take text, so that every layout can be tested anywhere; [`Mount::find`] reads the files.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A mounted cgroup2 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted.
    pub point: PathBuf,
    /// Which cgroup of the hierarchy (as seen from this namespace) is mounted there: `/` but for bind mounts.
    pub root: PathBuf,
    /// Whether it is mounted read-only, by this mount or altogether.
    pub read_only: bool,
}

/// What keeps the ancestors of the mounted cgroup out of sight, and their limits with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// The root of this cgroup namespace isn't the hierarchy's.
    ByNamespace,
    /// Only a part of what this namespace knows is mounted.
    ByMount,
}

impl Hidden {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::ByNamespace => "namespace",
            Self::ByMount => "mount",
        }
    }
}

impl Mount {
    /// Finds the cgroup2 mount of this mount namespace that `path` lies in, or else the one to begin names from, in `/proc/self/mountinfo`.
    ///
    /// # Errors
    /// What reading that file gives.
    pub fn find(path: &Path) -> io::Result<Option<Self>> {
        Ok(Self::parse(&super::read_system_file("/proc/self/mountinfo")?, path))
    }

    /// The cgroup2 mount in the text of a mountinfo: the one that `path` lies in, or else the one that shows most of
    /// the hierarchy, the first of equals.
    #[must_use]
    pub fn parse(mountinfo: &str, path: &Path) -> Option<Self> {
        let mounts: Vec<_> = mountinfo.lines().filter_map(Self::parse_line).collect();
        let around = mounts.iter().filter(|mount| path.starts_with(&mount.point));
        let around = around.max_by_key(|mount| mount.point.components().count());
        around.or_else(|| mounts.iter().min_by_key(|mount| mount.root.components().count())).cloned()
    }

    /// Whether there are cgroups above what is mounted here, and why they can't be seen.
    ///
    /// The true root is told by lacking a `cgroup.type`. A namespace's number doesn't tell: one that was made at the
    /// root hides nothing.
    #[must_use]
    pub fn hidden(&self) -> Option<Hidden> {
        hidden(&self.root, self.point.join("cgroup.type").exists())
    }

    /// One line of mountinfo, if it is a cgroup2 mount (proc(5)).
    fn parse_line(line: &str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut tail = file_system.split(' ');
        if tail.next()? != "cgroup2" {
            return None;
        }
        let mut fields = mount.split(' ').skip(3);
        let (root, point, options) = (fields.next()?, fields.next()?, fields.next()?);
        let super_options = tail.nth(1).unwrap_or_default();
        let read_only = [options, super_options].iter().any(|o| o.split(',').any(|word| word == "ro"));
        Some(Self { point: unescape(point), root: unescape(root), read_only })
    }

    /// The name of the cgroup at `path`: its path from the mount point, with a leading `/`.
    #[must_use]
    pub fn name_of(&self, path: &Path) -> Option<String> {
        let below = path.strip_prefix(&self.point).ok()?;
        Some(Path::new("/").join(below).to_string_lossy().into_owned())
    }

    /// The directory of a cgroup that `/proc/PID/cgroup` calls `cgroup`, if it lies within what is mounted here.
    #[must_use]
    pub fn directory_of(&self, cgroup: &str) -> Option<PathBuf> {
        let below = Path::new(cgroup).strip_prefix(&self.root).ok()?;
        Some(self.point.join(below))
    }
}

/// The mount's root begins with `/..` where the mount was made outside of this namespace.
fn hidden(root: &Path, has_type: bool) -> Option<Hidden> {
    has_type.then(|| if root == Path::new("/") { Hidden::ByNamespace } else { Hidden::ByMount })
}

/// The cgroup2 membership in the text of a `/proc/PID/cgroup`.
#[must_use]
pub fn own_cgroup(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

/// Whether the text of a `/proc/self/mountinfo` shows the memory controller mounted as cgroup v1.
#[must_use]
pub fn memory_on_v1(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut tail = file_system.split(' ');
        let is_v1 = tail.next()? == "cgroup";
        let memory = tail.nth(1)?.split(',').any(|option| option == "memory");
        (is_v1 && memory).then(|| mount.split(' ').nth(4).map(unescape)).flatten()
    })
}

/// Undoes the kernel's `\040` spelling of blanks in mountinfo.
fn unescape(field: &str) -> PathBuf {
    let bytes = field.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = (bytes[at] == b'\\').then(|| field.get(at + 1..at + 4)).flatten();
        if let Some(byte) = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            out.push(byte);
            at += 4;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "24 30 0:22 / /proc rw shared:5 - proc proc rw\n\
        35 24 0:30 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &str = "35 24 0:30 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n\
        36 35 0:31 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n\
        40 35 0:35 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n";

    #[test]
    fn the_mount_is_where_mountinfo_says() {
        let mount = Mount::parse(UNIFIED, Path::new("app")).unwrap();
        assert_eq!(mount.point, Path::new("/sys/fs/cgroup"));
        assert!(!mount.read_only);
        let mount = Mount::parse(HYBRID, Path::new("app")).unwrap();
        assert_eq!(mount.point, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(Mount::parse("", Path::new("app")), None);
    }

    #[test]
    fn the_widest_view_wins_and_blanks_are_decoded() {
        let text = "1 2 0:3 /kube/a /mnt/one\\040pod ro,nosuid - cgroup2 cgroup2 rw\n\
            2 2 0:3 / /mnt/all rw - cgroup2 cgroup2 ro\n";
        let mount = Mount::parse(text, Path::new("/")).unwrap();
        assert_eq!((mount.point.as_path(), mount.read_only), (Path::new("/mnt/all"), true));
        let pod = Mount::parse(text, Path::new("/mnt/one pod/x")).unwrap();
        assert_eq!(pod.point, Path::new("/mnt/one pod"));
        assert_eq!(pod.directory_of("/kube/a/b"), Some(PathBuf::from("/mnt/one pod/b")));
        assert_eq!(pod.directory_of("/kube"), None);
        assert!(pod.read_only);
    }

    #[test]
    fn names_start_at_the_mount() {
        let mount = Mount::parse(UNIFIED, Path::new("app")).unwrap();
        assert_eq!(mount.name_of(Path::new("/sys/fs/cgroup")).unwrap(), "/");
        assert_eq!(mount.name_of(Path::new("/sys/fs/cgroup/a/b")).unwrap(), "/a/b");
        assert_eq!(mount.name_of(Path::new("/tmp")), None);
    }

    #[test]
    fn what_is_above_is_hidden_by_one_or_the_other() {
        assert_eq!(hidden(Path::new("/"), false), None);
        assert_eq!(hidden(Path::new("/.."), false), None, "mounted before the namespace was made");
        assert_eq!(hidden(Path::new("/"), true), Some(Hidden::ByNamespace));
        assert_eq!(hidden(Path::new("/kube/a"), true), Some(Hidden::ByMount));
        assert_eq!([Hidden::ByNamespace, Hidden::ByMount].map(Hidden::word), ["namespace", "mount"]);
    }

    #[test]
    fn a_controller_on_v1_is_seen() {
        assert_eq!(memory_on_v1(HYBRID), Some(PathBuf::from("/sys/fs/cgroup/memory")));
        assert_eq!(memory_on_v1(UNIFIED), None);
        assert_eq!(own_cgroup("12:memory:/x\n0::/user.slice/a b\n"), Some("/user.slice/a b"));
        assert_eq!(own_cgroup("12:memory:/x\n"), None);
    }
}
