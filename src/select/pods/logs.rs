//! Names of pods and containers, from the names of the kubelet's log folders, which tell them without
//! the API server, a token, or a socket of the container runtime.
//!
//! `/var/log/pods` has a folder `NAMESPACE_POD_UID` for each pod (`BuildPodLogsDirectory`,
//! `pkg/kubelet/kuberuntime/helpers.go`). `/var/log/containers` has a symbolic link
//! `POD_NAMESPACE_CONTAINER-ID.log` for each container, cut at 251 bytes before the `.log`
//! (`logSymlink`, `kuberuntime_container.go`), to `/var/log/pods/NAMESPACE_POD_UID/CONTAINER/N.log`. A
//! sandbox has no link. Both are written by root, with names that the API server has checked; what
//! doesn't have their form is left out.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::OsString;
use std::path::Path;

use crate::cgroup::error::error_text;
use crate::cgroup::pod::PodUid;

/// Parent of both folders.
const LOGS: &str = "/var/log";

/// Length of a container's ID, digits, and of the beginning of one that tells containers apart.
const ID: usize = 64;
const MIN_ID: usize = 12;

/// Maximum number of entries in each folder, for the memory that they take: the kubelet removes the
/// folders of pods that are gone, of which a node has hundreds.
const MOST_PODS: usize = 4096;
const MOST_CONTAINERS: usize = 16_384;

/// Names of the pods and containers of a node.
#[derive(Debug, Default)]
pub(crate) struct PodLogs {
    /// Pods; `None` for a UID that has several names.
    pods: HashMap<PodUid, Option<PodName>>,
    /// Containers by their IDs.
    containers: HashMap<Box<str>, Container>,
    /// Containers with only the beginning of their ID.
    cut: Vec<(Box<str>, Container)>,
    /// Reason why the folder of pods, or that of containers, can't be read.
    unread: Option<String>,
    containers_unread: Option<String>,
}

/// Namespace and name of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodName {
    pub(crate) namespace: Box<str>,
    pub(crate) name: Box<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Container {
    pod: PodName,
    /// `None` if only the link's own name is known.
    uid: Option<PodUid>,
    name: Box<str>,
}

impl PodLogs {
    /// Reads the folders of this host, or those of the host that are mounted in this pod.
    #[must_use]
    pub(crate) fn read() -> Self {
        Self::read_in(Path::new(LOGS))
    }

    /// Reads the folders below another one.
    #[must_use]
    pub(crate) fn read_in(logs: &Path) -> Self {
        let mut read = Self::default();
        let folder = logs.join("pods");
        match names(&folder, MOST_PODS) {
            Ok(names) => {
                let pods = names.iter().filter_map(|name| folder_of_pod(name.to_str()?));
                pods.for_each(|(pod, uid)| read.add(pod, uid));
            }
            Err(why) => read.unread = Some(why),
        }
        let folder = logs.join("containers");
        match names(&folder, MOST_CONTAINERS) {
            Ok(names) => names.iter().for_each(|name| read.add_link(&folder, name)),
            Err(why) => read.containers_unread = Some(why),
        }
        read
    }

    fn add(&mut self, pod: PodName, uid: PodUid) {
        match self.pods.entry(uid) {
            Entry::Vacant(place) => drop(place.insert(Some(pod))),
            Entry::Occupied(mut known) if known.get().as_ref() != Some(&pod) => drop(known.insert(None)),
            Entry::Occupied(_) => {}
        }
    }

    fn add_link(&mut self, folder: &Path, file: &OsString) {
        let Some(stem) = file.to_str().and_then(|file| file.strip_suffix(".log")) else { return };
        let target = std::fs::read_link(folder.join(file)).ok();
        let target = target.as_deref().and_then(target_of_link);
        let (container, id) = match target {
            Some(container) => {
                let Container { pod, name, .. } = &container;
                let before = format!("{}_{}_{name}-", pod.name, pod.namespace);
                let Some(id) = stem.strip_prefix(&before).map(str::to_owned) else { return };
                (container, id)
            }
            None => match name_of_link(stem) {
                Some(found) => found,
                None => return,
            },
        };
        if id.len() < MIN_ID
            || id.len() > ID
            || !id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        {
            return;
        }
        if let Some(uid) = container.uid {
            self.add(container.pod.clone(), uid);
        }
        match id.len() {
            ID => drop(self.containers.insert(id.into(), container)),
            _ => self.cut.push((id.into(), container)),
        }
    }

    /// Returns the name of a pod.
    #[must_use]
    pub(crate) fn pod(&self, uid: PodUid) -> Option<&PodName> {
        self.pods.get(&uid)?.as_ref()
    }

    /// Returns the pods that have a name.
    pub(crate) fn all(&self) -> impl Iterator<Item = &PodName> {
        self.pods.values().flatten()
    }

    /// Returns the name of a container of a pod.
    #[must_use]
    pub(crate) fn container(&self, uid: PodUid, id: &str) -> Option<&str> {
        let pod = self.pod(uid)?;
        let is_of = |one: &Container| one.pod == *pod && one.uid.is_none_or(|other| other == uid);
        if let Some(container) = self.containers.get(id).filter(|one| is_of(one)) {
            return Some(&container.name);
        }
        let mut cut = self.cut.iter().filter(|(begin, one)| id.starts_with(&**begin) && is_of(one));
        let (_, container) = cut.next()?;
        cut.next().is_none().then_some(&*container.name)
    }

    /// Returns why the names of pods can't be read.
    #[must_use]
    pub(crate) fn unread(&self) -> Option<&str> {
        self.unread.as_deref()
    }

    /// Returns why the names of containers can't be read.
    #[must_use]
    pub(crate) fn containers_unread(&self) -> Option<&str> {
        self.containers_unread.as_deref()
    }
}

/// Returns the names in a folder, or why they can't be read.
fn names(folder: &Path, most: usize) -> Result<Vec<OsString>, String> {
    let told = |why: &dyn std::fmt::Display| format!("{}: {why}", folder.display());
    let entries = std::fs::read_dir(folder).map_err(|why| told(&error_text(&why)))?;
    let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).take(most + 1).collect();
    if names.len() > most { Err(told(&format_args!("more than {most} entries"))) } else { Ok(names) }
}

/// Returns the pod whose folder has this name.
fn folder_of_pod(name: &str) -> Option<(PodName, PodUid)> {
    let mut parts = name.split('_');
    let (namespace, name, uid) = (parts.next()?, parts.next()?, parts.next()?);
    let is_pod = parts.next().is_none() && is_name(namespace) && is_name(name);
    let pod = PodName { namespace: namespace.into(), name: name.into() };
    PodUid::parse(uid).filter(|_| is_pod).map(|uid| (pod, uid))
}

/// Returns the container whose log a link leads to.
fn target_of_link(target: &Path) -> Option<Container> {
    let mut parts = target.iter().rev().map(std::ffi::OsStr::to_str);
    let (_, name, pod) = (parts.next()??, parts.next()??, parts.next()??);
    let (pod, uid) = folder_of_pod(pod)?;
    is_name(name).then(|| Container { pod, uid: Some(uid), name: name.into() })
}

/// Returns the container that the name of a link gives, and its ID.
fn name_of_link(stem: &str) -> Option<(Container, String)> {
    let mut parts = stem.splitn(3, '_');
    let (pod, namespace, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let (name, id) = rest.rsplit_once('-')?;
    let is_whole = id.len() == ID && [pod, namespace, name].iter().all(|name| is_name(name));
    let pod = PodName { namespace: namespace.into(), name: pod.into() };
    is_whole.then(|| (Container { pod, uid: None, name: name.into() }, id.to_owned()))
}

/// Returns whether a text is a name of Kubernetes: a subdomain of RFC 1123.
#[must_use]
pub(super) fn is_name(text: &str) -> bool {
    let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    let is_made_of = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    text.len() <= 253 && bytes.iter().all(is_made_of) && is_end(bytes.first()) && is_end(bytes.last())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const UID: &str = "8d5a2e2c-1111-2222-3333-444455556666";
    const OTHER: &str = "11111111-1111-2222-3333-444455556666";

    pub(crate) fn id(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    /// Makes the folders of a pod and its containers, as kubelet does.
    pub(crate) fn make_pod(logs: &Path, pod: &str, containers: &[(&str, &str)]) {
        let folder = logs.join("pods").join(pod);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::create_dir_all(logs.join("containers")).unwrap();
        let (names, _) = folder_of_pod(pod).unwrap();
        for (name, id) in containers {
            let mut link = format!("{}_{}_{name}-{id}", names.name, names.namespace);
            link.truncate(251);
            let target = Path::new("/var/log/pods").join(pod).join(name).join("0.log");
            symlink(target, logs.join("containers").join(link + ".log")).unwrap();
        }
    }

    fn uid(text: &str) -> PodUid {
        PodUid::parse(text).unwrap()
    }

    #[test]
    fn pods_and_containers_have_the_names_of_their_logs() {
        let logs = tempfile::tempdir().unwrap();
        make_pod(logs.path(), &format!("batch_web-0_{UID}"), &[("app", &id('a')), ("side-car", &id('b'))]);
        let hash = OTHER.replace('-', "");
        make_pod(logs.path(), &format!("kube-system_etcd-node.1_{hash}"), &[]);
        let read = PodLogs::read_in(logs.path());
        let name = |uid| read.pod(uid).map(|pod| format!("{}/{}", pod.namespace, pod.name));
        assert_eq!(name(uid(UID)).as_deref(), Some("batch/web-0"));
        assert_eq!(name(uid(OTHER)).as_deref(), Some("kube-system/etcd-node.1"));
        assert_eq!(read.container(uid(UID), &id('a')), Some("app"));
        assert_eq!(read.container(uid(UID), &id('b')), Some("side-car"));
        assert_eq!((read.container(uid(UID), &id('c')), read.container(uid(OTHER), &id('a'))), (None, None));
        assert!(read.unread().is_none() && read.containers_unread().is_none() && read.all().count() == 2);
    }

    #[test]
    fn a_long_name_leaves_the_beginning_of_the_id_or_nothing() {
        let logs = tempfile::tempdir().unwrap();
        let (pod, namespace) = ("p".repeat(150), "n".repeat(40));
        // 150 + 1 + 40 + 1 + 20 + 1 leave 38 digits of 251.
        let (one, other) = ("c".repeat(20), "d".repeat(20));
        let ids = [id('a'), format!("{}{}", "a".repeat(20), "b".repeat(44))];
        make_pod(logs.path(), &format!("{namespace}_{pod}_{UID}"), &[(&one, &ids[0]), (&other, &ids[1])]);
        let read = PodLogs::read_in(logs.path());
        assert_eq!(read.container(uid(UID), &ids[0]), Some(&*one));
        assert_eq!(read.container(uid(UID), &ids[1]), Some(&*other));
        make_pod(logs.path(), &format!("{namespace}_{pod}_{OTHER}"), &[(&"c".repeat(63), &id('c'))]);
        let read = PodLogs::read_in(logs.path());
        assert_eq!(read.container(uid(OTHER), &id('c')), None, "nothing of the ID is left");
        assert!(read.pod(uid(OTHER)).is_some());
    }

    #[test]
    fn links_without_their_target_have_names_of_their_own() {
        let logs = tempfile::tempdir().unwrap();
        make_pod(logs.path(), &format!("batch_web-0_{UID}"), &[]);
        let folder = logs.path().join("containers");
        for link in [
            format!("web-0_batch_app-{}", id('a')),
            format!("web-1_batch_app-{}", id('b')),
            "web-0_batch_app-short".to_owned(),
        ] {
            std::fs::write(folder.join(link + ".log"), "").unwrap();
        }
        let read = PodLogs::read_in(logs.path());
        assert_eq!(read.container(uid(UID), &id('a')), Some("app"));
        assert_eq!(read.container(uid(UID), &id('b')), None, "of another pod");
    }

    #[test]
    fn what_has_another_form_names_nothing() {
        let logs = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(logs.path().join("containers")).unwrap();
        for folder in [
            format!("batch_web 0_{UID}"),
            format!("batch_../web_{UID}").replace('/', "\u{2215}"),
            format!("batch_\u{1b}[2J_{UID}"),
            format!("Batch_web_{UID}"),
            format!("a_b_c_{UID}"),
            format!("batch_web_{UID}0"),
            format!("_web_{UID}"),
            format!("batch_-web_{UID}"),
        ] {
            std::fs::create_dir_all(logs.path().join("pods").join(folder)).unwrap();
        }
        let read = PodLogs::read_in(logs.path());
        assert!(read.pods.is_empty(), "{read:?}");
        // Two names for one UID.
        make_pod(logs.path(), &format!("batch_web-0_{UID}"), &[("app", &id('a'))]);
        make_pod(logs.path(), &format!("kube-system_dns_{UID}"), &[]);
        let read = PodLogs::read_in(logs.path());
        assert_eq!((read.pod(uid(UID)), read.container(uid(UID), &id('a'))), (None, None));
    }

    #[test]
    fn a_folder_that_is_not_there_is_told() {
        let logs = tempfile::tempdir().unwrap();
        let read = PodLogs::read_in(logs.path());
        assert!(read.unread().is_some_and(|why| why.ends_with("/pods: no such file or directory")));
        assert!(read.containers_unread().is_some());
    }
}
