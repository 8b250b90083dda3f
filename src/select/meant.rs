//! Words that people write for a cgroup, and that aren't a name of one: how the name is written.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::locate::Locator;
use super::pattern::{Pattern, has_special};
use super::pods::logs::PodName;
use super::pods::pattern::PREFIX;
use super::process::word_of_proc;
use super::search::Search;
use crate::cgroup::error::CgroupError;
use crate::cgroup::naming::{Named, container_id, pod_uid};
use crate::cgroup::systemd::quoted;
use crate::node;
use crate::size::looks_like_size;

/// Number of digits of a container's ID by which it is recognised without `container:`, as other
/// tools show it.
const ID_SHOWN: usize = 12;

/// Returns advice on a word that names no cgroup, where its form shows what was meant. Every name
/// in the advice leads to something.
pub(super) fn advice(word: &OsStr, locator: &Locator) -> Option<String> {
    if has_special(word) {
        return glob_at_any_level(word, locator);
    }
    let text = word.to_str()?;
    if let Some(name) = name_of(text, locator) {
        return Some(match locator.find(OsStr::new(&name)) {
            Err(why @ CgroupError::Ambiguous { .. }) => why.to_string(),
            _ => format!("write it as {}", quoted(&name)),
        });
    }
    let pods = pods(text, locator);
    if !pods.is_empty() {
        return Some(format!("write it as {}", pods.join(" or ")));
    }
    if looks_like_size(text) && text.bytes().any(|byte| byte.is_ascii_alphabetic() || byte == b'%') {
        return Some(
            "only reclaim takes a SIZE as a word, the last; watch has --headroom, --keep and --floor".into(),
        );
    }
    if let Some(namespace) = text.strip_prefix(PREFIX)
        && locator.pods().logs().all().any(|pod| *pod.namespace == *namespace)
    {
        return Some(format!("pods of a namespace: {}", quoted(&format!("{PREFIX}{namespace}/*"))));
    }
    let malformed = matches!(Named::parse(word), Some(Err(_)));
    let has_id = ["container:", "pod:"].iter().any(|prefix| text.starts_with(prefix));
    (malformed && has_id && !text.contains('/'))
        .then(|| "the ID is in the name of the cgroup: memctl stat -r".to_owned())
}

/// Returns the name that a word was meant for.
fn name_of(text: &str, locator: &Locator) -> Option<String> {
    let names = [process(text), of_node(text), id(text, locator), path(text, locator)];
    names.into_iter().flatten().next()
}

/// Returns whether a process of this number exists.
fn runs(pid: &str) -> bool {
    !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit()) && Path::new("/proc").join(pid).exists()
}

/// Returns the name for a process's cgroup, from a path below its directory in proc, its number
/// alone, or another spelling of `pid:`.
fn process(text: &str) -> Option<String> {
    if let Some(word) = word_of_proc(Path::new(text)).filter(|_| Path::new(text).exists()) {
        return word.into_string().ok();
    }
    let pid = prefixed(text, &["pid", "process"]).unwrap_or(text);
    runs(pid).then(|| format!("pid:{pid}"))
}

/// Returns the name of a NUMA node, from its directory or another spelling.
fn of_node(text: &str) -> Option<String> {
    let name = text.strip_prefix("/sys/devices/system/node/").unwrap_or(text);
    let name = name.split('/').next()?;
    let number = name.strip_prefix("node").or_else(|| prefixed(name, &["node", "numa"]))?;
    let number = number.trim_start_matches([':', '=']);
    let exists = || Path::new("/sys/devices/system/node").join(format!("node{number}")).exists();
    (number.parse::<u32>().is_ok() && exists()).then(|| format!("{}{number}", node::PREFIX))
}

/// Returns the name of a container or a pod, from its ID alone, from the name of its directory, or
/// with another word in front, such as the runtime's (`containerd://ID` in Kubernetes).
fn id(text: &str, locator: &Locator) -> Option<String> {
    let last = text.trim_end_matches('/').rsplit('/').next()?;
    let after = last.rsplit([':', '=']).next()?.to_lowercase();
    let digits = after.len() >= ID_SHOWN && after.bytes().all(|b| b.is_ascii_hexdigit());
    // A service isn't the container, but who names one by its ID means the container.
    let directory = last.strip_suffix(".service").unwrap_or(last);
    let container = container_id(directory).map(str::to_owned).or_else(|| digits.then(|| after.clone()));
    let container = container.map(|id| format!("container:{id}"));
    let pod = pod_uid(last).or_else(|| pod_uid(&format!("pod{after}"))).map(|uid| format!("pod:{uid}"));
    let named = |word: &String| {
        word != text && matches!(locator.find(OsStr::new(word)), Ok(_) | Err(CgroupError::Ambiguous { .. }))
    };
    container.into_iter().chain(pod).find(named)
}

/// Returns the words for the pods with this name, alone or as other tools write it:
/// `NAMESPACE/NAME`, `pod/NAME`.
fn pods(text: &str, locator: &Locator) -> Vec<String> {
    let mut names = text;
    while let Some(rest) =
        ["pod:", "pods/", "pod/", "po/"].iter().find_map(|prefix| names.strip_prefix(prefix))
    {
        names = rest;
    }
    let (namespace, name, container) = match names.split('/').collect::<Vec<_>>()[..] {
        [name] => (None, name, None),
        [namespace, name] => (Some(namespace), name, None),
        [namespace, name, container] => (Some(namespace), name, Some(container)),
        _ => return Vec::new(),
    };
    let is_meant = |pod: &&PodName| *pod.name == *name && namespace.is_none_or(|own| *pod.namespace == *own);
    let found = locator.pods().logs().all().filter(is_meant);
    let tail = container.map_or_else(String::new, |container| format!("/{container}"));
    let mut words: Vec<_> =
        found.map(|pod| format!("{PREFIX}{}/{}{tail}", pod.namespace, pod.name)).collect();
    words.sort();
    words.dedup();
    let exists =
        |word: &str| matches!(locator.find(OsStr::new(word)), Ok(_) | Err(CgroupError::Ambiguous { .. }));
    words.retain(|word| word != text && exists(word));
    words
}

/// Returns the path of a cgroup, from one with a prefix that isn't part of it: `memory:app` of
/// libcgroup, `0::/app` of proc, `file:///…` of a file manager, the mount point of a controller of
/// version 1, or the mount point without its slash.
fn path(text: &str, locator: &Locator) -> Option<String> {
    /// Directories of a host that has version 1 at the same mount point.
    const VERSION_1: [&str; 3] = ["memory", "unified", "systemd"];
    let leads = |word: &str| !word.is_empty() && locator.find(OsStr::new(word)).is_ok();
    // With empty variables of a script in it, a pod's name must not become the root.
    if text.starts_with(PREFIX) {
        return None;
    }
    if let Some(rest) = text.rsplit([':', '=']).next().filter(|rest| *rest != text && leads(rest)) {
        let slashes = rest.len() - rest.trim_start_matches('/').len();
        return Some(rest[slashes.saturating_sub(1)..].to_owned());
    }
    let absolute = format!("/{text}");
    let point = locator.mount().ok()?.point.to_str()?;
    if Path::new(&absolute).starts_with(point) && leads(&absolute) {
        return Some(absolute);
    }
    let below = text.strip_prefix(point).unwrap_or(text).trim_start_matches('/');
    let (first, rest) = below.split_once('/')?;
    (VERSION_1.contains(&first) && leads(rest)).then(|| rest.to_owned())
}

/// Returns the rest of a word after one of these prefixes, in any case, and `:`, `=` or both.
fn prefixed<'a>(text: &'a str, prefixes: &[&str]) -> Option<&'a str> {
    let (prefix, rest) = text.split_once([':', '='])?;
    prefixes
        .iter()
        .any(|known| prefix.eq_ignore_ascii_case(known))
        .then(|| rest.trim_start_matches([':', '=']))
}

/// Returns advice on a glob that matches nothing, if it matches something below the level that it
/// was given for.
fn glob_at_any_level(word: &OsStr, locator: &Locator) -> Option<String> {
    let relative = OsStr::from_bytes(word.as_bytes().strip_prefix(b"/").unwrap_or(word.as_bytes()));
    if relative.as_bytes().starts_with(b"**/") || relative.as_bytes().starts_with(b".") {
        return None;
    }
    let mut deep = OsString::from("**/");
    deep.push(relative);
    let matcher = Pattern::new(&deep).ok()?.matcher();
    let mut search = Search::default();
    search.glob(0, Path::new(&deep), &matcher);
    let mut found = false;
    search.run(locator.mount().ok()?, locator.asker(), locator.pods(), false, &mut |_, _| found = true);
    let deep = deep.to_str().filter(|_| found)?;
    Some(format!("a glob begins at the top of the hierarchy; at any level: {}", quoted(deep)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::tree::tests::make;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "8d5a2e2c-1111-2222-3333-444455556666";

    #[test]
    fn a_name_is_recognised_in_the_form_of_other_tools() {
        let root = tempfile::tempdir().unwrap();
        let pod = format!("kubepods/kubepods-pod{}.slice", UID.replace('-', "_"));
        make(root.path(), &["app", &format!("{pod}/crio-{ID}.scope"), "system.slice/nginx.service"]);
        let locator = Locator::faked(root.path());
        let point = root.path().display();
        // Directories of a test aren't on cgroup2, so only searches find anything.
        let of = |word: &str| name_of(word, &locator);
        let me = std::process::id();
        for word in [format!("{me}"), format!("PID:{me}"), format!("pid={me}"), format!("/proc/{me}/cgroup")]
        {
            assert_eq!(of(&word), Some(format!("pid:{me}")), "{word}");
        }
        for word in ["app", "4294967295", "/proc/sys", "pid:x", "node", "node:x", &format!("{point}/none")] {
            assert_eq!(of(word), None, "{word}");
        }
        assert_eq!(prefixed("Node==0", &["node"]), Some("0"));
        assert_eq!(prefixed("nodes:0", &["node"]), None);
        let size = advice(OsStr::new("10M"), &locator).unwrap();
        assert!(size.contains("SIZE"), "{size}");
        let deep = advice(OsStr::new("nginx*.service"), &locator).unwrap();
        assert!(deep.ends_with("at any level: '**/nginx*.service'"), "{deep}");
        for word in ["absent*.service", "**/absent*", "./x*"] {
            assert_eq!(advice(OsStr::new(word), &locator), None, "{word}");
        }
    }
}
