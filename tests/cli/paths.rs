//! Paths to cgroups: the file that the kernel opens counts, through any mount or namespace.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use serde_json::Value;

use crate::environment::{Case, list};
use crate::harness::{
    Cgroup, Finished, M, assert_close, assert_fails, memctl, number, parse, report, root, run,
};
use crate::namespace::Namespace;
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "guest" =>
            links_of_proc_lead_where_the_kernel_goes,
            a_bind_mount_is_a_part_of_the_hierarchy,
            a_covered_mount_is_reached_from_within,
            what_is_mounted_within_is_no_cgroup,
            a_mount_that_leads_nowhere_is_passed_over,
            a_removed_cgroup_is_called_removed,
            a_zombie_is_in_no_other_cgroup,
            without_a_mount_of_the_namespace_self_is_found,
            dots_are_the_kernels_and_not_the_texts;
        "guest reclaim" =>
            another_namespaces_cgroup_is_not_ones_own,
            one_cgroup_by_several_paths_is_asked_once,
            a_path_that_is_left_out_is_left_out,
            a_watch_has_each_cgroup_once,
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

/// A directory of the hierarchy, mounted in a second place.
pub struct Bind(PathBuf);

impl Bind {
    pub fn new(source: &Path, target: &str) -> Self {
        std::fs::create_dir_all(target).expect("a directory");
        rustix::mount::mount_bind(source, target).expect("a bind mount");
        Self(target.into())
    }

    pub fn remount(&self, flags: MountFlags) {
        rustix::mount::mount_remount(&self.0, MountFlags::BIND | flags, c"").expect("remount it");
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
fn stat_of(ran: &Finished, word: &str) -> Value {
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{word}");
    parse(&ran.stdout)
}

/// In a cgroup namespace, `/proc/1/root/sys/fs/cgroup/app` is the host's, whatever that name means
/// in its own hierarchy.
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

    // A cgroup missing from the own hierarchy is found anyway, and the two roots are distinguished.
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

    // After joining the other cgroup, memctl is charged there.
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

/// Links in /proc are not text: they lead to the files of a process.
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
        let ran: Finished =
            memctl(["stat", word, "--json"]).current_dir(app.path()).output().expect("it runs").into();
        assert_eq!(stat_of(&ran, word)["cgroup"], name, "{word}");
    }
    let ran: Finished =
        memctl(["stat", "./inn*", "--json"]).current_dir(app.path()).output().expect("it runs").into();
    assert_eq!(stat_of(&ran, "./inn*")["cgroup"], "/app/inner");
    let ran: Finished = memctl(["stat", "./nope"]).current_dir(app.path()).output().expect("it runs").into();
    assert_eq!((ran.status, ran.stderr.lines().next()), (Some(1), Some("memctl: ./nope: no such cgroup")));
    let ran: Finished = memctl(["stat", "."]).current_dir("/tmp").output().expect("it runs").into();
    assert_eq!((ran.status, ran.stderr.lines().next()), (Some(1), Some("memctl: /tmp: not a cgroup")));
}

/// `..` after a symbolic link is the parent of the link's target.
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
    assert_fails(&["stat", &word("/../../..")], 1, &format!("memctl: {}: not a cgroup", word("/../../..")));
    symlink("/nowhere", folder.path().join("broken")).expect("a link");
    let broken = folder.path().join("broken").display().to_string();
    assert_fails(&["stat", &broken], 1, &format!("memctl: {broken}: no such cgroup"));
}

fn a_bind_mount_is_a_part_of_the_hierarchy() {
    let app = Cgroup::new("app");
    let inner = app.child("inner");
    app.write("memory.high", "64M");
    let bind = Bind::new(app.path(), "/tmp/part");
    let seen = stat("/tmp/part/inner");
    // By its real name, and with the limit above it that the mount alone would hide.
    assert_eq!((&seen["cgroup"], &seen["limit_cgroup"]), (&"/app/inner".into(), &"/app".into()), "{seen}");
    assert!(seen.get("hidden_by").is_none(), "{seen}");
    assert_eq!(stat("/tmp/part")["cgroup"], "/app");
    let ran = run(&["stat", "/tmp/part/*", "app/inner", "/tmp/part/inner", "--json"]);
    assert_eq!(stat_of(&ran, "all")["cgroup"], "/app/inner");
    drop((bind, inner));
}

/// A mount covered by another mount is still visible to processes inside it.
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

/// A mount that covers a directory of the hierarchy moves no cgroup.
fn what_is_mounted_within_is_no_cgroup() {
    let (app, other, plain) = (Cgroup::new("app"), Cgroup::new("other"), Cgroup::new("plain"));
    let inner = other.child("u.service");
    let point = plain.child("point");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("x.service")).expect("a directory");
    let names = |words: &[&str]| -> Vec<String> {
        let words: Vec<_> = ["stat", "--json"].into_iter().chain(words.iter().copied()).collect();
        let ran = run(&words);
        assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{words:?}");
        ran.stdout
            .lines()
            .map(|line| parse_line(line)["cgroup"].as_str().expect("a name").to_owned())
            .collect()
    };
    let bind = Bind::new(other.path(), "/sys/fs/cgroup/app");
    let tmpfs = Bind::new(folder.path(), "/sys/fs/cgroup/plain/point");
    let itself = Bind::new(inner.path(), "/sys/fs/cgroup/other/u.service");
    assert_eq!(names(&["u.service"]), ["/other/u.service"], "it is there once");
    assert_eq!(names(&["**/u.service"]), ["/other/u.service"]);
    assert_eq!(names(&["*", "-r"]).iter().filter(|name| name.ends_with("u.service")).count(), 1);
    assert_eq!(names(&["plain", "-r"]), ["/plain"]);
    for word in ["x.service", "plain/*", "[a]pp"] {
        let ran = run(&["stat", word]);
        assert_eq!(ran.status, Some(1), "{word}: {}", ran.stdout);
        assert!(
            ran.stderr.contains("no such cgroup") || ran.stderr.contains("no cgroup matches"),
            "{}",
            ran.stderr
        );
    }
    drop((itself, tmpfs, bind, point, inner, app));
}

/// A mount whose mount point was covered later is unusable.
fn a_mount_that_leads_nowhere_is_passed_over() {
    let _app = Cgroup::new("app");
    let (cover, outer) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let _first = Bind::new(outer.path(), "/tmp/outer");
    let within = Bind::new(&root(), "/tmp/outer/cg");
    let covered = Bind::new(cover.path(), "/tmp/outer");
    let found = run(&["stat", "app", "--json"]);
    let gone = run(&["stat", "/tmp/outer/cg/app"]);
    drop(covered);
    drop(within);
    assert_eq!(stat_of(&found, "app")["cgroup"], "/app");
    assert_eq!(
        (gone.status, gone.stderr.lines().next()),
        (Some(1), Some("memctl: /tmp/outer/cg/app: no such cgroup"))
    );
}

fn a_removed_cgroup_is_called_removed() {
    let app = Cgroup::new("app");
    let dir = std::fs::File::open(app.path()).expect("its directory");
    drop(app);
    let anew = Cgroup::new("app");
    let word = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&dir));
    for verb in ["stat", "watch"] {
        let words = if verb == "watch" { vec![verb, &word, "--keep", "1G"] } else { vec![verb, &word] };
        let ran = run(&words);
        assert_eq!((ran.status, ran.stdout.as_str()), (Some(1), ""), "{words:?}");
        let line = "memctl: /app: the cgroup was removed meanwhile, and a new one has its name\n";
        assert_eq!(ran.stderr, line);
    }
    drop(anew);
    // A shell may still be in the directory of a cgroup that is gone.
    let app = Cgroup::new("app");
    let path = app.path().to_path_buf();
    std::env::set_current_dir(&path).expect("its directory");
    drop(app);
    let ran = run(&["stat", "."]);
    std::env::set_current_dir("/").expect("the root");
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
    assert_eq!(ran.stderr, "memctl: /app: the cgroup was removed meanwhile\n");
}

/// The kernel's path for a process whose cgroup was removed can be the name of another cgroup.
fn a_zombie_is_in_no_other_cgroup() {
    let (job, other) = (Cgroup::new("z"), Cgroup::new("z (deleted)"));
    let mut child = Command::new("/bin/sleep").arg("300").stdin(Stdio::null()).spawn().expect("sleep");
    job.write("cgroup.procs", &child.id().to_string());
    child.kill().expect("it ends");
    std::thread::sleep(std::time::Duration::from_millis(300));
    drop(job);
    let word = format!("pid:{}", child.id());
    let said = std::fs::read_to_string(format!("/proc/{}/cgroup", child.id())).expect("it is a zombie");
    let ran = run(&["stat", &word]);
    child.wait().expect("it ended");
    assert!(said.contains("/z (deleted)"), "{said}");
    let line = format!("memctl: {word}: the process has ended, and its cgroup was removed");
    assert_eq!((ran.status, ran.stderr.lines().next()), (Some(1), Some(line.as_str())));
    let alive = Sleeper::start(&other, Path::new("/"));
    assert_eq!(stat(&format!("pid:{}", alive.0.id()))["cgroup"], "/z (deleted)");
}

/// A container's tool that has its own cgroup namespace and the host's mount: case 08 of other
/// people's hosts.
fn without_a_mount_of_the_namespace_self_is_found() {
    let job = Cgroup::new("job");
    let (namespace, home) = Namespace::new(&job, "self");
    let ran = namespace.run_with_the_hosts_mount(&["stat", "self", "--json"]);
    assert_eq!(stat_of(&ran, "self")["cgroup"], "/job/self");
    let pid = format!("pid:{}", std::process::id());
    let ran = namespace.run_with_the_hosts_mount(&["stat", &pid, "--json"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    drop(home);
}

fn a_path_that_is_left_out_is_left_out() {
    let app = Cgroup::new("app");
    let (_a, _b) = (app.child("a"), app.child("b"));
    let _part = Bind::new(app.path(), "/tmp/part");
    let rules = tempfile::NamedTempFile::new().expect("a file");
    for (matches, excluded) in [
        ("app/*", "/sys/fs/cgroup/app/b"),
        ("/tmp/part/*", "/tmp/part/b"),
        ("app/*", "/tmp/part/b"),
        ("/tmp/part/*", "/proc/self/root/sys/fs/cgroup/app/b"),
        ("app/*", "/proc/1/root/sys/fs/cgroup/app/[b]"),
        ("/sys/fs/cgroup/app/*", "app/b"),
    ] {
        let text = format!("[[rule]]\nmatch = '{matches}'\nexclude = '{excluded}'\nkeep = '1G'\n");
        std::fs::write(rules.path(), text).expect("write the rule");
        let ran = run(&["check", "--config", &rules.path().display().to_string(), "--json"]);
        let checked = parse(&ran.stdout);
        let taken: Vec<_> = checked["rules"][0]["cgroups"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| &one["cgroup"])
            .collect();
        assert_eq!(taken, ["/app/a"], "{matches} without {excluded}");
    }
    let words = ["watch", "./*", "--exclude", "./b", "--keep", "1G", "--duration", "1s", "--json"];
    let ran: Finished = memctl(words).current_dir(app.path()).output().expect("it runs").into();
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    assert!(!ran.stdout.contains("/app/b"), "{}", ran.stdout);
}

/// A cgroup that is found again later by another path is watched only once.
fn a_watch_has_each_cgroup_once() {
    let app = Cgroup::new("app");
    let _inner = app.child("inner");
    let _whole = Bind::new(&root(), "/tmp/whole");
    let words = ["watch", "/tmp/whole/app/*", "app/*", "--keep", "1G", "--duration", "12s", "--json"];
    let child = memctl(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    std::thread::sleep(std::time::Duration::from_secs(2));
    let later = app.child("later");
    let ran: Finished = child.wait_with_output().expect("it ends").into();
    let starts = |name: &str| {
        let lines = ran.stdout.lines().map(parse_line);
        lines.filter(|line| line["event"] == "start" && line["cgroup"] == name).count()
    };
    assert_eq!((starts("/app/inner"), starts("/app/later")), (1, 1), "{}", ran.stdout);
    drop(later);
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
    over.remount(MountFlags::RDONLY);
    let by = |word: &str| run(&["reclaim", word, "4M", "--json"]);
    let (writable, other) = (by("/tmp/writable/app"), by("/sys/fs/cgroup/app"));
    drop((over, whole));
    assert_eq!((writable.status, writable.stderr.as_str()), (Some(0), ""), "{}", writable.stdout);
    let report = parse(&writable.stdout);
    assert_eq!((&report["cgroup"], &report["path"]), (&"/app".into(), &"/tmp/writable/app".into()));
    let line = "memctl: /sys/fs/cgroup/app/memory.reclaim: the cgroup file system is mounted read-only";
    assert_eq!((other.status, other.stderr.lines().next()), (Some(1), Some(line)));
}
