//! Exclusions from the matches of globs.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::cgroup::error::{CgroupError, GlobError};
use crate::cgroup::path::CgroupPath;
use crate::select::locate::shown;
use crate::select::pattern::{Matcher, Pattern, PatternSet, has_special};
use crate::select::pods::pattern::PodPattern;
use crate::select::pods::{PodState, Pods};
use crate::select::{Locator, Scope};

/// Exclusions: names and globs, wherever they match; the names of units, where they count; paths,
/// in the hierarchy that they lead into; and the cgroup that a word leads to, whichever way the
/// cgroup is found.
#[derive(Debug, Default)]
pub(super) struct Excluded {
    anywhere: PatternSet,
    units: PatternSet,
    /// Mount points, and globs over paths from there.
    by_path: Vec<(PathBuf, Matcher)>,
    ids: HashSet<u64>,
    /// Pods and containers by their names.
    pub(super) pods: Vec<PodPattern>,
}

impl Excluded {
    pub(super) fn new(words: &[OsString], locator: &Locator) -> Result<Self, CgroupError> {
        let bad = |word: &OsStr, why: GlobError| CgroupError::BadGlob { word: shown(word), why };
        let (mut anywhere, mut units) = (Vec::new(), Vec::new());
        let (mut by_path, mut ids) = (Vec::new(), HashSet::new());
        let mut pods = Vec::new();
        for word in words {
            if let Some(pattern) = PodPattern::parse(word).filter(|_| !locator.is_path(word)) {
                pods.push(pattern?);
                continue;
            }
            let scope = Scope::of(word, locator);
            let pattern = Pattern::new(&scope.pattern).map_err(|why| bad(word, why))?;
            if locator.is_path(word) {
                ids.extend(locator.find(word).ok().map(|located| located.id));
            }
            match scope.mount {
                Some(mount) => by_path.push((mount.point.clone(), pattern.matcher())),
                None => anywhere.push(pattern),
            }
            if let Some(unit) = anywhere_below(&scope.pattern) {
                let pattern = Pattern::new(&unit).map_err(|why| bad(word, why))?;
                // A glob says itself that it is about any name.
                if has_special(word) { &mut anywhere } else { &mut units }.push(pattern);
            }
        }
        let first = words.first().map_or(OsStr::new(""), |word| word);
        let set = |patterns: &[Pattern]| PatternSet::new(patterns).map_err(|why| bad(first, why));
        Ok(Self { anywhere: set(&anywhere)?, units: set(&units)?, by_path, ids, pods })
    }

    fn has_pod(&self, pod: &PodState) -> bool {
        match pod {
            PodState::Known(pod) => self.pods.iter().any(|pattern| pattern.covers(&pod.names)),
            _ => false,
        }
    }

    /// Returns whether a cgroup is excluded. `genuine` is true if its name counts.
    pub(super) fn has(&self, located: &CgroupPath, genuine: bool, pods: &Pods) -> bool {
        let below = located.below_mount();
        self.ids.contains(&located.id)
            || self.anywhere.is_match(below)
            || genuine && self.units.is_match(below)
            || self.by_path.iter().any(|(point, glob)| located.mount.point == *point && glob.is_match(below))
            || !self.pods.is_empty() && self.has_pod(&pods.of(&located.mount, below))
    }
}

/// Returns a glob that finds a unit's name at any level.
fn anywhere_below(name: &OsStr) -> Option<OsString> {
    let bytes = name.as_bytes();
    let unit = [".service", ".scope", ".slice"].iter().any(|suffix| bytes.ends_with(suffix.as_bytes()));
    (unit && !bytes.contains(&b'/')).then(|| OsString::from_vec([b"**/".as_slice(), bytes].concat()))
}
