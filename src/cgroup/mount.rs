//! Mount points of cgroup2.
//!
//! The kernel escapes blank, tab, newline and backslash in mountinfo (`mangle` of
//! `fs/proc_namespace.c`), and passes every other byte on: mount points need not be UTF-8. So texts
//! of /proc are read as bytes, and an unparsable line affects no other line. Parsers take the
//! bytes, so that every layout can be tested anywhere.

use std::cmp::Reverse;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, StatxFlags};

use super::Name;
use crate::host::proc::{read_bytes, unescape};

/// Mounted cgroup2 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Mount ID; `None` for a mount that this mount namespace doesn't list.
    pub id: Option<u64>,
    /// Mount point.
    pub point: PathBuf,
    /// Mounted cgroup of the hierarchy, as seen from this namespace: `/` except for bind mounts.
    pub root: PathBuf,
    /// True if the mount or its file system is read-only.
    pub read_only: bool,
    /// True if `memory.events` counts the cgroup alone, without those below (`memory_localevents`), or
    /// if that isn't known.
    pub local_events: bool,
    /// Name of the mounted cgroup: `/`, or where names begin at another mount, the path that leads
    /// to this cgroup.
    pub top: PathBuf,
    /// Mount points below this one, of any file system: a directory covered by another mount
    /// doesn't belong to the hierarchy.
    pub inner: Vec<PathBuf>,
}

/// Reason why the ancestors of the mounted cgroup, and so their limits, can't be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// The root of this cgroup namespace isn't the hierarchy's.
    ByNamespace,
    /// Only a part of what this namespace knows is mounted.
    ByMount,
}

impl Hidden {
    /// Returns the word for the reason.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::ByNamespace => "namespace",
            Self::ByMount => "mount",
        }
    }
}

impl Mount {
    /// Returns a mount that shows the whole hierarchy, with nothing else known.
    #[must_use]
    pub fn whole(point: PathBuf, read_only: bool) -> Self {
        let (root, top) = ("/".into(), "/".into());
        Self { id: None, point, root, read_only, local_events: false, top, inner: Vec::new() }
    }

    /// Finds the cgroup2 mount of this mount namespace that names begin from, in
    /// `/proc/self/mountinfo`.
    ///
    /// # Errors
    /// The error from reading that file.
    pub(crate) fn find() -> io::Result<Option<Self>> {
        Ok(Mounts::read()?.widest().cloned())
    }

    /// Returns why cgroups above the mounted one can't be seen, or `None` if there are none above.
    ///
    /// The true root is recognised by lacking a `cgroup.type`. A namespace's number is no
    /// indication, since a namespace made at the root hides nothing.
    #[must_use]
    pub fn hidden(&self) -> Option<Hidden> {
        hidden(&self.root, self.point.join("cgroup.type").exists())
    }

    /// Parses one line of mountinfo, if the line is a cgroup2 mount (proc(5)).
    fn parse_line(line: &[u8]) -> Option<Self> {
        let [mount, file_system] = halves(line)?;
        let mut tail = fields(file_system);
        if tail.next()? != b"cgroup2" {
            return None;
        }
        let mut fields = fields(mount);
        let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let (root, point, options) = (fields.nth(2)?, fields.next()?, fields.next()?);
        let super_options = tail.nth(1).unwrap_or_default();
        let read_only =
            [options, super_options].iter().any(|o| o.split(|&b| b == b',').any(|word| word == b"ro"));
        let local_events = super_options.split(|&b| b == b',').any(|word| word == b"memory_localevents");
        Some(Self {
            local_events,
            id: Some(id),
            point: unescape(point),
            root: unescape(root),
            read_only,
            top: "/".into(),
            inner: Vec::new(),
        })
    }

    /// Returns the name of the cgroup at `path`: its path from the mount point, with a leading `/`.
    #[must_use]
    pub(crate) fn name_of(&self, path: &Path) -> Option<Name> {
        let below = path.strip_prefix(&self.point).ok()?;
        Some(Name::new(&join(&self.top, below), path))
    }

    /// Returns the directory of a cgroup that `/proc/PID/cgroup` calls `cgroup`, if it lies within
    /// the mounted part.
    #[must_use]
    pub(crate) fn directory_of(&self, cgroup: &Path) -> Option<PathBuf> {
        let below = cgroup.strip_prefix(&self.root).ok()?;
        // Cgroups above the root of this namespace have no name known here.
        if below.starts_with("..") {
            return None;
        }
        Some(join(&self.point, below))
    }
}

/// Returns the id of the mount through which a descriptor was opened (`STATX_MNT_ID` since 5.8;
/// before, from proc).
pub(super) fn mount_id(dir: &OwnedFd) -> Option<u64> {
    let stat = rustix::fs::statx(dir, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok();
    if let Some(stat) = stat.filter(|stat| stat.stx_mask & StatxFlags::MNT_ID.bits() != 0) {
        return Some(stat.stx_mnt_id);
    }
    let info = crate::host::proc::read_system_file(&format!("/proc/self/fdinfo/{}", dir.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
}

/// Joins two paths; joining an empty path would add a slash.
pub(crate) fn join(top: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { top.to_path_buf() } else { top.join(below) }
}

/// Cgroup2 mounts of this mount namespace, in the order of mountinfo, but those that this user
/// can't reach last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mounts {
    list: Vec<Mount>,
    /// Number of mounts that this user can reach.
    reachable: usize,
}

impl Mounts {
    /// Reads `/proc/self/mountinfo`. Leaves out a mount that another one covers, at the same mount
    /// point or above it, since its mount point leads elsewhere. The kernel is asked, by opening
    /// each: the file doesn't list mounts in the order in which they cover each other, since a
    /// moved mount keeps its place in the list.
    ///
    /// # Errors
    /// The error from reading that file.
    pub(crate) fn read() -> io::Result<Self> {
        #[cfg(test)]
        tests::READ.set(tests::READ.get() + 1);
        let all = Self::parse(&read_bytes("/proc/self/mountinfo")?).list;
        let (mut list, mut denied) = (Vec::with_capacity(all.len()), Vec::new());
        for mount in all {
            match super::open_directory(&mount.point) {
                // Without a mount id, the text of mountinfo must do.
                Ok(dir) if mount_id(&dir).is_none_or(|id| mount.id == Some(id)) => list.push(mount),
                // Keep a mount without permission, so that any use reports the error.
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => denied.push(mount),
                Ok(_) | Err(_) => {}
            }
        }
        let reachable = list.len();
        list.append(&mut denied);
        let mut mounts = Self { list, reachable };
        mounts.name_tops();
        Ok(mounts)
    }

    /// Parses the bytes of a mountinfo.
    #[must_use]
    pub(crate) fn parse(mountinfo: &[u8]) -> Self {
        let list: Vec<_> = lines(mountinfo).filter_map(Mount::parse_line).collect();
        let mut mounts = Self { reachable: list.len(), list };
        // Only mount points within a hierarchy are kept; nearly everywhere there are none.
        for point in lines(mountinfo).filter_map(|line| fields(halves(line)?[0]).nth(4)).map(unescape) {
            for mount in &mut mounts.list {
                if point.starts_with(&mount.point) && point != mount.point {
                    mount.inner.push(point.clone());
                }
            }
        }
        mounts.name_tops();
        mounts
    }

    /// Names the mounts that names don't begin from: by the cgroup's name in the widest mount, or
    /// else by the mount point.
    fn name_tops(&mut self) {
        let Some(widest) = self.widest().map(|widest| Mount { top: "/".into(), ..widest.clone() }) else {
            return;
        };
        for mount in &mut self.list {
            if mount.root == widest.root {
                mount.top = "/".into();
                continue;
            }
            let within = widest.directory_of(&mount.root);
            let name = within.and_then(|path| Some(widest.top.join(path.strip_prefix(&widest.point).ok()?)));
            mount.top = name.unwrap_or_else(|| mount.point.clone());
        }
    }

    /// Returns the mount with this id.
    #[must_use]
    pub(crate) fn of_id(&self, id: u64) -> Option<&Mount> {
        self.list.iter().find(|mount| mount.id == Some(id))
    }

    /// Returns the mount that shows most of the hierarchy, of those that this user can reach; names
    /// begin there. Of equals, the first that can be written to.
    #[must_use]
    pub(crate) fn widest(&self) -> Option<&Mount> {
        let reachable = if self.reachable == 0 { &self.list[..] } else { &self.list[..self.reachable] };
        let narrowness = |mount: &&Mount| {
            let (up, down) = levels(&mount.root);
            (Reverse(up), down, mount.read_only)
        };
        reachable.iter().min_by_key(narrowness)
    }

    /// Returns all mounts, in the order of mountinfo, those that this user can't reach last.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.list.iter()
    }

    /// Returns the mount whose mount point is nearest above `path`, judging by text alone.
    #[must_use]
    pub(crate) fn around(&self, path: &Path) -> Option<&Mount> {
        let around = self.list.iter().filter(|mount| path.starts_with(&mount.point));
        around.max_by_key(|mount| mount.point.components().count())
    }
}

pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b'\n')
}

pub(super) fn fields(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b' ')
}

/// Splits a line of mountinfo at ` - `, which no field contains, since blanks are escaped.
pub(super) fn halves(line: &[u8]) -> Option<[&[u8]; 2]> {
    let at = line.windows(3).position(|window| window == b" - ")?;
    Some([&line[..at], &line[at + 3..]])
}

/// Returns the position of a mount's root in the hierarchy: its number of levels above the root of
/// this cgroup namespace, and below that level. The root of a mount from outside of the namespace
/// begins with `/..`, once for each level above.
pub(crate) fn levels(root: &Path) -> (usize, usize) {
    let names = || root.components().filter(|component| *component != Component::RootDir);
    let up = names().filter(|component| *component == Component::ParentDir).count();
    (up, names().count() - up)
}

/// Returns why ancestors are hidden. The root of a mount made outside of this namespace begins with
/// `/..`.
fn hidden(root: &Path, has_type: bool) -> Option<Hidden> {
    has_type.then(|| if root == Path::new("/") { Hidden::ByNamespace } else { Hidden::ByMount })
}

/// Returns the cgroup2 membership in the bytes of a `/proc/PID/cgroup`. Names contain any byte but
/// a newline.
#[must_use]
pub(crate) fn own_cgroup(text: &[u8]) -> Option<&Path> {
    let name = lines(text).find_map(|line| line.strip_prefix(b"0::"))?;
    Some(Path::new(OsStr::from_bytes(name)))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;

    thread_local! {
        /// Number of times that this thread has read the mounts.
        pub(crate) static READ: Cell<usize> = const { Cell::new(0) };
    }

    const UNIFIED: &[u8] = b"24 30 0:22 / /proc rw shared:5 - proc proc rw\n\
        35 24 0:30 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &[u8] = b"35 24 0:30 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n\
        36 35 0:31 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n\
        40 35 0:35 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n";

    fn widest(text: &[u8]) -> Option<Mount> {
        Mounts::parse(text).widest().cloned()
    }

    #[test]
    fn the_mount_is_where_mountinfo_says() {
        let mount = widest(UNIFIED).unwrap();
        assert_eq!((mount.id, mount.point.as_path()), (Some(35), Path::new("/sys/fs/cgroup")));
        assert!(!mount.read_only);
        let mount = widest(HYBRID).unwrap();
        assert_eq!(mount.point, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(widest(b""), None);
    }

    #[test]
    fn a_foreign_mount_counts_for_itself_alone() {
        let latin = b"36 24 0:40 / /mnt/caf\xe9 rw - tmpfs tmpfs rw\n37 24 0:41 / /mnt/\xff\xfe\\040x rw - cgroup2 none ro\n";
        let text = [latin.as_slice(), UNIFIED].concat();
        let mounts = Mounts::parse(&text);
        assert_eq!(mounts.of_id(35).unwrap().point, Path::new("/sys/fs/cgroup"));
        let odd = mounts.of_id(37).unwrap();
        assert_eq!((odd.point.as_os_str().as_bytes(), odd.read_only), (b"/mnt/\xff\xfe x".as_slice(), true));
        assert_eq!(mounts.of_id(36), None);
    }

    #[test]
    fn the_widest_view_wins_and_blanks_are_decoded() {
        let text = b"1 2 0:3 /kube/a /mnt/one\\040pod ro,nosuid - cgroup2 cgroup2 rw\n\
            2 2 0:3 / /mnt/all rw - cgroup2 cgroup2 ro\n";
        let mounts = Mounts::parse(text);
        let mount = mounts.widest().unwrap();
        assert_eq!((mount.point.as_path(), mount.read_only), (Path::new("/mnt/all"), true));
        let pod = mounts.around(Path::new("/mnt/one pod/x")).unwrap();
        assert_eq!(pod.point, Path::new("/mnt/one pod"));
        assert_eq!(pod.directory_of(Path::new("/kube/a/b")), Some(PathBuf::from("/mnt/one pod/b")));
        assert_eq!(pod.directory_of(Path::new("/kube/a")), Some(PathBuf::from("/mnt/one pod")));
        assert_eq!(pod.directory_of(Path::new("/kube")), None);
        assert!(pod.read_only);
        assert_eq!(mounts.around(Path::new("/mnt")), None);
    }

    #[test]
    fn what_is_above_the_namespace_is_wider() {
        let text = b"1 2 0:3 / /sys/fs/cgroup rw - cgroup2 none rw\n2 2 0:3 /../../.. /host/cg rw - cgroup2 none rw\n\
            3 2 0:3 /../../../a /part rw - cgroup2 none rw\n4 2 0:9 / /host/cg/a/b\\040c rw - tmpfs none rw\n";
        let mounts = Mounts::parse(text);
        let host = mounts.widest().unwrap();
        assert_eq!((host.point.as_path(), host.top.as_path()), (Path::new("/host/cg"), Path::new("/")));
        assert_eq!(host.inner, [Path::new("/host/cg/a/b c")]);
        // This namespace's own part has no known name; the other part has one.
        let tops = [1, 3].map(|id| mounts.of_id(id).unwrap().top.clone());
        assert_eq!(tops, [Path::new("/sys/fs/cgroup"), Path::new("/a")]);
        assert_eq!(host.directory_of(Path::new("/../../../a/b")), Some("/host/cg/a/b".into()));
        assert_eq!(host.directory_of(Path::new("/../../../../a")), None);
        assert_eq!(mounts.of_id(1).unwrap().directory_of(Path::new("/../x")), None);
    }

    #[test]
    fn of_equals_the_one_that_can_be_written_to_and_reached_is_taken() {
        let text = b"1 9 0:3 / /a ro - cgroup2 none rw\n2 9 0:3 / /b rw - cgroup2 none rw\n\
            3 9 0:3 / /c rw - cgroup2 none rw\n4 9 0:3 /x /d rw - cgroup2 none rw\n";
        let mut mounts = Mounts::parse(text);
        assert_eq!(mounts.widest().unwrap().id, Some(2));
        mounts.list.rotate_left(3);
        let widest = |mounts: &Mounts, reachable| Mounts { reachable, ..mounts.clone() }.widest().unwrap().id;
        assert_eq!(mounts.list[0].id, Some(4));
        // None can be reached: the error is the widest one's.
        assert_eq!([1, 2, 3, 4, 0].map(|n| widest(&mounts, n)), [4, 1, 2, 2, 2].map(Some));
        assert_eq!(
            ["/", "/a/b", "/..", "/../../a"].map(Path::new).map(levels),
            [(0, 0), (0, 2), (1, 0), (2, 1)]
        );
    }

    #[test]
    fn names_start_at_the_mount() {
        let mount = widest(UNIFIED).unwrap();
        assert_eq!(&*mount.name_of(Path::new("/sys/fs/cgroup")).unwrap(), "/");
        assert_eq!(&*mount.name_of(Path::new("/sys/fs/cgroup/a/b")).unwrap(), "/a/b");
        assert_eq!(mount.name_of(Path::new("/tmp")), None);
        let elsewhere = Mount { top: "/proc/1/root/cg".into(), ..mount };
        assert_eq!(&*elsewhere.name_of(Path::new("/sys/fs/cgroup/a")).unwrap(), "/proc/1/root/cg/a");
        assert_eq!(&*elsewhere.name_of(Path::new("/sys/fs/cgroup")).unwrap(), "/proc/1/root/cg");
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
    fn the_membership_is_any_bytes() {
        assert_eq!(own_cgroup(b"12:memory:/x\n0::/user.slice/a b\n"), Some(Path::new("/user.slice/a b")));
        assert_eq!(own_cgroup(b"0::/j\xe9b\n"), Some(Path::new(OsStr::from_bytes(b"/j\xe9b"))));
        assert_eq!(own_cgroup(b"12:memory:/x\n"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = (Mounts::parse(&text), own_cgroup(&text), unescape(&text));
        }

        #[test]
        fn what_the_kernel_escapes_comes_back(name in "[a-z \\t\\\\é\\n]{1,12}") {
            let escaped: Vec<u8> = name.bytes().flat_map(|byte| match byte {
                b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
                other => vec![other],
            }).collect();
            prop_assert_eq!(unescape(&escaped), PathBuf::from(name));
        }
    }
}
