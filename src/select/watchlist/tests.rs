use std::path::Path;

use super::spared::{SPARED, pod_around};
use super::*;
use crate::cgroup::tree::tests::{give_away, make};
use crate::select::pattern::{Pattern, PatternSet};
use crate::select::pods::logs::tests::{id, make_pod};

#[test]
fn globs_spare_whole_paths() {
    let patterns: Vec<_> = SPARED.iter().map(|word| Pattern::new(OsStr::new(word)).unwrap()).collect();
    let set = PatternSet::new(&patterns).unwrap();
    let own = format!("kubepods.slice/kubepods-pod{}.slice", "1".repeat(32));
    let own_pod = pod_around(Path::new(&format!("{own}/cri-containerd-1.scope/x")));
    let essential = Spared { globs: set, own: Some(7), own_pod };
    let spares = |name: &str, id: u64| {
        let mount = Arc::new(Mount::whole("/cg".into(), false));
        let path = Path::new("/cg").join(name.trim_start_matches('/'));
        essential.spares(&CgroupPath { path: path.into(), name: name.into(), mount, id })
    };
    for name in [
        "/init.scope",
        "/system.slice/ssh.service",
        "/system.slice/system-sshd.slice/sshd@3-1.2.3.4:22.service",
        "/system.slice/dbus-broker.service",
        r"/system.slice/system-systemd\x2djournald.slice/systemd-journald@x.service",
        "/system.slice/systemd-udevd.service/udev",
        "/system.slice/systemd-oomd.service",
        "/system.slice/kubelet.service",
        "/system.slice/k3s-agent.service",
        "/system.slice/rke2-server.service",
        "/system.slice/k0sworker.service",
        "/system.slice/snap.microk8s.daemon-kubelite.service",
        "/system.slice/snap.docker.dockerd.service",
        "/system.slice/cri-docker.service",
        "/runtime.slice",
        "/runtime.slice/containerd.service",
        "/podruntime.slice/kubelet.service/inner",
        "/podruntime/kubelet",
        &format!("/{own}"),
        &format!("/{own}/cri-containerd-2.scope"),
        "/kubepods.slice",
        "/init",
    ] {
        assert!(spares(name, 1), "{name}");
    }
    for name in [
        "/batch/dbus-x.service",
        "/batch/docker.service",
        "/dbus.service",
        "/machine.slice/c.service/payload/system.slice/dbus.service",
        "/user.slice/user-1000.slice/user@1000.service/init.scope",
        "/user.slice/runtime.slice",
        "/system.slice/nginx.service",
        "/system.slice/a/dbus.service",
        "/podruntime2",
        "/kubepods.slice/kubepods-burstable.slice",
        &format!("/{own}2"),
    ] {
        assert!(!spares(name, 1) && spares(name, 7), "{name}");
    }
}

#[test]
fn a_word_that_cannot_be_resolved_is_the_trouble_of_its_list() {
    let root = tempfile::tempdir().unwrap();
    make(root.path(), &["memory.stat", "a/app.service", "b/app.service", "c/x", "user/db.service"]);
    give_away(&root.path().join("user"));
    let locator = Locator::faked(root.path());
    let words =
        |words: &[&str]| Words { wanted: words.iter().map(OsString::from).collect(), ..Words::default() };
    let lists = [words(&["app.service", "absent"]), words(&["c/*"]), words(&["db.service"])];
    let Ok(watchlist) = Watchlist::of(&lists) else { return };
    let found = watchlist.first_by(&locator).unwrap();
    let taken: Vec<_> = found.taken.iter().map(|one| (&*one.selected.located.name, one.list)).collect();
    assert_eq!((taken, found.waiting), (vec![("/c/x", 1)], vec!["absent".into(), "db.service".into()]));
    let [Unresolved { list: 0, why: CgroupError::Ambiguous { .. } }] = &found.unresolved[..] else {
        panic!("{:?}", found.unresolved)
    };
    // Given alone, it is an error.
    let why = Watchlist::new(&lists[0]).unwrap().first_by(&locator).unwrap_err();
    assert!(matches!(why, CgroupError::Ambiguous { .. }), "{why}");
    let why = Watchlist::new(&lists[2]).unwrap().first_by(&locator).unwrap_err();
    assert!(matches!(why, CgroupError::OthersName { .. }), "{why}");
}

/// Labels of cgroups, each with the index of its list.
type Labels = Vec<(String, usize)>;

/// A node with a pod of a user, a pod of the system, and a pod without a name.
struct Node {
    root: tempfile::TempDir,
    logs: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let node = Self { root: tempfile::tempdir().unwrap(), logs: tempfile::tempdir().unwrap() };
        let pod = |digit: char| format!("kubepods/burstable/pod{}", digit.to_string().repeat(32));
        for digit in ['1', '2', '3'] {
            let container = format!("{}/{}", pod(digit), id(digit));
            make(node.root.path(), &["memory.stat", &pod(digit), &container, &format!("{container}/in")]);
        }
        make_pod(node.logs.path(), &format!("batch_web-0_{}", "1".repeat(32)), &[("app", &id('1'))]);
        make_pod(node.logs.path(), &format!("kube-system_dns_{}", "2".repeat(32)), &[("dns", &id('2'))]);
        node
    }

    fn locator(&self) -> Locator {
        Locator::faked(self.root.path()).with_logs(self.logs.path())
    }

    /// Returns what each list takes, by labels, and the troubles.
    fn taken(&self, lists: &[Words]) -> Option<(Labels, Vec<String>)> {
        let found = Watchlist::of(lists).ok()?.first_by(&self.locator()).unwrap();
        let label = |one: &Assigned| (one.selected.located.name.label().to_owned(), one.list);
        let troubles = found.troubles.iter().map(ToString::to_string).collect();
        Some((found.taken.iter().map(label).collect(), troubles))
    }
}

fn list(wanted: &str, excluded: &[&str], whole_pods: bool) -> Words {
    let excluded = excluded.iter().map(OsString::from).collect();
    Words { wanted: vec![wanted.into()], excluded, whole_pods }
}

#[test]
fn pods_are_taken_by_their_names() {
    let node = Node::new();
    let of = |word: &str| {
        let (taken, troubles) = node.taken(&[list(word, &[], false)])?;
        assert!(troubles.is_empty(), "{troubles:?}");
        Some(taken.into_iter().map(|(label, _)| label).collect::<Vec<_>>())
    };
    let Some(all) = of("pod:*/*") else { return };
    assert_eq!(all, ["batch/web-0", "kube-system/dns"]);
    assert_eq!(of("pod:batch/w*").unwrap(), ["batch/web-0"]);
    assert_eq!(of("pod:*/*/*").unwrap(), ["batch/web-0/app", "kube-system/dns/dns"]);
    assert_eq!(of("pod:*/*/a?p").unwrap(), ["batch/web-0/app"]);
    // Without a word about names, names don't matter.
    assert_eq!(of("kubepods/burstable/*/*").unwrap().len(), 3);
}

#[test]
fn what_a_rule_for_pods_leaves_alone_no_glob_takes() {
    let node = Node::new();
    let paths = list("kubepods/burstable/**", &[], false);
    let Some((taken, troubles)) = node.taken(&[paths.clone(), list("pod:kube-system/*", &[], true)]) else {
        return;
    };
    let of = |list: usize| {
        let of = taken.iter().filter(move |one| one.1 == list).map(|one| one.0.as_str());
        of.collect::<Vec<_>>()
    };
    assert_eq!(of(0), ["batch/web-0", "batch/web-0/app", "batch/web-0/app/in"]);
    assert_eq!(of(1), ["kube-system/dns", "kube-system/dns/dns", "kube-system/dns/dns/in"]);
    // The third pod may be one of kube-system's.
    let why = "3 cgroups in pods aren't watched: names that the rules need are not in /var/log";
    assert_eq!(troubles, [why]);
    // So it is with exclusions.
    let (taken, troubles) =
        node.taken(&[list("kubepods/burstable/**", &["pod:kube-system/*"], false)]).unwrap();
    assert_eq!(taken.len(), 3, "{taken:?}");
    assert_eq!(troubles, [why]);
    let (taken, troubles) = node.taken(&[list("kubepods/burstable/**", &["pod:*/*/dns"], false)]).unwrap();
    assert_eq!(taken.len(), 4, "{taken:?}");
    assert_eq!(troubles, [format!("{why} (those of sandboxes never are)")]);
    // A name alone stands for its pod only, a rule that leaves it alone for all of it.
    let (taken, _) = node.taken(&[paths, list("pod:kube-system/dns", &[], true)]).unwrap();
    assert_eq!(taken.iter().filter(|one| one.1 == 1).count(), 3, "{taken:?}");
}

#[test]
fn without_logs_no_pod_is_taken_where_names_matter() {
    let node = Node::new();
    std::fs::remove_dir_all(node.logs.path().join("pods")).unwrap();
    std::fs::remove_dir_all(node.logs.path().join("containers")).unwrap();
    let lists = [list("kubepods/burstable/**", &[], false), list("pod:kube-system/*", &[], true)];
    let Some((taken, troubles)) = node.taken(&lists) else { return };
    assert!(taken.is_empty() && troubles[0].starts_with("the names of pods can't be read: "), "{troubles:?}");
    assert!(
        troubles[0]
            .ends_with("; 9 cgroups in pods aren't watched: names that the rules need are not in /var/log")
    );
    assert_eq!(node.taken(&lists[..1]).unwrap().0.len(), 9 + 3 - 3);
}

#[test]
fn a_strangers_pod_has_no_name() {
    let node = Node::new();
    give_away(&node.root.path().join("kubepods"));
    let Some((taken, _)) = node.taken(&[list("pod:*/*", &[], false)]) else { return };
    assert!(taken.is_empty(), "{taken:?}");
    // Nor is it spared as one of kube-system's, and its label is its path.
    let lists = [list("kubepods/burstable/*/*", &[], false), list("pod:kube-system/*", &[], true)];
    let (taken, _) = node.taken(&lists).unwrap();
    assert!(taken.len() == 3 && taken.iter().all(|one| one.1 == 0 && one.0.starts_with("/kubepods/")));
}

#[test]
fn a_container_is_waited_for_until_it_has_a_name() {
    let node = Node::new();
    let Ok(mut watchlist) = Watchlist::of(&[list("kubepods/burstable/*/*", &[], false)]) else { return };
    let links = node.logs.path().join("containers");
    for link in std::fs::read_dir(&links).unwrap() {
        std::fs::remove_file(link.unwrap().path()).unwrap();
    }
    let search = |watchlist: &mut Watchlist, seconds: u64| {
        let locator = node.locator();
        let mut taken = watchlist.look(&locator, &|_| false).0.taken;
        watchlist.wait_for_names(&mut taken, &locator, Duration::from_secs(seconds));
        taken.iter().map(|one| one.selected.located.name.label().to_owned()).collect::<Vec<_>>()
    };
    let path = format!("/kubepods/burstable/pod{}/{}", "3".repeat(32), id('3'));
    assert_eq!(search(&mut watchlist, 100), [path.as_str()], "a pod without a name isn't waited for");
    assert_eq!(search(&mut watchlist, 109), [path.as_str()]);
    make_pod(node.logs.path(), &format!("batch_web-0_{}", "1".repeat(32)), &[("app", &id('1'))]);
    assert_eq!(search(&mut watchlist, 109), ["batch/web-0/app", &path]);
    let late = ["batch/web-0/app", "kube-system/dns/222222222222", &path];
    assert_eq!(search(&mut watchlist, 110), late);
    assert!(watchlist.nameless.is_empty());
}

#[test]
fn mounts_are_read_once_at_the_start_and_once_a_search() {
    use crate::cgroup::mount::tests::READ;
    let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    let wanted = words(&["a", "b.service", "c*", "pid:1", "self", "container:0123"]);
    let list = Words { wanted, excluded: words(&["d", "*.scope", "/sys/fs/cgroup/e"]), ..Words::default() };
    let before = READ.get();
    let Ok(mut watchlist) = Watchlist::of(&[list.clone(), list]) else { return };
    let _ = (watchlist.first(), watchlist.useless());
    assert_eq!(READ.get() - before, 1);
    watchlist.search(&|_| false);
    watchlist.search(&|_| false);
    assert_eq!(READ.get() - before, 3);
}

#[test]
fn an_excluded_unit_is_excluded_where_its_name_counts() {
    let Ok(locator) = Locator::new() else { return };
    let has = |word: &str, name: &str, genuine: bool| {
        let excluded = Excluded::new(&[word.into()], &locator).unwrap();
        let mount = Arc::new(Mount::whole("/cg".into(), false));
        let path = Path::new("/cg").join(name);
        let located = CgroupPath { path: path.into(), name: name.into(), mount, id: 1 };
        excluded.has(&located, genuine, locator.pods())
    };
    assert!(has("app.service", "system.slice/app.service", true));
    assert!(!has("app.service", "user.slice/app.service", false));
    assert!(has("user.slice/app.service", "user.slice/app.service", false));
    assert!(has("*.service", "user.slice/app.service", false));
}
