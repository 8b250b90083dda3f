//! PSI of the host: whether the kernel keeps stall figures.

use std::io::ErrorKind;
use std::path::Path;

use rustix::io::Errno;

use super::proc::errno_of;

/// State of PSI, of the host or of one cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PsiState {
    /// Stall figures are kept, and can be read here.
    On,
    /// The kernel keeps none: PSI isn't built in, or not switched on at boot.
    Off,
    /// The kernel keeps none for this cgroup: its `cgroup.pressure` is 0.
    OffHere,
    /// Stall figures can't be read here, whether or not the kernel keeps them.
    #[default]
    Unknown,
}

impl PsiState {
    /// Reads the state of the host.
    #[must_use]
    pub(crate) fn of_host() -> Self {
        Self::of_proc(Path::new("/proc"))
    }

    /// Reads the state from a procfs. With PSI the kernel makes a directory `pressure` in it. That
    /// a whole procfs lacks one means that PSI is off; one that shows processes only
    /// (`subset=pid`), or a `pressure` without files, means that PSI is hidden.
    fn of_proc(proc: &Path) -> Self {
        let dir = proc.join("pressure");
        match std::fs::read(dir.join("memory")) {
            Ok(text) if text.starts_with(b"some ") => Self::On,
            Err(e) if errno_of(&e) == Errno::OPNOTSUPP => Self::Off,
            Err(e) if e.kind() == ErrorKind::NotFound && is_absent(&dir) && proc.join("meminfo").exists() => {
                Self::Off
            }
            _ => Self::Unknown,
        }
    }

    /// Returns the word for the state in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::OffHere => "off_for_cgroup",
            Self::Unknown => "unknown",
        }
    }

    /// Returns the reason why a bound on stalls can't be kept; `None` if it can.
    #[must_use]
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::On => None,
            Self::Off => Some("PSI is off on this host"),
            Self::OffHere => Some("PSI is off for this cgroup (cgroup.pressure is 0)"),
            Self::Unknown => Some("memory pressure can't be read here"),
        }
    }
}

fn is_absent(dir: &Path) -> bool {
    std::fs::metadata(dir).is_err_and(|e| e.kind() == ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_not_off() {
        let proc = tempfile::tempdir().unwrap();
        let state = || PsiState::of_proc(proc.path());
        assert_eq!(state(), PsiState::Unknown, "processes only");
        std::fs::write(proc.path().join("meminfo"), "").unwrap();
        assert_eq!(state(), PsiState::Off);
        std::fs::create_dir(proc.path().join("pressure")).unwrap();
        assert_eq!(state(), PsiState::Unknown, "something is mounted over it");
        std::fs::write(proc.path().join("pressure/memory"), "").unwrap();
        assert_eq!(state(), PsiState::Unknown);
        std::fs::write(proc.path().join("pressure/memory"), "some avg10=0.00\n").unwrap();
        assert_eq!(state(), PsiState::On);
    }
}
