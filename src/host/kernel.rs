//! Release of the kernel, for features that can't be probed. Distributors backport, so the release
//! is a hint, never proof.

use super::proc::read_system_file;

/// Returns the kernel's release, as in `uname -r`.
#[must_use]
pub fn kernel_release() -> Option<String> {
    Some(read_system_file("/proc/sys/kernel/osrelease").ok()?.trim().to_owned())
}

/// Version of a kernel, the first two numbers of its release: `6.12.48+deb13` is 6.12.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl Version {
    /// Returns the version of the running kernel.
    #[must_use]
    pub(crate) fn running() -> Option<Self> {
        Self::parse(&kernel_release()?)
    }

    pub(crate) fn parse(release: &str) -> Option<Self> {
        let (major, rest) = release.split_once('.')?;
        let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_as_distributors_write_them() {
        let parse = Version::parse;
        assert_eq!(parse("6.12.107+deb13-cloud-amd64"), Some(Version(6, 12)));
        assert_eq!(parse("7.3-rc1"), Some(Version(7, 3)));
        assert_eq!(parse("5.14.0-570.el9.x86_64"), Some(Version(5, 14)));
        assert_eq!((parse("six"), parse("6"), parse("6.x")), (None, None, None));
        assert!(Version(6, 9) < Version(6, 11));
    }
}
