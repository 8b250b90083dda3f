//! A watch in trouble: no threads, no pressure, no rights, locks of strangers,
//! limits that leave no room. What it can still protect stays protected.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::environment::{Case, list};
use crate::harness::{Cgroup, M, memctl, root};
use crate::overhead::triggers;
use crate::watch::{Events, after, limited, of, parsed, signal, until};
use crate::workload::Work;

mod attack;
mod kills;
mod soak;

pub use attack::asked_for;

pub fn cases() -> Vec<Case> {
    let own = list![
        "guest prompt" =>
            with_64_descriptors_it_keeps_as_many_as_it_can,
            with_a_single_process_it_keeps_all_of_several,
            without_pressure_in_one_cgroup_the_others_have_triggers,
            what_may_not_be_written_is_left_alone,
            the_lock_of_a_stranger_is_waited_for_once,
            a_limit_below_the_headroom_empties_nothing;
        "guest reclaim !swappiness" =>
            with_a_single_process_it_keeps_all_of_several,
            without_pressure_in_one_cgroup_the_others_have_triggers
    ];
    [own, kills::cases(), attack::cases(), soak::cases()].concat()
}

/// User and group of the guest's user `app`.
const APP: u32 = 1000;

/// A watch in the background that writes to files, which nobody has to read meanwhile.
struct Watch {
    child: Child,
    out: NamedTempFile,
    said: NamedTempFile,
}

impl Watch {
    /// Starts `memctl watch --json` with these words.
    fn begin(words: &[&str]) -> Self {
        Self::begin_with(words, |command| command)
    }

    /// Starts it after more settings of its process.
    fn begin_with(words: &[&str], set: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let (out, said) = (NamedTempFile::new().expect("a file"), NamedTempFile::new().expect("a file"));
        let words: Vec<_> = ["watch"].iter().chain(words).chain(&["--json"]).copied().collect();
        let mut command = memctl(words);
        command.stdin(Stdio::null()).stdout(out.reopen().expect("the file"));
        command.stderr(said.reopen().expect("the file"));
        let child = set(&mut command).spawn().expect("memctl starts");
        Self { child, out, said }
    }

    /// Returns the events so far.
    fn events(&self) -> Events {
        let text = std::fs::read_to_string(self.out.path()).expect("the events");
        parsed(&text[..text.rfind('\n').map_or(0, |end| end + 1)])
    }

    /// Returns standard error so far.
    fn notes(&self) -> String {
        std::fs::read_to_string(self.said.path()).expect("the notes")
    }

    /// Waits for its end, which must be 0. Returns its events and standard error.
    fn awaited(mut self) -> (Events, String) {
        let status = self.child.wait().expect("memctl ends");
        assert_eq!(status.code(), Some(0), "{}", self.notes());
        (self.events(), self.notes())
    }

    /// Ends it by SIGTERM. Returns the time this took, too.
    fn terminated(self) -> (Events, String, Duration) {
        signal(&self.child, Signal::TERM);
        let sent = Instant::now();
        let (events, notes) = self.awaited();
        (events, notes, sent.elapsed())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the events of one cgroup and of one kind.
fn of_cgroup<'a>(events: &'a [Value], cgroup: &Cgroup, event: &str) -> Vec<&'a Value> {
    let name = format!("/{}", cgroup.name());
    of(events, event).into_iter().filter(|one| one["cgroup"] == name.as_str()).collect()
}

/// Adds page cache to a cgroup, and asserts that its usage comes down to `kept` again.
fn is_kept_below(app: &Cgroup, more: u64, kept: u64) {
    app.uses(&Work::File(more));
    until(&format!("the usage to keep of {}", app.name()), || app.current() <= kept);
}

/// Adds page cache to each cgroup in turn, for some seconds. Returns the times until the usage was
/// down to `kept` again, at the end of the work.
fn return_times(seconds: u64, apps: &[&Cgroup], more: u64, kept: u64) -> Vec<Duration> {
    let (end, mut times) = (Instant::now() + Duration::from_secs(seconds), Vec::new());
    while Instant::now() < end {
        for app in apps {
            // The last process ends, its page cache stays.
            app.rest();
            app.uses(&Work::File(more));
            let done = Instant::now();
            until(&format!("the usage to keep of {}", app.name()), || app.current() <= kept);
            times.push(done.elapsed());
        }
        after(100);
    }
    times
}

/// Numbers that look random, and are the same for the same seed.
struct Random(u64);

impl Random {
    /// Takes the seed from `MEMCTL_SEED`, or else from the clock, and prints it.
    fn seeded() -> Self {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let seed = setting("MEMCTL_SEED", u64::from(now.subsec_nanos()) ^ now.as_secs());
        println!("MEMCTL_SEED={seed}");
        Self(seed)
    }

    /// Returns a number below `bound` (splitmix64).
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// Returns the number in an environment variable, which long forms of a case set.
fn setting(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect(variable))
}

fn with_a_single_process_it_keeps_all_of_several() {
    const KEPT: u64 = 20 * M;
    let control = root().join("cgroup.subtree_control");
    std::fs::write(&control, "+pids").expect("the controller of processes");
    let (one, two) = (Cgroup::new("one"), Cgroup::new("two"));
    let single = Cgroup::new("single");
    single.uses(&Work::Anon(M));
    single.write("pids.max", "1");
    one.uses(&Work::File(30 * M));
    two.uses(&Work::File(30 * M));
    // Moving there isn't limited, only starting threads there.
    let watch = Watch::begin(&["one", "two", "--keep", "20M", "--join", "single"]);
    for _ in 0..3 {
        for app in [&one, &two] {
            is_kept_below(app, 10 * M, KEPT);
        }
    }
    let (events, notes, _) = watch.terminated();
    std::fs::write(&control, "-pids").expect("as before");
    for line in ["no thread can be started", "no thread for the output"] {
        assert_eq!(notes.matches(line).count(), 1, "once: {notes}");
    }
    assert_eq!(notes.lines().count(), 2, "{notes}");
    for app in [&one, &two] {
        assert!(!of_cgroup(&events, app, "reclaim").is_empty(), "{events:?}");
    }
}

fn with_64_descriptors_it_keeps_as_many_as_it_can() {
    const KEPT: u64 = 10 * M;
    let parent = Cgroup::new("fds");
    let mut apps: Vec<_> = (0..24).map(|number| parent.child(&format!("app-{number:02}"))).collect();
    let few = || Ok(setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: Some(64) })?);
    let words = ["fds/*", "--keep", "10M"];
    // SAFETY: a system call, which is async-signal-safe.
    let watch = Watch::begin_with(&words, |command| unsafe { command.pre_exec(few) });
    // Longer than it takes to try the others again.
    after(6000);
    let started = |watch: &Watch| -> Vec<String> {
        let events = watch.events();
        of(&events, "start").iter().filter_map(|one| Some(one["cgroup"].as_str()?.to_owned())).collect()
    };
    let begun = started(&watch);
    println!("{} of {} are watched: {}", begun.len(), apps.len(), watch.notes());
    let is_watched = |app: &Cgroup, begun: &[String]| begun.contains(&format!("/{}", app.name()));
    for app in apps.iter().filter(|app| is_watched(app, &begun)) {
        is_kept_below(app, 20 * M, KEPT);
    }
    assert_eq!(started(&watch), begun, "each once");
    assert!((4..24).contains(&begun.len()), "{begun:?}");
    // Two that go make room for two others.
    let went: Vec<_> = (0..2)
        .map(|_| {
            let index = apps.iter().position(|app| is_watched(app, &begun)).expect("one is watched");
            apps.remove(index).name().to_owned()
        })
        .collect();
    until("two others", || started(&watch).len() == begun.len() + 2);
    let later = started(&watch).split_off(begun.len());
    let (events, notes, _) = watch.terminated();
    assert!(later.iter().all(|name| !begun.contains(name)), "{later:?} after {begun:?}");
    let gone: Vec<_> = of(&events, "gone").iter().map(|one| one["cgroup"].clone()).collect();
    assert_eq!(gone.len(), 2, "{gone:?}, {went:?}");
    assert_eq!(of(&events, "blind").len(), 0, "{events:?}");
    let more = 24 - begun.len() - 1;
    assert_eq!(notes.lines().count(), 1, "{notes}");
    for part in [&*format!("(and {more} more): not watched yet: too many open files"), "LimitNOFILE="] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
}

fn without_pressure_in_one_cgroup_the_others_have_triggers() {
    const LIMIT: u64 = 64 * M;
    let (without, with) = (limited("without", LIMIT), limited("with", LIMIT));
    without.write("cgroup.pressure", "0");
    assert_eq!(triggers(), 0);
    let watch = Watch::begin(&["without", "with", "--headroom", "16M"]);
    without.uses(&Work::File(40 * M));
    // The one without comes first, and fails.
    after(1500);
    assert_eq!(triggers(), 0);
    with.uses(&Work::File(40 * M));
    until("the trigger of the other one", || triggers() == 1);
    for _ in 0..2 {
        for app in [&without, &with] {
            is_kept_below(app, 12 * M, LIMIT - 16 * M);
        }
    }
    assert_eq!(triggers(), 1, "as long as it is near its limit");
    let (events, notes, _) = watch.terminated();
    assert_eq!((of(&events, "blind").len(), of(&events, "gone").len(), &*notes), (0, 0, ""), "{events:?}");
}

/// Gives a cgroup and its files to the user `app`.
fn give_to_app(cgroup: &Cgroup) {
    let files = std::fs::read_dir(cgroup.path()).expect("list it").flatten().map(|entry| entry.path());
    for path in files.filter(|path| path.is_file()).chain([cgroup.path().to_owned()]) {
        chown(path, Some(APP), Some(APP)).expect("delegate it");
    }
}

fn what_may_not_be_written_is_left_alone() {
    const KEPT: u64 = 10 * M;
    let parent = Cgroup::new("p");
    let (own, other) = (parent.child("own"), parent.child("other"));
    give_to_app(&own);
    other.uses(&Work::File(20 * M));
    let before = other.current();
    let words = ["p/*", "--keep", "10M", "--duration", "12s"];
    let watch = Watch::begin_with(&words, |command| command.uid(APP).gid(APP));
    for _ in 0..2 {
        is_kept_below(&own, 20 * M, KEPT);
        after(2000);
    }
    let (events, notes) = watch.awaited();
    assert!(own.current() <= KEPT, "{}: {events:?}", own.current());
    other.assert_untouched(before);
    let named: Vec<_> = events.iter().filter(|one| one["cgroup"] == "/p/other").collect();
    assert!(named.is_empty(), "{named:?}");
    assert_eq!((of(&events, "start").len(), of(&events, "gone").len()), (1, 0), "{events:?}");
    assert!(notes.lines().count() <= 1, "{notes}");
}

/// A process of the user `app` that holds the lock of a cgroup.
struct Stranger(Child);

impl Stranger {
    fn locks(cgroup: &Cgroup) -> Self {
        let dir = std::fs::File::open(cgroup.path()).expect("open the cgroup");
        let fd = dir.as_raw_fd();
        let mut command = Command::new("/bin/cat");
        command.uid(APP).gid(APP).stdin(Stdio::piped()).stdout(Stdio::null());
        // The kernel names the process that locks as the holder, and the program inherits the lock.
        let lock = move || {
            // SAFETY: `dir` is open until the program has started.
            let dir = unsafe { BorrowedFd::borrow_raw(fd) };
            flock(dir, FlockOperation::NonBlockingLockExclusive)?;
            fcntl_setfd(dir, FdFlags::empty()).map_err(Into::into)
        };
        // SAFETY: both are system calls, which are async-signal-safe.
        let child = unsafe { command.pre_exec(lock) }.spawn().expect("it locks the cgroup");
        Self(child)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn the_lock_of_a_stranger_is_waited_for_once() {
    const KEPT: u64 = 40 * M;
    let app = Cgroup::new("app");
    let stranger = Stranger::locks(&app);
    let file = std::fs::File::open(app.path()).expect("open the cgroup");
    assert!(flock(&file, FlockOperation::NonBlockingLockExclusive).is_err(), "it holds the lock");
    app.uses(&Work::File(60 * M));
    let watch = Watch::begin(&["app", "--keep", "40M"]);
    until("a hold", || !of(&watch.events(), "hold").is_empty());
    let held = Instant::now();
    until("the usage to keep", || app.current() <= KEPT);
    let first = held.elapsed();
    // Longer than any time after which it could ask again.
    let again = return_times(15, &[&app], 10 * M, KEPT);
    let longest = again.iter().max().copied().unwrap_or_default();
    println!("kept off for {first:?}, then {} times for at most {longest:?}", again.len());
    let (events, ..) = watch.terminated();
    assert!(first > Duration::from_secs(1) && first < Duration::from_secs(4), "{first:?}: {events:?}");
    assert!(again.len() > 10 && longest < Duration::from_secs(1), "{again:?}: {events:?}");
    let locks: Vec<_> = of(&events, "hold").into_iter().filter(|hold| hold["guard"] == "lock").collect();
    assert_eq!(locks.len(), 1, "once: {events:?}");
    assert_eq!(locks[0]["lock_pid"], stranger.0.id(), "{}", locks[0]);
}

fn a_limit_below_the_headroom_empties_nothing() {
    let app = limited("app", 64 * M);
    app.uses(&Work::Stream(28 * M));
    let watch = Watch::begin(&["app", "--headroom", "16M"]);
    until("the first sample", || !of(&watch.events(), "start").is_empty());
    let held = || of(&watch.events(), "hold").iter().filter(|hold| hold["guard"] == "no_room").count();
    // The kernel itself keeps the cgroup below this, as it reads its file over and over.
    for (high, least) in [(12 * M, 6 * M), (0, 0)] {
        app.write("memory.high", &high.to_string());
        until("the hold", || held() > 0);
        let before = app.stolen_settled();
        let mut usage = Vec::new();
        for _ in 0..40 {
            after(50);
            usage.push(app.current());
        }
        assert_eq!(app.stolen_settled(), before, "nothing is reclaimed: {:?}", watch.events());
        let (lowest, highest) = (usage.iter().min(), usage.iter().max());
        println!("memory.high {high}: {lowest:?} to {highest:?}, {before} before");
        assert!(lowest >= Some(&least), "{usage:?}");
    }
    app.write("memory.high", "max");
    until("its file again", || app.current() >= 24 * M);
    let before = app.stolen();
    for _ in 0..2 {
        is_kept_below(&app, 28 * M, 48 * M);
    }
    assert!(app.stolen() > before, "kept by the watch: {:?}", watch.events());
    let (events, notes, _) = watch.terminated();
    assert_eq!((of(&events, "gone").len(), of(&events, "blind").len(), &*notes), (0, 0, ""), "{events:?}");
}
