//! What a name of a cgroup that is being typed could become: the cgroups of one level.

use std::path::Path;

use super::mount::Mount;
use super::{parse_number, tree};

/// A cgroup that the name typed so far could become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The name as it would be typed on: with a `/` at the end if there are cgroups below.
    pub word: String,
    /// Its `memory.current`, bytes; `None` where there is none.
    pub current: Option<u64>,
}

/// The cgroups of the level that `typed` has come to, in the order of names. Nothing is an error: who completes a word
/// wants no message.
#[must_use]
pub fn candidates(typed: &str) -> Vec<Candidate> {
    let Ok(Some(mount)) = Mount::find(Path::new(typed)) else { return Vec::new() };
    below(&mount.point, typed)
}

fn below(point: &Path, typed: &str) -> Vec<Candidate> {
    let whole = point.to_string_lossy();
    // A path on its way to the mount; `/` alone is as likely the beginning of a name.
    if typed.len() > 1 && whole.starts_with(typed) {
        return vec![Candidate { word: format!("{whole}/"), current: None }];
    }
    let path = typed.strip_prefix(&*whole).and_then(|rest| rest.strip_prefix('/'));
    let name = path.unwrap_or_else(|| typed.trim_start_matches('/'));
    let (level, part) = name.rsplit_once('/').map_or(("", name), |(level, part)| (level, part));
    let before = &typed[..typed.len() - part.len()];
    let matching = tree::children(&point.join(level)).filter_map(|child| {
        let name = child.file_name()?.to_str()?;
        name.starts_with(part).then(|| {
            let inner = tree::children(&child).next().map_or("", |_| "/");
            let text = std::fs::read_to_string(child.join("memory.current")).ok();
            let current = text.and_then(|text| parse_number(&text).ok()?);
            Candidate { word: format!("{before}{name}{inner}"), current }
        })
    });
    let mut found: Vec<_> = matching.collect();
    found.sort_by(|one, other| one.word.cmp(&other.word));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        for name in ["app", "system.slice/a\\x2db.service", "system.slice/cri:one"] {
            std::fs::create_dir_all(root.path().join(name)).unwrap();
        }
        std::fs::write(root.path().join("app/memory.current"), "4096\n").unwrap();
        let words = |typed: &str| {
            let found = below(root.path(), typed);
            found.into_iter().map(|candidate| candidate.word).collect::<Vec<_>>()
        };
        assert_eq!(words(""), ["app", "system.slice/"]);
        assert_eq!(words("/s"), ["/system.slice/"]);
        assert_eq!(words("system.slice/"), ["system.slice/a\\x2db.service", "system.slice/cri:one"]);
        assert_eq!(words("/system.slice/a\\x"), ["/system.slice/a\\x2db.service"]);
        let point = root.path().to_string_lossy();
        assert_eq!(words(&point[..point.len() - 1]), [format!("{point}/")]);
        assert_eq!(words(&format!("{point}/ap")), [format!("{point}/app")]);
        assert_eq!(below(root.path(), "app")[0].current, Some(4096));
        assert!(words("nothing/here").is_empty() && words("zzz").is_empty());
    }
}
