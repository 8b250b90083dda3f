//! A user with a delegated cgroup who wants to mislead root's watch.

use std::collections::VecDeque;
use std::fs::{File, create_dir, remove_dir};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;
use serde_json::Value;

use super::{APP, Random, Watch, of, of_cgroup, return_times, setting};
use crate::environment::{Case, list};
use crate::harness::{Cgroup, M, number};
use crate::watch::{signal, until};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list!["guest prompt" => a_stranger_misleads_no_watch]
}

const MARK: &str = "memctl-test-attacker";

/// Time for each cgroup that the attacker makes: a thousand a minute.
const STEP: Duration = Duration::from_millis(60);

/// Names that could be taken for root's, or for patterns. `#` is a number.
const NAMES: [&str; 10] = [
    "nginx.service",
    "db",
    "*",
    "**",
    "[a-z]",
    "dbus-#.service",
    "docker.service",
    "app-#.scope",
    "user@0.service",
    "nginx\\x2d#.service",
];

/// Returns the attack for which this process was started, if it was.
pub fn asked_for() -> Option<Attacker> {
    let mut args = std::env::args_os().skip(1);
    (args.next()? == MARK).then_some(())?;
    let (own, victim) = (PathBuf::from(args.next()?), PathBuf::from(args.next()?));
    let mut numbers = args.map(|arg| arg.to_str()?.parse().ok());
    Some(Attacker { own, victim, levels: numbers.next()??, random: Random(numbers.next()??) })
}

/// The attack, in a process of the user's.
pub struct Attacker {
    /// The delegated cgroup, and a cgroup of root's.
    own: PathBuf,
    victim: PathBuf,
    /// Levels of nesting.
    levels: u64,
    random: Random,
}

/// True once the attack is to end.
static OVER: AtomicBool = AtomicBool::new(false);

impl Attacker {
    /// Attacks until stdin closes, and prints the number of cgroups made.
    pub fn run(mut self) {
        std::thread::spawn(|| {
            let _ = std::io::stdin().read(&mut [0]);
            OVER.store(true, Ordering::Relaxed);
        });
        let locked = File::open(&self.victim).expect("open root's cgroup");
        flock(&locked, FlockOperation::LockExclusive).expect("lock root's cgroup");
        // Those that stay.
        let fixed = ["system.slice", "nginx.service", "*", "dbus-x.service", "system.slice/nginx.service"];
        let fixed: Vec<_> = fixed.iter().map(|name| self.own.join(name)).collect();
        for path in &fixed {
            create_dir(path).expect("make a cgroup");
        }
        // Without it, those within could not be watched.
        std::fs::write(fixed[0].join("cgroup.subtree_control"), "+memory").expect("pass the controller on");
        println!("ready");
        let _ = std::io::stdout().flush();
        let (mut nested, mut live, mut made) = (vec![self.own.join("nest")], VecDeque::new(), 0_u64);
        while !OVER.load(Ordering::Relaxed) {
            let began = Instant::now();
            let path = self.path();
            if create_dir(&path).is_ok() {
                made += 1;
                live.push_back(path);
            }
            // Several levels at once: they belong to no controller, and cost little.
            for _ in 0..8 {
                if (nested.len() as u64) <= self.levels
                    && let Some(path) = nested.last()
                    && create_dir(path).is_ok()
                {
                    made += 1;
                    nested.push(path.join("n"));
                }
            }
            while live.len() as u64 > 10 + self.random.below(30) {
                live.pop_front().into_iter().for_each(|path| drop(remove_dir(path)));
            }
            std::thread::sleep(STEP.saturating_sub(began.elapsed()));
        }
        let levels = nested.len() - 1;
        let inner = live.iter().rev().chain(nested.iter().rev()).chain(fixed.iter().rev());
        inner.for_each(|path| drop(remove_dir(path)));
        println!("{made} {levels}");
    }

    /// Returns the path of a new cgroup.
    fn path(&mut self) -> PathBuf {
        let name = NAMES[self.random.below(NAMES.len() as u64) as usize];
        let name = name.replace('#', &self.random.below(1000).to_string());
        let dir = if self.random.below(4) == 0 { self.own.join("system.slice") } else { self.own.clone() };
        // One in two is somewhere below another.
        if self.random.below(2) == 0 { dir.join(name) } else { dir.join("nginx.service").join(name) }
    }
}

/// The running attack.
struct Attack(Child);

impl Attack {
    fn begin(own: &Path, victim: &Path, levels: u64, seed: u64) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this binary"));
        command.arg(MARK).args([own, victim]).args([levels.to_string(), seed.to_string()]);
        command.uid(APP).gid(APP).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the attacker starts");
        let mut said = [0; 6];
        child.stdout.as_mut().expect("a pipe").read_exact(&mut said).expect("the attacker is ready");
        Self(child)
    }

    /// Ends it. Returns the number of cgroups made, and of levels.
    fn ended(mut self) -> (u64, u64) {
        drop(self.0.stdin.take());
        let mut said = String::new();
        self.0.stdout.take().expect("a pipe").read_to_string(&mut said).expect("its result");
        let (made, levels) = said.trim().split_once(' ').expect("two numbers");
        (made.parse().expect("a number"), levels.parse().expect("a number"))
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the gaps between the `sample` events of a cgroup in some time, in milliseconds, sorted,
/// each with the second in which it ends.
fn gaps(events: &[Value], app: &Cgroup, from: Duration, to: Duration) -> Vec<(u128, u64)> {
    let times: Vec<_> = of_cgroup(events, app, "sample")
        .into_iter()
        .map(|one| Duration::from_micros(number(one, "at_usec") as u64))
        .filter(|at| (from..to).contains(at))
        .collect();
    let gap = |pair: &[Duration]| (pair[1].saturating_sub(pair[0]).as_millis(), pair[1].as_secs());
    let mut gaps: Vec<_> = times.windows(2).map(gap).collect();
    gaps.sort_unstable();
    gaps
}

fn a_stranger_misleads_no_watch() {
    const KEPT: u64 = 24 * M;
    let (seconds, mut random) = (setting("MEMCTL_ATTACK_SECONDS", 60), Random::seeded());
    let levels = if seconds < 600 { 300 } else { 1200 };
    let (system, data, users) = (Cgroup::new("system.slice"), Cgroup::new("data"), Cgroup::new("user.slice"));
    let (web, db) = (system.child("nginx.service"), data.child("db"));
    let user = users.child("user@1000.service");
    user.write("cgroup.subtree_control", "+memory");
    for file in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
        std::os::unix::fs::chown(user.path().join(file), Some(APP), Some(APP)).expect("delegate it");
    }
    let rules = tempfile::NamedTempFile::new().expect("a file");
    let text = "version = 1\n\
        [[rule]]\nname = 'web'\nmatch = 'nginx.service'\nkeep = '24M'\n\
        [[rule]]\nname = 'db'\nmatch = 'data/**'\nkeep = '24M'\n\
        [[rule]]\nname = 'all'\nmatch = '**'\nkeep = '300M'\n";
    std::fs::write(rules.path(), text).expect("write the rules");
    web.uses(&Work::File(40 * M));
    db.uses(&Work::File(40 * M));
    let watch = Watch::begin(&["--config", &rules.path().display().to_string()]);
    let began = Instant::now();
    until("both kept", || web.current() <= KEPT && db.current() <= KEPT);
    let apps = [&web, &db];
    let mut calm = return_times(15, &apps, 8 * M, KEPT);
    let attacked_from = began.elapsed();
    let attack = Attack::begin(user.path(), web.path(), levels, random.below(u64::MAX));
    // The attacker's lock is waited for, once.
    let locked = return_times(1, &[&web], 8 * M, KEPT);
    let mut attacked = return_times(seconds / 2, &apps, 8 * M, KEPT);
    signal(&watch.child, Signal::HUP);
    attacked.extend(return_times(seconds - seconds / 2, &apps, 8 * M, KEPT));
    let status = std::fs::read_to_string(format!("/proc/{}/status", watch.child.id())).expect("it runs");
    let (events, notes, took) = watch.terminated();
    let (made, nested) = attack.ended();
    calm.sort_unstable();
    attacked.sort_unstable();
    println!("{made} cgroups in {seconds} s, {nested} levels; the end took {took:?}; its lock {locked:?}");
    let at = |times: &[Duration], share: usize| times[(times.len() - 1) * share / 100];
    for (when, times) in [("calm", &calm), ("attacked", &attacked)] {
        let [half, most, all] = [50, 99, 100].map(|share| at(times, share));
        println!("{when}: {} times above, for {half:?}, {most:?}, {all:?} (50, 99, 100%)", times.len());
    }
    status.lines().filter(|line| line.starts_with("VmRSS")).for_each(|line| println!("{line}"));
    for app in apps {
        let (before, during) = (
            gaps(&events, app, Duration::ZERO, attacked_from),
            gaps(&events, app, attacked_from, Duration::MAX),
        );
        println!("{}: gaps in ms, calm {before:?}, attacked {during:?}", app.name());
    }
    for line in notes.lines() {
        println!("note: {} ... {}", &line[..line.len().min(60)], &line[line.len().saturating_sub(80)..]);
    }
    println!("starts: {}, gone: {}", of(&events, "start").len(), of(&events, "gone").len());
    for (rule, own) in [("web", &web), ("db", &db)] {
        let named: Vec<_> = of(&events, "start").into_iter().filter(|one| one["rule"] == rule).collect();
        assert_eq!(named.len(), 1, "{named:?}");
        assert_eq!(named[0]["cgroup"], format!("/{}", own.name()), "{named:?}");
        for event in ["gone", "released", "blind"] {
            assert_eq!(of_cgroup(&events, own, event).len(), 0, "{event}: {events:?}");
        }
    }
    let reloads = of(&events, "reload");
    assert!(reloads.len() == 1 && reloads[0].get("error").is_none(), "{reloads:?}");
    for name in ["nginx.service", "*", "dbus-x.service", "system.slice/nginx.service"] {
        let name = format!("/{}/{name}", user.name());
        let rules: Vec<_> = of(&events, "start").into_iter().filter(|one| one["cgroup"] == *name).collect();
        assert!(rules.iter().all(|one| one["rule"] == "all") && !rules.is_empty(), "{name}: {rules:?}");
    }
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(made >= 4 * seconds && nested == levels, "{made} made, {nested} levels");
    // The guest's processors are busy with the attack: 99 of 100 times count. The longest is what
    // the emulator adds.
    let longest = at(&attacked, 100);
    assert!(longest < Duration::from_secs(4), "{longest:?}");
    let (calm, attacked) = (at(&calm, 99), at(&attacked, 99));
    assert!(attacked <= 2 * calm + Duration::from_millis(500), "{attacked:?} instead of {calm:?}");
}
