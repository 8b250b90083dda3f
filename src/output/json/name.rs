//! JSON keys that identify the cgroup of a line.

use std::path::Path;

use memctl::cgroup::Name;
use serde::Serialize;

use super::super::format::encoded_path;

/// The keys that identify the cgroup of a line.
#[allow(clippy::struct_field_names)]
#[derive(Default, Serialize)]
pub struct NameKeys<'a> {
    cgroup: &'a str,
    /// The directory's path, percent-encoded; only where the name or the path is not UTF-8, so that
    /// its text has lost something.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_bytes: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<&'a str>,
}

impl<'a> NameKeys<'a> {
    /// Returns the keys for a cgroup in a line that also has the directory's path.
    pub(super) fn with_path(name: &'a Name, path: &Path) -> Self {
        let lost = path.to_str().is_none().then_some(path);
        let pod = name.pod();
        Self {
            cgroup: name,
            path_bytes: lost.or_else(|| name.path_not_utf8()).map(encoded_path),
            namespace: pod.map(|pod| &*pod.namespace),
            pod: pod.map(|pod| &*pod.pod),
            container: pod.and_then(|pod| pod.container.as_deref()),
        }
    }
}

impl<'a> From<&'a Name> for NameKeys<'a> {
    fn from(name: &'a Name) -> Self {
        Self::with_path(name, name.path_not_utf8().unwrap_or(Path::new("")))
    }
}
