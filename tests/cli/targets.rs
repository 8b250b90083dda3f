//! Every way to name a cgroup, on a real kernel: units, processes, containers, pods.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::environment::{Case, list};
use crate::harness::{Cgroup, M, assert_close, assert_fails, number, parse, report, run};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "guest" =>
            a_unit_by_its_name_in_either_spelling,
            a_process_by_its_number,
            containers_by_the_beginning_of_their_id,
            pods_in_both_spellings,
            ids_count_whoever_made_the_name,
            an_ambiguous_name_lists_the_candidates,
            a_strangers_name_is_never_taken;
        "guest reclaim" =>
            reclaim_from_a_unit,
            a_containers_limit_is_lowered_below_its_usage,
            an_ambiguous_name_is_the_trouble_of_its_rule
    ]
}

/// Asserts that a word names a cgroup.
#[track_caller]
fn named(word: &str) -> String {
    let ran = run(&["stat", word, "--json"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{word}");
    let line: Value = parse(&ran.stdout);
    line["cgroup"].as_str().expect("a name").to_owned()
}

const ONE: &str = "1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const TWO: &str = "1124456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn a_unit_by_its_name_in_either_spelling() {
    let slice = Cgroup::new("system.slice");
    let inner = slice.child(r"system-my\x2dapp.slice");
    let unit = inner.child(r"my\x2dapp@1.service");
    let name = format!("/{}", unit.name());
    for word in [
        r"my\x2dapp@1.service",
        "my-app@1.service",
        r"system.slice/system-my\x2dapp.slice/my\x2dapp@1.service",
        "system.slice/system-my-app.slice/my-app@1.service",
    ] {
        assert_eq!(named(word), name, "{word}");
    }
    assert_eq!(named("system.slice"), "/system.slice");
    assert_fails(&["stat", "your-app@1.service"], 1, "memctl: your-app@1.service: no such cgroup");
}

fn a_process_by_its_number() {
    let app = Cgroup::new("app");
    let mut child = Command::new("/bin/sleep").arg("60").stdin(Stdio::null()).spawn().expect("sleep");
    app.write("cgroup.procs", &child.id().to_string());
    assert_eq!(named(&format!("pid:{}", child.id())), "/app");
    child.kill().and_then(|()| child.wait()).expect("it ends");
    let word = format!("pid:{}", child.id());
    assert_fails(&["stat", &word], 1, &format!("memctl: {word}: no such process"));
    let line = "memctl: pid:one: not a process ID (as in pid:1234)";
    assert_fails(&["stat", "pid:one"], 2, line);
}

/// Kubernetes refuses to lower a limit below the usage (resize in place).
fn a_containers_limit_is_lowered_below_its_usage() {
    const LIMIT: u64 = 300 * M;
    let pod = Cgroup::new("kubepods.slice");
    let app = pod.child(&format!("cri-containerd-{ONE}.scope"));
    app.write("memory.max", &(600 * M).to_string());
    app.uses(&Work::Anon(100 * M)).uses(&Work::File(400 * M));
    assert!(app.current() > 480 * M, "{}", app.current());
    let report = report(&["reclaim", "--to", "300M", "container:1123"], 0);
    assert!(app.current() <= LIMIT, "{}: {report}", app.current());
    assert!(number(&report, "reclaimed_bytes") > 150 * M as i64, "{report}");
    app.write("memory.max", &LIMIT.to_string());
    let events = app.read("memory.events");
    assert!(events.contains("oom 0\n") && events.contains("oom_kill 0\n"), "{events}");
    assert!(app.current() > 200 * M, "its processes live: {}", app.current());
}

fn containers_by_the_beginning_of_their_id() {
    let slice = Cgroup::new("system.slice");
    let scope = slice.child(&format!("docker-{ONE}.scope"));
    let _inside = scope.child("init.scope");
    let parent = Cgroup::new("docker");
    let plain = parent.child(TWO);
    assert_eq!(named("container:1123"), format!("/{}", scope.name()));
    assert_eq!(named(&format!("container:{TWO}")), format!("/{}", plain.name()));
    assert_fails(&["stat", "container:ffff"], 1, "memctl: container:ffff: no such cgroup");
    let line = "memctl: container:: the container ID is missing (its beginning is enough)";
    assert_fails(&["stat", "container:"], 2, line);
    let line = format!("memctl: container:112: ambiguous, matches /{}, /{}", plain.name(), scope.name());
    assert_fails(&["stat", "container:112"], 1, &line);
}

fn pods_in_both_spellings() {
    const UID: &str = "8d5a2e2c-1111-2222-3333-444455556666";
    const OTHER: &str = "9d5a2e2c-1111-2222-3333-444455556666";
    let kubepods = Cgroup::new("kubepods.slice");
    let burstable = kubepods.child("kubepods-burstable.slice");
    let systemd = burstable.child(&format!("kubepods-burstable-pod{}.slice", UID.replace('-', "_")));
    let _container = systemd.child(&format!("cri-containerd-{ONE}.scope"));
    let fs = Cgroup::new("kubepods");
    let cgroupfs = fs.child(&format!("pod{OTHER}"));
    assert_eq!(named(&format!("pod:{UID}")), format!("/{}", systemd.name()));
    assert_eq!(named(&format!("pod:{}", UID.replace('-', "_"))), format!("/{}", systemd.name()));
    assert_eq!(named(&format!("pod:{OTHER}")), format!("/{}", cgroupfs.name()));
    assert_eq!(named("container:1123"), format!("/{}/cri-containerd-{ONE}.scope", systemd.name()));
}

/// Layouts of kind, nerdctl, kubelets with a root of their own, runtimes with the other driver than
/// the kubelet's, and Quadlet.
fn ids_count_whoever_made_the_name() {
    const UID: &str = "8d5a2e2c-1111-2222-3333-444455556666";
    let id = |first: &str| format!("{first}{}", &ONE[first.len()..]);
    let kubelet = Cgroup::new("kubelet.slice");
    let pod = kubelet.child(&format!("kubelet-kubepods-burstable-pod{}.slice", UID.replace('-', "_")));
    let inner = pod.child(&format!("cri-containerd-{}.scope", id("a1")));
    let system = Cgroup::new("system.slice");
    let nerdctl = system.child(&format!("nerdctl-{}.scope", id("a2")));
    let colons =
        system.child(&format!("kubepods-pod{}.slice:cri-containerd:{}", UID.replace('-', "_"), id("a3")));
    let quadlet = system.child("web.service");
    let payload = quadlet.child(&format!("libpod-payload-{}", id("a4")));
    let _monitor = system.child(&format!("libpod-conmon-{}.scope", id("a4")));
    let fresh = system.child(&format!("never-heard-of-{}.scope", id("a5")));
    // Podman checks the health of a container in a transient service beside it.
    let _health = system.child(&format!("{}.service", id("a4")));
    let _wrapper = system.child(&format!("container-{}.service", id("a5")));
    let static_pod = kubelet.child("kubelet-kubepods-pod1864dd0546310be9937c37cf88024cb8.slice");
    for (word, cgroup) in [
        ("container:a1", &inner),
        ("container:a2", &nerdctl),
        ("container:a3", &colons),
        ("container:a4", &payload),
        ("container:a5", &fresh),
        ("pod:8d5a2e2c", &pod),
        (&format!("pod:{UID}"), &pod),
        ("pod:1864dd05", &static_pod),
    ] {
        assert_eq!(named(word), format!("/{}", cgroup.name()), "{word}");
    }
}

fn an_ambiguous_name_lists_the_candidates() {
    let (one, two) = (Cgroup::new("one.slice"), Cgroup::new("two.slice"));
    let (_a, _b) = (one.child("app.service"), two.child("app.service"));
    let line = "memctl: app.service: ambiguous, matches /one.slice/app.service, /two.slice/app.service";
    let ran = assert_fails(&["stat", "app.service"], 1, line);
    assert!(ran.stderr.contains("hint: name the cgroup by its path"), "{}", ran.stderr);
    assert_eq!(named("two.slice/app.service"), "/two.slice/app.service");
}

/// Creates a cgroup that is delegated to uid 1000, with `nginx.service` in it.
fn delegated(parent: &Cgroup) -> (Cgroup, Cgroup) {
    let user = parent.child("user@1000.service");
    std::os::unix::fs::chown(user.path(), Some(1000), Some(1000)).expect("delegate it");
    let nginx = user.child("nginx.service");
    (user, nginx)
}

fn a_strangers_name_is_never_taken() {
    let users = Cgroup::new("user.slice");
    let (user, strangers) = delegated(&users);
    let hint = format!("hint: name another user's cgroup by its path: /{}\n", strangers.name());
    let line = "memctl: nginx.service: no cgroup of root or of this user has this name";
    let ran = assert_fails(&["stat", "nginx.service"], 1, line);
    assert!(ran.stderr.ends_with(&hint), "{}", ran.stderr);
    assert_eq!(named(&format!("/{}", strangers.name())), format!("/{}", strangers.name()));
    // The directory that was delegated is in one of root's.
    assert_eq!(named("user@1000.service"), format!("/{}", user.name()));
    let slice = Cgroup::new("system.slice");
    let own = slice.child("nginx.service");
    assert_eq!(named("nginx.service"), format!("/{}", own.name()));
    drop(own);
    assert_fails(&["stat", "nginx.service"], 1, line);
    let scope = user.child(&format!("docker-{ONE}.scope"));
    let line = "memctl: container:1123: no cgroup of root or of this user has this name";
    assert_fails(&["stat", "container:1123"], 1, line);
    drop((scope, strangers));
}

fn an_ambiguous_name_is_the_trouble_of_its_rule() {
    let (one, two) = (Cgroup::new("one.slice"), Cgroup::new("two.slice"));
    let (_a, _b) = (one.child("app.service"), two.child("app.service"));
    let db = Cgroup::new("db");
    let rules = tempfile::NamedTempFile::new().expect("a file");
    let text = "[[rule]]\nname = 'web'\nmatch = ['app.service', 'db']\nkeep = '1G'\n";
    std::fs::write(rules.path(), text).expect("write the rules");
    let file = rules.path().display().to_string();
    let ran = run(&["check", "--config", &file, "--json"]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let cgroups = &parse(&ran.stdout)["rules"][0]["cgroups"];
    assert_eq!((&cgroups[0]["cgroup"], &cgroups[0]["watched"]), (&"/db".into(), &true.into()), "{cgroups}");
    assert_eq!(cgroups[1]["cgroup"], "app.service", "{cgroups}");
    let why = "ambiguous, matches /one.slice/app.service, /two.slice/app.service";
    assert_eq!((&cgroups[1]["watched"], &cgroups[1]["why"]), (&false.into(), &why.into()), "{cgroups}");
    let ran = run(&["watch", "--config", &file, "--duration", "1s", "--json"]);
    let note = format!("memctl: rule web: app.service: {why}; not watched until this is resolved\n");
    assert_eq!((ran.status, &*ran.stderr), (Some(0), &*note), "{}", ran.stdout);
    assert!(ran.stdout.contains(r#""event":"start","cgroup":"/db""#), "{}", ran.stdout);
    // On the command line it is an error.
    assert_fails(&["watch", "app.service", "--keep", "1G"], 1, &format!("memctl: app.service: {why}"));
    drop(db);
}

fn reclaim_from_a_unit() {
    let slice = Cgroup::new("system.slice");
    let unit = slice.child(r"my\x2dapp.service");
    unit.uses(&Work::File(40 * M));
    let report = report(&["reclaim", "my-app.service", "10M"], 0);
    assert_eq!(report["cgroup"], r"/system.slice/my\x2dapp.service");
    assert_close("reclaimed", number(&report, "reclaimed_bytes") as u64, 10 * M);
}
