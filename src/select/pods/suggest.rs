//! Explanation of a pod's name that names no cgroup.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::PathBuf;

use super::PodState;
use super::pattern::{PREFIX, PodPattern};
use crate::cgroup::error::{CgroupError, several};
use crate::cgroup::pod::PodNames;
use crate::cgroup::tree;
use crate::select::locate::{Locator, shown};
use crate::select::suggest::{ALIKE, alike, elsewhere};

/// Maximum number of suggestions.
const SUGGESTED: usize = 3;

/// The pods with cgroups, and the names of their containers.
type Existing = BTreeMap<(String, String), Vec<String>>;

impl Locator {
    /// Explains the error of a pod's name: the names can't be read, the pod has ended, or another is
    /// called like it.
    pub(in super::super) fn explain_pod(
        &self,
        why: CgroupError,
        pattern: &PodPattern,
        word: &OsStr,
    ) -> CgroupError {
        if !matches!(why, CgroupError::NoSuchCgroup { .. } | CgroupError::NoMatch { .. }) {
            return why;
        }
        if let Some(elsewhere) = self.mount().ok().and_then(|mount| elsewhere(&word.to_string_lossy(), mount))
        {
            return elsewhere;
        }
        let logs = self.pods().logs();
        if let Some(why) = logs.unread() {
            return CgroupError::PodNamesUnread { word: shown(word), why: why.to_owned() };
        }
        let existing = self.existing_pods();
        let meant = containers_of(&existing, pattern)
            .or_else(|| similar(&existing, pattern))
            .or_else(|| has_ended(logs.all().any(|pod| pattern.is_pod(&pod.namespace, &pod.name))));
        match meant {
            Some(meant) => CgroupError::Misspelt { why: Box::new(why), meant },
            None => why,
        }
    }

    /// Returns the pods with known names that have cgroups.
    fn existing_pods(&self) -> Existing {
        let mut existing = Existing::new();
        let Ok(mount) = self.mount() else { return existing };
        for entry in tree::Walk::new(mount, self.asker(), vec![PathBuf::new()]) {
            let Ok(below) = entry.path.strip_prefix(&mount.point) else { continue };
            if let PodState::Known(pod) = self.pods().of(mount, below) {
                let PodNames { namespace, pod, container, .. } = &*pod.names;
                let containers = existing.entry((namespace.to_string(), pod.to_string())).or_default();
                containers.extend(container.as_ref().map(ToString::to_string));
            }
        }
        for containers in existing.values_mut() {
            containers.sort();
            containers.dedup();
        }
        existing
    }
}

/// Returns the containers of the pod that is there, if only the container isn't.
fn containers_of(existing: &Existing, pattern: &PodPattern) -> Option<String> {
    let found = existing.iter().find(|((namespace, pod), _)| pattern.is_pod(namespace, pod));
    let (_, containers) = found.filter(|_| pattern.has_container())?;
    Some(match &containers[..] {
        [] => "no container of the pod has a name in /var/log/containers".to_owned(),
        containers => format!("containers of the pod: {}", several(containers)),
    })
}

/// Returns pods with a similar name, or with the same in another namespace.
fn similar(existing: &Existing, pattern: &PodPattern) -> Option<String> {
    let (namespace, name) = pattern.names()?;
    let score = |(other, pod): &(String, String)| {
        let alike_pod = alike(name, pod);
        if *other == namespace { alike_pod } else { alike(namespace, other).max(0.9) * alike_pod }
    };
    let mut scored: Vec<_> = existing.keys().map(|pod| (score(pod), pod)).collect();
    scored.retain(|(score, _)| *score >= ALIKE);
    scored.sort_by(|one, other| other.0.total_cmp(&one.0).then_with(|| one.1.cmp(other.1)));
    let word = |pod: &(String, String)| {
        let has = |name: &&str| existing.get(pod).is_some_and(|names| names.iter().any(|own| own == name));
        let container = pattern.container_name().filter(has);
        let container = container.map_or_else(String::new, |name| format!("/{name}"));
        format!("{PREFIX}{}/{}{container}", pod.0, pod.1)
    };
    let words: Vec<_> = scored.iter().take(SUGGESTED).map(|(_, pod)| word(pod)).collect();
    (!words.is_empty()).then(|| format!("similar names: {}", words.join(", ")))
}

fn has_ended(has_logs: bool) -> Option<String> {
    has_logs.then(|| "the pod has logs on this node, but no cgroup: it has ended".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::logs::tests::{id, make_pod};
    use super::*;
    use crate::cgroup::tree::tests::make;

    const UID: &str = "8d5a2e2c-1111-2222-3333-444455556666";

    #[test]
    fn what_is_there_instead_is_told() {
        let (root, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        make(
            root.path(),
            &[
                "memory.stat",
                &format!("kubepods/pod{UID}/{}", id('a')),
                &format!("kubepods/pod{UID}/{}", id('c')),
            ],
        );
        make_pod(logs.path(), &format!("batch_web-0_{UID}"), &[("app", &id('a')), ("side", &id('b'))]);
        make_pod(logs.path(), "batch_gone_11111111-1111-2222-3333-444455556666", &[]);
        let hint = |word: &str| {
            let locator = Locator::faked(root.path()).with_logs(logs.path());
            let pattern = PodPattern::parse(word.as_ref()).unwrap().unwrap();
            let why = CgroupError::NoSuchCgroup { word: word.to_owned(), near: Vec::new() };
            locator.explain_pod(why, &pattern, word.as_ref()).hint().unwrap_or_default()
        };
        assert_eq!(hint("pod:batch/web-0/sid"), "containers of the pod: app");
        assert_eq!(hint("pod:batch/wbe-0"), "similar names: pod:batch/web-0");
        assert_eq!(hint("pod:batch/wbe-0/app"), "similar names: pod:batch/web-0/app");
        assert_eq!(hint("pod:batch/wbe-0/x"), "similar names: pod:batch/web-0");
        assert_eq!(hint("pod:default/web-0"), "similar names: pod:batch/web-0");
        assert_eq!(hint("pod:batch/gone"), "the pod has logs on this node, but no cgroup: it has ended");
        assert_eq!(hint("pod:x/yyyyy"), "list the cgroups with: memctl stat -r");
        let locator = Locator::faked(root.path());
        let pattern = PodPattern::parse("pod:a/b".as_ref()).unwrap().unwrap();
        let why = CgroupError::NoSuchCgroup { word: "pod:a/b".into(), near: Vec::new() };
        let why = locator.explain_pod(why, &pattern, "pod:a/b".as_ref()).to_string();
        assert!(why.starts_with("pod:a/b: the names of pods can't be read: "), "{why}");
    }
}
