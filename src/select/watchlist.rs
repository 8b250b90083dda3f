//! Watchlist of cgroups: names and globs, searched for repeatedly, without the cgroups that no glob
//! takes.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::locate::shown;
use super::pattern::{Matcher, Pattern, PatternSet, has_special};
use super::{Locator, Match, Scope, Selected, Selector, select_by};
use crate::cgroup::error::{CgroupError, GlobError};
use crate::cgroup::mount::Mount;
use crate::cgroup::path::CgroupPath;
use crate::cgroup::{Name, tree};
use crate::host::Reader;

/// Interval between walks of the hierarchy even while the number of cgroups is unchanged: one may
/// have been removed and another created.
const LOOKED_THROUGH: Duration = Duration::from_secs(20);

/// Period after a change in which every search walks the hierarchy: a new cgroup may get its limit
/// a moment later.
const SETTLED: Duration = Duration::from_secs(10);

/// Essential parts of a host, which no glob takes, as globs over whole paths. A plain name still
/// takes them.
///
/// Paths, not names: whoever may call a cgroup `dbus-x.service` would keep it from all globs. So
/// these are the units where systemd places them unless the administrator chooses another slice. A
/// unit in a slice of the administrator's own needs a rule of its own (`leave-alone`) or
/// `--exclude`, and so does the systemd within a container of its own (below /machine.slice,
/// say), which is a part of that container. In a cgroup namespace, paths begin at its root: memctl
/// within such a container spares that container's own units.
const SPARED: [&str; 39] = [
    "init.scope",
    "system.slice/ssh.service",
    "system.slice/sshd.service",
    // Instances, one for each connection, are in a slice of their own.
    "system.slice/ssh@*.service",
    "system.slice/sshd@*.service",
    "system.slice/system-{ssh,sshd}.slice",
    "system.slice/system-{ssh,sshd}.slice/**",
    "system.slice/dbus*.service",
    "system.slice/systemd-journald.service",
    r"system.slice/system-systemd\x2djournald.slice",
    r"system.slice/system-systemd\x2djournald.slice/**",
    "system.slice/systemd-udevd.service",
    // systemd-udevd delegates to itself.
    "system.slice/systemd-udevd.service/**",
    "system.slice/systemd-oomd.service",
    "system.slice/kubelet.service",
    "system.slice/containerd.service",
    "system.slice/docker.service",
    "system.slice/crio.service",
    "system.slice/cri-docker.service",
    "system.slice/cri-dockerd.service",
    // Each has its own kubelet and runtime in it.
    "system.slice/k3s.service",
    "system.slice/k3s-agent.service",
    "system.slice/rke2-server.service",
    "system.slice/rke2-agent.service",
    "system.slice/k0scontroller.service",
    "system.slice/k0sworker.service",
    // Snaps: microk8s, Canonical Kubernetes, Docker, CRI-O.
    "system.slice/snap.microk8s.daemon-kubelet.service",
    "system.slice/snap.microk8s.daemon-kubelite.service",
    "system.slice/snap.microk8s.daemon-containerd.service",
    "system.slice/snap.k8s.kubelet.service",
    "system.slice/snap.k8s.containerd.service",
    "system.slice/snap.docker.dockerd.service",
    "system.slice/snap.cri-o.daemon-crio.service",
    // Where kubelet and runtime are placed to reserve memory for them; Talos has no `.slice`, and
    // its own processes in `init` and `system`.
    "{runtime.slice,podruntime.slice,podruntime}",
    "{runtime.slice,podruntime.slice,podruntime}/**",
    "init",
    "init/**",
    "system/runtime",
    "system/udevd",
];

/// Words, and exclusions from their matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// Names and globs, in the form of [`super`].
    pub wanted: Vec<OsString>,
    /// Globs to exclude from the matches of globs.
    pub excluded: Vec<OsString>,
}

/// Cgroup to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// Selected cgroup, with a flag if only globs matched it.
    pub selected: Match,
    /// Index of the list of words that took the cgroup, by the most specific word.
    pub list: usize,
}

/// Result of a search.
#[derive(Debug, Default)]
pub struct Found {
    /// Cgroups to watch.
    pub taken: Vec<Assigned>,
    /// Words that name nothing yet. Only [`Watchlist::first`] lists them.
    pub waiting: Vec<String>,
    /// Words that can't be resolved now.
    pub unresolved: Vec<Unresolved>,
    /// Parts of the hierarchy that couldn't be searched.
    pub troubles: Vec<CgroupError>,
}

/// Word of a list that can't be resolved now: it is ambiguous, say.
#[derive(Debug)]
pub struct Unresolved {
    /// Index of the list.
    pub list: usize,
    /// Reason.
    pub why: CgroupError,
}

/// Watchlist made from lists of words.
#[derive(Debug)]
pub struct Watchlist {
    /// Selectors of all lists, and the index of each selector's list.
    selectors: Vec<Selector>,
    lists: Vec<usize>,
    /// Exclusions of each list.
    left_out: Vec<Excluded>,
    exclude: Vec<OsString>,
    /// True if names, like the matches of globs, may appear later.
    waits: bool,
    /// Essential cgroups. Compiled when a glob first matches, since compiling takes a while.
    spared: OnceCell<Spared>,
    /// Mounts at the beginning, for the first search.
    at_start: Locator,
    /// State at the last walk of the hierarchy.
    seen: Option<Seen>,
    /// Reader of the root's `cgroup.stat`.
    root: Option<Reader>,
    text: String,
}

/// Record of a walk of the hierarchy.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Time of the walk.
    looked: Duration,
    /// Time of the last change in the number of cgroups.
    changed: Duration,
    /// Number of cgroups.
    count: u64,
}

#[derive(Debug)]
struct Spared {
    globs: PatternSet,
    /// Id of memctl's own cgroup.
    own: Option<u64>,
}

impl Spared {
    fn new(locator: &Locator) -> Self {
        // These globs have no mount in front of them, which would have to be found for each. They
        // can't be malformed.
        let globs: Vec<_> = SPARED.iter().filter_map(|word| Pattern::new(OsStr::new(word)).ok()).collect();
        let globs = PatternSet::new(&globs).unwrap_or_default();
        Self { globs, own: locator.find(OsStr::new("self")).ok().map(|located| located.id) }
    }

    fn spares(&self, located: &CgroupPath) -> bool {
        // The name, since the mount may show only a part of the hierarchy.
        let name = Path::new(located.name.trim_start_matches('/'));
        self.own == Some(located.id) || self.globs.is_match(name)
    }
}

/// Exclusions: names and globs, wherever they match; the names of units, where they count; paths,
/// in the hierarchy that they lead into; and the cgroup that a word leads to, whichever way the
/// cgroup is found.
#[derive(Debug, Default)]
struct Excluded {
    anywhere: PatternSet,
    units: PatternSet,
    /// Mount points, and globs over paths from there.
    by_path: Vec<(PathBuf, Matcher)>,
    ids: HashSet<u64>,
}

impl Excluded {
    fn new(words: &[OsString], locator: &Locator) -> Result<Self, CgroupError> {
        let bad = |word: &OsStr, why: GlobError| CgroupError::BadGlob { word: shown(word), why };
        let (mut anywhere, mut units) = (Vec::new(), Vec::new());
        let (mut by_path, mut ids) = (Vec::new(), HashSet::new());
        for word in words {
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
        Ok(Self { anywhere: set(&anywhere)?, units: set(&units)?, by_path, ids })
    }

    /// Returns whether a cgroup is excluded. `genuine` is true if its name counts.
    fn has(&self, located: &CgroupPath, genuine: bool) -> bool {
        let below = located.below_mount();
        self.ids.contains(&located.id)
            || self.anywhere.is_match(below)
            || genuine && self.units.is_match(below)
            || self.by_path.iter().any(|(point, glob)| located.mount.point == *point && glob.is_match(below))
    }
}

/// Returns a glob that finds a unit's name at any level.
fn anywhere_below(name: &OsStr) -> Option<OsString> {
    let bytes = name.as_bytes();
    let unit = [".service", ".scope", ".slice"].iter().any(|suffix| bytes.ends_with(suffix.as_bytes()));
    (unit && !bytes.contains(&b'/')).then(|| OsString::from_vec([b"**/".as_slice(), bytes].concat()))
}

/// Returns whether there is a cgroup below which a glob could match later: the levels in front of
/// its first special character.
fn parent_is_there(word: &OsStr, locator: &Locator) -> bool {
    let bytes = word.as_bytes();
    let plain = bytes.split(|byte| b"*?[{".contains(byte)).next().unwrap_or_default();
    let parent = plain.iter().rposition(|&byte| byte == b'/').map_or(&[][..], |slash| &plain[..slash]);
    parent.is_empty() || locator.find(OsStr::from_bytes(parent)).is_ok()
}

impl Watchlist {
    /// Returns a watchlist of one list of words, whose names must exist.
    ///
    /// # Errors
    /// [`CgroupError::BadGlob`].
    pub fn new(words: &Words) -> Result<Self, CgroupError> {
        Ok(Self { waits: false, ..Self::of(std::slice::from_ref(words))? })
    }

    /// Returns a watchlist of several lists, whose names may appear later.
    ///
    /// # Errors
    /// [`CgroupError::BadGlob`].
    pub fn of(lists: &[Words]) -> Result<Self, CgroupError> {
        let numbered = lists.iter().enumerate();
        let words = numbered.flat_map(|(list, words)| words.wanted.iter().map(move |word| (list, word)));
        let locator = Locator::new()?;
        let (lists_of, selectors) = words.map(|(list, word)| (list, Selector::new(word, &locator))).unzip();
        let left_out = lists.iter().map(|words| Excluded::new(&words.excluded, &locator));
        Ok(Self {
            selectors,
            lists: lists_of,
            // A malformed exclusion is reported at once.
            left_out: left_out.collect::<Result<_, _>>()?,
            exclude: lists.iter().flat_map(|words| words.excluded.iter().cloned()).collect(),
            waits: true,
            spared: OnceCell::new(),
            root: root(&locator),
            at_start: locator,
            seen: None,
            text: String::new(),
        })
    }

    /// Returns whether more cgroups may appear later: by globs, or by names that don't exist yet.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.waits || self.selectors.iter().any(Selector::is_glob)
    }

    /// Returns the cgroups that exist at the beginning. An error of one of several lists is in the
    /// result, and leaves the others as they are.
    ///
    /// # Errors
    /// The hierarchy can't be searched at all; and in a watchlist of one list, the error of the
    /// first word that doesn't name one cgroup. But a glob may match nothing, if there is a cgroup
    /// below which it could match later.
    pub fn first(&self) -> Result<Found, CgroupError> {
        self.at_start.mount()?;
        self.first_by(&self.at_start)
    }

    fn first_by(&self, locator: &Locator) -> Result<Found, CgroupError> {
        let (mut found, missing) = self.look(locator, &|_| false);
        for (number, why) in missing {
            let word = self.selectors[number].word();
            match why.word() {
                // No word of any list would do.
                _ if matches!(why, CgroupError::ControllerOnV1 { .. }) => return Err(why),
                Some(word) if self.waits => found.waiting.push(word.to_owned()),
                _ if self.waits => found.unresolved.push(Unresolved { list: self.lists[number], why }),
                Some(name)
                    if matches!(why, CgroupError::NoMatch { .. }) && parent_is_there(word, locator) =>
                {
                    found.waiting.push(name.to_owned());
                }
                _ => return Err(locator.explain(why, word)),
            }
        }
        Ok(found)
    }

    /// Returns the globs to exclude that match no existing cgroup, which may be mistyped.
    #[must_use]
    pub fn useless(&self) -> Vec<&OsStr> {
        let locator = &self.at_start;
        let widest = locator.mount().cloned().map(Arc::new).ok();
        let mut useless: Vec<_> = self.exclude.iter().map(OsString::as_os_str).collect();
        let mut rest: Vec<(&OsStr, Excluded, Arc<Mount>)> = Vec::new();
        for word in &self.exclude {
            let mount = Scope::of(word, locator).mount.or_else(|| widest.clone());
            if let (Ok(excluded), Some(mount)) = (Excluded::new(std::slice::from_ref(word), locator), mount) {
                rest.push((word, excluded, mount));
            }
        }
        // One walk for all words of a mount.
        while let Some(mount) = rest.first().map(|(.., mount)| Arc::clone(mount)) {
            for tree::Entry { path, id, genuine, .. } in tree::walk(&mount) {
                let located =
                    CgroupPath { path: path.into(), name: Name::default(), mount: Arc::clone(&mount), id };
                rest.retain(|(word, excluded, within)| {
                    let found = within.point == mount.point && excluded.has(&located, genuine);
                    if found {
                        useless.retain(|other| other != word);
                    }
                    !found
                });
            }
            rest.retain(|(.., within)| within.point != mount.point);
        }
        useless
    }

    /// Returns whether it is time to search for cgroups, and records the search.
    ///
    /// Walking a large hierarchy is expensive. While the number of cgroups is unchanged and none
    /// was `lost`, this returns false until the next scheduled walk. (A lost cgroup may be back.)
    pub(crate) fn is_due(&mut self, now: Duration, lost: bool) -> bool {
        let count = self.descendants();
        let changed = match self.seen {
            Some(seen) if Some(seen.count) == count && !lost => seen.changed,
            _ => now,
        };
        let settled = now.saturating_sub(changed) >= SETTLED;
        if let Some(seen) = self.seen.filter(|_| settled)
            && now.saturating_sub(seen.looked) < LOOKED_THROUGH
        {
            return false;
        }
        self.seen = count.map(|count| Seen { looked: now, changed, count });
        true
    }

    /// Returns the cgroups that exist now, without the `known` ones. Names that don't exist, and
    /// globs that match nothing, may do so later.
    pub(crate) fn search(&self, known: &dyn Fn(u64) -> bool) -> Found {
        let locator = match Locator::new() {
            Ok(locator) => locator,
            Err(why) => return Found { troubles: vec![why], ..Found::default() },
        };
        let (mut found, missing) = self.look(&locator, known);
        let failed = missing.into_iter().filter(|(_, why)| why.word().is_none());
        let unresolved = failed.map(|(number, why)| Unresolved { list: self.lists[number], why });
        found.unresolved = unresolved.collect();
        found
    }

    /// Returns the number of cgroups.
    fn descendants(&mut self) -> Option<u64> {
        self.root.as_ref()?.read(&mut self.text).ok()?;
        self.text.lines().find_map(|line| line.strip_prefix("nr_descendants ")?.parse().ok())
    }

    /// Looks for all words. Mounts are read once for all of them: a host can have thousands.
    fn look(&self, locator: &Locator, known: &dyn Fn(u64) -> bool) -> (Found, Vec<(usize, CgroupError)>) {
        let leaves_out = |selector: usize, located: &CgroupPath, genuine: bool| {
            self.left_out[self.lists[selector]].has(located, genuine)
        };
        let Selected { chosen, missing, troubles } = select_by(&self.selectors, locator, known, &leaves_out);
        let spares = |located: &CgroupPath| self.spared.get_or_init(|| Spared::new(locator)).spares(located);
        let taken = chosen
            .into_iter()
            .filter(|one| !one.selected.by_glob || !spares(&one.selected.located))
            .map(|one| Assigned { selected: one.selected, list: self.lists[one.by] });
        (Found { taken: taken.collect(), troubles, ..Found::default() }, missing)
    }
}

/// Opens the root's `cgroup.stat`. It is held open, since a host with many mounts has much to read
/// before the root is found.
fn root(locator: &Locator) -> Option<Reader> {
    let mount = locator.mount().ok()?;
    Reader::at(crate::cgroup::open_directory(&mount.point).ok()?, "cgroup.stat").ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::tree::tests::{give_away, make};

    #[test]
    fn globs_spare_whole_paths() {
        let patterns: Vec<_> = SPARED.iter().map(|word| Pattern::new(OsStr::new(word)).unwrap()).collect();
        let set = PatternSet::new(&patterns).unwrap();
        let essential = Spared { globs: set, own: Some(7) };
        let spares = |name: &str, id: u64| {
            let mount = Arc::new(Mount::whole("/cg".into(), false));
            let path = Path::new("/cg").join(name.trim_start_matches('/'));
            essential.spares(&CgroupPath { path: path.into(), name: name.into(), mount, id })
        };
        for name in [
            "/init.scope",
            "/system.slice/ssh.service",
            "/system.slice/system-sshd.slice/sshd@3-1.2.3.4:22.service",
            "/system.slice/dbus-broker.service",
            r"/system.slice/system-systemd\x2djournald.slice/systemd-journald@x.service",
            "/system.slice/systemd-udevd.service/udev",
            "/system.slice/systemd-oomd.service",
            "/system.slice/kubelet.service",
            "/system.slice/k3s-agent.service",
            "/system.slice/rke2-server.service",
            "/system.slice/k0sworker.service",
            "/system.slice/snap.microk8s.daemon-kubelite.service",
            "/system.slice/snap.docker.dockerd.service",
            "/system.slice/cri-docker.service",
            "/runtime.slice",
            "/runtime.slice/containerd.service",
            "/podruntime.slice/kubelet.service/inner",
            "/podruntime/kubelet",
            "/init",
        ] {
            assert!(spares(name, 1), "{name}");
        }
        for name in [
            "/batch/dbus-x.service",
            "/batch/docker.service",
            "/dbus.service",
            "/machine.slice/c.service/payload/system.slice/dbus.service",
            "/user.slice/user-1000.slice/user@1000.service/init.scope",
            "/user.slice/runtime.slice",
            "/system.slice/nginx.service",
            "/system.slice/a/dbus.service",
            "/podruntime2",
        ] {
            assert!(!spares(name, 1) && spares(name, 7), "{name}");
        }
    }

    #[test]
    fn a_word_that_cannot_be_resolved_is_the_trouble_of_its_list() {
        let root = tempfile::tempdir().unwrap();
        make(root.path(), &["memory.stat", "a/app.service", "b/app.service", "c/x", "user/db.service"]);
        give_away(&root.path().join("user"));
        let locator = Locator::faked(root.path());
        let words = |words: &[&str]| Words {
            wanted: words.iter().map(OsString::from).collect(),
            excluded: Vec::new(),
        };
        let lists = [words(&["app.service", "absent"]), words(&["c/*"]), words(&["db.service"])];
        let Ok(watchlist) = Watchlist::of(&lists) else { return };
        let found = watchlist.first_by(&locator).unwrap();
        let taken: Vec<_> = found.taken.iter().map(|one| (&*one.selected.located.name, one.list)).collect();
        assert_eq!((taken, found.waiting), (vec![("/c/x", 1)], vec!["absent".into(), "db.service".into()]));
        let [Unresolved { list: 0, why: CgroupError::Ambiguous { .. } }] = &found.unresolved[..] else {
            panic!("{:?}", found.unresolved)
        };
        // Given alone, it is an error.
        let why = Watchlist::new(&lists[0]).unwrap().first_by(&locator).unwrap_err();
        assert!(matches!(why, CgroupError::Ambiguous { .. }), "{why}");
        let why = Watchlist::new(&lists[2]).unwrap().first_by(&locator).unwrap_err();
        assert!(matches!(why, CgroupError::OthersName { .. }), "{why}");
    }

    #[test]
    fn mounts_are_read_once_at_the_start_and_once_a_search() {
        use crate::cgroup::mount::tests::READ;
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let wanted = words(&["a", "b.service", "c*", "pid:1", "self", "container:0123"]);
        let list = Words { wanted, excluded: words(&["d", "*.scope", "/sys/fs/cgroup/e"]) };
        let before = READ.get();
        let Ok(watchlist) = Watchlist::of(&[list.clone(), list]) else { return };
        let _ = (watchlist.first(), watchlist.useless());
        assert_eq!(READ.get() - before, 1);
        watchlist.search(&|_| false);
        watchlist.search(&|_| false);
        assert_eq!(READ.get() - before, 3);
    }

    #[test]
    fn an_excluded_unit_is_excluded_where_its_name_counts() {
        let Ok(locator) = Locator::new() else { return };
        let has = |word: &str, name: &str, genuine: bool| {
            let excluded = Excluded::new(&[word.into()], &locator).unwrap();
            let mount = Arc::new(Mount::whole("/cg".into(), false));
            let path = Path::new("/cg").join(name);
            excluded.has(&CgroupPath { path: path.into(), name: name.into(), mount, id: 1 }, genuine)
        };
        assert!(has("app.service", "system.slice/app.service", true));
        assert!(!has("app.service", "user.slice/app.service", false));
        assert!(has("user.slice/app.service", "user.slice/app.service", false));
        assert!(has("*.service", "user.slice/app.service", false));
    }
}
