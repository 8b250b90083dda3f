//! memctl in a pod that has the host's hierarchy mounted beside its own.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::mount::{MountFlags, MountPropagationFlags};

use crate::environment::{Case, list};
use crate::harness::{Cgroup, Finished, M, memctl, number, parse, root, run};
use crate::namespace::Namespace;
use crate::paths::Bind;

pub fn cases() -> Vec<Case> {
    list![
        "guest" =>
            both_mounts_show_the_same_cgroup,
            a_zombie_is_found_by_the_namespaces_root,
            the_mount_that_was_taken_is_named,
            a_mount_that_cannot_be_reached_is_no_use;
        "guest reclaim" => no_glob_takes_memctl_itself, of_equal_mounts_the_writable_one_is_taken
    ]
}

#[track_caller]
fn stat_of(ran: &Finished, word: &str) -> serde_json::Value {
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{word}: {}", ran.stdout);
    parse(&ran.stdout)
}

/// The host's name, and the limit above it, are shown for a path in the pod's own mount as well.
fn both_mounts_show_the_same_cgroup() {
    let _host = Bind::new(&root(), "/tmp/host/sys/fs/cgroup");
    let slice = Cgroup::new("pods");
    slice.write("memory.high", "123M");
    let pod = slice.child("pod");
    let (namespace, home) = Namespace::new(&pod, "self");
    let other = pod.child("other");
    let mut child = Command::new("/bin/sleep").arg("300").stdin(Stdio::null()).spawn().expect("sleep");
    other.write("cgroup.procs", &child.id().to_string());
    for (word, name) in [
        ("self", "/pods/pod/self"),
        ("/sys/fs/cgroup/self", "/pods/pod/self"),
        ("/sys/fs/cgroup", "/pods/pod"),
        ("/sys/fs/cgroup/oth*", "/pods/pod/other"),
        ("pods/pod/other", "/pods/pod/other"),
        ("/tmp/host/sys/fs/cgroup/pods/pod/other", "/pods/pod/other"),
        (&format!("pid:{}", child.id()), "/pods/pod/other"),
        ("pid:1", "/"),
    ] {
        let seen = stat_of(&namespace.run(&["stat", word, "--json"]), word);
        assert_eq!(seen["cgroup"], name, "{word}");
        if name != "/" {
            assert_eq!(seen["limit_cgroup"], "/pods", "{word}: {seen}");
            assert_eq!(number(&seen, "limit_bytes") as u64, 123 * M, "{word}");
        }
    }
    child.kill().and_then(|()| child.wait()).expect("it ends");
    drop((other, home));
}

/// No cgroup lists a zombie, so its path must do.
fn a_zombie_is_found_by_the_namespaces_root() {
    let _host = Bind::new(&root(), "/tmp/host/sys/fs/cgroup");
    let pod = Cgroup::new("pod");
    let (namespace, home) = Namespace::new(&pod, "self");
    let other = pod.child("other");
    let mut child = Command::new("/bin/sleep").arg("300").stdin(Stdio::null()).spawn().expect("sleep");
    other.write("cgroup.procs", &child.id().to_string());
    child.kill().expect("it ends");
    std::thread::sleep(std::time::Duration::from_millis(300));
    let word = format!("pid:{}", child.id());
    let with_own = namespace.run(&["stat", &word, "--json"]);
    let without = namespace.run_with_the_hosts_mount(&["stat", &word, "--json"]);
    child.wait().expect("it ended");
    assert_eq!(stat_of(&with_own, &word)["cgroup"], "/pod/other");
    assert_eq!(stat_of(&without, &word)["cgroup"], "/pod/other");
    drop((other, home));
}

fn no_glob_takes_memctl_itself() {
    let _host = Bind::new(&root(), "/tmp/host/sys/fs/cgroup");
    let pod = Cgroup::new("pod");
    let (namespace, home) = Namespace::new(&pod, "self");
    let other = pod.child("other");
    for glob in ["pod/*", "/sys/fs/cgroup/*", "**"] {
        let ran = namespace.run(&["watch", glob, "--keep", "1G", "--duration", "1s", "--json"]);
        assert_eq!(ran.status, Some(0), "{glob}: {}", ran.stderr);
        assert!(ran.stdout.contains("/pod/other"), "{glob}: {}", ran.stdout);
        assert!(!ran.stdout.contains("/pod/self"), "{glob}: {}", ran.stdout);
    }
    drop((other, home));
}

fn the_mount_that_was_taken_is_named() {
    let app = Cgroup::new("app");
    let ran = run(&["check", "app"]);
    assert!(ran.stdout.contains("mounted at /sys/fs/cgroup, writable\n"), "{}", ran.stdout);
    let _host = Bind::new(&root(), "/tmp/host/sys/fs/cgroup");
    let (namespace, home) = Namespace::new(&app, "self");
    for word in ["/", "/sys/fs/cgroup/self"] {
        let ran = namespace.run(&["check", word]);
        let line = "mounted at /tmp/host/sys/fs/cgroup, writable; names begin there, not at /sys/fs/cgroup\n";
        assert!(ran.stdout.contains(line), "{word}: {}", ran.stdout);
    }
    drop(home);
}

/// The part that this user can reach counts, though a mount elsewhere shows more.
fn a_mount_that_cannot_be_reached_is_no_use() {
    const APP: u32 = 1000;
    let app = Cgroup::new("app");
    let _inner = app.child("inner");
    let closed = Path::new("/tmp/closed");
    std::fs::create_dir_all(closed).expect("a directory");
    let _whole = Bind::new(&root(), "/tmp/closed/cg");
    std::fs::set_permissions(closed, std::fs::Permissions::from_mode(0o700)).expect("close it");
    let cover = Bind::new(app.path(), "/sys/fs/cgroup");
    let by = |words: &[&str], uid: u32| -> Finished {
        memctl(words).uid(uid).gid(uid).current_dir("/").output().expect("it runs").into()
    };
    let ran = [by(&["stat", "inner", "--json"], APP), by(&["stat", "app/inner", "--json"], 0)];
    let denied = by(&["stat", "/tmp/closed/cg/app"], APP);
    drop(cover);
    assert_eq!(stat_of(&ran[0], "inner")["cgroup"], "/inner");
    assert_eq!(stat_of(&ran[1], "app/inner")["cgroup"], "/app/inner");
    let line = "memctl: /tmp/closed/cg/app: permission denied";
    assert_eq!((denied.status, denied.stderr.lines().next()), (Some(1), Some(line)));
}

fn of_equal_mounts_the_writable_one_is_taken() {
    let app = Cgroup::new("app");
    rustix::mount::mount_change("/sys/fs/cgroup", MountPropagationFlags::PRIVATE)
        .expect("a mount of its own");
    let over = Bind::new(&root(), "/sys/fs/cgroup");
    over.remount(MountFlags::RDONLY);
    let whole = Bind::new(&root(), "/tmp/writable");
    whole.remount(MountFlags::empty());
    let ran = run(&["reclaim", "app", "4K", "--json"]);
    drop((whole, over));
    assert!(matches!(ran.status, Some(0 | 3)), "{}", ran.stderr);
    assert_eq!(parse(&ran.stdout)["path"], "/tmp/writable/app");
    drop(app);
}
