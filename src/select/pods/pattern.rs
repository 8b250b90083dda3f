//! Words for pods and containers by their names: `pod:NAMESPACE/NAME` and
//! `pod:NAMESPACE/NAME/CONTAINER`, each part of which may be a glob.

use std::ffi::OsStr;
use std::path::Path;

use super::logs::is_name;
use crate::cgroup::error::{CgroupError, GlobError};
use crate::cgroup::pod::PodNames;
use crate::select::pattern::{Matcher, Pattern, has_special};

/// Prefix of these words.
pub(crate) const PREFIX: &str = "pod:";

/// Precision of one part of a word: a name, then alternatives, then another glob, each with the number
/// of its literal characters; and then `*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PartRank(u8, usize);

/// Returns the precision of each part of a word for pods; the least for any other word.
pub(crate) fn ranks(word: &str) -> [PartRank; 3] {
    let mut ranks = <[PartRank; 3]>::default();
    let parts = word.strip_prefix(PREFIX).filter(|names| names.contains('/')).unwrap_or_default();
    for (rank, part) in ranks.iter_mut().zip(parts.split('/')) {
        let is_glob = has_special(OsStr::new(part));
        let literal = part.chars().filter(|c| !"*?[]{},!-".contains(*c)).count();
        *rank = match part {
            _ if part.chars().all(|c| c == '*') => PartRank::default(),
            _ if !is_glob => PartRank(3, literal),
            _ if !part.contains(['*', '?', '[']) => PartRank(2, literal),
            _ => PartRank(1, literal),
        };
    }
    ranks
}

/// Word for pods or containers.
#[derive(Clone, Debug)]
pub(crate) struct PodPattern {
    namespace: Part,
    pod: Part,
    /// `None` for a word that names pods.
    container: Option<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Name(Box<str>),
    Glob(Matcher),
}

impl Part {
    fn new(text: &str) -> Result<Self, GlobError> {
        if has_special(OsStr::new(text)) {
            return Ok(Self::Glob(Pattern::new(OsStr::new(text))?.matcher()));
        }
        Ok(Self::Name(text.into()))
    }

    fn is(&self, name: &str) -> bool {
        match self {
            Self::Name(own) => **own == *name,
            Self::Glob(glob) => glob.is_match(Path::new(name)),
        }
    }

    fn is_glob(&self) -> bool {
        matches!(self, Self::Glob(_))
    }
}

impl PodPattern {
    /// Parses a word. Returns `None` for another kind of word, such as `pod:UID`.
    pub(crate) fn parse(word: &OsStr) -> Option<Result<Self, CgroupError>> {
        let text = word.to_string_lossy();
        let names = text.strip_prefix(PREFIX)?;
        let is_uid = !names.contains('/') && !has_special(OsStr::new(names));
        (!is_uid).then(|| Self::of_names(names, word))
    }

    fn of_names(names: &str, word: &OsStr) -> Result<Self, CgroupError> {
        let shown = || word.to_string_lossy().into_owned();
        let bad = |why| CgroupError::BadName { word: shown(), why };
        // Completion of a pod ends in a slash.
        let parts: Vec<_> = names.strip_suffix('/').unwrap_or(names).split('/').collect();
        let (namespace, pod, container) = match parts[..] {
            [namespace, pod] => (namespace, pod, None),
            [namespace, pod, container] => (namespace, pod, Some(container)),
            _ => {
                return Err(bad(
                    "a pod's name is written pod:NAMESPACE/NAME or pod:NAMESPACE/NAME/CONTAINER",
                ));
            }
        };
        for part in [namespace, pod].into_iter().chain(container) {
            if part.is_empty() {
                return Err(bad("a part of the pod's name is empty (write * for any)"));
            }
            if !has_special(OsStr::new(part)) && !is_name(part) {
                return Err(bad("names of Kubernetes have lower-case letters, digits, - and . only"));
            }
        }
        let part = |text: &str| Part::new(text).map_err(|why| CgroupError::BadGlob { word: shown(), why });
        Ok(Self { namespace: part(namespace)?, pod: part(pod)?, container: container.map(part).transpose()? })
    }

    /// Returns whether any part is a glob.
    pub(crate) fn is_glob(&self) -> bool {
        [Some(&self.namespace), Some(&self.pod), self.container.as_ref()]
            .into_iter()
            .flatten()
            .any(Part::is_glob)
    }

    /// Returns whether the word is about a pod, whatever the container.
    pub(crate) fn is_pod(&self, namespace: &str, pod: &str) -> bool {
        self.namespace.is(namespace) && self.pod.is(pod)
    }

    /// Returns the namespace and the pod, if neither is a glob.
    pub(crate) fn names(&self) -> Option<(&str, &str)> {
        match (&self.namespace, &self.pod) {
            (Part::Name(namespace), Part::Name(pod)) => Some((namespace, pod)),
            _ => None,
        }
    }

    /// Returns the container's name, if the word has one that is no glob.
    pub(crate) fn container_name(&self) -> Option<&str> {
        match &self.container {
            Some(Part::Name(name)) => Some(name),
            _ => None,
        }
    }

    /// Returns whether the word names containers.
    pub(crate) fn has_container(&self) -> bool {
        self.container.is_some()
    }

    /// Returns whether the word covers what has these names: the pod with all that is in it, or the
    /// container.
    pub(crate) fn covers(&self, names: &PodNames) -> bool {
        self.is_pod(&names.namespace, &names.pod)
            && self
                .container
                .as_ref()
                .is_none_or(|part| names.container.as_deref().is_some_and(|name| part.is(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::pod::PodPlace;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "8d5a2e2c-1111-2222-3333-444455556666";

    fn names(container: Option<&str>) -> PodNames {
        let path = format!("kubepods/pod{UID}/{ID}");
        let place = PodPlace::all_of(Path::new(&path))[0];
        PodNames::new(("batch", "web-0"), container, &place, Path::new(&path))
    }

    fn parse(word: &str) -> Option<Result<PodPattern, String>> {
        PodPattern::parse(OsStr::new(word)).map(|parsed| parsed.map_err(|why| why.to_string()))
    }

    #[test]
    fn each_part_may_be_a_glob() {
        let covers = |word: &str, container| parse(word).unwrap().unwrap().covers(&names(container));
        for word in
            ["pod:batch/web-0", "pod:batch/web-0/", "pod:*/web-?", "pod:{batch,web}/web-[0-9]", "pod:*/*"]
        {
            assert!(covers(word, None) && covers(word, Some("app")), "{word}");
        }
        for word in ["pod:batch/web-0/app", "pod:*/*/a*"] {
            assert!(
                covers(word, Some("app")) && !covers(word, Some("side")) && !covers(word, None),
                "{word}"
            );
        }
        for word in ["pod:batch/web", "pod:bat/web-0", "pod:batch/*-1", "pod:b/*"] {
            assert!(!covers(word, None), "{word}");
        }
        let is_glob = |word: &str| parse(word).unwrap().unwrap().is_glob();
        assert!(is_glob("pod:batch/*") && is_glob("pod:a/b/{c,d}") && !is_glob("pod:a/b/c"));
    }

    #[test]
    fn other_words_are_left_to_others() {
        for word in ["app", "pod:0123", "pod:", "container:x/y", "/sys/fs/cgroup/pod:a/b"] {
            assert!(parse(word).is_none(), "{word}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        for (word, why) in [
            ("pod:web*", "is written pod:NAMESPACE/NAME"),
            ("pod:a/b/c/d", "is written pod:NAMESPACE/NAME"),
            ("pod:/b", "is empty"),
            ("pod:a//c", "is empty"),
            ("pod:Batch/web", "lower-case"),
            ("pod:batch/we b", "lower-case"),
            ("pod:batch/[a", "malformed glob"),
        ] {
            let told = parse(word).unwrap().unwrap_err();
            assert!(told.starts_with(word) && told.contains(why), "{told}");
        }
    }
}
