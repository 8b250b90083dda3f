//! Names that aren't paths: a systemd unit, a container, a pod. Each is found by the name of its
//! directory.
//!
//! Layouts: systemd (`systemd.unit(5)`: `-`, `/` and others are spelt `\xNN` in names of slices and
//! instances); docker, podman, containerd and cri-o with the systemd driver (`docker-ID.scope`,
//! `libpod-ID.scope`, `cri-containerd-ID.scope`, `crio-ID.scope`) and with the cgroupfs driver
//! (`ID`, `libpod-ID`, `crio-ID`); kubelet's pods with the systemd driver
//! (`kubepods-burstable-podUID.slice`, where the UID has `_` for `-`) and with the cgroupfs driver
//! (`podUID`).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Object that a word names, if the word isn't a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// Unit, unescaped: bytes, since `\xNN` can stand for any byte.
    Unit(Vec<u8>),
    /// Beginning of a container's ID.
    Container(String),
    /// Beginning of a pod's UID, with `-`.
    Pod(String),
    /// Process, which stands for the cgroup that it is in.
    Pid(u32),
}

/// Suffixes of the units that have cgroups.
const UNITS: [&str; 6] = [".service", ".scope", ".slice", ".socket", ".mount", ".swap"];

/// Name of the root in systemd.
pub(crate) const ROOT: &[u8] = b"-.slice";

/// Prefixes of a container's ID in the names of directories, by runtime.
const RUNTIMES: [&str; 5] = ["docker-", "libpod-", "cri-containerd-", "crio-", "containerd-"];

/// Length of a container's ID, digits.
const ID: usize = 64;

impl Named {
    /// Parses a word. Returns `None` for a word that can only be a path, `Err` for a malformed
    /// container, pod or process.
    #[must_use]
    pub(crate) fn parse(word: impl AsRef<OsStr>) -> Option<Result<Self, &'static str>> {
        let name = word.as_ref();
        // A word with one of these prefixes that isn't UTF-8 is malformed anyway.
        let text = name.to_string_lossy();
        let word = &*text;
        let hex = |id: &str| id.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b'-' | b'_'));
        if let Some(id) = word.strip_prefix("container:") {
            return Some(match id {
                "" => Err("the container ID is missing (its beginning is enough)"),
                id if !hex(id) => Err("not a container ID (hexadecimal digits)"),
                id => Ok(Self::Container(id.to_lowercase())),
            });
        }
        if let Some(uid) = word.strip_prefix("pod:") {
            return Some(match uid {
                "" => Err("the pod UID is missing (its beginning is enough)"),
                uid if !hex(uid) => Err("not a pod UID (hexadecimal digits)"),
                uid => Ok(Self::Pod(uid.to_lowercase().replace('_', "-"))),
            });
        }
        if let Some(pid) = word.strip_prefix("pid:") {
            let digits = pid.bytes().all(|b| b.is_ascii_digit());
            let number = pid.parse().ok().filter(|&pid: &u32| digits && pid > 0);
            return Some(number.map(Self::Pid).ok_or("not a process ID (as in pid:1234)"));
        }
        let is_unit = !word.contains('/')
            && UNITS.iter().any(|suffix| word.len() > suffix.len() && word.ends_with(suffix));
        is_unit.then(|| Ok(Self::unit(name)))
    }

    /// Returns a unit, or part of a unit's path, from any spelling.
    #[must_use]
    pub(crate) fn unit(name: impl AsRef<OsStr>) -> Self {
        Self::Unit(unescaped(name.as_ref().as_bytes()))
    }

    /// Returns whether a directory of this name is the object named.
    #[must_use]
    pub(crate) fn is(&self, directory: impl AsRef<OsStr>) -> bool {
        let directory = directory.as_ref();
        match self {
            Self::Unit(unit) => unescaped(directory.as_bytes()) == *unit,
            Self::Container(id) => {
                directory.to_str().and_then(container_id).is_some_and(|found| found.starts_with(&**id))
            }
            Self::Pod(uid) => {
                directory.to_str().and_then(pod_uid).is_some_and(|found| found.starts_with(&**uid))
            }
            Self::Pid(_) => false,
        }
    }
}

/// Returns the ID of the container whose directory has this name.
#[must_use]
pub(crate) fn container_id(directory: &str) -> Option<&str> {
    let name = directory.strip_suffix(".scope").unwrap_or(directory);
    let id = RUNTIMES.iter().find_map(|runtime| name.strip_prefix(runtime)).unwrap_or(name);
    (id.len() == ID && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))).then_some(id)
}

/// Returns the UID, with `-`, of the pod whose directory has this name.
#[must_use]
pub(crate) fn pod_uid(directory: &str) -> Option<String> {
    let uid = match directory.strip_suffix(".slice") {
        Some(slice) => slice.strip_prefix("kubepods")?.rsplit_once("-pod").map(|(_, uid)| uid)?,
        None => directory.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-");
    // Static pods have a hash of 32 digits.
    let sound = uid.len() >= 32 && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    sound.then(|| uid.to_lowercase())
}

/// Replaces systemd's `\xNN` in a unit's name, so that either spelling is the same name.
#[must_use]
pub(crate) fn unescaped(name: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.strip_prefix(b"x").and_then(|digits| digits.get(..2)).filter(|_| first == b'\\');
        let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ONE: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const POD: &str = "8d5a2e2c-1111-2222-3333-444455556666";

    #[test]
    fn words_are_read() {
        assert_eq!(Named::parse("nginx.service"), Some(Ok(Named::Unit("nginx.service".into()))));
        assert_eq!(Named::parse(r"a\x2db.service"), Some(Ok(Named::Unit("a-b.service".into()))));
        assert_eq!(Named::parse("pid:12"), Some(Ok(Named::Pid(12))));
        assert_eq!(Named::parse("container:ABC"), Some(Ok(Named::Container("abc".into()))));
        for path in ["app", ".service", "system.slice/nginx.service", "nginx.conf"] {
            assert_eq!(Named::parse(path), None, "{path}");
        }
        for wrong in ["pid:x", "pid:-1", "pid:0", "pid:", "container:", "container:web", "pod:", "pod:my-web"]
        {
            assert!(Named::parse(wrong).unwrap().is_err(), "{wrong}");
        }
    }

    #[test]
    fn containers_of_every_runtime_are_found() {
        let short = Named::Container("0123456".into());
        for directory in [
            format!("docker-{ONE}.scope"),
            format!("libpod-{ONE}.scope"),
            format!("cri-containerd-{ONE}.scope"),
            format!("crio-{ONE}.scope"),
            format!("libpod-{ONE}"),
            ONE.to_owned(),
        ] {
            assert_eq!(container_id(&directory), Some(ONE), "{directory}");
            assert!(short.is(&directory) && !Named::Container("fff".into()).is(&directory));
        }
        // The monitor beside a container is not the container.
        assert_eq!(container_id(&format!("libpod-conmon-{ONE}.scope")), None);
        assert_eq!(container_id(&format!("crio-conmon-{ONE}.scope")), None);
        assert_eq!((container_id("docker-abc.scope"), container_id("init.scope")), (None, None));
    }

    #[test]
    fn pods_of_both_drivers_are_found() {
        let slice = format!("kubepods-besteffort-pod{}.slice", POD.replace('-', "_"));
        for directory in [slice, format!("kubepods-pod{}.slice", POD.replace('-', "_")), format!("pod{POD}")]
        {
            assert_eq!(pod_uid(&directory).as_deref(), Some(POD), "{directory}");
            assert!(Named::parse(format!("pod:{POD}")).unwrap().unwrap().is(&directory));
            assert!(Named::parse(format!("pod:{}", POD.replace('-', "_"))).unwrap().unwrap().is(&directory));
        }
        for other in ["kubepods.slice", "kubepods-burstable.slice", "podman", "pod"] {
            assert_eq!(pod_uid(other), None, "{other}");
        }
    }

    #[test]
    fn a_unit_is_itself_however_it_is_spelt() {
        for word in [r"my\x2dapp@1.service", "my-app@1.service"] {
            let unit = Named::unit(word);
            assert!(unit.is(r"my\x2dapp@1.service") && unit.is("my-app@1.service"), "{word}");
        }
        assert!(!Named::unit("app@1.service").is(r"my\x2dapp@1.service"));
    }

    #[test]
    fn a_unit_may_be_called_by_any_bytes() {
        let latin = OsStr::from_bytes(b"caf\xe9.service");
        let unit = Named::parse(latin).unwrap().unwrap();
        assert!(unit.is(latin) && unit.is(r"caf\xe9.service") && !unit.is("caf\u{fffd}.service"));
        assert!(!Named::unit("a\u{f}b.service").is(r"a\x+fb.service"));
        assert!(Named::parse(OsStr::from_bytes(b"container:\xe9")).unwrap().is_err());
    }

    proptest! {
        #[test]
        fn any_name_can_be_unescaped(name in "[a-f0-9x\\\\é]{0,12}") {
            let _ = unescaped(name.as_bytes());
        }
    }
}
