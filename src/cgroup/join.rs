//! Moving this process into a cgroup, which is then charged for its CPU time, and out again.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::error::{CgroupError, error_text};
use super::owner::{Denied, Owner};
use super::{Cgroup, CgroupPath, Name, diagnose, is_populated, tree};

/// Name of the file that moves processes.
const PROCS: &str = "cgroup.procs";

/// Cgroup that this process has moved into.
#[derive(Debug)]
pub struct Joined {
    cgroup: Cgroup,
    /// Previous cgroup, held open, since its path may later lead to another cgroup.
    before: Option<Cgroup>,
}

/// Reason why a cgroup can't be joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Error in opening the cgroup.
    #[error(transparent)]
    Place(#[from] CgroupError),
    /// Refusal by the kernel.
    #[error("{name}: can't join: {}", why(*errno))]
    Refused {
        /// Name of the cgroup.
        name: String,
        /// Error from the kernel.
        errno: Errno,
        /// Reason for a refusal for want of permission.
        denied: Denied,
    },
}

impl JoinError {
    /// Returns advice for the user, where there is any.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Place(place) => place.hint(),
            Self::Refused { errno: Errno::BUSY, .. } => Some("join a cgroup below".into()),
            Self::Refused { errno: Errno::ACCESS | Errno::PERM, denied, .. } => Some(match denied {
                Denied::ByCapabilities { uid } => {
                    format!("run with CAP_DAC_OVERRIDE, or as uid {uid}, the owner of cgroup.procs")
                }
                Denied::ByPolicy | Denied::ByMode => {
                    "get write access to cgroup.procs here and in the nearest common ancestor".into()
                }
                Denied::ByOwner | Denied::ByNamespace { .. } => "run as root, or get write access to \
                     cgroup.procs here and in the nearest common ancestor"
                    .into(),
            }),
            Self::Refused { .. } => None,
        }
    }
}

fn why(errno: Errno) -> String {
    match errno {
        Errno::BUSY => "a cgroup with controllers in cgroup.subtree_control can't contain processes".into(),
        Errno::OPNOTSUPP => "the cgroup is part of a threaded subtree".into(),
        Errno::ACCESS | Errno::PERM => "permission denied".into(),
        other => error_text(&other.into()),
    }
}

impl Joined {
    /// Moves this process, with all its threads, into a cgroup. `before` is the cgroup that the
    /// process is in now and later returns to.
    ///
    /// # Errors
    /// [`JoinError`]; the process hasn't moved.
    pub fn enter(located: &CgroupPath, before: Option<&CgroupPath>) -> Result<Self, JoinError> {
        let before = before.and_then(|located| located.open().ok());
        let cgroup = diagnose::open(located)?;
        let refused = |errno| {
            let denied = Denied::of(Owner::of_file(&cgroup, PROCS));
            JoinError::Refused { name: located.name.to_string(), errno, denied }
        };
        move_to(&cgroup).map_err(refused)?;
        Ok(Self { cgroup, before })
    }

    /// Returns the cgroup's name.
    #[must_use]
    pub(crate) fn name(&self) -> &Name {
        self.cgroup.name()
    }

    /// Moves this process back to its previous cgroup if no other process is left in the cgroup or
    /// below, and returns whether it moved. A cgroup can't be removed while a process is in it, and
    /// a service there seems to run.
    #[must_use]
    pub(crate) fn leave_if_alone(&self) -> bool {
        let own = std::process::id().to_string();
        // An unreadable cgroup is gone, or no longer ours to leave.
        let Ok(procs) = self.cgroup.read(PROCS) else { return false };
        let alone = procs.lines().all(|pid| pid == own) && !procs.is_empty();
        if !alone || tree::children(self.cgroup.path()).any(|child| is_populated(&child)) {
            return false;
        }
        self.before.as_ref().is_some_and(|before| move_to(before).is_ok())
    }
}

fn move_to(cgroup: &Cgroup) -> Result<(), Errno> {
    let procs = rustix::fs::openat(cgroup, PROCS, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    // 0 stands for the writing process.
    rustix::io::write(&procs, b"0").map(drop)
}
