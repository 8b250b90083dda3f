//! Labels that only some cgroups have.

use memctl::cgroup::Name;

use crate::output::format::encoded_path;

/// Returns the path of a cgroup, percent-encoded, if it isn't UTF-8: without it, two such cgroups can
/// have the same labels.
pub fn path_of(name: &Name) -> Option<String> {
    name.path_not_utf8().map(encoded_path)
}

/// Returns the labels of a cgroup beside its name: its path, if it isn't UTF-8, and the names of its
/// pod and container, where they are known.
pub fn more_labels<'a>(name: &'a Name, path: Option<&'a str>) -> Vec<(&'static str, &'a str)> {
    let pod = name.pod();
    let labels = [
        ("path_bytes", path),
        ("namespace", pod.map(|pod| &*pod.namespace)),
        ("pod", pod.map(|pod| &*pod.pod)),
        ("container", pod.and_then(|pod| pod.container.as_deref())),
    ];
    labels.into_iter().filter_map(|(label, value)| Some((label, value?))).collect()
}
