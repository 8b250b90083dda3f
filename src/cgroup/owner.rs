//! Ownership of a cgroup's files, the means of delegation: who may reclaim from a cgroup, and whose
//! names count.
//!
//! Any user with a delegated directory can create a cgroup in it and call it `nginx.service`. A name
//! counts by the owners of the directories above it, since the owner of a directory chooses the
//! names in it. The cgroup's own owner says nothing: systemd gives the directory of a delegated unit
//! (`user@1000.service`, or a service with `User=` and `Delegate=`) to the unit's user, but the
//! directory that it is in belongs to root.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Stat};
use rustix::process::{getegid, geteuid, getgroups};

use super::{Cgroup, reclaim};
use crate::host::Rights;
use crate::host::user::UserNamespace;

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
        Self::of_file(cgroup, reclaim::FILE)
    }

    /// Returns the owner of a file in a directory.
    #[must_use]
    pub(crate) fn of_file(dir: impl AsFd, file: &str) -> Option<Self> {
        Some(Self::from(&rustix::fs::statat(dir, file, AtFlags::empty()).ok()?))
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
        self.words_in(&UserNamespace::of_self())
    }

    fn words_in(&self, namespace: &UserNamespace) -> String {
        if namespace.is_unmapped(self.uid) && !self.by_all() {
            return "owned by a user who has no ID in this user namespace".into();
        }
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

/// Reason why this process may not write to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The file belongs to another user.
    ByOwner,
    /// The file's owner has no ID in this user namespace. `outside` is the ID of this process's
    /// user outside of it.
    ByNamespace {
        /// User ID.
        outside: Option<u32>,
    },
    /// This process is root, without `CAP_DAC_OVERRIDE`, and the file belongs to this user.
    ByCapabilities {
        /// User ID.
        uid: u32,
    },
    /// This process's user owns the file, whose mode keeps its owner from writing.
    ByMode,
    /// Owner, mode and capabilities allow this process to write: a security module, say, doesn't.
    ByPolicy,
}

/// Advice for [`Denied::ByPolicy`].
pub(crate) const BY_POLICY: &str = "owner, mode and capabilities allow this: look for a denial by a security module (SELinux, AppArmor, Landlock)";

/// Process that wants to write to a file.
#[derive(Clone, Debug, Default)]
struct Writer {
    /// Effective user ID.
    uid: u32,
    /// Effective and supplementary group IDs.
    gids: Vec<u32>,
    /// True if the process has `CAP_DAC_OVERRIDE`.
    overrides: bool,
}

impl Writer {
    fn of_self() -> Self {
        let groups = getgroups().unwrap_or_default();
        let gids = groups.into_iter().chain([getegid()]).map(rustix::process::Gid::as_raw).collect();
        Self { uid: geteuid().as_raw(), gids, overrides: Rights::of_self().dac_override }
    }

    /// Returns whether the mode of a file with this owner lets the process write. The bits of one
    /// class alone count (`path_resolution(7)`).
    fn is_allowed_by(&self, owner: Owner, namespace: &UserNamespace) -> bool {
        let is_in = |gid| self.gids.contains(&gid) && !namespace.is_unmapped(gid);
        match owner {
            Owner { uid, mode, .. } if uid == self.uid && !namespace.is_unmapped(uid) => mode & 0o200 != 0,
            Owner { gid, .. } if is_in(gid) => owner.by_group(),
            _ => owner.by_all(),
        }
    }
}

impl Denied {
    /// Returns why this process may not write to a file with this owner.
    #[must_use]
    pub(crate) fn of(owner: Option<Owner>) -> Self {
        Self::of_writer(owner, &Writer::of_self(), &UserNamespace::of_self())
    }

    fn of_writer(owner: Option<Owner>, writer: &Writer, namespace: &UserNamespace) -> Self {
        let Some(owner) = owner else { return Self::ByOwner };
        // Capabilities count for files of the namespace's users and groups alone
        // (`privileged_wrt_inode_uidgid`, kernel/capability.c).
        let is_foreign = namespace.is_unmapped(owner.uid) || namespace.is_unmapped(owner.gid);
        match writer {
            _ if writer.is_allowed_by(owner, namespace) => Self::ByPolicy,
            Writer { overrides: true, .. } if !is_foreign => Self::ByPolicy,
            _ if namespace.is_unmapped(owner.uid) => {
                Self::ByNamespace { outside: namespace.outside(writer.uid) }
            }
            _ if owner.uid == writer.uid => Self::ByMode,
            Writer { overrides: true, .. } => Self::ByNamespace { outside: namespace.outside(writer.uid) },
            Writer { uid: 0, .. } => Self::ByCapabilities { uid: owner.uid },
            _ => Self::ByOwner,
        }
    }
}

impl From<&Stat> for Owner {
    fn from(stat: &Stat) -> Self {
        Self { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777 }
    }
}

/// User who gives names. The names that root or this user could have made count, from the mount
/// down to the first directory in which another user can make some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    /// Effective user ID.
    uid: u32,
    /// User ID of root: 0, also in a user namespace, whose root is the user that the namespace
    /// belongs to.
    root: u32,
    /// User ID that stands for all users without one in this user namespace (`user_namespaces(7)`),
    /// the host's root among them. Which one it is can't be told, so it is never trusted.
    overflow: u32,
}

impl Asker {
    /// Returns the user who runs this process.
    #[must_use]
    pub(crate) fn of_self() -> Self {
        let overflow = UserNamespace::of_self().overflow;
        Self { uid: geteuid().as_raw(), root: 0, overflow }
    }

    /// Returns whether the name of a cgroup counts, by the directories above it, from the mount down.
    #[must_use]
    pub(crate) fn accepts(self, above: impl IntoIterator<Item = Owner>) -> bool {
        above.into_iter().all(|directory| self.trusts(directory))
    }

    /// Returns whether names in a directory count: no other user could have made them.
    fn trusts(self, directory: Owner) -> bool {
        if directory.uid == self.overflow {
            return false;
        }
        let shared = directory.by_all() || directory.gid != 0 && directory.by_group();
        directory.uid == self.uid || directory.uid == self.root && !shared
    }

    /// Makes the owner of temporary directories root, and the asker another user: a directory that
    /// anybody may write to is then a stranger's.
    #[cfg(test)]
    pub(crate) fn faked() -> Self {
        Self { uid: u32::MAX - 1, root: geteuid().as_raw(), overflow: 65534 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks with the owners of the directories above a cgroup.
    fn genuine(above: &[u32], uid: u32) -> bool {
        let above = above.iter().map(|&uid| Owner { uid, gid: uid, mode: 0o755 });
        Asker { uid, root: 0, overflow: 65534 }.accepts(above)
    }

    #[test]
    fn names_count_for_root_as_far_as_root_owns_the_parents() {
        // /system.slice/nginx.service
        assert!(genuine(&[0, 0], 0) && genuine(&[0, 0], 1000));
        // /user.slice/user-1000.slice/user@1000.service: the directory is the user's, its parent
        // root's; likewise a service with User= and Delegate=.
        assert!(genuine(&[0, 0, 0], 0) && genuine(&[0, 0, 0], 1000));
        // /user.slice/user-1000.slice/user@1000.service/nginx.service
        assert!(!genuine(&[0, 0, 0, 1000], 0) && genuine(&[0, 0, 0, 1000], 1000));
        assert!(!genuine(&[0, 0, 0, 1000], 1001));
        // A directory of root within a stranger's: its name is the stranger's choice.
        assert!(!genuine(&[0, 1000, 0], 0) && genuine(&[0, 1000, 0], 1000));
        assert!(genuine(&[], 0));
    }

    #[test]
    fn a_users_view_of_its_own_part_is_genuine() {
        // A cgroup namespace whose root was delegated to the user.
        assert!(genuine(&[1000], 1000) && genuine(&[1000, 1000], 1000) && !genuine(&[1000], 0));
        // In a user namespace, as of rootless podman: the user is root there, the host's root has
        // no ID, and neither has any other user.
        assert!(genuine(&[0, 0], 0));
        assert!(!genuine(&[65534, 0], 0) && !genuine(&[0, 65534], 0));
        // Neither does the asker: its own directories can't be told from those of others.
        assert!(!genuine(&[65534], 65534));
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_not_roots_alone() {
        let root = Asker { uid: 0, root: 0, overflow: 65534 };
        let user = Asker { uid: 1000, ..root };
        let owned = |uid, gid, mode| Owner { uid, gid, mode };
        for asker in [root, user] {
            assert!(asker.trusts(owned(0, 0, 0o775)));
        }
        assert!(!user.trusts(owned(0, 27, 0o775)) && !user.trusts(owned(0, 0, 0o757)));
        assert!(user.trusts(owned(0, 27, 0o755)) && user.trusts(owned(1000, 27, 0o775)));
    }

    #[test]
    fn why_a_file_is_denied_depends_on_both_users() {
        let host = UserNamespace::parse(Some("0 0 4294967295\n"), None);
        let inner = UserNamespace::parse(Some("0 1000 1\n"), None);
        let writer = |uid| Writer { uid, gids: vec![uid], overrides: false };
        let of = |uid, user, namespace| {
            Denied::of_writer(Some(Owner { uid, gid: uid, mode: 0o200 }), &writer(user), namespace)
        };
        assert_eq!(of(0, 1000, &host), Denied::ByOwner);
        assert_eq!(of(65534, 1000, &host), Denied::ByOwner);
        assert_eq!(of(1000, 0, &host), Denied::ByCapabilities { uid: 1000 });
        assert_eq!([of(0, 0, &host), of(7, 7, &host)], [Denied::ByPolicy; 2]);
        assert_eq!(of(65534, 0, &inner), Denied::ByNamespace { outside: Some(1000) });
        assert_eq!(Denied::of_writer(None, &writer(0), &inner), Denied::ByOwner);
        // Without a mapping, this user looks like any owner.
        let without = UserNamespace::parse(Some(""), None);
        assert_eq!(of(65534, 65534, &without), Denied::ByNamespace { outside: None });
        // Capabilities, not the number of the user, override the mode.
        let capable = |uid| Writer { overrides: true, ..writer(uid) };
        let owned = |uid, gid, mode| Some(Owner { uid, gid, mode });
        let with = |owner, user, namespace| Denied::of_writer(owner, &user, namespace);
        assert_eq!(with(owned(0, 0, 0o200), capable(1000), &host), Denied::ByPolicy);
        assert_eq!(with(owned(1000, 1000, 0o200), capable(0), &host), Denied::ByPolicy);
        let outside = Some(1000);
        assert_eq!(with(owned(65534, 0, 0o200), capable(0), &inner), Denied::ByNamespace { outside });
        assert_eq!(with(owned(0, 65534, 0), capable(0), &inner), Denied::ByMode);
        assert_eq!(with(owned(7, 65534, 0o200), capable(0), &inner), Denied::ByNamespace { outside });
        // The mode counts by the class of the user alone.
        assert_eq!(with(owned(7, 7, 0o022), writer(7), &host), Denied::ByMode);
        assert_eq!(with(owned(0, 7, 0o220), writer(7), &host), Denied::ByPolicy);
        assert_eq!(with(owned(0, 7, 0o202), writer(7), &host), Denied::ByOwner);
        assert_eq!(with(owned(0, 0, 0o202), writer(7), &host), Denied::ByPolicy);
        let nobody = Owner { uid: 65534, gid: 65534, mode: 0o200 };
        assert_eq!(nobody.words_in(&inner), "owned by a user who has no ID in this user namespace");
        assert_eq!(nobody.words_in(&host), "delegated to uid 65534");
    }

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
