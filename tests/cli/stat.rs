//! `memctl stat` on real kernels: the figures against the raw files, limits of ancestors, trees and
//! their order.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::environment::{Case, list};
use crate::harness::{Cgroup, Finished, M, assert_close, assert_fails, number, refused, root, run};
use crate::namespace::run_inside;
use crate::net_saving::Zswap;
use crate::terminal::{show, without_escapes};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "guest" =>
            json_agrees_with_the_files_to_the_byte,
            what_the_kernel_lacks_is_absent,
            the_tightest_level_binds,
            reclaimable_takes_off_protection_and_swap,
            rows_and_a_total,
            a_tree_with_siblings_in_order,
            a_total_counts_nothing_twice,
            several_threads_see_the_same,
            a_page_on_one,
            events_are_told_with_their_place,
            limits_above_a_namespace_are_unknown,
            limits_above_a_mount_are_unknown,
            columns_fit_the_terminal,
            a_name_that_is_not_there,
            a_host_without_a_cgroup,
            one_that_goes_between_two_looks,
            look_after_look,
            a_reader_that_leaves_ends_it;
        "guest reclaim zswap" => zswap_and_its_room;
        "guest reclaim" => rates_of_what_happened
    ]
}

/// Returns the line of one cgroup.
fn stat(name: &str) -> Value {
    let ran = run(&["stat", name, "--json"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    crate::harness::parse(&ran.stdout)
}

fn bytes(line: &Value, key: &str) -> u64 {
    number(line, key) as u64
}

fn names(stdout: &str) -> Vec<String> {
    let lines = stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.map(|line| line["cgroup"].as_str().expect("a name").to_owned()).collect()
}

fn json_agrees_with_the_files_to_the_byte() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(30 * M)).uses(&Work::Anon(20 * M));
    app.write("memory.low", &(4 * M).to_string());
    app.write("memory.max", &(900 * M).to_string());
    // The cgroup is idle from here on, and the kernel has folded its counters.
    app.stolen_settled();
    let line = stat("app");
    let file = |name: &str| app.read(name).trim().parse::<u64>().expect("a number");
    let expected = [
        ("current_bytes", file("memory.current")),
        ("working_set_bytes", file("memory.current") - app.stat("inactive_file")),
        ("anon_bytes", app.stat("anon")),
        ("file_bytes", app.stat("file")),
        ("shmem_bytes", app.stat("shmem")),
        ("slab_bytes", app.stat("slab")),
        ("unevictable_bytes", app.stat("unevictable")),
        ("swap_bytes", file("memory.swap.current")),
        ("min_bytes", 0),
        ("low_bytes", 4 * M),
        (
            "refaulted_bytes",
            (app.stat("workingset_refault_file") + app.stat("workingset_refault_anon")) * 4096,
        ),
    ];
    for (key, truth) in expected {
        assert_eq!(bytes(&line, key), truth, "{key} in {line}");
    }
    for (key, name) in [("pressure", "memory.pressure"), ("io_pressure", "io.pressure")] {
        let totals: Vec<_> = app.read(name).lines().map(|line| number_after(line, "total=")).collect();
        let told = &line[key];
        assert_eq!((bytes(told, "some_total_usec"), bytes(told, "full_total_usec")), (totals[0], totals[1]));
    }
    for (key, name) in [("events", "memory.events"), ("events_local", "memory.events.local")] {
        let text = app.read(name);
        let counters = text.lines().map(|line| line.split_once(' ').expect("a name and a number"));
        let counters = counters.map(|(name, count)| (name.to_owned(), count.parse().expect("a number")));
        assert_eq!(line[key], Value::Object(counters.collect()), "{key}: {text}");
    }
    let on_nodes = app.read("memory.numa_stat");
    let nodes = line["nodes"].as_array().expect("a list");
    let there = |node: &u64| Path::new(&format!("/sys/devices/system/node/node{node}")).exists();
    assert_eq!(nodes.len(), (0..64).filter(there).count());
    for node in nodes {
        for (key, name) in [("anon_bytes", "anon "), ("file_bytes", "file ")] {
            let of_all = on_nodes.lines().find(|line| line.starts_with(name)).expect("a line");
            assert_eq!(bytes(node, key), number_after(of_all, &format!(" N{}=", node["node"])), "{on_nodes}");
        }
    }
    assert_eq!((&line["high_bytes"], bytes(&line, "max_bytes")), (&Value::Null, 900 * M));
    for (key, name) in [
        ("zswap_bytes", "memory.zswap.current"),
        ("zswap_max_bytes", "memory.zswap.max"),
        ("zswap_writeback", "memory.zswap.writeback"),
    ] {
        let truth = std::fs::read_to_string(app.path().join(name)).ok().map(|text| match text.trim() {
            "max" => Value::Null,
            flag if name.ends_with("writeback") => (flag == "1").into(),
            number => number.parse::<u64>().expect("a number").into(),
        });
        assert_eq!(line.get(key), truth.as_ref(), "{key} in {line}");
    }
    assert_eq!(line.get("hidden_by"), None);
    // A row reads none of these files.
    let other = Cgroup::new("other");
    let rows = run(&["stat", "app", other.name(), "--json"]);
    assert!(rows.stdout.contains("current_bytes") && !rows.stdout.contains("io_pressure"), "{}", rows.stdout);
}

fn number_after(line: &str, key: &str) -> u64 {
    let rest = line.split(key).nth(1).and_then(|rest| rest.split(' ').next()).expect("the key");
    rest.trim().parse().expect("a number")
}

fn events_are_told_with_their_place() {
    let app = Cgroup::new("app");
    let job = app.child("job");
    assert!(page("app").contains("\nevents       none\n"), "{}", page("app"));
    job.write("memory.max", &(10 * M).to_string());
    job.uses(&Work::File(20 * M));
    let count = |cgroup: &Cgroup, name| number_after(&cgroup.read(name).replace('\n', " "), "max ");
    let there = count(&job, "memory.events");
    assert!(there > 0);
    assert!(page("app").contains(&format!("max {there} (none here, all below)")), "{}", page("app"));
    assert!(page("app/job").contains(&format!("events       max {there}\n")), "{}", page("app/job"));
}

/// Returns the page on one cgroup, off a terminal.
fn page(name: &str) -> String {
    let ran = run(&["stat", name]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    ran.stdout
}

fn limits_above_a_namespace_are_unknown() {
    let app = Cgroup::new("app");
    let job = app.child("job");
    app.write("memory.max", &(300 * M).to_string());
    assert!(!page("app/job").contains("unknown"), "{}", page("app/job"));
    let ran = run_inside(job.path(), &["stat", "/"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    let beyond = "unknown: limits above the root of this cgroup namespace aren't visible";
    assert!(ran.stdout.contains(beyond) && ran.stdout.contains("no visible limit"), "{}", ran.stdout);
    let ran = run_inside(job.path(), &["stat", "/", "--json"]);
    let line = crate::harness::parse(&ran.stdout);
    assert_eq!((&line["cgroup"], &line["hidden_by"]), (&"/".into(), &"namespace".into()), "{line}");
    assert!(line["limit_bytes"].is_null() && line["current_bytes"].is_u64(), "{line}");
    // A namespace that was created at the root hides nothing.
    let ran = run_inside(&root(), &["stat", "app/job", "--json"]);
    let line = crate::harness::parse(&ran.stdout);
    assert!(line.get("hidden_by").is_none() && line["limit_cgroup"] == "/app", "{line}");
}

fn limits_above_a_mount_are_unknown() {
    let app = Cgroup::new("app");
    let job = app.child("job");
    let point = "/tmp/part";
    std::fs::create_dir_all(point).expect("make the mount point");
    rustix::mount::mount_bind(job.path(), point).expect("bind it");
    // Where the whole hierarchy is mounted too, memctl shows the ancestors.
    let mut alone = Command::new("/bin/busybox");
    alone.args(["unshare", "-m", "sh", "-c", "umount -l /sys/fs/cgroup; exec \"$0\" stat \"$1\" --json"]);
    alone.arg(assert_cmd::cargo::cargo_bin!("memctl")).arg(point);
    let (ran, whole): (Finished, _) =
        (alone.output().expect("it runs").into(), run(&["stat", point, "--json"]));
    rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH).expect("unmount it");
    let whole = crate::harness::parse(&whole.stdout);
    assert_eq!((&whole["cgroup"], whole.get("hidden_by")), (&"/app/job".into(), None), "{whole}");
    let line = crate::harness::parse(&ran.stdout);
    assert_eq!((&line["cgroup"], &line["hidden_by"]), (&"/".into(), &"mount".into()), "{line}");
}

fn zswap_and_its_room() {
    let _zswap = Zswap::on();
    let app = Cgroup::new("app");
    let job = app.child("job");
    job.uses(&Work::Anon(40 * M));
    crate::harness::report(&["reclaim", "app", "20M"], 0);
    app.write("memory.zswap.max", &(100 * M).to_string());
    app.write("memory.zswap.writeback", "0");
    let line = stat("app/job");
    assert!(bytes(&line, "zswapped_bytes") >= 18 * M, "{line}");
    let left = 100 * M - app.read("memory.zswap.current").trim().parse::<u64>().expect("a number");
    assert_close("room", bytes(&line, "zswap_room_bytes"), left);
    assert_eq!((&line["zswap_enabled"], &line["zswap_max_bytes"]), (&true.into(), &Value::Null), "{line}");
    let text = page("app/job");
    for words in [", compressed to ", "below memory.zswap.max of /app", "(memory.zswap.writeback of /app)"] {
        assert!(text.contains(words), "{words} in {text}");
    }
    app.write("memory.zswap.max", "max");
    assert!(page("app/job").contains(" in the host's pool"), "{}", page("app/job"));
}

fn what_the_kernel_lacks_is_absent() {
    let app = Cgroup::new("app");
    let line = stat("app");
    let text = app.read("memory.stat");
    let has = |key: &str| text.lines().any(|line| line.starts_with(&format!("{key} ")));
    assert_eq!(line.get("kernel_bytes").is_some(), has("kernel"), "{line}");
    assert_eq!(line.get("reclaimed_bytes").is_some(), has("pgsteal"), "{line}");
    assert_eq!(line.get("zswap_bytes").is_some(), has("zswap"), "{line}");
    // The root has no memory.current on any kernel.
    let line = stat("/");
    assert!(line.get("current_bytes").is_none() && line["headroom_bytes"].is_null(), "{line}");
    assert!(bytes(&line, "file_bytes") > 0, "{line}");
}

fn the_tightest_level_binds() {
    let app = Cgroup::new("app");
    let (job, leak) = (app.child("job"), app.child("leak"));
    app.write("memory.high", &(300 * M).to_string());
    job.write("memory.max", &(200 * M).to_string());
    job.uses(&Work::File(30 * M));
    let line = stat("app/job");
    assert_eq!((&line["limit_cgroup"], &line["limit_file"]), (&"/app/job".into(), &"memory.max".into()));
    assert_close("headroom", bytes(&line, "headroom_bytes"), 170 * M);
    // A sibling uses up the ancestor's room.
    leak.uses(&Work::File(200 * M));
    let line = stat("app/job");
    assert_eq!((&line["limit_cgroup"], &line["limit_file"]), (&"/app".into(), &"memory.high".into()));
    assert_eq!(bytes(&line, "limit_bytes"), 300 * M);
    assert_close("headroom", bytes(&line, "headroom_bytes"), 70 * M);
    let ran = run(&["stat", "app/job"]);
    assert!(ran.stdout.contains(" below memory.high of /app, 300 MiB\n"), "{}", ran.stdout);
}

fn reclaimable_takes_off_protection_and_swap() {
    let app = Cgroup::new("app");
    let (kept, free) = (app.child("kept"), app.child("free"));
    kept.uses(&Work::File(40 * M));
    free.uses(&Work::File(20 * M)).uses(&Work::Anon(30 * M));
    kept.write("memory.min", &(100 * M).to_string());
    app.write("memory.swap.max", &(10 * M).to_string());
    let line = stat("app");
    assert_close("protected", bytes(&line, "protected_bytes"), 40 * M);
    assert_close("reclaimable", bytes(&line, "reclaimable_bytes"), 30 * M);
    assert_close("below", bytes(&stat("app/free"), "reclaimable_bytes"), 30 * M);
    let ran = run(&["stat", "app"]);
    assert!(ran.stdout.contains("under memory.min of children (most by /app/kept)"), "{}", ran.stdout);
    assert!(ran.stdout.contains("memory.swap.max of /app"), "{}", ran.stdout);
}

fn rows_and_a_total() {
    let (large, small) = (Cgroup::new("large"), Cgroup::new("small"));
    large.uses(&Work::File(40 * M));
    small.uses(&Work::File(10 * M));
    let ran = run(&["stat"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert!(lines[0].starts_with("CGROUP  CURRENT  WORKSET  RECLAIM  "), "{}", ran.stdout);
    assert!(lines[1].starts_with("/large") && lines[2].starts_with("/small"), "{}", ran.stdout);
    assert!(lines[3].starts_with("total "), "{}", ran.stdout);
    let ran = run(&["stat", "--sort", "name", "-b", "--no-legend", "large", "small"]);
    let rows: Vec<Vec<_>> = ran.stdout.lines().map(|line| line.split_ascii_whitespace().collect()).collect();
    assert_eq!((rows.len(), rows[0][0], rows[1][0]), (2, "/large", "/small"), "{}", ran.stdout);
    assert_close("bytes", rows[0][1].parse().expect("a number"), 40 * M);
    assert_eq!(run(&["stat", "-q"]).stdout, "");
}

fn a_tree_with_siblings_in_order() {
    let (one, two) = (Cgroup::new("one"), Cgroup::new("two"));
    let (inner, other) = (two.child("inner"), two.child("other"));
    one.uses(&Work::File(20 * M));
    inner.uses(&Work::File(10 * M));
    other.uses(&Work::File(30 * M));
    let ran = run(&["stat", "-r", "--json"]);
    assert_eq!(names(&ran.stdout), ["/two", "/two/other", "/two/inner", "/one"]);
    let ran = run(&["stat", "-r", "--sort", "name", "--json"]);
    assert_eq!(names(&ran.stdout), ["/one", "/two", "/two/inner", "/two/other"]);
    let ran = run(&["stat", "--depth", "1", "two"]);
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert!(lines[1].starts_with("/two ") && lines[2].starts_with("  other "), "{}", ran.stdout);
    assert_eq!(names(&run(&["stat", "--json"]).stdout), ["/two", "/one"]);
    // Without a header, which means nothing here, a total of one cgroup would repeat its row.
    assert!(!ran.stdout.contains("total"), "{}", ran.stdout);
}

fn a_total_counts_nothing_twice() {
    let (one, two) = (Cgroup::new("one"), Cgroup::new("two"));
    let inner = two.child("inner");
    one.uses(&Work::File(20 * M));
    inner.uses(&Work::File(30 * M));
    let ran = run(&["stat", "one", "two", "two/inner", "-b"]);
    let total = ran.stdout.lines().last().unwrap_or_default();
    let current: u64 = total.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    assert!(total.starts_with("total "), "{}", ran.stdout);
    crate::harness::assert_close("what both use", current, one.current() + two.current());
    let ran = run(&["stat", "**", "-b"]);
    let total = ran.stdout.lines().last().unwrap_or_default().to_owned();
    assert!(total.starts_with("total "), "{}", ran.stdout);
    let all: u64 = total.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    crate::harness::assert_close("what all use", all, one.current() + two.current());
}

fn several_threads_see_the_same() {
    let batch = Cgroup::new("batch");
    let children: Vec<_> = (0..12).map(|number| batch.child(&format!("n{number}"))).collect();
    let inner: Vec<_> = children[3..6].iter().map(|child| child.child("inner")).collect();
    children[7].uses(&Work::File(20 * M));
    inner[1].uses(&Work::File(10 * M));
    children[4].write("memory.min", &(4 * M).to_string());
    let alone = run(&["stat", "-r", "batch", "--json", "--sort", "name"]);
    let together = run(&["stat", "-r", "batch", "--json", "--sort", "name", "--jobs", "3"]);
    assert_eq!((alone.status, together.status), (Some(0), Some(0)));
    assert_eq!(names(&alone.stdout), names(&together.stdout));
    assert_eq!(names(&alone.stdout).len(), 16);
    for (one, other) in alone.stdout.lines().zip(together.stdout.lines()) {
        let parsed = |line: &str| serde_json::from_str::<Value>(line).expect("JSON");
        let (one, other) = (parsed(one), parsed(other));
        for key in ["limit_bytes", "min_bytes"] {
            assert_eq!(one[key], other[key], "{key}: {one}");
        }
        // Between the two reads the kernel may have folded earlier counts, or returned a batch of
        // charges: protected memory is at most the usage.
        for key in ["anon_bytes", "file_bytes", "protected_bytes"] {
            let apart = number(&one, key).abs_diff(number(&other, key));
            assert!(apart <= M, "{key}: {one}, {other}");
        }
    }
}

fn a_page_on_one() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(30 * M)).uses(&Work::Locked(4 * M));
    let ran = run(&["stat", "app"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    for label in [
        "cgroup",
        "usage",
        "reclaimable",
        "anon",
        "file",
        "unevictable",
        "swap",
        "limits",
        "headroom",
        "pressure",
    ] {
        assert!(ran.stdout.lines().any(|line| line.starts_with(label)), "{label} in {}", ran.stdout);
    }
    assert!(ran.stdout.contains(" of page cache + "), "{}", ran.stdout);
}

fn columns_fit_the_terminal() {
    let app = Cgroup::new("a-service-with-a-rather-long-name-indeed.service");
    app.uses(&Work::File(10 * M));
    for width in [60, 80, 120] {
        for words in [&["stat"][..], &["stat", "-r"], &["stat", app.name()]] {
            let screen = without_escapes(&show(words, width));
            let widest = screen.lines().map(|line| line.chars().count()).max().unwrap_or(0);
            assert!(widest <= usize::from(width), "{widest} of {width}: {screen}");
        }
    }
    let wide = without_escapes(&show(&["stat"], 160));
    assert!(wide.contains("HEADROOM") && wide.contains("SWAP"), "{wide}");
    let narrow = without_escapes(&show(&["stat"], 80));
    assert!(narrow.contains("CURRENT") && narrow.contains("RECLAIM"), "{narrow}");
}

fn a_name_that_is_not_there() {
    assert_fails(&["stat", "nonesuch"], 1, "memctl: nonesuch: no such cgroup");
    assert!(!root().join("nonesuch").exists());
    // All other requested columns are shown.
    let _app = Cgroup::new("app");
    let ran = run(&["stat", "nonesuch", "app", "nor/this", "--json"]);
    assert_eq!((ran.status, names(&ran.stdout)), (Some(1), vec!["/app".to_owned()]));
    let errors: Vec<_> = ran.stderr.lines().filter(|line| line.starts_with("memctl: ")).collect();
    assert_eq!(errors, ["memctl: nonesuch: no such cgroup", "memctl: nor/this: no such cgroup"]);
}

fn a_host_without_a_cgroup() {
    let ran = run(&["stat"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(0), ""), "{}", ran.stderr);
    assert_eq!(ran.stderr, "no cgroup below the root (for the root itself: memctl stat /)\n");
    assert_eq!(run(&["stat", "-q"]).stderr, "");
    // The cgroup exists, but has no readable figures.
    let control = root().join("cgroup.subtree_control");
    std::fs::write(&control, "-memory").expect("switch it off");
    std::fs::create_dir(root().join("plain")).expect("make it");
    let ran = run(&["stat"]);
    std::fs::remove_dir(root().join("plain")).expect("remove it");
    std::fs::write(&control, "+memory").expect("switch it on again");
    let line = "memctl: /plain: the memory controller is not enabled in cgroup.subtree_control of /";
    refused(ran, &["stat"], 1, line);
}

fn one_that_goes_between_two_looks() {
    let (stays, goes) = (Cgroup::new("stays"), Cgroup::new("goes"));
    let looking = std::thread::spawn(|| run(&["stat", "goes", "stays", "-i", "1s", "-n", "4", "--json"]));
    std::thread::sleep(std::time::Duration::from_millis(1500));
    drop(goes);
    let ran = looking.join().expect("it ends");
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), "goes: gone\n"));
    let seen = names(&ran.stdout);
    assert_eq!(seen.iter().filter(|name| *name == "/stays").count(), 4, "{seen:?}");
    drop(stays);
}

fn look_after_look() {
    let (one, two) = (Cgroup::new("one"), Cgroup::new("two"));
    one.uses(&Work::File(10 * M));
    let ran = run(&["stat", "one", "-i", "300ms", "-n", "3"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), 4, "a header, and a line a look: {}", ran.stdout);
    assert!(lines[0].contains("REFAULT/s") && lines[3].starts_with("/one "), "{}", ran.stdout);
    // Off a terminal nothing is repainted.
    assert!(!ran.stdout.contains('\u{1b}'));
    let ran = run(&["stat", "-n", "2", "-i", "0.2", "--json"]);
    assert_eq!(names(&ran.stdout), ["/one", "/two", "/one", "/two"]);
    let screen = show(&["stat", "-n", "2", "-i", "0.2"], 100);
    assert_eq!(screen.matches("\u{1b}[H\u{1b}[J").count(), 2, "{screen:?}");
    drop(two);
}

fn rates_of_what_happened() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(60 * M));
    let looking = std::thread::spawn(|| run(&["stat", "app", "-i", "4s", "-n", "2", "--json"]));
    std::thread::sleep(std::time::Duration::from_secs(1));
    crate::harness::report(&["reclaim", "app", "20M"], 0);
    let ran = looking.join().expect("it ends");
    let lines: Vec<Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(lines[0].get("reclaimed_bytes_per_sec").is_none(), "there is no look before: {}", lines[0]);
    let over = number(&lines[1], "interval_usec") as u64;
    let reclaimed = bytes(&lines[1], "reclaimed_bytes_per_sec") * over / 1_000_000;
    assert_close("reclaimed", reclaimed, 20 * M);
    let efficiency = lines[1]["scan_efficiency_ratio"].as_f64().expect("something was looked at");
    assert!(efficiency > 0.3 && efficiency <= 1.01, "{}", lines[1]);
}

/// Ends like `memctl stat -i 1 | head -n 1`.
fn a_reader_that_leaves_ends_it() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    let _app = Cgroup::new("app");
    let mut child =
        crate::harness::memctl(["stat", "-i", "0.1"]).stdout(Stdio::piped()).spawn().expect("memctl starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while child.try_wait().expect("wait for it").is_none() {
        assert!(std::time::Instant::now() < until, "it goes on without a reader");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(line.starts_with("CGROUP"));
}
