//! Cgroups and mounts where nothing can be reclaimed: each gets its own clear error, and nothing
//! changes.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags};

use crate::environment::{Case, list};
use crate::harness::{Cgroup, Finished, M, assert_fails, memctl, parse, refused, root, run};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "guest" =>
            no_such_cgroup,
            the_nearest_names_are_suggested,
            not_a_cgroup,
            a_cgroup_of_version_one,
            controller_not_enabled,
            threaded,
            names_are_escaped;
        "guest !reclaim" => kernel_without_the_file;
        "guest reclaim" =>
            no_permission,
            delegated,
            read_only,
            removed_halfway,
            removed_before,
            self_is_the_cgroup_we_are_in,
            every_spelling_of_a_name,
            a_share_of_the_root
    ]
}

/// Returns cases that must run before any cgroup is made: a controller changes hierarchies only
/// while no cgroup, nor the memory of a removed one, holds it.
pub fn first_cases() -> Vec<Case> {
    list!["guest memory-v1" => controller_on_version_one]
}

fn controller_on_version_one() {
    let control = root().join("cgroup.subtree_control");
    std::fs::write(&control, "-memory").expect("take the controller off version 2");
    let v1 = Mounted::new("/tmp/memory", "cgroup", "memory");
    let ran = run(&["reclaim", "/", "10M"]);
    let nowhere = run(&["reclaim", "nowhere", "10M"]);
    let checked = run(&["check", "/"]);
    rustix::mount::unmount(v1.0, UnmountFlags::empty()).expect("unmount version 1");
    // The old hierarchy is removed asynchronously, and only then is the controller back for good.
    let until = Instant::now() + Duration::from_secs(20);
    let back = || {
        let _ = std::fs::write(&control, "+memory");
        std::thread::sleep(Duration::from_millis(200));
        root().join("memory.stat").exists()
            && std::fs::read_to_string(&control).is_ok_and(|c| c.contains("memory"))
    };
    while !back() {
        assert!(Instant::now() < until, "the controller didn't come back to version 2");
    }
    let line = "memctl: /: the memory controller is on cgroup v1 (/tmp/memory), which has no memory.reclaim";
    refused(ran, &["reclaim", "/", "10M"], 1, line);
    // Any other name fails as well.
    refused(nowhere, &["reclaim", "nowhere", "10M"], 1, &line.replace("memctl: /:", "memctl: nowhere:"));
    assert_eq!((checked.status, checked.stderr.as_str()), (Some(1), ""));
    for words in
        ["the memory controller is on cgroup v1 (/tmp/memory)", "-> boot with systemd.unified_cgroup"]
    {
        assert!(checked.stdout.contains(words), "{words} in {}", checked.stdout);
    }
}

/// The unprivileged user of the guest.
const APP: u32 = 1000;

/// Runs memctl as that user.
fn as_app(words: &[&str]) -> Finished {
    memctl(words).uid(APP).gid(APP).output().expect("memctl runs").into()
}

fn no_such_cgroup() {
    let ran =
        assert_fails(&["reclaim", "nowhere/at/all", "10M"], 1, "memctl: nowhere/at/all: no such cgroup");
    assert!(ran.stderr.contains("\nhint: "), "{}", ran.stderr);
    assert_fails(
        &["reclaim", "/sys/fs/cgroup/nowhere", "10M"],
        1,
        "memctl: /sys/fs/cgroup/nowhere: no such cgroup",
    );
}

fn the_nearest_names_are_suggested() {
    let slice = Cgroup::new("system.slice");
    let _service = slice.child("nginx.service");
    let ran = assert_fails(&["reclaim", "ngnix.service", "10M"], 1, "memctl: ngnix.service: no such cgroup");
    assert!(ran.stderr.contains("hint: similar names: system.slice/nginx.service"), "{}", ran.stderr);
    let ran = assert_fails(&["reclaim", "Nginx.Service", "10M"], 1, "memctl: Nginx.Service: no such cgroup");
    assert!(ran.stderr.contains("hint: similar names: system.slice/nginx.service"), "{}", ran.stderr);
    let ran = assert_fails(&["reclaim", "nginx", "10M"], 1, "memctl: nginx: no such cgroup");
    assert!(ran.stderr.contains("hint: similar names: system.slice/nginx.service"), "{}", ran.stderr);
}

fn not_a_cgroup() {
    assert_fails(&["reclaim", "", "10M"], 2, "memctl: a cgroup's name can't be empty (the root is called /)");

    assert_fails(&["reclaim", "/data", "10M"], 1, "memctl: /data: not a cgroup");
    let file = "/etc/passwd";
    assert_fails(&["reclaim", file, "10M"], 1, &format!("memctl: {file}: not a cgroup"));
}

/// A mount that is unmounted when the case ends.
struct Mounted(&'static str);

impl Mounted {
    fn new(target: &'static str, fs: &str, options: &str) -> Self {
        std::fs::create_dir_all(target).expect("make the mount point");
        let options = std::ffi::CString::new(options).expect("no zero bytes");
        rustix::mount::mount(fs, target, fs, MountFlags::empty(), options.as_c_str())
            .unwrap_or_else(|e| panic!("mount {fs} at {target}: {e}"));
        Self(target)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0, UnmountFlags::DETACH);
    }
}

fn a_cgroup_of_version_one() {
    let _v1 = Mounted::new("/tmp/v1", "cgroup", "none,name=test");
    for word in ["/tmp/v1", "/tmp/v1/cgroup.procs"] {
        let line = format!("memctl: {word}: a cgroup of version 1, which has no memory.reclaim");
        assert_fails(&["reclaim", word, "10M"], 1, &line);
    }
}

fn controller_not_enabled() {
    let app = Cgroup::new("app");
    std::fs::create_dir(app.path().join("job")).expect("make a cgroup");
    let asked = [&["reclaim", "app/job", "10M"][..], &["stat", "app/job"]];
    let ran = asked.map(run);
    std::fs::remove_dir(app.path().join("job")).expect("remove it");
    let line = "memctl: /app/job: the memory controller is not enabled in cgroup.subtree_control of /app";
    for (ran, words) in ran.into_iter().zip(asked) {
        let ran = refused(ran, words, 1, line);
        assert!(
            ran.stderr.contains("hint: echo +memory > /sys/fs/cgroup/app/cgroup.subtree_control"),
            "{}",
            ran.stderr
        );
    }
}

fn threaded() {
    let app = Cgroup::new("app");
    let job = app.path().join("job");
    std::fs::create_dir(&job).expect("make a cgroup");
    std::fs::write(job.join("cgroup.type"), "threaded").expect("make it threaded");
    let ran = run(&["reclaim", "app/job", "10M"]);
    std::fs::remove_dir(&job).expect("remove it");
    let line = "memctl: /app/job: a threaded cgroup, whose memory is charged to /app";
    refused(ran, &["reclaim", "app/job", "10M"], 1, line);
}

fn names_are_escaped() {
    let ran = assert_fails(&["reclaim", "a\u{1b}cb", "10M"], 1, "memctl: a\\u{1b}cb: no such cgroup");
    assert!(!ran.stderr.contains('\u{1b}'));
}

fn kernel_without_the_file() {
    let _app = Cgroup::new("app");
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    for (word, name) in [("app", "/app"), ("/", "/")] {
        let line = format!(
            "memctl: {name}: this kernel ({release}) has no memory.reclaim, which requires Linux 5.19"
        );
        assert_fails(&["reclaim", word, "10M"], 1, &line);
    }
}

fn no_permission() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(10 * M));
    let before = app.current();
    let words = ["reclaim", "app", "5M"];
    let line = "memctl: /sys/fs/cgroup/app/memory.reclaim: permission denied";
    let ran = refused(as_app(&words), &words, 1, line);
    assert!(ran.stderr.contains("hint: run as root, or delegate the file"), "{}", ran.stderr);
    app.assert_untouched(before);
}

fn delegated() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(20 * M));
    std::os::unix::fs::chown(app.path().join("memory.reclaim"), Some(APP), Some(APP)).expect("delegate");
    let ran = as_app(&["reclaim", "app", "5M", "--json"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    assert_eq!(parse(&ran.stdout)["verdict"], "exact");
}

fn read_only() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(10 * M));
    let before = app.current();
    let target = "/tmp/ro";
    std::fs::create_dir_all(target).expect("make the mount point");
    rustix::mount::mount_bind(root(), target).expect("bind the hierarchy");
    let mounted = Mounted(target);
    rustix::mount::mount_remount(target, MountFlags::BIND | MountFlags::RDONLY, "")
        .expect("make it read-only");
    let words = ["reclaim", "/tmp/ro/app", "5M"];
    let line = "memctl: /tmp/ro/app/memory.reclaim: the cgroup file system is mounted read-only";
    refused(run(&words), &words, 1, line);
    // Nor is a watch of nothing silent.
    let other = Cgroup::new("app-2");
    let ran = run(&["watch", "/tmp/ro/ap*", "--keep", "1M", "--duration", "1s"]);
    let note = "memctl: /app (and 1 more): not watched yet: the cgroup file system is mounted read-only (run memctl on";
    assert!(ran.status == Some(0) && ran.stderr.starts_with(note), "{}", ran.stderr);
    let ran = as_app(&["watch", "ap*", "--keep", "1M", "--duration", "1s"]);
    let note = "memctl: /app (and 1 more): not watched yet: permission denied\n";
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), note), "{}", ran.stdout);
    app.assert_untouched(before);
    drop((mounted, other));
}

fn removed_halfway() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(200 * M));
    // The cache stays charged after the process that read it is gone, and then the cgroup can be
    // removed.
    app.rest();
    let used = app.current();
    assert!(used > 190 * M, "{used}");
    let child = memctl(["reclaim", "app", "190M", "--chunk", "4K", "--json"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("memctl starts");
    while app.current() + 8 * M > used {
        std::thread::sleep(Duration::from_millis(1));
    }
    let began = Instant::now();
    std::fs::remove_dir(app.path()).expect("remove it while it is reclaimed from");
    let took = began.elapsed();
    assert!(took.as_millis() < 1000, "rmdir was held up for {took:?}");
    let ran: Finished = child.wait_with_output().expect("memctl ends").into();
    assert_eq!(ran.status, Some(1), "{ran:?}");
    assert_eq!(ran.stderr, "memctl: /app: the cgroup was removed meanwhile\n");
    let report = parse(&ran.stdout);
    assert_eq!(report["stopped_by"], "removed", "{report}");
    let reclaimed = report["reclaimed_bytes"].as_u64().expect("a number");
    assert!(reclaimed > 0 && reclaimed < 190 * M, "{report}");
}

fn removed_before() {
    let app = Cgroup::new("app");
    drop(app);
    assert_fails(&["reclaim", "app", "5M"], 1, "memctl: app: no such cgroup");
}

fn self_is_the_cgroup_we_are_in() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(20 * M));
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "echo 0 > /sys/fs/cgroup/app/cgroup.procs && exec \"$0\" reclaim self 5M --json"]);
    let ran: Finished =
        shell.arg(assert_cmd::cargo::cargo_bin!("memctl")).output().expect("memctl runs").into();
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    assert_eq!(parse(&ran.stdout)["cgroup"], "/app");
}

fn every_spelling_of_a_name() {
    let app = Cgroup::new("app");
    let job = app.child("a job");
    job.uses(&Work::File(20 * M));
    let here =
        memctl(["reclaim", "./a job", "1M", "--json"]).current_dir(app.path()).output().expect("memctl runs");
    assert_eq!(parse(&Finished::from(here).stdout)["cgroup"], "/app/a job");
    let elsewhere = memctl(["reclaim", ".", "1M"]).current_dir("/data").output().expect("memctl runs");
    refused(elsewhere.into(), &["."], 1, "memctl: /data: not a cgroup");
    for word in [
        "app/a job",
        "/app/a job",
        "/sys/fs/cgroup/app/a job",
        "/sys/fs/cgroup/app/../app/a job/",
        "app//a job",
    ] {
        let ran = run(&["reclaim", word, "1M", "--json"]);
        assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{word}");
        assert_eq!(parse(&ran.stdout)["cgroup"], "/app/a job", "{word}");
    }
    assert!(Path::new("/sys/fs/cgroup/app/a job").exists());
}

fn a_share_of_the_root() {
    let line = "memctl: /: the root cgroup has no memory.current, which a percentage or --to requires";
    assert_fails(&["reclaim", "/", "25%"], 1, line);
    assert_fails(&["reclaim", "/", "--to", "100M"], 1, line);
}
