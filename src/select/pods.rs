//! Names of pods and their containers for cgroups.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::cgroup::error::CgroupError;
use crate::cgroup::owner::{Asker, Owner};
use crate::cgroup::pod::{PodNames, PodPlace, is_in_pod};
use crate::cgroup::{Mount, Name};
use logs::PodLogs;

pub(crate) mod logs;
pub(crate) mod pattern;
mod suggest;

/// What is known of the pod that a cgroup is in.
#[derive(Clone, Debug)]
pub(crate) enum PodState {
    /// The cgroup is in no pod.
    None,
    /// The cgroup is in a pod without a known name.
    Unknown,
    /// The pod has a name, and the container, if the cgroup is in one, has one or not.
    Known(KnownPod),
}

/// A cgroup in a pod with a known name.
#[derive(Clone, Debug)]
pub(crate) struct KnownPod {
    /// Names of the pod and the container.
    pub(crate) names: Arc<PodNames>,
    /// True if the cgroup is the pod's or the container's own.
    pub(crate) is_own: bool,
}

/// Names of pods, read once, when the first cgroup in a pod is looked at.
#[derive(Debug)]
pub struct Pods {
    asker: Asker,
    logs: OnceLock<PodLogs>,
}

impl Default for Pods {
    fn default() -> Self {
        Self::new(Asker::of_self())
    }
}

impl Pods {
    /// Returns the names for a user, whose names for cgroups count.
    pub(crate) fn new(asker: Asker) -> Self {
        Self { asker, logs: OnceLock::new() }
    }

    /// Returns the names of other logs.
    #[cfg(test)]
    pub(super) fn faked(logs: &Path) -> Self {
        Self { asker: Asker::faked(), logs: OnceLock::from(PodLogs::read_in(logs)) }
    }

    /// Returns the logs.
    pub(crate) fn logs(&self) -> &PodLogs {
        self.logs.get_or_init(PodLogs::read)
    }

    /// Returns the pod of a cgroup, given its path from the mount point. A pod counts where its name,
    /// and that of the container, do ([`crate::cgroup::owner`]).
    pub(crate) fn of(&self, mount: &Mount, below: &Path) -> PodState {
        let mut state = PodState::None;
        for place in PodPlace::all_of(below) {
            // Those within have parents of the same kind.
            if !self.counts(mount, place.identifying(below)) {
                return state;
            }
            let logs = self.logs();
            if let Some(pod) = logs.pod(place.uid) {
                let container = place.container.and_then(|id| logs.container(place.uid, id));
                let names = PodNames::new((&pod.namespace, &pod.name), container, &place, below);
                return PodState::Known(KnownPod { names: Arc::new(names), is_own: !place.is_below });
            }
            state = PodState::Unknown;
        }
        // A static pod may have any UID.
        if matches!(state, PodState::None) && is_in_pod(below) { PodState::Unknown } else { state }
    }

    /// Returns whether the name of a directory counts, by the owners of the directories above it.
    fn counts<'a>(&self, mount: &Mount, path: impl Iterator<Item = &'a OsStr>) -> bool {
        let mut path: Vec<_> = path.collect();
        path.pop();
        let mut above = mount.point.clone();
        let mut owner = |name: Option<&OsStr>| {
            above.extend(name);
            rustix::fs::stat(&above).ok().map(|stat| Owner::from(&stat))
        };
        let owners: Option<Vec<_>> =
            std::iter::once(None).chain(path.into_iter().map(Some)).map(&mut owner).collect();
        owners.is_some_and(|owners| self.asker.accepts(owners))
    }

    /// Returns whether a cgroup, given its name with those of its pod, is in a container that may get a
    /// name yet.
    pub(crate) fn may_get_name(&self, name: &Name) -> bool {
        name.pod().is_some_and(PodNames::lacks_container) && self.logs().containers_unread().is_none()
    }

    /// Returns the trouble of so many cgroups that aren't watched, since names that a word needs aren't
    /// known.
    pub(crate) fn trouble(&self, nameless: usize, containers: bool) -> Option<CgroupError> {
        let logs = self.logs();
        let why = logs.unread().or_else(|| logs.containers_unread().filter(|_| containers));
        let why = why.map(str::to_owned);
        (nameless > 0 || why.is_some()).then_some(CgroupError::PodsUnnamed {
            count: nameless,
            containers,
            why,
        })
    }

    /// Gives the name of a cgroup the names of its pod, where they are known.
    pub fn name(&self, name: &mut Name, mount: &Mount) {
        let path = name.path_not_utf8().and_then(|path| path.strip_prefix(&mount.point).ok());
        let text = || Path::new(&**name).strip_prefix(&mount.top).ok();
        let Some(below) = path.or_else(text) else { return };
        if let PodState::Known(pod) = self.of(mount, below) {
            *name = name.clone().in_pod(pod.names);
        }
    }
}
