//! Suggestions for a mistyped name, and other explanations for a word that names no cgroup.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::locate::Locator;
use super::meant;
use super::pods::pattern::PodPattern;
use super::search::Search;
use crate::cgroup::error::CgroupError;
use crate::cgroup::mount::Mount;
use crate::cgroup::naming::Named;
use crate::cgroup::systemd::quoted;
use crate::cgroup::tree;
use crate::cgroup::v1::controller_on_v1;

impl Locator {
    /// Explains the error of a word that names nothing: by what its form shows was meant, with the
    /// cgroups of other users that have the name, or similar names. Where the memory controller is on
    /// version 1, no name would do.
    pub(super) fn explain(&self, why: CgroupError, word: &OsStr) -> CgroupError {
        let Ok(mount) = self.mount() else { return why };
        if let Some(Ok(pattern)) = PodPattern::parse(word) {
            return self.explain_pod(why, &pattern, word);
        }
        let names_nothing = match &why {
            CgroupError::NoSuchCgroup { word, .. }
            | CgroupError::NoMatch { word }
            | CgroupError::BadName { word, .. } => {
                if let Some(elsewhere) = elsewhere(word, mount) {
                    return elsewhere;
                }
                true
            }
            CgroupError::NotACgroup { .. } | CgroupError::Version1 { .. } => true,
            _ => false,
        };
        if let Some(meant) = names_nothing.then(|| meant::advice(word, self)).flatten() {
            return CgroupError::Misspelt { why: Box::new(why), meant };
        }
        let CgroupError::NoSuchCgroup { word: name, .. } = &why else { return why };
        if let Some(Ok(named)) = Named::parse(word) {
            let mut search = Search::default();
            search.named(0, named);
            let mut candidates = Vec::new();
            search.run(mount, self.asker(), self.pods(), true, &mut |_, entry| {
                candidates.extend(mount.name_of(&entry.path).map(|name| name.to_string()));
            });
            if !candidates.is_empty() {
                candidates.sort();
                return CgroupError::OthersName { word: name.clone(), candidates };
            }
        }
        CgroupError::NoSuchCgroup { word: name.clone(), near: nearest(Path::new(word), mount) }
    }
}

/// Returns the error if the memory controller isn't in this hierarchy at all.
pub(super) fn elsewhere(word: &str, mount: &Mount) -> Option<CgroupError> {
    if mount.point.join("memory.stat").exists() {
        return None;
    }
    Some(CgroupError::ControllerOnV1 { name: word.to_owned(), v1: controller_on_v1()? })
}

/// Minimum similarity of a name that is suggested.
pub(super) const ALIKE: f64 = 0.8;

/// Returns existing names that a mistyped name may have meant, the best first.
fn nearest(path: &Path, mount: &Mount) -> Vec<String> {
    const COMPARED: usize = 20_000;
    const SUGGESTED: usize = 3;
    let Some(wanted) =
        path.file_name().map(OsStr::as_bytes).map(|name| String::from_utf8_lossy(name).to_lowercase())
    else {
        return Vec::new();
    };
    let mut scored: Vec<(f64, String)> = tree::walk(mount)
        .take(COMPARED)
        .filter_map(|tree::Entry { path: found, .. }| {
            let last = found.file_name()?.to_string_lossy().into_owned();
            let stem = last.split_once('.').map_or(last.as_str(), |(stem, _)| stem);
            let alike = |name: &str| alike(&wanted, &name.to_lowercase());
            let score = alike(&last).max(alike(stem));
            // A name that can't be typed as it is displayed is no suggestion.
            let name = mount.name_of(&found).filter(|name| name.path_not_utf8().is_none())?;
            (score >= ALIKE).then(|| (score, quoted(name.trim_start_matches('/')).into_owned()))
        })
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    scored.into_iter().take(SUGGESTED).map(|(_, name)| name).collect()
}

/// Returns the similarity of two names, up to 1; 0 if more than a third of the name would have to
/// be retyped. A common beginning counts most.
pub(super) fn alike(wanted: &str, name: &str) -> f64 {
    const BEGINNING: usize = 3;
    let begins = wanted.len() >= BEGINNING && name.starts_with(wanted);
    let typed_anew = strsim::osa_distance(wanted, name);
    if begins || typed_anew <= (wanted.len() / 3).max(1) { strsim::jaro_winkler(wanted, name) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_near_when_little_of_it_would_be_typed_anew() {
        for (wanted, name) in
            [("ngnix", "nginx"), ("databse", "database"), ("postg", "postgresql"), ("ap", "app")]
        {
            assert!(alike(wanted, name) >= 0.8, "{wanted} {name}");
        }
        for (wanted, name) in [("nope", "one"), ("nope", "batch"), ("web", "db")] {
            assert!(alike(wanted, name) < 0.8, "{wanted} {name}");
        }
    }
}
