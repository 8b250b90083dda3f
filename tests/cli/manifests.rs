//! The rules of contrib/kubernetes. tests/kubernetes checks the manifests, and tests/vm/kernels.tsv has
//! a guest that plays these in a pod.

use crate::environment::{Case, list};
use crate::harness::{Cgroup, assert_fails, parse, root, run};
use crate::pod_names::Logs;

/// Rules and the overlay that they are of.
const RULES: [(&str, &str); 2] = [
    ("base", include_str!("../../contrib/kubernetes/base/watch.toml")),
    ("ancestors", include_str!("../../contrib/kubernetes/overlays/ancestors/watch.toml")),
];

pub fn cases() -> Vec<Case> {
    list![
        "" => the_rules_for_nodes_are_read, the_pods_arguments_are_known;
        "guest reclaim" => the_rules_match_by_class
    ]
}

fn the_rules_for_nodes_are_read() {
    for (name, text) in RULES {
        let rules = memctl::watch::config::Rules::parse(text);
        assert_eq!(rules.map(|rules| rules.each.len()), Ok(3), "{name}");
    }
}

/// Runs memctl with the arguments in the manifests, and a file of rules that isn't there.
fn the_pods_arguments_are_known() {
    const FILE: &str = "/no/such/watch.toml";
    let manifest = include_str!("../../contrib/kubernetes/base/daemonset.yaml");
    let base = manifest.lines().skip_while(|line| line.trim() != "args:").skip(1);
    let base = base.map_while(|line| line.trim().strip_prefix("- "));
    let base: Vec<_> = base.map(|word| word.replace("/etc/memctl/watch.toml", FILE)).collect();
    assert!(base.first().is_some_and(|word| word == "watch") && base.len() == 5, "{base:?}");
    let overlays = [
        include_str!("../../contrib/kubernetes/overlays/dry-run/kustomization.yaml"),
        include_str!("../../contrib/kubernetes/overlays/textfile/kustomization.yaml"),
    ];
    let values = overlays.map(|text| text.lines().filter_map(|line| line.trim().strip_prefix("value: --")));
    let added: Vec<_> = values.into_iter().flatten().map(|option| format!("--{option}")).collect();
    // An option whose value an overlay only tests for is the base's already.
    let added = added.into_iter().filter(|option| !base.contains(option));
    let mut words: Vec<_> = base.iter().cloned().chain(added).collect();
    assert!(words.len() == 7, "{words:?}");
    // Nothing is listened to, and nothing is written to.
    words.retain(|word| !word.starts_with("--metrics-listen="));
    for words in [base, words] {
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        assert_fails(&words, 1, &format!("memctl: {FILE}: no such file or directory"));
    }
}

/// Containers of the three classes, by the systemd driver and by that of cgroupfs.
const CONTAINERS: [&str; 6] = [
    "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID.slice/cri-containerd-ID.scope",
    "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podUID.slice/crio-ID.scope",
    "kubepods.slice/kubepods-podUID.slice/cri-containerd-ID.scope",
    "kubepods/burstable/podUID/ID",
    "kubepods/besteffort/podUID/ID",
    "kubepods/podUID/ID",
];

/// Makes a cgroup and those above it, except for those that are among `made`.
fn make(container: &str, made: &mut Vec<Cgroup>) {
    let mut above: Option<usize> = None;
    for directory in container.split('/') {
        let path = above.map_or_else(root, |above| made[above].path().to_owned()).join(directory);
        let known = made.iter().position(|cgroup| cgroup.path() == path);
        above = known.or_else(|| {
            made.push(above.map_or_else(|| Cgroup::new(directory), |above| made[above].child(directory)));
            Some(made.len() - 1)
        });
    }
}

/// Checks which rule each container follows: none for those of Guaranteed pods. No container has a
/// limit, and the node has one.
fn the_rules_match_by_class() {
    const UID: &str = "1a2b3c4d-1111-2222-3333-444455556666";
    const DNS: &str = "2a2b3c4d-1111-2222-3333-444455556666";
    let mut made = Vec::new();
    for container in CONTAINERS {
        let is_slice = container.contains(".slice");
        let uid = if is_slice { UID.replace('-', "_") } else { UID.to_owned() };
        make(&container.replace("UID", &uid).replace("ID", &"1f".repeat(32)), &mut made);
    }
    let dns = format!("kubepods/burstable/pod{DNS}/{}", "2f".repeat(32));
    make(&dns, &mut made);
    let logs = Logs::new();
    logs.add("batch", "web-0", UID, &[("app", &"1f".repeat(32))]);
    logs.add("kube-system", "dns", DNS, &[("dns", &"2f".repeat(32))]);
    for node in made.iter().filter(|cgroup| ["kubepods.slice", "kubepods"].contains(&cgroup.name())) {
        node.write("memory.max", "1G");
    }
    let folder = tempfile::tempdir().expect("a folder");
    for (overlay, text) in RULES {
        let file = folder.path().join("watch.toml");
        std::fs::write(&file, text).expect("write the rules");
        let ran = run(&["check", "--config", &file.display().to_string(), "--json"]);
        assert_eq!(ran.status, Some(0), "{overlay}: {}", ran.stderr);
        let checked = parse(&ran.stdout);
        for (rule, class) in ["burstable", "besteffort"].iter().enumerate() {
            let rule = &checked["rules"][rule];
            assert_eq!(rule["rule"], *class, "{checked}");
            let cgroups = rule["cgroups"].as_array().expect("a list");
            let names: Vec<_> = cgroups.iter().filter_map(|one| one["cgroup"].as_str()).collect();
            // A container by each driver, and neither its pod nor another class.
            assert_eq!(names.len(), 2, "{overlay}: {names:?}");
            assert!(names.iter().all(|name| name.contains(class) && name.contains("1f1f")), "{names:?}");
            let is_watched = *class == "besteffort" || overlay == "ancestors";
            assert!(cgroups.iter().all(|one| one["watched"] == is_watched), "{overlay}: {checked}");
        }
        let left_alone = checked["rules"][2]["cgroups"].as_array().expect("a list");
        let mut names: Vec<_> = left_alone.iter().filter_map(|one| one["cgroup"].as_str()).collect();
        names.sort_unstable();
        let dns = format!("/{dns}");
        let pod = dns.rsplit_once('/').map_or("", |(pod, _)| pod);
        assert_eq!(names, [pod, &dns], "{overlay}: {checked}");
    }
    // Those below first.
    while made.pop().is_some() {}
}
