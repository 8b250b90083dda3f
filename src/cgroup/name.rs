//! Name of a cgroup: text for display, and the bytes of its path where text can't represent them.
//!
//! The creator of a cgroup chooses its name, any bytes but `/` and newline (`cgroup_mkdir`,
//! kernel/cgroup/cgroup.c). Bytes that aren't UTF-8 are replaced in the text, so the text is for
//! reading only: two cgroups can share it.

use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

/// Name of a cgroup: its path from the mount point, with a leading `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    text: Text,
    path: Option<Arc<Path>>,
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
        Self { text, path: path.to_str().is_none().then(|| path.into()) }
    }

    /// Returns the path of the directory, if the path isn't UTF-8: then neither the name nor the
    /// path survives as text.
    #[must_use]
    pub fn path_not_utf8(&self) -> Option<&Path> {
        self.path.as_deref()
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
        Self { text: Text(text.into()), path: None }
    }
}

impl From<String> for Name {
    fn from(text: String) -> Self {
        Self { text: Text(text.into()), path: None }
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
