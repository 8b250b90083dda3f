//! Cgroups that no glob takes: essential parts of a host, and memctl's own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::cgroup::naming::uid_within;
use crate::cgroup::path::CgroupPath;
use crate::select::Locator;
use crate::select::pattern::{Pattern, PatternSet};

/// Essential parts of a host, which no glob takes, as globs over whole paths. A plain name still
/// takes them.
///
/// Paths, not names: whoever may call a cgroup `dbus-x.service` would keep it from all globs. So
/// these are the units where systemd places them unless the administrator chooses another slice. A
/// unit in a slice of the administrator's own needs a rule of its own (`leave-alone`) or
/// `--exclude`, and so does the systemd within a container of its own (below /machine.slice,
/// say), which is a part of that container. In a cgroup namespace, paths begin at its root: memctl
/// within such a container spares that container's own units.
pub(super) const SPARED: [&str; 39] = [
    "init.scope",
    "system.slice/ssh.service",
    "system.slice/sshd.service",
    // Instances, one for each connection, are in a slice of their own.
    "system.slice/ssh@*.service",
    "system.slice/sshd@*.service",
    "system.slice/system-{ssh,sshd}.slice",
    "system.slice/system-{ssh,sshd}.slice/**",
    "system.slice/dbus*.service",
    "system.slice/systemd-journald.service",
    r"system.slice/system-systemd\x2djournald.slice",
    r"system.slice/system-systemd\x2djournald.slice/**",
    "system.slice/systemd-udevd.service",
    // systemd-udevd delegates to itself.
    "system.slice/systemd-udevd.service/**",
    "system.slice/systemd-oomd.service",
    "system.slice/kubelet.service",
    "system.slice/containerd.service",
    "system.slice/docker.service",
    "system.slice/crio.service",
    "system.slice/cri-docker.service",
    "system.slice/cri-dockerd.service",
    // Each has its own kubelet and runtime in it.
    "system.slice/k3s.service",
    "system.slice/k3s-agent.service",
    "system.slice/rke2-server.service",
    "system.slice/rke2-agent.service",
    "system.slice/k0scontroller.service",
    "system.slice/k0sworker.service",
    // Snaps: microk8s, Canonical Kubernetes, Docker, CRI-O.
    "system.slice/snap.microk8s.daemon-kubelet.service",
    "system.slice/snap.microk8s.daemon-kubelite.service",
    "system.slice/snap.microk8s.daemon-containerd.service",
    "system.slice/snap.k8s.kubelet.service",
    "system.slice/snap.k8s.containerd.service",
    "system.slice/snap.docker.dockerd.service",
    "system.slice/snap.cri-o.daemon-crio.service",
    // Where kubelet and runtime are placed to reserve memory for them; Talos has no `.slice`, and
    // its own processes in `init` and `system`.
    "{runtime.slice,podruntime.slice,podruntime}",
    "{runtime.slice,podruntime.slice,podruntime}/**",
    "init",
    "init/**",
    "system/runtime",
    "system/udevd",
];

/// Cgroups that no glob takes.
#[derive(Debug)]
pub(super) struct Spared {
    pub(super) globs: PatternSet,
    /// Id of memctl's own cgroup.
    pub(super) own: Option<u64>,
    /// Name of the pod that memctl runs in, without a leading `/`.
    pub(super) own_pod: Option<PathBuf>,
}

impl Spared {
    pub(super) fn new(locator: &Locator) -> Self {
        // These globs have no mount in front of them, which would have to be found for each. They
        // can't be malformed.
        let globs: Vec<_> = SPARED.iter().filter_map(|word| Pattern::new(OsStr::new(word)).ok()).collect();
        let globs = PatternSet::new(&globs).unwrap_or_default();
        let own = locator.find(OsStr::new("self")).ok();
        let own_pod = own.as_ref().and_then(|own| pod_around(Path::new(own.name.trim_start_matches('/'))));
        Self { globs, own: own.map(|own| own.id), own_pod }
    }

    pub(super) fn spares(&self, located: &CgroupPath) -> bool {
        // The name, since the mount may show only a part of the hierarchy.
        let name = Path::new(located.name.trim_start_matches('/'));
        // What is reclaimed from a cgroup above the pod comes from the pod, too.
        let is_own = self.own_pod.as_ref().is_some_and(|pod| name.starts_with(pod) || pod.starts_with(name));
        is_own || self.own == Some(located.id) || self.globs.is_match(name)
    }
}

/// Returns the name of the pod that a cgroup is in, by the names of its directories.
pub(super) fn pod_around(name: &Path) -> Option<PathBuf> {
    let depth = name.iter().position(|part| part.to_str().and_then(uid_within).is_some())?;
    Some(name.iter().take(depth + 1).collect())
}
