//! Moving this process into a cgroup, so that it pays the CPU time of what is done, and out of it again.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::error::{CgroupError, error_text};
use super::{Cgroup, CgroupPath, Name, diagnose, is_populated, tree};

/// The file that processes are moved by.
const PROCS: &str = "cgroup.procs";

/// A cgroup that this process has moved into.
#[derive(Debug)]
pub struct Joined {
    cgroup: Cgroup,
    /// Where it was before, held open: what has its path later may be another one.
    before: Option<Cgroup>,
}

/// Why a cgroup can't be joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// There is no such cgroup.
    #[error(transparent)]
    Place(#[from] CgroupError),
    /// The kernel's reason.
    #[error("{name}: can't join: {}", why(*errno))]
    Refused {
        /// The cgroup's name.
        name: String,
        /// What the kernel said.
        errno: Errno,
    },
}

impl JoinError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Place(place) => place.hint(),
            Self::Refused { errno: Errno::BUSY, .. } => Some("join a cgroup below".into()),
            Self::Refused { errno: Errno::ACCESS | Errno::PERM, .. } => Some(
                "run as root, or get write access to cgroup.procs here and in the nearest common ancestor"
                    .into(),
            ),
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
    /// Moves this process, with all its threads, into a cgroup. `before` is the one it is in now, to which it goes back.
    ///
    /// # Errors
    /// [`JoinError`]; the process is where it was.
    pub fn enter(located: &CgroupPath, before: Option<&CgroupPath>) -> Result<Self, JoinError> {
        let before = before.and_then(|located| located.open().ok());
        let cgroup = diagnose::open(located)?;
        let refused = |errno| JoinError::Refused { name: located.name.to_string(), errno };
        move_to(&cgroup).map_err(refused)?;
        Ok(Self { cgroup, before })
    }

    /// The cgroup's name.
    #[must_use]
    pub fn name(&self) -> &Name {
        self.cgroup.name()
    }

    /// Goes back to where it was, if nobody else is left in the cgroup or below: a cgroup can't be removed while
    /// somebody is in it, and a service seems to run. Says whether it went.
    #[must_use]
    pub fn leave_if_alone(&self) -> bool {
        let own = std::process::id().to_string();
        // What can't be read is gone, or none of our business any more.
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
    // 0 is whoever writes.
    rustix::io::write(&procs, b"0").map(drop)
}
