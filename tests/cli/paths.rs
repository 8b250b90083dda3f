//! Paths to cgroups: what the kernel opens counts, whichever mount or namespace a path leads through.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use serde_json::Value;

use crate::bed::{Cgroup, M, Ran, assert_close, memctl, number, parse, refuses, report, root, run};
use crate::namespace::Namespace;
use crate::place::{Case, list};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "guest" =>
            links_of_proc_lead_where_the_kernel_goes,
            a_bind_mount_is_a_part_of_the_hierarchy,
            a_covered_mount_is_reached_from_within,
            dots_are_the_kernels_and_not_the_texts;
        "guest reclaim" =>
            another_namespaces_cgroup_is_not_ones_own,
            one_cgroup_by_several_paths_is_asked_once,
            the_mount_that_can_be_written_to_is_taken
    ]
}

/// A process that does nothing, in a cgroup and a working directory.
struct Sleeper(Child);

impl Sleeper {
    fn start(cgroup: &Cgroup, directory: &Path) -> Self {
        let mut command = Command::new("/bin/sleep");
        let child = command.arg("300").current_dir(directory).stdin(Stdio::null()).spawn().expect("sleep");
        cgroup.write("cgroup.procs", &child.id().to_string());
        Self(child)
    }

    fn link(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.0.id())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).expect("it ends");
    }
}

/// A directory of the hierarchy mounted in another place, too.
struct Bind(PathBuf);

impl Bind {
    fn new(source: &Path, target: &str) -> Self {
        std::fs::create_dir_all(target).expect("a directory");
        rustix::mount::mount_bind(source, target).expect("a bind mount");
        Self(target.into())
    }

    fn read_only(&self) {
        let flags = MountFlags::BIND | MountFlags::RDONLY;
        rustix::mount::mount_remount(&self.0, flags, c"").expect("remount it read-only");
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, UnmountFlags::DETACH).expect("unmount it");
    }
}

#[track_caller]
fn stat(word: &str) -> Value {
    stat_of(&run(&["stat", word, "--json"]), word)
}

#[track_caller]
fn stat_of(ran: &Ran, word: &str) -> Value {
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{word}");
    parse(&ran.stdout)
}

/// In a cgroup namespace, `/proc/1/root/sys/fs/cgroup/app` is the host's, whatever its own hierarchy calls so.
fn another_namespaces_cgroup_is_not_ones_own() {
    const OUTSIDE: &str = "/proc/1/root/sys/fs/cgroup";
    let (host, job) = (Cgroup::new("app"), Cgroup::new("job"));
    let (namespace, home) = Namespace::new(&job, "self");
    let own = job.child("app");
    host.uses(&Work::File(50 * M));
    own.uses(&Work::File(30 * M));
    let only = Cgroup::new("only");
    let inside = |words: &[&str]| namespace.run(words);
    let before = (host.current(), own.current());
    let path = format!("{OUTSIDE}/app");

    let seen = stat_of(&inside(&["stat", &path, "--json"]), &path);
    assert_close("host's", number(&seen, "current_bytes") as u64, before.0);
    assert_eq!(seen["cgroup"], path.as_str());
    let ran = inside(&["reclaim", &path, "8M", "--json"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    let reclaimed = parse(&ran.stdout);
    assert_eq!((&reclaimed["cgroup"], &reclaimed["path"]), (&path.as_str().into(), &path.as_str().into()));
    assert_close("reclaimed", number(&reclaimed, "reclaimed_bytes") as u64, 8 * M);
    own.assert_untouched(before.1);
    assert!(before.0 - host.current() >= 7 * M, "{} of {}", host.current(), before.0);

    // What one's own hierarchy doesn't have is there all the same, and both roots are told apart.
    assert_eq!(
        stat_of(&inside(&["stat", &format!("{OUTSIDE}/only"), "--json"]), "only")["cgroup"],
        format!("{OUTSIDE}/only")
    );
    assert_eq!(stat_of(&inside(&["stat", OUTSIDE, "--json"]), "the root")["cgroup"], OUTSIDE);
    assert_close(
        "own",
        number(&stat_of(&inside(&["stat", "/app", "--json"]), "/app"), "current_bytes") as u64,
        before.1,
    );

    // A glob, and several words at once.
    let now = host.current();
    let glob = format!("{OUTSIDE}/ap*");
    let ran = inside(&["reclaim", &glob, "/app", "4M", "--json"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    let names: Vec<Value> = ran.stdout.lines().map(parse_line).map(|line| line["cgroup"].clone()).collect();
    assert_eq!(names, [path.as_str(), "/app"]);
    assert!(now - host.current() >= 3 * M && before.1 - own.current() >= 3 * M);

    // A rule.
    let rules = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(rules.path(), format!("[[rule]]\nmatch = \"{OUTSIDE}/a*\"\nkeep = \"1G\"\n"))
        .expect("write the rule");
    let ran = inside(&["check", "--config", &rules.path().display().to_string(), "--json"]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert_eq!(parse(&ran.stdout)["rules"][0]["cgroups"][0]["cgroup"], path.as_str(), "{}", ran.stdout);

    // Whoever joins another one's cgroup pays there.
    let words =
        ["watch", "/app", "--keep", "1G", "--duration", "1s", "--json", "--join", &format!("{OUTSIDE}/only")];
    let child = std::thread::scope(|scope| {
        let watch = scope.spawn(|| inside(&words));
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let mut joined = false;
        while !joined && std::time::Instant::now() < until && !watch.is_finished() {
            joined = !only.read("cgroup.procs").trim().is_empty();
        }
        (joined, watch.join().expect("it ran"))
    });
    assert_eq!(child.1.status, Some(0), "{}", child.1.stderr);
    assert!(child.0, "it was in the cgroup that the path leads to");
    drop(home);
}

#[track_caller]
fn parse_line(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))
}

/// Proc's links are no text: they lead to what a process has.
fn links_of_proc_lead_where_the_kernel_goes() {
    let app = Cgroup::new("app");
    let inner = app.child("inner");
    let sleeper = Sleeper::start(&inner, inner.path());
    for (word, name) in [
        (sleeper.link("cwd"), "/app/inner"),
        (sleeper.link("cwd/.."), "/app"),
        (sleeper.link("root/sys/fs/cgroup/app/inner"), "/app/inner"),
        (sleeper.link("root/sys/fs/cgroup/app/../app/inner/"), "/app/inner"),
        ("/proc/1/root/sys/fs/cgroup".to_owned(), "/"),
    ] {
        let seen = stat(&word);
        assert_eq!(seen["cgroup"], name, "{word}");
    }
    // From the working directory, by a name as well as by dots.
    for (word, name) in
        [(".", "/app"), ("./inner", "/app/inner"), ("..", "/"), ("../app/inner", "/app/inner")]
    {
        let ran: Ran =
            memctl(["stat", word, "--json"]).current_dir(app.path()).output().expect("it runs").into();
        assert_eq!(stat_of(&ran, word)["cgroup"], name, "{word}");
    }
    let ran: Ran =
        memctl(["stat", "./inn*", "--json"]).current_dir(app.path()).output().expect("it runs").into();
    assert_eq!(stat_of(&ran, "./inn*")["cgroup"], "/app/inner");
    let ran: Ran = memctl(["stat", "./nope"]).current_dir(app.path()).output().expect("it runs").into();
    assert_eq!((ran.status, ran.stderr.lines().next()), (Some(1), Some("memctl: ./nope: no such cgroup")));
    let ran: Ran = memctl(["stat", "."]).current_dir("/tmp").output().expect("it runs").into();
    assert_eq!((ran.status, ran.stderr.lines().next()), (Some(1), Some("memctl: /tmp: it is not a cgroup")));
}

/// `..` behind a symbolic link is the parent of what the link leads to.
fn dots_are_the_kernels_and_not_the_texts() {
    let app = Cgroup::new("app");
    let _inner = app.child("inner");
    let folder = tempfile::tempdir().expect("a folder");
    let link = folder.path().join("link");
    symlink(app.path().join("inner"), &link).expect("a link");
    let word = |end: &str| format!("{}{end}", link.display());
    assert_eq!(stat(&word(""))["cgroup"], "/app/inner");
    assert_eq!(stat(&word("/.."))["cgroup"], "/app");
    assert_eq!(stat(&word("/../inner"))["cgroup"], "/app/inner");
    assert_eq!(stat(&word("/../i*"))["cgroup"], "/app/inner");
    refuses(&["stat", &word("/../../..")], 1, &format!("memctl: {}: it is not a cgroup", word("/../../..")));
    symlink("/nowhere", folder.path().join("broken")).expect("a link");
    let broken = folder.path().join("broken").display().to_string();
    refuses(&["stat", &broken], 1, &format!("memctl: {broken}: no such cgroup"));
}

fn a_bind_mount_is_a_part_of_the_hierarchy() {
    let app = Cgroup::new("app");
    let inner = app.child("inner");
    app.write("memory.high", "64M");
    let bind = Bind::new(app.path(), "/tmp/part");
    let seen = stat("/tmp/part/inner");
    // By the name that it has, and with the limit above it that the mount alone would hide.
    assert_eq!((&seen["cgroup"], &seen["limit_cgroup"]), (&"/app/inner".into(), &"/app".into()), "{seen}");
    assert!(seen.get("hidden_by").is_none(), "{seen}");
    assert_eq!(stat("/tmp/part")["cgroup"], "/app");
    let ran = run(&["stat", "/tmp/part/*", "app/inner", "/tmp/part/inner", "--json"]);
    assert_eq!(stat_of(&ran, "all")["cgroup"], "/app/inner");
    drop((bind, inner));
}

/// A mount on which another one lies is still there for whoever is in it.
fn a_covered_mount_is_reached_from_within() {
    let app = Cgroup::new("app");
    let inner = app.child("inner");
    app.write("memory.high", "123M");
    let sleeper = Sleeper::start(&inner, app.path());
    let cover = tempfile::tempdir().expect("a folder");
    let ran = {
        let _cover = Bind::new(cover.path(), "/sys/fs/cgroup");
        [
            run(&["stat", &sleeper.link("cwd"), "--json"]),
            run(&["stat", &sleeper.link("cwd/inner"), "--json"]),
            run(&["stat", &sleeper.link("cwd/in*"), "--json"]),
            run(&["stat", "app"]),
        ]
    };
    let [app, inner, glob, covered] = ran;
    assert_eq!(number(&stat_of(&app, "app"), "high_bytes") as u64, 123 * M);
    for ran in [inner, glob] {
        let name = stat_of(&ran, "inner")["cgroup"].clone();
        assert!(name.as_str().is_some_and(|name| name.ends_with("/inner")), "{name}");
    }
    assert_eq!((covered.status, covered.stdout.as_str()), (Some(1), ""), "{}", covered.stderr);
}

fn one_cgroup_by_several_paths_is_asked_once() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(40 * M));
    let _bind = Bind::new(&root(), "/tmp/whole");
    let before = app.current();
    let report = report(
        &[
            "reclaim",
            "app",
            "/app",
            "/tmp/whole/app",
            "/proc/self/root/sys/fs/cgroup/app",
            "/tmp/whole/ap*",
            "8M",
        ],
        0,
    );
    assert_eq!(report["cgroup"], "/app");
    assert_close("fallen", before - app.current(), 8 * M);
}

/// Containers see the hierarchy read-only, and may have it mounted writable in another place.
fn the_mount_that_can_be_written_to_is_taken() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(40 * M));
    let whole = Bind::new(&root(), "/tmp/writable");
    rustix::mount::mount_change("/sys/fs/cgroup", MountPropagationFlags::PRIVATE)
        .expect("a mount of its own");
    let over = Bind::new(&root(), "/sys/fs/cgroup");
    over.read_only();
    let by = |word: &str| run(&["reclaim", word, "4M", "--json"]);
    let (writable, other) = (by("/tmp/writable/app"), by("/sys/fs/cgroup/app"));
    drop((over, whole));
    assert_eq!((writable.status, writable.stderr.as_str()), (Some(0), ""), "{}", writable.stdout);
    let report = parse(&writable.stdout);
    assert_eq!((&report["cgroup"], &report["path"]), (&"/app".into(), &"/tmp/writable/app".into()));
    let line = "memctl: /sys/fs/cgroup/app/memory.reclaim: the cgroup file system is mounted read-only";
    assert_eq!((other.status, other.stderr.lines().next()), (Some(1), Some(line)));
}
