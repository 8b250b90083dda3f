//! Place of a cgroup in a pod of Kubernetes, by the names of the directories, and the names that the
//! pod and its container have there.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::naming::{container_id, pod_uid, uid_within};

/// Number of digits of a container's ID in a label, as other tools show it.
const ID_SHOWN: usize = 12;

/// UID of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PodUid(u128);

impl PodUid {
    /// Parses a UID, with `-`, with `_`, or, as of a static pod, without any.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(|c| !matches!(c, '-' | '_')).collect();
        let is_whole = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        u128::from_str_radix(&digits, 16).ok().filter(|_| is_whole).map(Self)
    }
}

/// Place of a cgroup in a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PodPlace<'a> {
    /// UID of the pod.
    pub uid: PodUid,
    /// ID of the container, if the cgroup is in one.
    pub container: Option<&'a str>,
    /// Number of levels from the mount point to the directory of the container, or else of the pod.
    pub depth: usize,
    /// True if there are further levels below that directory.
    pub is_below: bool,
}

impl<'a> PodPlace<'a> {
    /// Returns the pods that a cgroup is in, given its path from the mount point, the outermost first:
    /// a pod can have a kubelet with pods of its own in it.
    #[must_use]
    pub(crate) fn all_of(below: &'a Path) -> Vec<Self> {
        let mut places: Vec<Self> = Vec::new();
        // Most hosts have none.
        if !below.as_os_str().as_bytes().windows(3).any(|part| part == b"pod") {
            return places;
        }
        for (at, name) in below.iter().enumerate() {
            let depth = at + 1;
            for place in &mut places {
                place.is_below = true;
            }
            let Some(name) = name.to_str() else { continue };
            let Some(id) = container_id(name) else {
                if let Some(uid) = pod_uid(name).as_deref().and_then(PodUid::parse) {
                    places.push(Self { uid, container: None, depth, is_below: false });
                }
                continue;
            };
            match places.last_mut() {
                Some(place) if place.container.is_none() => {
                    *place = Self { container: Some(id), depth, is_below: false, ..*place };
                }
                // A container's directory alone, with the pod in its name.
                _ => places.extend(uid_within(name).as_deref().and_then(PodUid::parse).map(|uid| Self {
                    uid,
                    container: Some(id),
                    depth,
                    is_below: false,
                })),
            }
        }
        places
    }

    /// Returns the part of the path that names the pod and the container.
    pub(crate) fn identifying(&self, below: &'a Path) -> impl Iterator<Item = &'a OsStr> + use<'a> {
        below.iter().take(self.depth)
    }
}

/// Returns whether a cgroup is in one of the kubelet's pods, whatever the form of its UID, given its
/// path from the mount point.
#[must_use]
pub(crate) fn is_in_pod(below: &Path) -> bool {
    let mut names = below.iter().map(|name| name.to_string_lossy());
    names.any(|name| name.starts_with("kubepods") || name.starts_with("kubelet-kubepods"))
        && below.iter().skip(1).any(|name| {
            let name = name.to_string_lossy();
            name.starts_with("pod") || name.contains("-pod") || container_id(&name).is_some()
        })
}

/// Names of the pod and the container that a cgroup is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodNames {
    /// Namespace of the pod.
    pub namespace: Box<str>,
    /// Name of the pod.
    pub pod: Box<str>,
    /// Name of the container; `None` for the pod's own cgroup, and where it isn't known.
    pub container: Option<Box<str>>,
    /// True if the cgroup is in a container.
    pub(crate) in_container: bool,
    /// Text for tables.
    label: Box<str>,
}

impl PodNames {
    /// Returns the names of a cgroup at a place in a pod, given its path from the mount point.
    #[must_use]
    pub(crate) fn new(
        (namespace, pod): (&str, &str),
        container: Option<&str>,
        place: &PodPlace<'_>,
        below: &Path,
    ) -> Self {
        let id = place.container.map(|id| &id[..ID_SHOWN.min(id.len())]);
        let inner = container.or(id).into_iter().map(str::to_owned);
        let rest = below.iter().skip(place.depth).map(|name| name.to_string_lossy().into_owned());
        let parts = [namespace, pod].map(str::to_owned).into_iter().chain(inner).chain(rest);
        let label = parts.collect::<Vec<_>>().join("/").into();
        Self {
            namespace: namespace.into(),
            pod: pod.into(),
            container: container.map(Into::into),
            in_container: place.container.is_some(),
            label,
        }
    }

    /// Returns whether the cgroup is in a container whose name isn't known.
    #[must_use]
    pub(crate) fn lacks_container(&self) -> bool {
        self.in_container && self.container.is_none()
    }

    /// Returns the text for tables: `NAMESPACE/NAME/CONTAINER`, with the beginning of the ID of a
    /// container whose name isn't known, and the path below the container.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "8d5a2e2c-1111-2222-3333-444455556666";

    fn places(path: &str) -> Vec<(Option<&str>, usize, bool)> {
        let places = PodPlace::all_of(Path::new(path));
        places.into_iter().map(|place| (place.container, place.depth, place.is_below)).collect()
    }

    #[test]
    fn a_pod_is_found_in_the_layouts_of_both_drivers() {
        let spelt = UID.replace('-', "_");
        let slice = format!("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{spelt}.slice");
        assert_eq!(places(&slice), [(None, 3, false)]);
        let scope = format!("{slice}/cri-containerd-{ID}.scope");
        assert_eq!(places(&scope), [(Some(ID), 4, false)]);
        assert_eq!(places(&format!("{scope}/inner/deep")), [(Some(ID), 4, true)]);
        assert_eq!(places(&format!("{slice}/other")), [(None, 3, true)]);
        assert_eq!(places(&format!("kubepods/burstable/pod{UID}/{ID}")), [(Some(ID), 4, false)]);
        let one = format!("system.slice/kubepods-besteffort-pod{spelt}.slice:cri-containerd:{ID}");
        assert_eq!(places(&one), [(Some(ID), 2, false)]);
        for none in ["system.slice/nginx.service", "", &format!("docker-{ID}.scope"), "pod/podman"] {
            assert!(places(none).is_empty(), "{none}");
        }
        // A static pod's UID is a hash.
        let hash = UID.replace('-', "");
        assert_eq!(PodUid::parse(&hash), PodUid::parse(&spelt));
        assert_eq!(places(&format!("kubepods/pod{hash}")), [(None, 2, false)]);
    }

    #[test]
    fn a_pod_in_a_pod_comes_after_the_outer_one() {
        let inner = "11111111-1111-2222-3333-444455556666";
        let path = format!("kubepods/pod{UID}/{ID}/kubepods/pod{inner}/{ID}/x");
        assert_eq!(places(&path), [(Some(ID), 3, true), (Some(ID), 6, true)]);
        let uids: Vec<_> = PodPlace::all_of(Path::new(&path)).iter().map(|place| place.uid).collect();
        assert_eq!(uids, [UID, inner].map(|uid| PodUid::parse(uid).unwrap()));
    }

    #[test]
    fn a_label_has_the_names_and_the_rest_of_the_path() {
        let label = |path: &str, container| {
            let below = Path::new(path);
            let place = PodPlace::all_of(below)[0];
            PodNames::new(("batch", "web-0"), container, &place, below).label().to_owned()
        };
        let pod = format!("kubepods/pod{UID}");
        assert_eq!(label(&pod, None), "batch/web-0");
        assert_eq!(label(&format!("{pod}/{ID}"), Some("app")), "batch/web-0/app");
        assert_eq!(label(&format!("{pod}/{ID}"), None), "batch/web-0/0123456789ab");
        assert_eq!(label(&format!("{pod}/{ID}/a/b"), Some("app")), "batch/web-0/app/a/b");
    }

    #[test]
    fn only_32_digits_are_a_uid() {
        assert!(PodUid::parse(UID).is_some());
        for wrong in ["", "8d5a2e2c", &format!("{UID}0"), &UID.replace('8', "+")] {
            assert_eq!(PodUid::parse(wrong), None, "{wrong}");
        }
    }
}
