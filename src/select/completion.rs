//! Completion of a partly typed name of a cgroup, from the cgroups of one level.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::cgroup::mount::{Mount, Mounts};
use crate::cgroup::naming::{Named, container_id, pod_uid};
use crate::cgroup::tree;
use crate::host::proc::{parse_number, read_in};
use crate::node;
use crate::select::pods::pattern::PREFIX;
use crate::select::pods::{PodState, Pods};

/// Number of digits of a container's ID to offer, as other tools show it.
const ID_SHOWN: usize = 12;

/// Cgroup that completes the typed name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Completed name, with a `/` at the end if there are cgroups below.
    pub word: OsString,
    /// `memory.current`, bytes; `None` where there is none.
    pub current: Option<u64>,
}

/// Returns the completions of `typed` on its level, in the order of names. There are no errors,
/// since the user of a completion wants no message.
#[must_use]
pub fn candidates(typed: &OsStr) -> Vec<Candidate> {
    let Ok(mounts) = Mounts::read() else { return Vec::new() };
    // A path is completed in the mount that it leads into, a name from where names begin.
    let Some(mount) = mounts.around(Path::new(typed)).or_else(|| mounts.widest()) else { return Vec::new() };
    let mut found = below(&mount.point, typed);
    found.extend(typed.to_str().map(|typed| elsewhere(mount, typed)).unwrap_or_default());
    found
}

/// Returns the NUMA nodes that complete the word. These are separate from the hierarchy, and only
/// for options that accept nodes.
#[must_use]
pub fn nodes(typed: &str) -> Vec<Candidate> {
    if typed.is_empty() {
        return Vec::new();
    }
    if typed != node::PREFIX && node::PREFIX.starts_with(typed) {
        return vec![Candidate { word: node::PREFIX.into(), current: None }];
    }
    let online = node::online().into_iter();
    let named = online.map(|(number, current)| (format!("{}{number}", node::PREFIX), current));
    let begun = named.filter(|(word, _)| word.starts_with(typed));
    begun.map(|(word, current)| Candidate { word: word.into(), current }).collect()
}

/// Returns the completions of a pod: by its name, where that is known, or else by its UID; and of its
/// containers, once its name is typed.
fn pods(mount: &Mount, typed: &str, pods: &Pods) -> Vec<Candidate> {
    let names_container = typed.matches('/').count() > 1;
    let word = |path: &Path, name: &str| match pods.of(mount, path.strip_prefix(&mount.point).ok()?) {
        PodState::Known(pod) if pod.is_own && pod.names.in_container == names_container => {
            let container = pod.names.container.as_ref();
            let tail = if names_container { format!("/{}", container?) } else { String::new() };
            Some(format!("{PREFIX}{}/{}{tail}", pod.names.namespace, pod.names.pod))
        }
        PodState::Unknown if !names_container => pod_uid(name).map(|uid| format!("{PREFIX}{uid}")),
        _ => None,
    };
    let named = tree::walk(mount).filter(|entry| entry.genuine).filter_map(|tree::Entry { path, .. }| {
        let word = word(&path, path.file_name()?.to_str()?)?;
        word.starts_with(typed).then(|| Candidate { word: word.into(), current: usage(&path) })
    });
    let mut found: Vec<_> = named.collect();
    found.sort_by(|one, other| one.word.cmp(&other.word));
    found.dedup_by(|one, other| one.word == other.word);
    found
}

/// Returns the completions that aren't paths: units, containers and pods anywhere below.
fn elsewhere(mount: &Mount, typed: &str) -> Vec<Candidate> {
    type Read = fn(&str) -> Option<String>;
    if typed.starts_with(PREFIX) {
        return pods(mount, typed, &Pods::default());
    }
    let container: Read = |name| container_id(name).map(|id| format!("container:{}", &id[..ID_SHOWN]));
    let unit: Read = |name| matches!(Named::parse(name), Some(Ok(Named::Unit(_)))).then(|| name.to_owned());
    let begun = typed.starts_with("container:").then_some(container);
    let Some(read) = begun.or_else(|| (!typed.is_empty() && !typed.contains('/')).then_some(unit)) else {
        return Vec::new();
    };
    // A name that doesn't count would be refused.
    let named = tree::walk(mount).filter(|entry| entry.genuine).filter_map(|tree::Entry { path, .. }| {
        let word = read(path.file_name()?.to_str()?)?;
        // A unit at the top is offered as a path already.
        let known = begun.is_none() && path.parent() == Some(&mount.point);
        (word.starts_with(typed) && !known).then(|| Candidate { word: word.into(), current: usage(&path) })
    });
    let mut found: Vec<_> = named.collect();
    found.sort_by(|one, other| one.word.cmp(&other.word));
    found.dedup_by(|one, other| one.word == other.word);
    // Prefixes are completed as well.
    let begins = |prefix: &str| !typed.is_empty() && prefix.starts_with(typed) && prefix != typed;
    let prefixes = ["container:", "pid:", PREFIX].into_iter().filter(|prefix| begins(prefix));
    found.extend(prefixes.map(|prefix| Candidate { word: prefix.into(), current: None }));
    found
}

fn usage(path: &Path) -> Option<u64> {
    parse_number(&read_in(path, "memory.current").ok()?).ok()?
}

fn below(point: &Path, typed: &OsStr) -> Vec<Candidate> {
    let (whole, typed) = (point.as_os_str().as_bytes(), typed.as_bytes());
    // Complete a path up to the mount; `/` alone is as likely the beginning of a name.
    if typed.len() > 1 && whole.starts_with(typed) {
        return vec![Candidate { word: OsString::from_vec([whole, b"/"].concat()), current: None }];
    }
    let path = typed.strip_prefix(whole).and_then(|rest| rest.strip_prefix(b"/"));
    let name = path.unwrap_or_else(|| &typed[typed.iter().take_while(|&&byte| byte == b'/').count()..]);
    let at = name.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let (level, part) = name.split_at(at);
    let before = &typed[..typed.len() - part.len()];
    let matching = tree::children(&point.join(OsStr::from_bytes(level))).filter_map(|child| {
        let name = child.file_name()?.as_bytes();
        // A word that begins with a dash would be read as an option.
        let is_option = before.is_empty() && name.starts_with(b"-");
        (name.starts_with(part) && !is_option).then(|| {
            let inner = tree::children(&child).next().map_or(&b""[..], |_| b"/");
            let word = OsString::from_vec([before, name, inner].concat());
            Candidate { word, current: usage(&child) }
        })
    });
    let mut found: Vec<_> = matching.collect();
    found.sort_by(|one, other| one.word.cmp(&other.word));
    found
}

#[cfg(test)]
mod tests {
    use super::super::pods::logs::tests::{id, make_pod};
    use super::*;

    #[test]
    fn units_containers_and_pods_are_found_below() {
        let root = tempfile::tempdir().unwrap();
        let id = "0123456789ab".repeat(5) + "cdef";
        for name in [
            "system.slice/nginx.service".to_owned(),
            format!("system.slice/docker-{id}.scope"),
            "kubepods/pod8d5a2e2c-1111-2222-3333-444455556666".to_owned(),
        ] {
            std::fs::create_dir_all(root.path().join(name)).unwrap();
        }
        let words = |typed: &str| {
            let found = elsewhere(&Mount::whole(root.path().into(), false), typed);
            found.into_iter().map(|candidate| candidate.word).collect::<Vec<_>>()
        };
        assert_eq!(words("ngi"), ["nginx.service"]);
        assert_eq!(words("container:"), ["container:0123456789ab"]);
        assert_eq!(words("pod:8"), ["pod:8d5a2e2c-1111-2222-3333-444455556666"]);
        assert_eq!(words("po"), ["pod:"]);
        assert!(words("").is_empty() && words("system.slice/").is_empty() && words("sys").is_empty());
    }

    #[test]
    fn pods_are_offered_by_their_names_level_by_level() {
        let (root, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (digit, name) in [('1', Some("batch_web-0")), ('2', Some("batch_web-1")), ('3', None)] {
            let (uid, id) = (digit.to_string().repeat(32), id(digit));
            std::fs::create_dir_all(root.path().join(format!("kubepods/pod{uid}/{id}"))).unwrap();
            if let Some(name) = name {
                make_pod(logs.path(), &format!("{name}_{uid}"), &[("app", &id)]);
            }
        }
        let mount = Mount::whole(root.path().into(), false);
        let words = |typed: &str| {
            let found = pods(&mount, typed, &Pods::faked(logs.path()));
            found.into_iter().map(|candidate| candidate.word).collect::<Vec<_>>()
        };
        let unnamed = format!("pod:{}", "3".repeat(32));
        assert_eq!(words("pod:"), [&unnamed, "pod:batch/web-0", "pod:batch/web-1"].map(OsString::from));
        assert_eq!(words("pod:batch/web-1"), ["pod:batch/web-1"]);
        assert_eq!(words("pod:batch/web-1/"), ["pod:batch/web-1/app"]);
        assert!(words("pod:kube").is_empty() && words("pod:batch/web-2/").is_empty());
    }

    #[test]
    fn a_name_like_an_option_is_offered_as_a_path_only() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("--no-lock")).unwrap();
        let words = |typed: &str| {
            let found = below(root.path(), OsStr::new(typed));
            found.into_iter().map(|candidate| candidate.word).collect::<Vec<_>>()
        };
        assert!(words("").is_empty() && words("--no").is_empty());
        assert_eq!(words("/"), ["/--no-lock"]);
    }

    #[test]
    fn names_that_are_no_utf8_are_completed_byte_by_byte() {
        let root = tempfile::tempdir().unwrap();
        let odd = |tail: &[u8]| OsString::from_vec([b"j\xe9b".as_slice(), tail].concat());
        std::fs::create_dir_all(root.path().join(odd(b"/inner"))).unwrap();
        let words = |typed: &[u8]| {
            let found = below(root.path(), OsStr::from_bytes(typed));
            found.into_iter().map(|candidate| candidate.word).collect::<Vec<_>>()
        };
        assert_eq!(
            (words(b"j"), words(b"/j\xe9")),
            (vec![odd(b"/")], vec![OsString::from_vec(b"/j\xe9b/".to_vec())])
        );
        assert_eq!((words(b"j\xe9b/in"), words(b"j\xe8").len()), (vec![odd(b"/inner")], 0));
    }

    #[test]
    fn a_level_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        for name in ["app", "system.slice/a\\x2db.service", "system.slice/cri:one"] {
            std::fs::create_dir_all(root.path().join(name)).unwrap();
        }
        std::fs::write(root.path().join("app/memory.current"), "4096\n").unwrap();
        let words = |typed: &str| {
            let found = below(root.path(), OsStr::new(typed));
            found.into_iter().map(|candidate| candidate.word).collect::<Vec<_>>()
        };
        assert_eq!(words(""), ["app", "system.slice/"]);
        assert_eq!(words("/s"), ["/system.slice/"]);
        assert_eq!(words("system.slice/"), ["system.slice/a\\x2db.service", "system.slice/cri:one"]);
        assert_eq!(words("/system.slice/a\\x"), ["/system.slice/a\\x2db.service"]);
        let point = root.path().to_string_lossy();
        assert_eq!(words(&point[..point.len() - 1]), [OsString::from(format!("{point}/"))]);
        assert_eq!(words(&format!("{point}/ap")), [OsString::from(format!("{point}/app"))]);
        assert_eq!(below(root.path(), OsStr::new("app"))[0].current, Some(4096));
        assert!(words("nothing/here").is_empty() && words("zzz").is_empty());
    }
}
