//! Targets of reclaim: a cgroup or a NUMA node, opened.

use std::path::Path;

use rustix::io::Errno;

use super::Target;
use crate::cgroup::error::CgroupError;
use crate::cgroup::{CgroupPath, MemoryCgroup, Name};
use crate::host::LockHolder;
use crate::node::Node;
use crate::select::TargetSpec;

/// A cgroup or a node, open for reclaim.
#[derive(Debug)]
pub enum OpenTarget {
    /// A cgroup.
    Cgroup(Box<MemoryCgroup>),
    /// A NUMA node.
    Node(Box<Node>),
}

impl OpenTarget {
    /// Opens the target.
    ///
    /// # Errors
    /// [`CgroupError`]: why nothing can be reclaimed there. Nothing was changed.
    pub fn open(wanted: &TargetSpec) -> Result<Self, CgroupError> {
        Ok(match wanted {
            TargetSpec::Cgroup(selected) => Self::Cgroup(Box::new(MemoryCgroup::open(&selected.located)?)),
            TargetSpec::Node(number) => Self::Node(Box::new(Node::open(*number)?)),
        })
    }

    /// Returns the target's name: the cgroup's path from the mount point, or `node:0`.
    #[must_use]
    pub fn name(&self) -> &Name {
        match self {
            Self::Cgroup(cgroup) => cgroup.cgroup().name(),
            Self::Node(node) => node.name(),
        }
    }

    /// Returns the target's directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Cgroup(cgroup) => cgroup.cgroup().path(),
            Self::Node(node) => node.path(),
        }
    }

    /// Returns the path by which a cgroup was opened; `None` for a node.
    #[must_use]
    pub fn located(&self) -> Option<&CgroupPath> {
        match self {
            Self::Cgroup(cgroup) => Some(cgroup.located()),
            Self::Node(_) => None,
        }
    }

    /// Returns whether the target's memory is the whole host's, and no limit holds reclaim back:
    /// the root cgroup, or a node.
    #[must_use]
    pub fn is_of_the_host(&self) -> bool {
        match self {
            Self::Cgroup(cgroup) => cgroup.cgroup().is_root(),
            Self::Node(_) => true,
        }
    }

    /// Acquires the advisory lock on the target's directory, if no other process holds it. The lock
    /// is held until this value is dropped.
    ///
    /// # Errors
    /// The kernel's, from flock(2), except `EWOULDBLOCK`, which gives `false`.
    pub fn try_lock(&self) -> Result<bool, Errno> {
        match self {
            Self::Cgroup(cgroup) => cgroup.cgroup().try_lock(),
            Self::Node(node) => node.try_lock(),
        }
    }

    /// Finds the process that holds the lock.
    pub(crate) fn lock_holder(&self) -> LockHolder {
        match self {
            Self::Cgroup(cgroup) => cgroup.cgroup().lock_holder(),
            Self::Node(node) => node.lock_holder(),
        }
    }

    /// Returns the target for the engine.
    pub fn target(&mut self) -> &mut dyn Target {
        match self {
            Self::Cgroup(cgroup) => &mut **cgroup,
            Self::Node(node) => &mut **node,
        }
    }
}
