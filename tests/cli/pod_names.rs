//! Names of pods and containers, from the folders of the kubelet's logs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;

use crate::environment::{Case, list};
use crate::harness::{Cgroup, M, assert_fails, memctl, parse, run};
use crate::watch::{after, begin, ended, events, of, output_of, parsed, signal, until};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "guest reclaim" =>
            a_pod_is_called_by_its_names,
            a_word_for_a_pod_names_it,
            a_name_that_is_not_there_has_a_hint,
            a_rule_leaves_the_pods_of_a_namespace_alone,
            a_rule_that_is_added_leaves_pods_alone,
            without_logs_a_pod_has_no_name;
        // On one kernel: it takes long.
        "guest prompt" => a_later_pod_is_watched_once_it_has_a_name
    ]
}

/// The folders of the kubelet's logs, removed at the end.
pub struct Logs {
    folder: &'static str,
}

impl Logs {
    pub fn new() -> Self {
        let logs = Self { folder: "/var/log" };
        for folder in ["pods", "containers"] {
            fs::create_dir_all(Path::new(logs.folder).join(folder)).expect("a folder");
        }
        logs
    }

    /// Gives a pod its names, as the kubelet does: first the pod, then each container.
    pub fn add(&self, namespace: &str, pod: &str, uid: &str, containers: &[(&str, &str)]) {
        let folder = PathBuf::from(format!("{}/pods/{namespace}_{pod}_{uid}", self.folder));
        fs::create_dir_all(&folder).expect("a folder");
        for (name, id) in containers {
            let link = format!("{}/containers/{pod}_{namespace}_{name}-{id}.log", self.folder);
            symlink(folder.join(name).join("0.log"), link).expect("a link");
        }
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        for folder in ["pods", "containers"] {
            let _ = fs::remove_dir_all(Path::new(self.folder).join(folder));
        }
    }
}

/// A pod with a container, as the cgroupfs driver of the kubelet lays them out.
struct Pod {
    container: Cgroup,
    own: Cgroup,
    uid: String,
    id: String,
}

impl Pod {
    /// Makes it below one of the kubelet's cgroups.
    fn new(burstable: &Cgroup, digit: char) -> Self {
        let (digits, id) = (digit.to_string(), digit.to_string().repeat(64));
        let uid = [8, 4, 4, 4, 12].map(|length| digits.repeat(length)).join("-");
        let own = burstable.child(&format!("pod{uid}"));
        let container = own.child(&id);
        container.write("memory.max", &(64 * M).to_string());
        Self { container, own, uid, id }
    }
}

fn names_of(value: &Value) -> [Option<&str>; 3] {
    ["namespace", "pod", "container"].map(|key| value.get(key).and_then(Value::as_str))
}

fn a_pod_is_called_by_its_names() {
    let kubepods = Cgroup::new("kubepods");
    let (logs, web, dns) = (Logs::new(), Pod::new(&kubepods, '1'), Pod::new(&kubepods, '2'));
    logs.add("batch", "web-0", &web.uid, &[("app", &web.id)]);
    let inner = web.container.child("in\u{1b}ner");
    let path = format!("kubepods/pod{}/{}", web.uid, web.id);
    // A tree, a page, and a table.
    let ran = run(&["stat", "-r", "kubepods"]);
    let first: Vec<_> = ran
        .stdout
        .lines()
        .map(|line| line.split("  ").find(|word| !word.is_empty()).unwrap_or_default().trim())
        .collect();
    let dns_pod = format!("pod{}", dns.uid);
    let tree = ["CGROUP", "/kubepods", "batch/web-0", "app", "in\\u{1b}ner", &dns_pod, &dns.id];
    assert_eq!(first, tree, "{}", ran.stdout);
    let ran = run(&["stat", &path]);
    assert!(ran.stdout.contains("pod          batch/web-0/app\n"), "{}", ran.stdout);
    let ran = run(&["stat", &path, inner.name(), "--no-legend"]);
    assert!(
        ran.stdout.starts_with("batch/web-0/app ") && ran.stdout.contains("\nbatch/web-0/app/in\\u{1b}ner "),
        "{}",
        ran.stdout
    );
    let ran = run(&["-v", "stat", &path, inner.name(), "--no-legend"]);
    assert!(ran.stdout.starts_with(&format!("/{path} ")), "{}", ran.stdout);
    // JSON keeps the path.
    let told = parse(&run(&["stat", &path, "--json"]).stdout);
    assert_eq!(
        (&told["cgroup"], names_of(&told)),
        (&format!("/{path}").into(), [Some("batch"), Some("web-0"), Some("app")])
    );
    let told = parse(&run(&["stat", web.own.name(), "--json"]).stdout);
    assert_eq!(names_of(&told), [Some("batch"), Some("web-0"), None]);
    let told = parse(&run(&["stat", dns.container.name(), "--json"]).stdout);
    assert_eq!(names_of(&told), [None; 3]);
    let ran = run(&["stat", &path, "--prometheus"]);
    let labels = format!("{{cgroup=\"/{path}\",namespace=\"batch\",pod=\"web-0\",container=\"app\"}} ");
    assert!(ran.stdout.contains(&labels), "{}", ran.stdout);
}

fn a_word_for_a_pod_names_it() {
    let kubepods = Cgroup::new("kubepods");
    let (logs, web, dns) = (Logs::new(), Pod::new(&kubepods, '1'), Pod::new(&kubepods, '2'));
    logs.add("batch", "web-0", &web.uid, &[("app", &web.id)]);
    logs.add("kube-system", "dns", &dns.uid, &[("dns", &dns.id)]);
    web.container.uses(&Work::File(20 * M));
    let ran = run(&["reclaim", "pod:batch/web-0/app", "1M"]);
    assert!(
        ran.status == Some(0) && ran.stdout.contains("\nbatch/web-0/app      1 MiB"),
        "{}{}",
        ran.stdout,
        ran.stderr
    );
    let ran = run(&["-v", "reclaim", "pod:batch/web-0", "1M"]);
    assert!(
        ran.status == Some(0) && ran.stdout.contains(&format!("\n/{}      1 MiB", web.own.name())),
        "{}{}",
        ran.stdout,
        ran.stderr
    );
    let told = run(&["reclaim", "pod:b*/*/*", "1M", "--json"]);
    assert_eq!(
        names_of(&parse(&told.stdout)),
        [Some("batch"), Some("web-0"), Some("app")],
        "{}",
        told.stderr
    );
    let told = run(&["reclaim", "pod:{batch,kube-system}/*", "1M", "--dry-run", "--json"]);
    assert_eq!(told.stdout.lines().count(), 2, "{}{}", told.stdout, told.stderr);
    let ran = run(&["check", "pod:kube-system/dns"]);
    assert!(ran.stdout.ends_with(": kube-system/dns\n"), "{}", ran.stdout);
    let watched = events(&["pod:batch/*", "--keep", "1G", "--duration", "1s"]);
    let start = of(&watched, "start");
    assert_eq!((start.len(), names_of(start[0])), (1, [Some("batch"), Some("web-0"), None]));
    let ran =
        run(&["watch", "pod:*/*/*", "--keep", "1G", "--exclude", "pod:kube-system/*", "--duration", "1s"]);
    assert!(
        ran.stdout.contains("  batch/web-0/app  watched: ") && !ran.stdout.contains("dns"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("\nbatch/web-0/app   "), "{}", ran.stdout);
    // The path of a cgroup that is called like such a word.
    let odd = Cgroup::new("pod:batch");
    let _inner = odd.child("web-0");
    let told = parse(&run(&["stat", "pod:batch/web-0", "--json"]).stdout);
    assert_eq!(told["cgroup"], "/pod:batch/web-0");
}

fn a_name_that_is_not_there_has_a_hint() {
    let kubepods = Cgroup::new("kubepods");
    let (logs, web) = (Logs::new(), Pod::new(&kubepods, '1'));
    logs.add("batch", "web-0", &web.uid, &[("app", &web.id)]);
    logs.add("batch", "gone", "33333333-1111-2222-3333-444455556666", &[]);
    for (word, line, hint) in [
        ("pod:batch/web-1", "pod:batch/web-1: no such cgroup", "similar names: pod:batch/web-0"),
        (
            "pod:batch/gone",
            "pod:batch/gone: no such cgroup",
            "the pod has logs on this node, but no cgroup: it has ended",
        ),
        ("pod:batch/web-0/ap", "pod:batch/web-0/ap: no such cgroup", "containers of the pod: app"),
        ("batch/web-0", "batch/web-0: no such cgroup", "write it as pod:batch/web-0"),
        (
            "pod:batch",
            "pod:batch: neither a pod UID (hexadecimal digits) nor NAMESPACE/NAME",
            "pods of a namespace: 'pod:batch/*'",
        ),
        ("pod/web-0", "pod/web-0: no such cgroup", "write it as pod:batch/web-0"),
        ("web-0", "web-0: no such cgroup", "write it as pod:batch/web-0"),
        (
            "pod:web-0",
            "pod:web-0: neither a pod UID (hexadecimal digits) nor NAMESPACE/NAME",
            "write it as pod:batch/web-0",
        ),
    ] {
        // No cgroup at all can have such a name.
        let exit = if line.contains("neither") { 2 } else { 1 };
        let ran = assert_fails(&["reclaim", word, "1M"], exit, &format!("memctl: {line}"));
        assert!(ran.stderr.ends_with(&format!("hint: {hint}\n")), "{word}: {}", ran.stderr);
    }
    for (word, why) in [
        ("pod:Batch/web", "names of Kubernetes have lower-case letters, digits, - and . only"),
        ("pod:a/b/c/d", "a pod's name is written pod:NAMESPACE/NAME or pod:NAMESPACE/NAME/CONTAINER"),
        ("pod:web*", "a pod's name is written pod:NAMESPACE/NAME or pod:NAMESPACE/NAME/CONTAINER"),
        ("pod:batch//x", "a part of the pod's name is empty (write * for any)"),
    ] {
        assert_fails(&["reclaim", word, "1M"], 2, &format!("memctl: {word}: {why}"));
    }
}

fn a_rule_leaves_the_pods_of_a_namespace_alone() {
    let kubepods = Cgroup::new("kubepods");
    let (logs, web, dns) = (Logs::new(), Pod::new(&kubepods, '1'), Pod::new(&kubepods, '2'));
    let other = Pod::new(&kubepods, '4');
    logs.add("batch", "web-0", &web.uid, &[("app", &web.id)]);
    logs.add("kube-system", "dns", &dns.uid, &[("dns", &dns.id)]);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("watch.toml");
    let text = "[[rule]]\nmatch = 'kubepods/*/*'\nkeep = '10M'\n[[rule]]\nmatch = 'pod:kube-system/*'\nleave-alone = true\n";
    fs::write(&file, text).expect("rules");
    let word = file.display().to_string();
    for container in [&web.container, &dns.container, &other.container] {
        container.uses(&Work::File(30 * M));
    }
    let ran = run(&["watch", "--config", &word, "--duration", "3s", "--json"]);
    let told: Vec<_> = of(&parsed(&ran.stdout), "start")
        .iter()
        .map(|one| names_of(one).map(|name| name.map(str::to_owned)))
        .collect();
    assert_eq!(
        told,
        [[Some("batch".to_owned()), Some("web-0".to_owned()), Some("app".to_owned())]],
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr
            .contains("1 cgroup in a pod isn't watched: names that the rules need are not in /var/log\n"),
        "{}",
        ran.stderr
    );
    assert!(
        web.container.current() <= 10 * M
            && dns.container.current() >= 30 * M
            && other.container.current() >= 30 * M
    );
    let ran = run(&["check", "--config", &word]);
    assert!(
        ran.stdout.contains("\n  batch/web-0/app\n") && ran.stdout.contains("\n  kube-system/dns/dns\n"),
        "{}",
        ran.stdout
    );
    fs::write(&file, "[[rule]]\nmatch = 'pod:web*'\nkeep = '10M'\n").expect("rules");
    let why = format!(
        "memctl: {word}:1:1: \"pod:web*\": a pod's name is written pod:NAMESPACE/NAME or pod:NAMESPACE/NAME/CONTAINER"
    );
    assert_fails(&["check", "--config", &word], 1, &why);
}

/// Although a word of the other rule is ambiguous, for which that rule keeps what it had.
fn a_rule_that_is_added_leaves_pods_alone() {
    let kubepods = Cgroup::new("kubepods");
    let (logs, web, dns) = (Logs::new(), Pod::new(&kubepods, '1'), Pod::new(&kubepods, '2'));
    let twin = Pod::new(&kubepods, '3');
    for pod in [&web, &twin] {
        logs.add("batch", "web-0", &pod.uid, &[("app", &pod.id)]);
    }
    logs.add("kube-system", "dns", &dns.uid, &[("dns", &dns.id)]);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("watch.toml");
    let wide = "[[rule]]\nname = 'wide'\nmatch = ['kubepods/*/*', 'pod:batch/web-0']\nkeep = '1G'\n";
    fs::write(&file, wide).expect("rules");
    let record = fs::File::create(folder.path().join("record")).expect("a record");
    let mut command = memctl(["watch", "--config", &file.display().to_string(), "--json"]);
    let child = command.stdout(record).stderr(Stdio::piped()).spawn().expect("memctl starts");
    let so_far = || fs::read_to_string(folder.path().join("record")).expect("the record");
    until("all three", || so_far().matches(r#""event":"start""#).count() == 3);
    let more = "[[rule]]\nmatch = 'pod:{kube-system,monitoring}/*'\nleave-alone = true\n";
    fs::write(&file, format!("{wide}{more}")).expect("rules");
    signal(&child, Signal::HUP);
    until("a reload", || so_far().contains(r#""event":"reload""#));
    after(1000);
    output_of(child);
    let told = parsed(&so_far());
    let released: Vec<_> = of(&told, "released").iter().map(|one| names_of(one)).collect();
    assert_eq!(released, [[Some("kube-system"), Some("dns"), Some("dns")]], "{}", so_far());
}

fn a_later_pod_is_watched_once_it_has_a_name() {
    let kubepods = Cgroup::new("kubepods");
    let (logs, web) = (Logs::new(), Pod::new(&kubepods, '1'));
    let watching = begin(&["pod:batch/*/*", "--keep", "1G", "--json"]);
    after(3000);
    logs.add("batch", "web-0", &web.uid, &[("app", &web.id)]);
    after(3000);
    let later = Pod::new(&kubepods, '2');
    logs.add("batch", "web-1", &later.uid, &[("app", &later.id)]);
    after(25_000);
    let told = ended(watching);
    let names: Vec<_> =
        of(&told, "start").iter().map(|one| one["pod"].as_str().unwrap_or_default().to_owned()).collect();
    assert_eq!(names, ["web-0", "web-1"]);
}

fn without_logs_a_pod_has_no_name() {
    let kubepods = Cgroup::new("kubepods");
    let web = Pod::new(&kubepods, '1');
    let why =
        "memctl: pod:batch/web-0: the names of pods can't be read: /var/log/pods: no such file or directory";
    let ran = assert_fails(&["reclaim", "pod:batch/web-0", "1M"], 1, why);
    let hint = "hint: in a pod, mount the host's /var/log/pods and /var/log/containers; pod:UID and container:ID need neither\n";
    assert!(ran.stderr.ends_with(hint), "{}", ran.stderr);
    let ran = run(&["stat", &format!("pod:{}", web.uid), "--json"]);
    assert_eq!(parse(&ran.stdout)["cgroup"], format!("/{}", web.own.name()));
    assert_fails(
        &["watch", "pod:batch/*", "--keep", "1G"],
        1,
        "memctl: pod:batch/*: the names of pods can't be read: /var/log/pods: no such file or directory",
    );
}
