//! Search of one hierarchy for many names and globs at once: one walk, from the literal beginning
//! of each glob down, and only as deep as anything can match.

use std::borrow::Cow;
use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::pattern::{Matcher, has_special};
use super::pods::pattern::PodPattern;
use super::pods::{KnownPod, PodState, Pods};
use crate::cgroup::error::{CgroupError, error_text};
use crate::cgroup::mount::Mount;
use crate::cgroup::naming::{Named, unescaped};
use crate::cgroup::owner::Asker;
use crate::cgroup::tree::{Entry, MAX_DEPTH, Trouble, Walk};

/// Names and globs to search for, each with the number that the caller knows it by.
#[derive(Debug, Default)]
pub(super) struct Search<'a> {
    globs: Vec<(usize, Glob<'a>)>,
    /// Units by their unescaped names.
    units: HashMap<Vec<u8>, Vec<usize>>,
    /// Containers and pods.
    ids: Vec<(usize, Named)>,
    /// Paths from the mount point with unescaped names: the user may have typed `-` where systemd
    /// has `\x2d`.
    spelt: Vec<(usize, Vec<Vec<u8>>)>,
    /// Pods and containers by their names.
    pods: Vec<(usize, PodWord<'a>)>,
}

/// Word for pods or containers.
#[derive(Clone, Debug)]
pub(super) struct PodWord<'a> {
    /// The word.
    pub(super) pattern: Cow<'a, PodPattern>,
    /// True if it finds all that is in the pod or container as well.
    pub(super) whole: bool,
}

impl PodWord<'_> {
    /// Returns whether the word finds a cgroup.
    fn finds(&self, pod: &KnownPod) -> bool {
        let is_level = self.whole || pod.is_own && pod.names.in_container == self.pattern.has_container();
        is_level && self.pattern.covers(&pod.names)
    }
}

#[derive(Debug)]
struct Glob<'a> {
    matcher: &'a Matcher,
    /// Levels in front of the first special character.
    prefix: PathBuf,
    /// Maximum depth of a match; `None` if the glob crosses levels.
    depth: Option<usize>,
}

impl<'a> Search<'a> {
    /// Adds a glob over paths from the mount point.
    pub(super) fn glob(&mut self, number: usize, pattern: &Path, matcher: &'a Matcher) {
        let prefix = pattern.iter().take_while(|name| !has_special(name)).collect();
        let bytes = pattern.as_os_str().as_bytes();
        let crosses = bytes.windows(2).any(|pair| pair == b"**");
        let depth = (!crosses).then(|| bytes.split(|&byte| byte == b'/').count());
        self.globs.push((number, Glob { matcher, prefix, depth }));
    }

    /// Adds a unit, a container or a pod.
    pub(super) fn named(&mut self, number: usize, named: Named) {
        match named {
            Named::Unit(name) => self.units.entry(name).or_default().push(number),
            other => self.ids.push((number, other)),
        }
    }

    /// Adds a path from the mount point whose spelling may differ in systemd's escapes.
    pub(super) fn spelt(&mut self, number: usize, below: &Path) {
        self.spelt.push((number, below.iter().map(|name| unescaped(name.as_bytes())).collect()));
    }

    /// Adds pods or containers by their names.
    pub(super) fn pod(&mut self, number: usize, word: PodWord<'a>) {
        self.pods.push((number, word));
    }

    /// Returns whether there is nothing to search for.
    pub(super) fn is_empty(&self) -> bool {
        self.globs.is_empty() && self.is_without_names() && self.spelt.is_empty() && self.pods.is_empty()
    }

    fn is_without_names(&self) -> bool {
        self.units.is_empty() && self.ids.is_empty()
    }

    /// Walks a hierarchy, and calls `found` for each match with the number of the name or glob. A
    /// match of a name within another match of it is left out, as a part of the outer one. Matches
    /// of names that don't count are found only with `strangers`.
    pub(super) fn run(
        &self,
        mount: &Mount,
        asker: Asker,
        pods: &Pods,
        strangers: bool,
        found: &mut dyn FnMut(usize, &Entry),
    ) -> Trouble {
        let mut walk = Walk::new(mount, asker, self.starts(mount));
        let mut last: HashMap<usize, PathBuf> = HashMap::new();
        while let Some(entry) = walk.next() {
            let Ok(below) = entry.path.strip_prefix(&mount.point) else { continue };
            for (number, _) in self.globs.iter().filter(|(_, glob)| glob.matcher.is_match(below)) {
                found(*number, &entry);
            }
            if entry.genuine || strangers {
                for number in self.named_by(&entry) {
                    // Directories come before those below.
                    if last.get(&number).is_none_or(|outer| !entry.path.starts_with(outer)) {
                        last.insert(number, entry.path.clone());
                        found(number, &entry);
                    }
                }
            }
            let spelt = self.spelt.iter().filter(|(_, names)| is_spelt(below, names, true));
            spelt.for_each(|(number, _)| found(*number, &entry));
            if !self.pods.is_empty()
                && let PodState::Known(pod) = pods.of(mount, below)
            {
                let words = self.pods.iter().filter(|(_, word)| word.finds(&pod));
                words.for_each(|(number, _)| found(*number, &entry));
            }
            if !self.goes_below(below, entry.genuine_below || strangers) {
                walk.skip_below();
            }
        }
        walk.trouble().clone()
    }

    /// Returns the parts of a mount in which something can match: none within another.
    fn starts(&self, mount: &Mount) -> Vec<PathBuf> {
        // A part may be covered by another mount, which only the entry of its parent shows.
        let anywhere = !self.is_without_names() || !self.spelt.is_empty() || !self.pods.is_empty();
        if anywhere || !mount.inner.is_empty() {
            return vec![PathBuf::new()];
        }
        let mut starts: Vec<_> = self.globs.iter().map(|(_, glob)| glob.prefix.clone()).collect();
        starts.sort();
        starts.dedup_by(|inner, outer| inner.starts_with(outer));
        starts
    }

    /// Returns the numbers of the names that a directory has.
    fn named_by(&self, entry: &Entry) -> Vec<usize> {
        if self.is_without_names() {
            return Vec::new();
        }
        let Some(name) = entry.path.file_name() else { return Vec::new() };
        let mut numbers = Vec::new();
        if !self.units.is_empty() {
            numbers.extend(self.units.get(&unescaped(name.as_bytes())).into_iter().flatten());
        }
        numbers.extend(self.ids.iter().filter(|(_, named)| named.is(name)).map(|(number, _)| *number));
        numbers
    }

    /// Returns whether anything can match below a directory.
    fn goes_below(&self, below: &Path, genuine: bool) -> bool {
        let depth = below.iter().count();
        let within = |glob: &Glob<'_>| {
            glob.prefix.starts_with(below)
                || below.starts_with(&glob.prefix) && glob.depth.is_none_or(|deepest| depth < deepest)
        };
        genuine && !self.is_without_names()
            || !self.pods.is_empty()
            || self.globs.iter().any(|(_, glob)| within(glob))
            || self.spelt.iter().any(|(_, names)| is_spelt(below, names, false))
    }
}

/// Returns whether a path is the one that was spelt, or with `whole` false, leads to it.
fn is_spelt(below: &Path, names: &[Vec<u8>], whole: bool) -> bool {
    let mut rest = names.iter();
    below.iter().all(|name| rest.next().is_some_and(|wanted| unescaped(name.as_bytes()) == *wanted))
        && whole == (rest.len() == 0)
}

/// Converts the parts that a walk left out to errors.
pub(super) fn troubles(trouble: Trouble, mount: &Mount) -> Vec<CgroupError> {
    let name = |path: &Path| mount.name_of(path).unwrap_or_default().to_string();
    let deep = trouble.too_deep.map(|path| CgroupError::TooDeep { name: name(&path), levels: MAX_DEPTH });
    let unread = trouble
        .unreadable
        .map(|(path, errno)| CgroupError::NotSearched { name: name(&path), why: error_text(&errno.into()) });
    unread.into_iter().chain(deep).collect()
}

#[cfg(test)]
mod tests {
    use super::super::pattern::Pattern;
    use super::*;
    use crate::cgroup::tree::tests::{READ, give_away, make};

    /// Returns the matches, and the number of directories read.
    fn run(root: &Path, words: &[&str], strangers: bool) -> (Vec<String>, usize) {
        let mount = Mount::whole(root.into(), false);
        let matchers: Vec<_> =
            words.iter().map(|word| Pattern::new((*word).as_ref()).unwrap().matcher()).collect();
        let mut search = Search::default();
        for (number, word) in words.iter().enumerate() {
            match Named::parse(word) {
                _ if has_special(word.as_ref()) => search.glob(number, Path::new(word), &matchers[number]),
                Some(named) => search.named(number, named.unwrap()),
                None => search.spelt(number, Path::new(word)),
            }
        }
        let mut found = Vec::new();
        let before = READ.get();
        search.run(&mount, Asker::faked(), &Pods::new(Asker::faked()), strangers, &mut |_, entry| {
            found.push(entry.path.strip_prefix(root).unwrap().display().to_string());
        });
        found.sort();
        (found, READ.get() - before)
    }

    #[test]
    fn a_glob_is_searched_for_from_its_literal_beginning() {
        let root = tempfile::tempdir().unwrap();
        let users: Vec<_> = (0..50).map(|n| format!("user.slice/{n}/deep")).collect();
        make(root.path(), &users.iter().map(String::as_str).collect::<Vec<_>>());
        make(root.path(), &["system.slice/a/inner", "system.slice/b", "system.slice/b.d/x"]);
        let globs = ["system.slice/*"];
        assert_eq!(
            run(root.path(), &globs, false),
            (vec!["system.slice/a".into(), "system.slice/b".into(), "system.slice/b.d".into()], 1)
        );
        // Two parts, one within the other, are read once.
        let (found, read) = run(root.path(), &["system.slice/**", "system.slice/a/*"], false);
        assert_eq!((found.len(), read), (6, 3));
        assert_eq!(run(root.path(), &["nothing/*"], false), (vec![], 0));
    }

    #[test]
    fn many_names_that_are_absent_cost_one_walk() {
        let root = tempfile::tempdir().unwrap();
        let units: Vec<_> =
            (0..1500).map(|n| format!("system.slice/{}.slice/unit-{n}.service", n / 100)).collect();
        make(root.path(), &units.iter().map(String::as_str).collect::<Vec<_>>());
        let absent: Vec<_> = (0..60).map(|n| format!("absent-{n}.service")).collect();
        let mut words: Vec<_> = absent.iter().map(String::as_str).collect();
        let (found, read) = run(root.path(), &words, false);
        // The top, system.slice, and 15 slices: directories without others in them aren't read.
        // A file system that doesn't count links has them read, too.
        assert!(found.is_empty() && (read == 17 || read == 17 + 1500), "{found:?} {read}");
        words.extend(["system.slice/*/unit-7.service", "unit-8.service", "system.slice/0.slice/none", "**"]);
        let (found, again) = run(root.path(), &words, false);
        assert_eq!((found.len(), again), (1 + 1 + 1516, read));
    }

    #[test]
    fn a_strangers_name_is_found_only_on_request() {
        let root = tempfile::tempdir().unwrap();
        make(
            root.path(),
            &[
                "system.slice/nginx.service/nginx.service",
                "user.slice/u/nginx.service",
                "user.slice/u.service",
            ],
        );
        give_away(&root.path().join("user.slice/u"));
        let own = "system.slice/nginx.service".to_owned();
        let both = [own, "user.slice/u/nginx.service".to_owned()];
        assert_eq!(run(root.path(), &["nginx.service"], false).0, both[..1]);
        assert_eq!(run(root.path(), &["nginx.service"], true).0, both);
        // The genuine one is gone.
        std::fs::remove_dir_all(root.path().join("system.slice")).unwrap();
        assert!(run(root.path(), &["nginx.service"], false).0.is_empty());
        assert_eq!(run(root.path(), &["u.service"], false).0, ["user.slice/u.service"]);
        let id = "0123456789abcdef".repeat(4);
        make(
            root.path(),
            &[&format!("user.slice/u/docker-{id}.scope"), &format!("user.slice/docker-{id}.scope")],
        );
        let (found, _) = run(root.path(), &["container:0123"], false);
        assert_eq!(found, [format!("user.slice/docker-{id}.scope")]);
        // A glob takes what matches, wherever it is.
        assert_eq!(run(root.path(), &["user.slice/u/*.service"], false).0, ["user.slice/u/nginx.service"]);
    }

    #[test]
    fn a_path_is_found_however_it_is_spelt() {
        let root = tempfile::tempdir().unwrap();
        make(root.path(), &[r"system.slice/system-my\x2dapp.slice/my\x2dapp@1.service", "other/deep/down"]);
        let path = r"system.slice/system-my\x2dapp.slice/my\x2dapp@1.service".to_owned();
        let (found, read) = run(root.path(), &["system.slice/system-my-app.slice/my-app@1.service"], false);
        assert_eq!((found, read), (vec![path], 3));
        assert_eq!(run(root.path(), &["absent"], false), (vec![], 1));
    }
}
