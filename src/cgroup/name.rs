//! Name of a cgroup: text for display, and the bytes of its path where text can't represent them.
//!
//! The creator of a cgroup chooses its name, any bytes but `/` and newline (`cgroup_mkdir`,
//! kernel/cgroup/cgroup.c). Bytes that aren't UTF-8 are replaced in the text, so the text is for
//! reading only: two cgroups can share it.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use super::pod::PodNames;

/// Name of a cgroup: its path from the mount point, with a leading `/`.
#[derive(Clone, Debug, Default)]
pub struct Name {
    text: Text,
    path: Option<Arc<Path>>,
    /// Names of the pod that the cgroup is in. They add nothing to the identity of the name.
    pod: Option<Arc<PodNames>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Text(Arc<str>);

impl Default for Text {
    fn default() -> Self {
        Self("".into())
    }
}

impl Name {
    /// Returns the name `name` of the cgroup whose directory is `path`.
    #[must_use]
    pub(crate) fn new(name: &Path, path: &Path) -> Self {
        let text = Text(name.to_string_lossy().into());
        Self { text, path: path.to_str().is_none().then(|| path.into()), pod: None }
    }

    /// Returns the path of the directory, if the path isn't UTF-8: then neither the name nor the
    /// path survives as text.
    #[must_use]
    pub fn path_not_utf8(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Returns the name with the names of the pod that the cgroup is in.
    #[must_use]
    pub(crate) fn in_pod(self, pod: Arc<PodNames>) -> Self {
        Self { pod: Some(pod), ..self }
    }

    /// Returns the names of the pod that the cgroup is in, if they are known.
    #[must_use]
    pub fn pod(&self) -> Option<&PodNames> {
        self.pod.as_deref()
    }

    /// Returns the text for tables: the names of the pod and the container, or the path.
    #[must_use]
    pub fn label(&self) -> &str {
        self.pod().map_or(self, PodNames::label)
    }

    fn key(&self) -> (&Text, &Option<Arc<Path>>) {
        (&self.text, &self.path)
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Name {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self { text: Text(text.into()), path: None, pod: None }
    }
}

impl From<String> for Name {
    fn from(text: String) -> Self {
        Self { text: Text(text.into()), path: None, pod: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn names_that_read_alike_stay_apart() {
        let name = |bytes: &'static [u8]| {
            let path = Path::new(OsStr::from_bytes(bytes));
            Name::new(path, path)
        };
        let (one, other) = (name(b"/j\xe9b"), name(b"/j\xe8b"));
        assert_eq!((&*one, &*other), ("/j\u{fffd}b", "/j\u{fffd}b"));
        assert!(one != other && one.path_not_utf8().is_some());
        assert_eq!(name(b"/job"), Name::from("/job"));
        assert_eq!(name(b"/job").path_not_utf8(), None);
    }
}
