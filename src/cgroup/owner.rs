//! Ownership of a cgroup's files, which decides who may reclaim from it: ownership is the means of
//! delegation.

use rustix::fs::AtFlags;

use super::{Cgroup, reclaim};

/// Owner and permission bits of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// User ID.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

impl Owner {
    /// Returns the owner of the cgroup's `memory.reclaim`, if the cgroup has one.
    #[must_use]
    pub(crate) fn of(cgroup: &Cgroup) -> Option<Self> {
        let stat = rustix::fs::statat(cgroup, reclaim::FILE, AtFlags::empty()).ok()?;
        Some(Self { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777 })
    }

    /// Returns whether a user other than root may write to the file.
    #[must_use]
    pub(crate) fn delegated(&self) -> bool {
        self.uid != 0 && self.mode & 0o200 != 0 || self.gid != 0 && self.by_group() || self.by_all()
    }

    fn by_group(&self) -> bool {
        self.mode & 0o020 != 0
    }

    fn by_all(&self) -> bool {
        self.mode & 0o002 != 0
    }

    /// Describes which users may write to the file, apart from those with root's capabilities.
    #[must_use]
    pub(crate) fn words(&self) -> String {
        let user = if self.uid == 0 { "root".to_owned() } else { format!("uid {}", self.uid) };
        if self.by_all() {
            return "writable by everyone".into();
        }
        let group = if self.by_group() { format!(" and group {}", self.gid) } else { String::new() };
        if self.delegated() {
            format!("delegated to {user}{group}")
        } else {
            format!("owned by {user}, not delegated")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_says_who_may_write() {
        let owner = |uid, gid, mode| Owner { uid, gid, mode };
        let root = owner(0, 0, 0o200);
        assert_eq!((root.delegated(), root.words().as_str()), (false, "owned by root, not delegated"));
        assert_eq!(owner(1000, 1000, 0o200).words(), "delegated to uid 1000");
        assert_eq!(owner(0, 27, 0o220).words(), "delegated to root and group 27");
        assert!(!owner(0, 0, 0o220).delegated());
        assert_eq!(owner(0, 0, 0o222).words(), "writable by everyone");
    }
}
