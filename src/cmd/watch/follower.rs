//! The cgroups of a running watch: search for new ones, and the rules read again. Both happen beside
//! the control loop, which asks for results.

use std::collections::HashSet;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use memctl::cgroup::CgroupPath;
use memctl::cgroup::error::CgroupError;
use memctl::clock;
use memctl::select::resolver::Resolver;
use memctl::select::watchlist::{Found, Watchlist};
use memctl::task::Task;
use memctl::watch::config::{MetricsSpec, Rules};
use memctl::watch::options::{Reload, RuledCgroup};

use super::lock::give_memory_back;
use super::plan::{ListRules, NoteKey, SearchNote, WatchPlan};
use super::rules;
use super::rules_file::{Stamp, Version};
use crate::error::Error;
use crate::output::notes::not_watched;
use crate::output::status::Purpose;
use crate::output::view::Waiting;

/// A file of rules, read and resolved. Its text comes along, since rules can't leave a thread.
struct Read {
    text: String,
    stamp: Option<Stamp>,
    watchlist: Watchlist,
    found: Found,
}

/// Error in a version of the file; the version is unknown if the thread that read it ended without a
/// result.
pub struct Refused {
    /// The error.
    pub why: Error,
    /// The version.
    pub version: Option<Version>,
}

impl Refused {
    fn of(stamp: Option<Stamp>) -> impl FnOnce(Error) -> Self {
        move |why| Self { why, version: Some(Version::of(Ok(stamp))) }
    }
}

/// New rules.
pub struct Reloaded {
    /// The new settings.
    pub reload: Reload,
    /// Number of rules.
    pub rules: usize,
    /// Version of the file.
    pub stamp: Option<Stamp>,
    /// Where the metrics are to go.
    pub metrics: MetricsSpec,
    /// Purpose of the rules.
    pub purpose: Purpose,
    /// Notes on cgroups that aren't watched.
    pub notes: Vec<String>,
}

/// The rules of a running watch and their cgroups.
pub struct Follower {
    rules: ListRules,
    resolver: Resolver,
    /// The cgroups that were handed to the watch.
    watched: Vec<RuledCgroup>,
    /// Keys of notes that were printed, as long as they hold.
    noted: HashSet<NoteKey>,
    reading: Option<Task<Result<Read, Refused>>>,
}

impl Follower {
    /// Returns a follower of the watchlist, for cgroups that are watched from the start.
    pub fn new(
        watchlist: Watchlist,
        rules: ListRules,
        watched: Vec<RuledCgroup>,
        notes: &[SearchNote],
    ) -> Self {
        Self {
            rules,
            resolver: Resolver::new(watchlist, give_memory_back),
            watched,
            noted: keys(notes),
            reading: None,
        }
    }

    /// Returns new cgroups, as far as a search has found them since the last call, and the notes on
    /// words that can't be resolved any more.
    pub fn found(&mut self, lost: bool, known: &dyn Fn(u64) -> bool) -> (Vec<RuledCgroup>, Vec<String>) {
        self.watched.retain(|one| known(one.located.id));
        let ids = self.watched.iter().map(|one| one.located.id);
        let Some(found) = self.resolver.next(clock::now(), lost, ids) else { return Default::default() };
        let mut notes = self.rules.notes(&found.unresolved, &found.troubles);
        let before = std::mem::replace(&mut self.noted, keys(&notes));
        notes.retain(|note| !before.contains(&note.key));
        let mut news: Vec<_> = notes.into_iter().map(|note| note.text).collect();
        news.sort();
        let mut new = self.rules.ruled(found.taken, &found.unresolved);
        // The search may have begun before the watch of these.
        new.retain(|one| !known(one.located.id));
        self.watched.extend(new.iter().cloned());
        (new, news)
    }

    /// Begins to read the file of rules again.
    pub fn read_again(&mut self, file: &Path) {
        let file = file.to_owned();
        self.reading = Some(Task::start(move || {
            let refused = |(why, version)| Refused { why, version: Some(version) };
            let (text, stamp) = rules::text_again(&file).map_err(refused)?;
            let resolve = || {
                let watchlist = Watchlist::of(&rules::parse(&file, &text)?.words())?;
                let found = watchlist.first()?;
                Ok((watchlist, found))
            };
            let (watchlist, found) = resolve().map_err(Refused::of(stamp))?;
            Ok(Read { text, stamp, watchlist, found })
        }));
    }

    /// Returns the new rules once they are read. After an error the old rules stay.
    pub fn reloaded(&mut self, file: &Path) -> Option<Result<Reloaded, Refused>> {
        let read = self.reading.as_ref()?.poll().transpose()?;
        self.reading = None;
        let panicked = |why| Refused { why: Error::new(why), version: None };
        let read = read.map_err(panicked).and_then(|read| read);
        Some(read.and_then(|Read { text, stamp, watchlist, found }| {
            let rules = rules::parse(file, &text).map_err(Refused::of(stamp))?;
            Ok(self.adopt(&rules, stamp, watchlist, found))
        }))
    }

    /// Replaces the rules.
    fn adopt(&mut self, rules: &Rules, stamp: Option<Stamp>, watchlist: Watchlist, found: Found) -> Reloaded {
        let new = WatchPlan::with(watchlist, rules);
        let unresolved = new.rules.notes(&found.unresolved, &found.troubles);
        self.noted = keys(&unresolved);
        let mut notes = not_watched(&Waiting { unmatched: found.waiting, unlimited: Vec::new() });
        notes.extend(unresolved.into_iter().map(|note| note.text));
        // An error releases nothing: the cgroups of a rule with a word that can't be resolved stay.
        let unsearched = found.troubles.iter().any(|why| matches!(why, CgroupError::NotSearched { .. }));
        let left_alone = found.taken.iter().filter(|one| new.rules.get(one.list).is_none());
        let left_alone: HashSet<_> = left_alone.map(|one| one.selected.located.id).collect();
        let stays = |list: usize, located: &CgroupPath| {
            let is_unsure = unsearched || found.unresolved.iter().any(|one| one.list == list);
            is_unsure && !left_alone.contains(&located.id) && !new.watchlist.leaves_out(list, located)
        };
        let mut all = new.rules.ruled(found.taken, &found.unresolved);
        all.extend(kept(&self.watched, &all, &new.rules, &stays));
        self.watched.clone_from(&all);
        self.resolver.replace(new.watchlist);
        self.rules = new.rules;
        let names = self.rules.in_force();
        let reload = Reload { all, cpu: new.cpu, swap_writes: new.swap_writes, rules: names };
        let purpose = self.rules.purpose(false);
        Reloaded { reload, rules: rules.each.len(), stamp, metrics: new.metrics, purpose, notes }
    }
}

fn keys(notes: &[SearchNote]) -> HashSet<NoteKey> {
    notes.iter().map(|note| note.key.clone()).collect()
}

/// Returns the watched cgroups without a new rule that stay with the rule of the same name, where
/// this one `stays`.
fn kept(
    watched: &[RuledCgroup],
    assigned: &[RuledCgroup],
    rules: &ListRules,
    stays: &dyn Fn(usize, &CgroupPath) -> bool,
) -> Vec<RuledCgroup> {
    let assigned: HashSet<_> = assigned.iter().map(|one| one.located.id).collect();
    let kept = watched.iter().filter(|one| !assigned.contains(&one.located.id)).filter_map(|one| {
        let (list, rule) = rules.named(one.rule.name.as_deref()?)?;
        stays(list, &one.located)
            .then(|| RuledCgroup { located: Arc::clone(&one.located), rule: Rc::clone(rule) })
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use memctl::cgroup::Mount;
    use memctl::select::Match;
    use memctl::select::watchlist::{Assigned, Unresolved};

    fn cgroup(name: &str, id: u64, rules: &ListRules, rule: &str) -> RuledCgroup {
        let mount = Arc::new(Mount::whole("/none".into(), false));
        let path = Path::new("/none").join(name);
        let located = CgroupPath { path: path.into(), name: name.into(), mount, id };
        RuledCgroup { located: Arc::new(located), rule: Rc::clone(rules.named(rule).unwrap().1) }
    }

    fn rules(text: &str) -> ListRules {
        let rules = Rules::parse(text).unwrap();
        WatchPlan::with(Watchlist::of(&[]).unwrap(), &rules).rules
    }

    #[test]
    fn an_error_releases_nothing() {
        let old = rules(
            "[[rule]]\nname = 'web'\nmatch = ['a', 'b']\nkeep = '1G'\n[[rule]]\nmatch = 'db'\nkeep = '2G'\n",
        );
        let watched = [cgroup("a", 1, &old, "web"), cgroup("b", 2, &old, "web"), cgroup("db", 3, &old, "db")];
        let new = rules(
            "[[rule]]\nmatch = 'db'\nkeep = '2G'\n[[rule]]\nname = 'web'\nmatch = ['a', 'b']\nkeep = '3G'\n",
        );
        // The word `b` of the rule `web` can't be resolved, and `a` is found.
        let assigned = [cgroup("a", 1, &new, "web")];
        let ids = |stays: &dyn Fn(usize, &CgroupPath) -> bool| {
            let kept = kept(&watched, &assigned, &new, stays);
            assert!(
                kept.iter().all(|one| one.rule.name != Some("web".into()) || one.rule.keep == Some(3 << 30))
            );
            kept.iter().map(|one| one.located.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(&|list, _| list == 1), [2]);
        assert!(ids(&|_, _| false).is_empty());
        assert_eq!(ids(&|_, _| true), [2, 3]);
    }

    #[test]
    fn what_a_leave_alone_rule_may_mean_is_not_watched() {
        let rules = rules(
            "[[rule]]\nmatch = 'app.service'\nleave-alone = true\n[[rule]]\nname = 'all'\nmatch = '**'\nkeep = '1G'\n",
        );
        let candidates = vec!["/one/app.service".into(), "/two/app.service".into()];
        let why = CgroupError::Ambiguous { word: "app.service".into(), candidates };
        let unresolved = [Unresolved { list: 0, why }];
        let taken = ["/one/app.service", "/one/other.service"].map(|name| {
            let located = cgroup(name, 1, &rules, "all").located;
            Assigned { selected: Match { located: (*located).clone(), by_glob: true }, list: 1 }
        });
        let names = |unresolved: &[Unresolved]| {
            let watched = rules.ruled(taken.to_vec(), unresolved);
            watched.iter().map(|one| one.located.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(&unresolved), ["/one/other.service"]);
        assert_eq!(names(&[]).len(), 2);
        let note = &rules.notes(&unresolved, &[])[0].text;
        assert!(
            note.starts_with("rule app.service: app.service: ambiguous, matches /one/app.service"),
            "{note}"
        );
    }

    #[test]
    fn a_note_is_printed_once_while_its_reason_stays() {
        let rules = rules("[[rule]]\nmatch = 'app.service'\nkeep = '1G'\n");
        let ambiguous = |name: &str| {
            let candidates = vec![name.into(), "/two/app.service".into()];
            [Unresolved { list: 0, why: CgroupError::Ambiguous { word: "app.service".into(), candidates } }]
        };
        let deep = |name: &str| [CgroupError::TooDeep { name: name.into(), levels: 256 }];
        let notes = |name: &str| rules.notes(&ambiguous(name), &deep(name));
        // Whoever makes cgroups chooses the names.
        assert_eq!(keys(&notes("/one/app.service")), keys(&notes("/other/app.service")));
        assert_eq!(keys(&notes("/one")).len(), 2);
        let gone = [Unresolved { list: 0, why: CgroupError::NoProcess { word: "app.service".into() } }];
        assert!(keys(&notes("/one")).is_disjoint(&keys(&rules.notes(&gone, &[]))));
    }

    #[test]
    fn many_rules_are_read_on_a_small_stack() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("watch.toml");
        let rule = |n: u32| {
            format!(
                "[[rule]]\nmatch = ['**/{{a,{{b,[c-z]*}}}}-{n}*.service', 'absent-{n}.service']\nkeep = '1G'\n"
            )
        };
        std::fs::write(&file, (0..300).map(rule).collect::<String>()).unwrap();
        let mut follower = Follower::new(Watchlist::of(&[]).unwrap(), rules(&rule(0)), Vec::new(), &[]);
        assert!(follower.reloaded(&file).is_none());
        follower.read_again(&file);
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let mut read = None;
        while read.is_none() && std::time::Instant::now() < until {
            read = follower.reloaded(&file);
        }
        // Without the memory controller in cgroup2 on this host, there is an error.
        match read.unwrap() {
            Ok(new) => assert_eq!((new.rules, new.notes.len()), (300, 600)),
            Err(Refused { why, .. }) => assert!(why.to_string().contains("cgroup"), "{why}"),
        }
        assert!(follower.reloaded(&file).is_none());
    }
}
