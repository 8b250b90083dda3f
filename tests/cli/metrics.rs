//! Metrics of `memctl watch` and `memctl stat`, on real kernels.

#![allow(clippy::float_cmp, reason = "counts are whole numbers")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::environment::{Case, list};
use crate::harness::{Cgroup, M, SmallDisk, assert_fails, number, run, status_kib};
use crate::systemd::output;
use crate::watch::{Events, after, begin, ended, limited, of, output_of, signal, until};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "" => addresses_are_checked;
        "guest reclaim !swappiness" =>
            a_file_tells_what_the_summary_tells,
            stat_tells_the_same;
        "guest prompt" =>
            a_file_tells_what_the_summary_tells,
            stat_tells_the_same,
            what_can_not_be_written_is_told_first,
            what_the_rules_name_is_tried_again,
            hostile_names_come_back,
            hundreds_of_cgroups_are_bounded_and_summed,
            counters_never_fall_while_cgroups_come_and_go,
            a_full_disk_is_told_once_and_stops_nothing,
            a_file_system_that_hangs_stops_nothing,
            a_reload_that_fails_shows
    ]
}

/// Labels of a sample.
type Labels = BTreeMap<String, String>;

/// Samples of a text, by name.
#[derive(Debug)]
struct Text(Vec<(String, Labels, f64)>);

impl Text {
    /// Parses a text, which must be whole.
    fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "half a text: {text}");
        let samples = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (head, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            let (name, labels) = head.split_once('{').unwrap_or((head, "}"));
            (name.to_owned(), labels_of(labels), value.parse().unwrap_or_else(|e| panic!("{line}: {e}")))
        });
        let parsed = Self(samples.collect());
        let mut keys: Vec<_> = parsed.0.iter().map(|(name, labels, _)| (name, labels)).collect();
        keys.sort();
        let count = keys.len();
        keys.dedup();
        assert_eq!(keys.len(), count, "the same sample twice: {text}");
        parsed
    }

    fn of(path: &Path) -> Self {
        Self::parse(&std::fs::read_to_string(path).expect("it is there"))
    }

    /// Returns the samples of a metric.
    fn all(&self, metric: &str) -> Vec<(&Labels, f64)> {
        let mine = self.0.iter().filter(|(name, ..)| name == metric);
        mine.map(|(_, labels, value)| (labels, *value)).collect()
    }

    /// Returns the value of a metric that has one sample at most.
    fn only(&self, metric: &str) -> Option<f64> {
        let all = self.all(metric);
        assert!(all.len() <= 1, "{metric}: {all:?}");
        all.first().map(|one| one.1)
    }

    #[track_caller]
    fn value(&self, metric: &str) -> f64 {
        self.only(metric).unwrap_or_else(|| panic!("no {metric} in {self:?}"))
    }
}

/// Parses labels, as the format's definition says.
fn labels_of(text: &str) -> Labels {
    let (mut labels, mut rest) = (Labels::new(), text.chars().peekable());
    while rest.peek().is_some_and(|c| *c != '}') {
        let name: String = rest.by_ref().take_while(|c| *c != '=').collect();
        assert_eq!(rest.next(), Some('"'), "{text}");
        let mut value = String::new();
        loop {
            match rest.next() {
                Some('"') => break,
                Some('\\') => match rest.next() {
                    Some('n') => value.push('\n'),
                    c => value.extend(c),
                },
                Some(c) => value.push(c),
                None => panic!("no end: {text}"),
            }
        }
        labels.insert(name.trim_start_matches(',').to_owned(), value);
    }
    labels
}

/// Asks for metrics, and returns the response. As long as there are none yet, which it says, it is
/// asked again.
pub fn response<S: Read + Write>(connect: impl Fn() -> std::io::Result<S>) -> String {
    let mut response = String::new();
    until("metrics", || {
        let mut stream = connect().expect("somebody listens");
        stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").expect("it takes a request");
        response.clear();
        stream.read_to_string(&mut response).expect("it answers");
        !response.ends_with("\r\n\r\nno metrics yet\n")
    });
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    response
}

/// Scrapes a unix socket.
fn scrape(socket: &Path) -> Text {
    let response = response(|| UnixStream::connect(socket));
    Text::parse(response.split_once("\r\n\r\n").expect("a head").1)
}

fn total(events: &Events, key: &str) -> i64 {
    of(events, "summary").iter().filter_map(|one| one[key].as_i64()).sum()
}

fn addresses_are_checked() {
    let line = "memctl: invalid value 'localhost:1' for '--metrics-listen <ADDR>': must be IP:PORT, [IPv6]:PORT or \
                unix:PATH";
    assert_fails(&["watch", "app", "--headroom", "1M", "--metrics-listen", "localhost:1"], 2, line);
    let line = "memctl: the argument '--prometheus' cannot be used with '--json'";
    assert_fails(&["stat", "--prometheus", "--json"], 2, line);
}

fn a_file_tells_what_the_summary_tells() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("memctl.prom");
    let app = limited("app", 64 * M);
    app.uses(&Work::Stream(200 * M));
    let name = file.to_str().expect("UTF-8");
    let child = begin(&["app", "--headroom", "20M", "--metrics", name, "--json"]);
    until("a first version", || file.exists());
    let mode = std::fs::metadata(&file).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    let reclaimed = |text: &Text| text.only("memctl_rule_reclaimed_bytes_total");
    until("reclaim", || reclaimed(&Text::of(&file)) > Some(10e6));
    // From now on nothing happens; one more version has all.
    app.rest();
    after(1500);
    let seen = std::fs::metadata(&file).expect("it is there").modified().expect("a time");
    until("another version", || {
        std::fs::metadata(&file).is_ok_and(|now| now.modified().is_ok_and(|at| at > seen))
    });
    let text = Text::of(&file);
    let events = ended(child);
    assert!(!file.exists(), "frozen values stay");
    let summary = of(&events, "summary")[0];
    for (metric, key) in [
        ("memctl_rule_requested_bytes_total", "requested_bytes"),
        ("memctl_rule_reclaimed_bytes_total", "reclaimed_bytes"),
        ("memctl_rule_writes_total", "chunks"),
        ("memctl_rule_limit_hits_total", "outrun"),
        ("memctl_cgroup_reclaimed_bytes_total", "reclaimed_bytes"),
    ] {
        assert_eq!(text.value(metric) as i64, number(summary, key), "{metric}: {summary}");
    }
    let labels: Labels =
        [("cgroup", "/app"), ("rule", "command line")].map(|(a, b)| (a.into(), b.into())).into();
    assert_eq!(text.all("memctl_cgroup_limit_bytes"), [(&labels, (64 * M) as f64)]);
    assert_eq!(text.value("memctl_rule_cgroups"), 1.0);
    // The kernel counts what tasks reclaim apart from the rest since 6.15.
    let tells_apart = app.stat("pgsteal_proactive") > 0;
    let direct = text.only("memctl_rule_direct_reclaimed_bytes_total");
    assert_eq!(direct.is_some(), tells_apart, "{direct:?}");
    if tells_apart {
        assert_eq!(direct, summary["direct_bytes"].as_f64());
    }
    assert_eq!(text.only("memctl_config_rules"), None, "there is no file of rules");
    assert!(text.value("memctl_process_resident_memory_bytes") > 1e6);
    let epoch = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs_f64();
    assert!((text.value("memctl_watch_last_look_timestamp_seconds") - epoch).abs() < 60.0);
}

fn stat_tells_the_same() {
    let app = limited("app", 64 * M);
    app.uses(&Work::Anon(10 * M)).uses(&Work::File(5 * M));
    let ran = run(&["stat", "app", "--prometheus"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    let text = Text::parse(&ran.stdout);
    let json = crate::harness::report(&["stat", "app"], 0);
    for (metric, key) in [
        ("memctl_stat_usage_bytes", "current_bytes"),
        ("memctl_stat_limit_bytes", "limit_bytes"),
        ("memctl_stat_reclaimable_bytes", "reclaimable_bytes"),
    ] {
        assert!((text.value(metric) - number(&json, key) as f64).abs() < 1e6, "{metric}: {json}");
    }
    assert_eq!(
        run(&["stat", "app", "--prometheus", "-q"]).stdout.lines().count(),
        ran.stdout.lines().count()
    );
    let odd = Cgroup::new("odd\u{1b}[1mb");
    let ran = run(&["stat", "odd*1mb", "--prometheus"]);
    assert!(ran.stdout.contains("{cgroup=\"/odd\u{1b}[1mb\"}"), "{:?}", ran.stdout);
    drop(odd);
    let both = run(&["stat", "app", "/", "--prometheus"]);
    assert!(Text::parse(&both.stdout).all("memctl_stat_usage_bytes").len() == 1, "the root has no usage");
}

fn what_can_not_be_written_is_told_first() {
    let app = limited("app", 64 * M);
    app.uses(&Work::File(60 * M));
    let before = app.current();
    let folder = tempfile::tempdir().expect("a folder");
    let fails = |option: &str, value: &str, why: &str| {
        let line = format!("memctl: {option}: {value}: {why}").replace("unix:unix:", "unix:");
        assert_fails(&["watch", "app", "--headroom", "20M", option, value], 1, &line);
    };
    fails("--metrics", "/none/x.prom", "no such file or directory");
    fails("--metrics", folder.path().to_str().expect("UTF-8"), "is a directory");
    let socket = format!("unix:{}/no/x.sock", folder.path().display());
    fails("--metrics-listen", &socket, "no such file or directory");
    app.assert_untouched(before);
}

fn what_the_rules_name_is_tried_again() {
    let top = tempfile::tempdir().expect("a folder");
    let (folder, rules) = (top.path().join("later"), top.path().join("watch.toml"));
    let (file, socket) = (folder.join("memctl.prom"), folder.join("s"));
    let text = format!(
        "metrics = '{}'\nmetrics-listen = 'unix:{}'\n[[rule]]\nmatch = 'app'\nheadroom = '20M'\n",
        file.display(),
        socket.display()
    );
    std::fs::write(&rules, text).expect("write the rules");
    let app = limited("app", 64 * M);
    app.uses(&Work::Stream(200 * M));
    let child = begin(&["--config", rules.to_str().expect("UTF-8")]);
    until("reclaim without metrics", || app.stolen() > 0);
    std::fs::create_dir(&folder).expect("make it");
    until("both", || file.exists() && UnixStream::connect(&socket).is_ok());
    Text::of(&file);
    scrape(&socket);
    let errors = String::from_utf8_lossy(&output_of(child).stderr).into_owned();
    for place in [file.display().to_string(), format!("unix:{}", socket.display())] {
        let line = format!("memctl: {place}: no such file or directory; trying again\n");
        assert_eq!(errors.matches(&line).count(), 1, "{errors}");
    }
    assert!(errors.contains("metrics are served at unix:"), "{errors}");
}

fn hostile_names_come_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("s");
    let names: [&[u8]; 5] = [b"app-a\"b", br"app-x\x2dy.service", b"app-{},=", b"app-\xff", b"app-\xfe"];
    let apps = names.map(Cgroup::of_bytes);
    for app in &apps {
        app.write("memory.max", &(32 * M).to_string());
    }
    let listen = format!("unix:{}", socket.display());
    let child = begin(&["app-*", "--headroom", "8M", "--metrics-listen", &listen]);
    until("somebody who listens", || UnixStream::connect(&socket).is_ok());
    let mut told = Vec::new();
    until("all of them", || {
        let text = scrape(&socket);
        let labels = text.all("memctl_cgroup_usage_bytes").into_iter();
        told =
            labels.map(|(labels, _)| (labels["cgroup"].clone(), labels.get("path_bytes").cloned())).collect();
        told.len() == names.len()
    });
    told.sort();
    let path = |end: &str| Some(format!("/sys/fs/cgroup/app-%{end}"));
    let expected = [
        ("/app-a\"b", None),
        (r"/app-x\x2dy.service", None),
        ("/app-{},=", None),
        ("/app-\u{fffd}", path("FE")),
        ("/app-\u{fffd}", path("FF")),
    ];
    assert_eq!(told, expected.map(|(name, path)| (name.to_owned(), path)));
    output_of(child);
    assert!(!socket.exists());
}

fn hundreds_of_cgroups_are_bounded_and_summed() {
    const COUNT: usize = 600;
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("s");
    let top = Cgroup::new("many");
    let apps: Vec<_> = (0..COUNT).map(|number| top.child(&format!("app-{number:03}"))).collect();
    for app in &apps {
        app.write("memory.max", &(16 * M).to_string());
    }
    // The last ones have no series of their own.
    for app in [&apps[0], &apps[COUNT - 1]] {
        app.uses(&Work::File(14 * M));
    }
    let listen = format!("unix:{}", socket.display());
    let child = begin(&["many/*", "--headroom", "4M", "--metrics-listen", &listen, "--json"]);
    until("somebody who listens", || UnixStream::connect(&socket).is_ok());
    // A scraper that reads next to nothing.
    let mut slow = UnixStream::connect(&socket).expect("somebody listens");
    slow.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").expect("it takes a request");
    until("500 of them", || scrape(&socket).value("memctl_metrics_cgroups") >= 500.0);
    until("both reclaimed", || {
        [&apps[0], &apps[COUNT - 1]].iter().all(|app| app.current() <= 12 * M + M / 2)
    });
    slow.read_exact(&mut [0; 1]).expect("it answers");
    after(2500);
    let text = scrape(&socket);
    assert_eq!(text.value("memctl_metrics_cgroups_left_out"), 100.0);
    assert_eq!(text.value("memctl_rule_cgroups"), COUNT as f64);
    assert_eq!(text.all("memctl_cgroup_usage_bytes").len(), 500);
    let kib = status_kib(child.id(), "VmRSS");
    // Of the unoptimised program: see tests/vm/bench-watch for the other.
    assert!(kib < 9 << 10, "{kib} KiB are resident");
    let told = text.value("memctl_rule_reclaimed_bytes_total") as i64;
    let own: f64 = text.all("memctl_cgroup_reclaimed_bytes_total").iter().map(|one| one.1).sum();
    assert!(told > own as i64, "the sum has no more than {own} of those that are told");
    assert_eq!(total(&ended(child), "reclaimed_bytes"), told);
}

fn counters_never_fall_while_cgroups_come_and_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let (socket, rules) = (folder.path().join("s"), folder.path().join("watch.toml"));
    let text = format!(
        "metrics-listen = 'unix:{}'\n[[rule]]\nname = 'one'\nmatch = 'pods/one-*'\nheadroom = '6M'\n\
         [[rule]]\nname = 'two'\nmatch = 'pods/two-*'\nkeep = '12M'\n",
        socket.display()
    );
    std::fs::write(&rules, text).expect("write the rules");
    let pods = Cgroup::new("pods");
    pods.write("cgroup.subtree_control", "+memory");
    let child = begin(&["--config", rules.to_str().expect("UTF-8"), "--json"]);
    until("somebody who listens", || UnixStream::connect(&socket).is_ok());
    let mut before: BTreeMap<(String, Labels), f64> = BTreeMap::new();
    let (end, mut round) = (Instant::now() + Duration::from_secs(20), 0);
    while Instant::now() < end {
        round += 1;
        let each = ["one", "two"].map(|rule| pods.child(&format!("{rule}-{round}")));
        for pod in &each {
            pod.write("memory.max", &(24 * M).to_string());
            pod.uses(&Work::File(22 * M));
        }
        // New cgroups are found within 2 s, and left alone for the first 5 s.
        after(if round % 2 == 0 { 8000 } else { 200 });
        let now = scrape(&socket);
        for (name, labels, value) in now.0 {
            if name.starts_with("memctl_rule_") && name.ends_with("_total") {
                let was = before.insert((name.clone(), labels.clone()), value).unwrap_or(0.0);
                assert!(value >= was, "{name} {labels:?} fell from {was} to {value}");
            }
        }
    }
    after(3000);
    let last = scrape(&socket);
    let reclaimed = last.all("memctl_rule_reclaimed_bytes_total");
    assert_eq!(reclaimed.len(), 2);
    assert!(reclaimed.iter().all(|one| one.1 > 4e6), "{reclaimed:?}");
    let all: f64 = reclaimed.iter().map(|one| one.1).sum();
    assert_eq!(last.all("memctl_rule_cgroups").iter().map(|one| one.1).sum::<f64>(), 0.0, "all are gone");
    let events = ended(child);
    assert_eq!(total(&events, "reclaimed_bytes"), all as i64);
}

fn a_full_disk_is_told_once_and_stops_nothing() {
    let disk = SmallDisk::new();
    let file = disk.path().join("memctl.prom");
    let app = limited("app", 64 * M);
    app.uses(&Work::Stream(200 * M));
    disk.fill();
    let name = file.to_str().expect("UTF-8");
    let child = begin(&["app", "--headroom", "20M", "--metrics", name, "--quiet"]);
    // Two attempts and more.
    after(13_000);
    assert!(!file.exists());
    let reclaimed = app.stolen();
    assert!(reclaimed > 0);
    disk.make_room();
    until("a version", || file.exists());
    Text::of(&file);
    let output = output_of(child);
    let errors = String::from_utf8_lossy(&output.stderr);
    let line = format!("memctl: {name}: no space left on device; trying again");
    assert_eq!(errors.matches(&line).count(), 1, "{errors}");
    assert!(app.stolen() > reclaimed, "it went on");
    let left: Vec<_> = std::fs::read_dir(disk.path()).expect("list it").collect();
    assert!(left.is_empty(), "{left:?}");
}

/// /data, on which every change waits until it is dropped.
struct Frozen;

impl Frozen {
    fn new() -> Self {
        output(Command::new("fsfreeze").args(["--freeze", "/data"]));
        Self
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").args(["--unfreeze", "/data"]).status();
    }
}

fn a_file_system_that_hangs_stops_nothing() {
    let folder = tempfile::tempdir_in("/data").expect("a folder");
    let file = folder.path().join("memctl.prom");
    let app = limited("app", 64 * M);
    app.uses(&Work::Stream(200 * M));
    let child = begin(&["app", "--headroom", "20M", "--metrics", file.to_str().expect("UTF-8")]);
    until("a version", || file.exists());
    let version = || std::fs::metadata(&file).expect("it is there").ino();
    let frozen = Frozen::new();
    // A version that waits.
    after(12_000);
    let (before, reclaimed) = (version(), app.stolen());
    until("reclaim", || app.stolen() > reclaimed + 4 * M);
    drop(frozen);
    until("another version", || version() != before);
    let errors = String::from_utf8_lossy(&output_of(child).stderr).into_owned();
    assert!(!errors.contains("memctl: "), "{errors}");
    assert!(!file.exists());
}

fn a_reload_that_fails_shows() {
    let folder = tempfile::tempdir().expect("a folder");
    let (socket, rules) = (folder.path().join("s"), folder.path().join("watch.toml"));
    let rule = format!(
        "metrics-listen = 'unix:{}'\nmetrics-cgroups = 0\n[[rule]]\nname = 'one'\nmatch = 'app'\nheadroom = '6M'\n",
        socket.display()
    );
    std::fs::write(&rules, &rule).expect("write the rules");
    let _app = limited("app", 64 * M);
    let child = begin(&["--config", rules.to_str().expect("UTF-8")]);
    until("somebody who listens", || UnixStream::connect(&socket).is_ok());
    let state = || {
        let text = scrape(&socket);
        (text.value("memctl_config_last_reload_successful"), text.value("memctl_config_rules"))
    };
    let differs = || scrape(&socket).value("memctl_config_file_differs");
    assert_eq!((state(), differs()), ((1.0, 1.0), 0.0));
    assert_eq!(scrape(&socket).only("memctl_cgroup_usage_bytes"), None);
    std::fs::write(&rules, "[[rule]]\nhead").expect("write the rules");
    until("the other version", || differs() == 1.0);
    signal(&child, Signal::HUP);
    until("the failure", || state() == (0.0, 1.0));
    assert_eq!(differs(), 1.0);
    let two = rule.replace("metrics-cgroups = 0", "metrics-cgroups = 1")
        + "[[rule]]\nname = 'two'\nmatch = 'other'\nkeep = '6M'\n";
    std::fs::write(&rules, two).expect("write the rules");
    signal(&child, Signal::HUP);
    until("both rules", || state() == (1.0, 2.0));
    assert_eq!(differs(), 0.0);
    let cgroups = scrape(&socket);
    let cgroups: Vec<_> = cgroups.all("memctl_rule_cgroups").into_iter().map(|(_, count)| count).collect();
    assert_eq!(cgroups, [1.0, 0.0], "also of a rule without any");
    let errors = String::from_utf8_lossy(&output_of(child).stderr).into_owned();
    assert!(
        errors.contains("other settings of metrics take effect when memctl is started again"),
        "{errors}"
    );
}
