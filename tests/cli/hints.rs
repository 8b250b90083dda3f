//! Hints: each case does what the hint says, in the very state that it is given for, and sees it
//! help.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::check::finding;
use crate::environment::{Case, list};
use crate::harness::{Cgroup, Finished, M, assert_fails, memctl, parse, refused, report, run};
use crate::namespace::{NOBODY, ROOT, run_as_a_namespaces, run_inside};
use crate::rights::{APP, Change, run_with};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "guest" =>
            a_file_of_a_cgroup_stands_for_it,
            a_word_of_another_tool_is_translated,
            a_glob_is_given_for_any_level,
            a_name_with_a_dash_is_given_after_two,
            a_controller_is_passed_on_by_every_level,
            processes_are_moved_away_first,
            a_word_that_may_mean_several_names_them,
            a_controller_that_is_off_above_is_no_disabled_one;
        "guest reclaim" => a_controller_that_is_switched_off_meanwhile, a_limit_of_nothing_is_named,
            a_user_without_an_id_is_told_as_such, memory_of_threads_is_charged_elsewhere,
            roots_missing_capability_is_named,
            an_owner_without_the_mode_changes_it,
            what_a_security_module_denies_is_told_as_such;
        "guest node-reclaim" => a_node_is_for_the_hosts_root
    ]
}

/// Returns the hint of a failed run.
#[track_caller]
fn hint(ran: &Finished) -> String {
    let hint = ran.stderr.lines().nth(1).and_then(|line| line.strip_prefix("hint: "));
    hint.unwrap_or_else(|| panic!("no hint: {}", ran.stderr)).to_owned()
}

#[track_caller]
fn shell(script: &str) {
    let ran: Finished = Command::new("/bin/sh").args(["-c", script]).output().expect("a shell").into();
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{script}");
}

/// Asserts that a word names a cgroup.
#[track_caller]
fn assert_named(word: &str, name: &str) {
    let ran = run(&["stat", "--json", "--", word]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{word}");
    assert_eq!(parse(&ran.stdout)["cgroup"], name, "{word}");
}

fn a_file_of_a_cgroup_stands_for_it() {
    let app = Cgroup::new("app");
    let _job = app.child("job");
    for (word, name) in [
        ("/sys/fs/cgroup/app/memory.stat", "/app"),
        ("/sys/fs/cgroup/app/memory.reclaim", "/app"),
        ("app/cgroup.procs", "/app"),
        ("/app/job/memory.current", "/app/job"),
        ("/proc/1/root/sys/fs/cgroup/app/memory.max", "/app"),
        ("/sys/fs/cgroup/cgroup.procs", "/"),
    ] {
        assert_named(word, name);
    }
    let here: Finished =
        memctl(["stat", "./memory.stat", "--json"]).current_dir(app.path()).output().expect("it runs").into();
    assert_eq!((here.status, &parse(&here.stdout)["cgroup"]), (Some(0), &"/app".into()));
    // Names begin at the mount, so that a file's name alone would be the root's.
    for word in ["memory.stat", "/cgroup.procs", "memory.reclaim", "app/memory.none", "app/memory.stat/"] {
        assert_fails(&["reclaim", word, "1M"], 1, &format!("memctl: {word}: no such cgroup"));
    }
    assert_fails(&["stat", "/etc/passwd"], 1, "memctl: /etc/passwd: not a cgroup");
}

fn a_word_of_another_tool_is_translated() {
    const ID: &str = "1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "8d5a2e2c-1111-2222-3333-444455556666";
    let app = Cgroup::new("app");
    let slice = Cgroup::new("system.slice");
    let _unit = slice.child("nginx.service");
    let container = slice.child(&format!("nerdctl-{ID}.scope"));
    let pod = slice.child(&format!("my-kubepods-pod{}.slice", UID.replace('-', "_")));
    let mut child = Command::new("/bin/sleep").arg("300").stdin(Stdio::null()).spawn().expect("sleep");
    app.write("cgroup.procs", &child.id().to_string());
    let pid = child.id();
    let (in_container, in_pod) = (format!("/{}", container.name()), format!("/{}", pod.name()));
    let words = [
        (format!("{pid}"), "/app"),
        (format!("pid={pid}"), "/app"),
        (format!("PID:{pid}"), "/app"),
        (format!("/proc/{pid}"), "/app"),
        (format!("/proc/{pid}/cgroup"), "/app"),
        (format!("containerd://{ID}"), &in_container),
        (format!("docker:{}", &ID[..12]), &in_container),
        (ID[..12].to_owned(), &in_container),
        (format!("nerdctl-{ID}.service"), &in_container),
        (UID.to_owned(), &in_pod),
        ("cgroup:app".to_owned(), "/app"),
        ("memory:/app".to_owned(), "/app"),
        ("0::/app".to_owned(), "/app"),
        ("unit:nginx.service".to_owned(), "/system.slice/nginx.service"),
        ("sys/fs/cgroup/app".to_owned(), "/app"),
        ("file:///sys/fs/cgroup/app".to_owned(), "/app"),
        ("/sys/fs/cgroup/memory/app".to_owned(), "/app"),
        ("/sys/fs/cgroup/unified/app".to_owned(), "/app"),
    ];
    for (word, name) in &words {
        let ran = run(&["stat", word]);
        assert_eq!((ran.status, ran.stdout.as_str()), (Some(1), ""), "{word}");
        let hint = hint(&ran);
        let meant = hint.strip_prefix("write it as ").unwrap_or_else(|| panic!("{word}: {hint}"));
        assert_named(meant, name);
        assert!(!meant.starts_with("//"), "{meant}");
    }
    let node = hint(&run(&["reclaim", "node0", "1M"]));
    assert_eq!(node, "write it as node:0");
    for word in ["pid:x", "/proc/sys", "99999999", "cgroup:none", "node99", "deadbeefdeadbeef"] {
        let ran = run(&["stat", word]);
        let exit = if word == "pid:x" { 2 } else { 1 };
        assert!(ran.status == Some(exit) && !ran.stderr.contains("write it as"), "{word}: {}", ran.stderr);
    }
    assert!(hint(&run(&["stat", "10M"])).contains("only reclaim takes a SIZE"));
    assert!(hint(&run(&["stat", "container:web"])).contains("memctl stat -r"));
    assert!(run(&["stat", "-r"]).stdout.contains(ID), "the ID can be found so");
    // Words that are understood as they are.
    assert_named("app/", "/app");
    assert_named("nginx.service/", "/system.slice/nginx.service");
    child.kill().and_then(|()| child.wait()).expect("it ends");
}

fn a_word_that_may_mean_several_names_them() {
    const ID: &str = "2123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde";
    let slice = Cgroup::new("system.slice");
    let both = ["0", "1"].map(|digit| slice.child(&format!("docker-{ID}{digit}.scope")));
    let ran = run(&["stat", &format!("docker://{}", &ID[..12])]);
    let hint = hint(&ran);
    assert!(hint.starts_with(&format!("container:{}: ambiguous, matches ", &ID[..12])), "{hint}");
    for one in &both {
        assert!(hint.contains(one.name()), "{hint}");
        assert_named(one.name(), &format!("/{}", one.name()));
    }
}

fn a_limit_of_nothing_is_named() {
    let app = Cgroup::new("app");
    app.write("memory.high", "0");
    let line = "memctl: /app: memory.high is 0, and nothing can be kept free below that";
    for rule in ["--keep", "--headroom"] {
        let words = ["watch", "app", rule, "20M", "--duration", "1s"];
        assert!(hint(&assert_fails(&words, 1, line)).ends_with("write max to the file"));
    }
    app.write("memory.high", "max");
    assert_eq!(run(&["watch", "app", "--keep", "20M", "--duration", "1s"]).status, Some(0));
}

/// Its files are gone, and the cgroup is there: between two looks, and while requests go on.
fn a_controller_that_is_switched_off_meanwhile() {
    let app = Cgroup::new("app");
    let job = app.child("job");
    let control = |text| app.write("cgroup.subtree_control", text);
    let begin = || {
        let began = memctl(["reclaim", "app/job", "1M", "--settle", "10s"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        // It measures the usual refaults for 2 s before the request.
        std::thread::sleep(std::time::Duration::from_secs(1));
        began
    };
    let running = begin();
    control("-memory");
    let ran: Finished = running.wait_with_output().expect("it ends").into();
    let line = "memctl: /app/job: the memory controller is not enabled in cgroup.subtree_control of /app";
    assert_eq!((ran.status, ran.stderr.lines().next()), (Some(1), Some(line)), "{ran:?}");
    shell(&hint(&ran));
    assert_named("app/job", "/app/job");
    let running = begin();
    control("-memory");
    control("+memory");
    let ran: Finished = running.wait_with_output().expect("it ends").into();
    let line = "memctl: /app/job: the memory controller was switched off meanwhile, and on again\n";
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(1), line), "{ran:?}");
    drop(job);
}

fn a_glob_is_given_for_any_level() {
    let slice = Cgroup::new("system.slice");
    let unit = slice.child("nginx-1.service");
    let ran = assert_fails(&["stat", "nginx*.service"], 1, "memctl: nginx*.service: no cgroup matches");
    let hint_deep = hint(&ran);
    assert!(hint_deep.ends_with("at any level: '**/nginx*.service'"), "{hint_deep}");
    assert_named("**/nginx*.service", &format!("/{}", unit.name()));
    let none = assert_fails(&["stat", "absent*"], 1, "memctl: absent*: no cgroup matches");
    assert!(hint(&none).contains("memctl stat -r ('**/absent*' matches at every level)"), "{}", none.stderr);
}

fn a_name_with_a_dash_is_given_after_two() {
    let slice = Cgroup::new("system.slice");
    let _mount = slice.child("-.mount");
    let ran = assert_fails(&["stat", "-.mount"], 2, "memctl: -.mount: no such option");
    let hint = hint(&ran);
    let words: Vec<_> = hint.rsplit(": ").next().expect("words").split(' ').collect();
    assert_eq!(words, ["--", "-.mount"]);
    let ran = run(&["stat", words[0], words[1]]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    let words = ["watch", "system.slice/*", "--keep", "1G", "--exclude", "-.mount"];
    let ran = run(&words);
    assert!(
        ran.stderr.contains("hint: a value that begins with a dash: --exclude=-.mount"),
        "{}",
        ran.stderr
    );
    let ran = run(&["watch", "system.slice/*", "--keep", "1G", "--exclude=-.mount", "--duration", "1s"]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
}

/// Removes cgroups that a case made with a shell, the innermost first.
struct Made(Vec<std::path::PathBuf>);

impl Made {
    fn below(top: &Cgroup, names: &[&str]) -> Self {
        let made: Vec<_> = names.iter().map(|name| top.path().join(name)).collect();
        for path in &made {
            std::fs::create_dir(path).expect("a cgroup");
        }
        Self(made)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
            while std::fs::remove_dir(path).is_err() && std::time::Instant::now() < until {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
    }
}

fn a_controller_is_passed_on_by_every_level() {
    let app = Cgroup::new("app");
    let _made = Made::below(&app, &["a b", "a b/c"]);
    let words = ["stat", "app/a b/c"];
    let line = "memctl: /app/a b/c: the memory controller is not enabled in cgroup.subtree_control of /app";
    let command = hint(&assert_fails(&words, 1, line));
    shell(&format!("{command} > /dev/null"));
    assert_named("app/a b/c", "/app/a b/c");
}

fn processes_are_moved_away_first() {
    let app = Cgroup::new("app");
    let made = Made::below(&app, &["job"]);
    let mut child = Command::new("/bin/sleep").arg("300").stdin(Stdio::null()).spawn().expect("sleep");
    app.write("cgroup.procs", &child.id().to_string());
    let line = "memctl: /app/job: the memory controller is not enabled in cgroup.subtree_control of /app";
    let ran = assert_fails(&["stat", "app/job"], 1, line);
    let hint = hint(&ran);
    let (first, command) = hint.split_once(", then: ").unwrap_or_else(|| panic!("{hint}"));
    assert_eq!(first, "move the processes of /app to a cgroup below it");
    let busy = app.try_write("cgroup.subtree_control", "+memory").expect_err("it is occupied");
    assert_eq!(busy.kind(), std::io::ErrorKind::ResourceBusy);
    std::fs::write(app.path().join("job/cgroup.procs"), child.id().to_string()).expect("move it");
    shell(command);
    assert_named("app/job", "/app/job");
    child.kill().and_then(|()| child.wait()).expect("it ends");
    drop(made);
}

/// A cgroup namespace can't see that a cgroup above passes the controller not on.
fn a_controller_that_is_off_above_is_no_disabled_one() {
    let outer = Cgroup::new("outer");
    let made = Made::below(&outer, &["job"]);
    let job = outer.path().join("job");
    let words = ["stat", "self"];
    let line = "memctl: /: the memory controller is not enabled above what is mounted here";
    let ran = refused(run_inside(&job, &words), &words, 1, line);
    assert!(hint(&ran).starts_with("add +memory to cgroup.subtree_control of each cgroup above"));
    outer.write("cgroup.subtree_control", "+memory");
    let ran = run_inside(&job, &words);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    drop(made);
}

fn a_user_without_an_id_is_told_as_such() {
    let _app = Cgroup::new("app");
    let file = "/sys/fs/cgroup/app/memory.reclaim";
    let words = ["reclaim", "app", "1M"];
    let line = format!("memctl: {file}: permission denied");
    let ran = refused(run_as_a_namespaces(ROOT, &words), &words, 1, &line);
    let hint = hint(&ran);
    let checked = run_as_a_namespaces(ROOT, &["check", "app"]).stdout;
    assert!(checked.contains("owned by a user who has no ID in this user namespace"), "{checked}");
    assert!(!checked.contains("65534") && !ran.stderr.contains("65534"), "{checked}");
    // Capabilities of a namespace's root are none for mlock(2).
    assert!(checked.contains("\nlocking     note"), "{checked}");
    // Before the namespace has a mapping, this user has no ID in it either.
    let nobody = refused(run_as_a_namespaces(NOBODY, &words), &words, 1, &line);
    assert!(self::hint(&nobody).ends_with(&format!(": chown USER {file}")), "{nobody:?}");
    let command = hint.rsplit(": ").next().expect("a command");
    assert_eq!(command, format!("chown {APP} {file}"), "{hint}");
    shell(command);
    let ran = run_as_a_namespaces(ROOT, &words);
    assert!(matches!(ran.status, Some(0 | 3)), "{}", ran.stderr);
}

fn a_node_is_for_the_hosts_root() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(40 * M));
    let before = app.current();
    let words = ["reclaim", "node:0", "5M"];
    let line = "memctl: /sys/devices/system/node/node0/reclaim: permission denied";
    let advice = "run as root outside of this user namespace: only the host's root may reclaim from a node";
    for user in [ROOT, NOBODY] {
        let ran = refused(run_as_a_namespaces(user, &words), &words, 1, line);
        assert_eq!(hint(&ran), advice, "{user:?}");
        let ran = run_as_a_namespaces(user, &["check", "node:0", "--json"]);
        let checked = parse(&ran.stdout);
        assert_eq!((ran.status, &checked["works"]), (Some(1), &false.into()), "{checked}");
        assert_eq!(finding(&checked, "reclaim")["todo"], advice, "{checked}");
    }
    app.assert_untouched(before);
    report(&words, 0);
}

/// Case of a scope in which a controller for threads was enabled: it is a domain for threads, and
/// a fresh cgroup below can't hold anything.
fn memory_of_threads_is_charged_elsewhere() {
    let top = Path::new("/sys/fs/cgroup/cgroup.subtree_control");
    std::fs::write(top, "+pids").expect("a controller for threads");
    let scope = Cgroup::new("scope");
    let mut child = Command::new("/bin/sleep").arg("300").stdin(Stdio::null()).spawn().expect("sleep");
    scope.write("cgroup.procs", &child.id().to_string());
    scope.write("cgroup.subtree_control", "+pids");
    let made = Made::below(&scope, &["job", "job/inner"]);
    assert_eq!(
        std::fs::read_to_string(scope.path().join("job/cgroup.type")).expect("a type"),
        "domain invalid\n"
    );
    for name in ["scope/job", "scope/job/inner"] {
        let line = format!(
            "memctl: /{name}: a cgroup within a threaded one (domain invalid), whose memory is charged to /scope"
        );
        for words in [&["reclaim", name, "4K"][..], &["stat", name]] {
            let ran = assert_fails(words, 1, &line);
            assert_eq!(hint(&ran), "reclaim from /scope instead");
        }
    }
    let ran = run(&["reclaim", "/scope", "4K"]);
    child.kill().and_then(|()| child.wait()).expect("it ends");
    drop(made);
    scope.write("cgroup.subtree_control", "-pids");
    drop(scope);
    std::fs::write(top, "-pids").expect("as it was");
    assert!(matches!(ran.status, Some(0 | 3)), "{}", ran.stderr);
}

/// Runs memctl as the unprivileged user.
fn as_app(words: &[&str]) -> Finished {
    memctl(words).uid(APP).gid(APP).current_dir("/").output().expect("it runs").into()
}

/// Asserts that a request was served, as far as the memory went.
#[track_caller]
fn assert_served(ran: &Finished) {
    assert!(matches!(ran.status, Some(0 | 3)), "{ran:?}");
}

const RECLAIM: [&str; 3] = ["reclaim", "app", "1M"];
const FILE: &str = "/sys/fs/cgroup/app/memory.reclaim";

fn roots_missing_capability_is_named() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(10 * M));
    let line = format!("memctl: {FILE}: permission denied");
    // Root owns the file, and needs no capability.
    assert_served(&run_with(&[Change::Without], &RECLAIM));
    let ran = refused(as_app(&RECLAIM), &RECLAIM, 1, &line);
    assert!(hint(&ran).starts_with("run as root, or"), "{ran:?}");
    chown(FILE, Some(APP), Some(APP)).expect("delegate it");
    let ran = refused(run_with(&[Change::Without], &RECLAIM), &RECLAIM, 1, &line);
    assert_eq!(hint(&ran), format!("run with CAP_DAC_OVERRIDE, or as uid {APP}, the owner of the file"));
    let checked = run_with(&[Change::Without], &["check", "app"]).stdout;
    assert!(checked.contains("CAP_DAC_OVERRIDE"), "{checked}");
    // Either helps.
    assert_served(&run(&RECLAIM));
    assert_served(&as_app(&RECLAIM));
    // The capability helps a user as well.
    chown(FILE, Some(0), Some(0)).expect("take it back");
    assert_served(&run_with(&[Change::With], &RECLAIM));

    let other = Cgroup::new("other");
    chown(other.path().join("cgroup.procs"), Some(APP), Some(APP)).expect("delegate it");
    let words = ["watch", "app", "--keep", "1G", "--join", "other", "--duration", "1s"];
    let line = "memctl: /other: can't join: permission denied";
    let ran = refused(run_with(&[Change::Without], &words), &words, 1, line);
    assert_eq!(hint(&ran), format!("run with CAP_DAC_OVERRIDE, or as uid {APP}, the owner of cgroup.procs"));
    assert_eq!(run(&words).status, Some(0));
}

fn an_owner_without_the_mode_changes_it() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(10 * M));
    shell(&format!("chown {APP} {FILE} && chmod 0 {FILE}"));
    let ran = refused(as_app(&RECLAIM), &RECLAIM, 1, &format!("memctl: {FILE}: permission denied"));
    let hint = hint(&ran);
    let command = hint.rsplit(": ").next().expect("a command");
    assert_eq!(command, format!("chmod u+w {FILE}"), "{hint}");
    shell(command);
    assert_served(&as_app(&RECLAIM));
}

fn what_a_security_module_denies_is_told_as_such() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(10 * M));
    let line = format!("memctl: {FILE}: permission denied");
    for changes in
        [&[Change::Confined][..], &[Change::Without, Change::Confined], &[Change::With, Change::Confined]]
    {
        let ran = refused(run_with(changes, &RECLAIM), &RECLAIM, 1, &line);
        let hint = hint(&ran);
        assert!(hint.contains("security module") && !hint.contains("root"), "{changes:?}: {hint}");
    }
}
