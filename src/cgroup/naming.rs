//! Names that aren't paths: a systemd unit, a container, a pod. Each is found by the name of its
//! directory.
//!
//! Systemd spells `-`, `/` and others as `\xNN` in names of slices and instances
//! (`systemd.unit(5)`).
//!
//! A container or a pod is recognised by its ID alone, wherever it stands, since every runtime puts
//! words of its own in front: `docker-ID.scope`, `cri-containerd-ID.scope`, `nerdctl-ID.scope`,
//! `libpod-payload-ID`, `SLICE:cri-containerd:ID`, or `ID`; `kubepods-burstable-podUID.slice`, the
//! same after `kubelet-`, or `podUID`. Whether such a name counts is decided by ownership
//! ([`super::owner`]).

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
                uid if !hex(uid) => Err("neither a pod UID (hexadecimal digits) nor NAMESPACE/NAME"),
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

/// Returns the ID of the container whose directory has this name: 64 digits at the end of the
/// name or of a scope's, with no other digit or letter in front. A service with an ID in its name
/// is beside the container: Podman checks the health of a container in `ID.service`, and runs its
/// monitor in `container-ID.service` (podman-generate-systemd(1)).
#[must_use]
pub(crate) fn container_id(directory: &str) -> Option<&str> {
    let stem = directory.strip_suffix(".scope").unwrap_or(directory);
    let (before, id) = stem.split_at_checked(stem.len().checked_sub(ID)?)?;
    // The monitor of podman and cri-o has a cgroup of its own beside the container's.
    let alone = !before.ends_with(|c: char| c.is_alphanumeric()) && !before.ends_with("conmon-");
    (alone && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))).then_some(id)
}

/// Returns the UID, with `-`, of the pod whose directory has this name: `pod` and the UID, in which
/// `-` may be spelt `_` or left out (a static pod's UID is a hash), with no other digit or letter
/// behind. A container's directory that has its pod's UID in its name is no pod's.
#[must_use]
pub(crate) fn pod_uid(directory: &str) -> Option<String> {
    if container_id(directory).is_some() {
        return None;
    }
    uid_within(directory)
}

/// Returns the UID of a pod in the name of a directory, also if it is a container's.
#[must_use]
pub(crate) fn uid_within(directory: &str) -> Option<String> {
    directory.match_indices("pod").find_map(|(at, pod)| {
        let text = &directory[at + pod.len()..];
        let uid = [36, 32].iter().find_map(|&length| text.get(..length).filter(|uid| is_uid(uid)))?;
        let alone = !text[uid.len()..].starts_with(|c: char| c.is_alphanumeric());
        alone.then(|| uid.replace('_', "-").to_lowercase())
    })
}

/// Returns whether a text is a UID: 32 digits, or groups of digits in the form of RFC 9562.
fn is_uid(text: &str) -> bool {
    const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];
    let groups = || text.split(['-', '_']).map(str::len);
    text.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b'-' | b'_'))
        && (groups().eq(GROUPS) || groups().eq([32]))
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
            format!("libpod-payload-{ONE}"),
            format!("nerdctl-{ONE}.scope"),
            format!("my-runtime-{ONE}.scope"),
            format!("{ONE}.scope"),
            format!("system.slice:docker:{ONE}"),
            format!("kubepods-besteffort-pod{}.slice:cri-containerd:{ONE}", POD.replace('-', "_")),
            ONE.to_owned(),
        ] {
            assert_eq!(container_id(&directory), Some(ONE), "{directory}");
            assert!(short.is(&directory) && !Named::Container("fff".into()).is(&directory));
        }
        // The monitor beside a container is not the container.
        assert_eq!(container_id(&format!("libpod-conmon-{ONE}.scope")), None);
        assert_eq!(container_id(&format!("crio-conmon-{ONE}.scope")), None);
        // Neither are services with its ID.
        for service in ["", "container-", "libpod-", "docker-", "cri-containerd-"] {
            let service = format!("{service}{ONE}.service");
            assert!(container_id(&service).is_none() && !short.is(&service), "{service}");
        }
        assert_eq!(container_id(&format!("{ONE}-{}.timer", &ONE[..16])), None);
        // Neither is a pod of podman's, nor anything with more or fewer digits.
        for other in [
            format!("machine-libpod_pod_{ONE}.slice"),
            format!("a{ONE}"),
            format!("docker-{}.scope", &ONE[1..]),
            format!("docker-{}é.scope", &ONE[2..]),
            format!("docker-{}.scope", ONE.to_uppercase()),
            "docker-abc.scope".into(),
            "init.scope".into(),
        ] {
            assert_eq!(container_id(&other), None, "{other}");
        }
    }

    #[test]
    fn pods_of_both_drivers_are_found() {
        let spelt = POD.replace('-', "_");
        for directory in [
            format!("kubepods-besteffort-pod{spelt}.slice"),
            format!("kubepods-pod{spelt}.slice"),
            format!("kubelet-kubepods-burstable-pod{spelt}.slice"),
            format!("my-pods-pod{spelt}.slice"),
            format!("pod{POD}"),
            format!("pod{}", POD.to_uppercase()),
        ] {
            assert_eq!(pod_uid(&directory).as_deref(), Some(POD), "{directory}");
            assert!(Named::parse(format!("pod:{POD}")).unwrap().unwrap().is(&directory));
            assert!(Named::parse(format!("pod:{}", POD.replace('-', "_"))).unwrap().unwrap().is(&directory));
        }
        let hash = POD.replace('-', "");
        assert_eq!(pod_uid(&format!("kubepods-burstable-pod{hash}.slice")), Some(hash.clone()));
        for other in [
            "kubepods.slice".into(),
            "kubepods-burstable.slice".into(),
            "podman".into(),
            "pod".into(),
            format!("pod{POD}0"),
            format!("pod{hash}0"),
            format!("machine-libpod_pod_{ONE}.slice"),
            format!("libpod-{ONE}"),
            format!("pod{ONE}"),
            format!("kubepods-besteffort-pod{spelt}.slice:cri-containerd:{ONE}"),
        ] {
            assert_eq!(pod_uid(&other), None, "{other}");
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

        #[test]
        fn any_name_may_have_an_id(name in "(pod|libpod|-|:|é|[0-9a-f_-]{30,70}|\\.scope|\\.slice){0,6}") {
            let _ = (container_id(&name), pod_uid(&name));
        }
    }
}
