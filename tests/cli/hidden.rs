//! Facts of the host that are hidden, switched off, or shown wrongly: they are told as unknown, and
//! bounds that can't be kept are refused.

use std::process::Command;

use crate::check::finding;
use crate::environment::{Case, list};
use crate::harness::{Cgroup, Finished, M, assert_fails, memctl, number, parse, report, run};
use crate::rights::APP;
use crate::watch::{of, parsed};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "guest reclaim" => a_proc_that_shows_processes_only, swap_that_is_shown_wrongly,
            pressure_that_is_off_for_one_cgroup, without_any_proc, what_is_frozen_has_no_estimate;
        "guest" => a_hidden_process_is_no_absent_one;
        "guest swappiness" => page_cache_alone_goes_where_swap_is_hidden;
        "guest node-reclaim" => a_node_without_visible_pressure
    ]
}

/// Runs memctl in a mount namespace of its own, after a shell script.
fn run_after(script: &str, words: &[&str]) -> Finished {
    let script = format!("{script} && exec \"$@\"");
    let memctl = assert_cmd::cargo::cargo_bin!("memctl");
    let mut command = Command::new("/bin/busybox");
    command.args(["unshare", "-m", "sh", "-c", &script, "sh"]).arg(memctl).args(words);
    command.output().expect("busybox").into()
}

/// Mounts a `/proc` as a service with `ProcSubset=pid` sees it.
const PROCESSES_ONLY: &str = "mount -t proc -o subset=pid proc /proc";

fn a_proc_that_shows_processes_only() {
    let app = Cgroup::new("app");
    app.uses(&Work::Anon(60 * M));
    let line = parse(&run_after(PROCESSES_ONLY, &["check", "app", "--json"]).stdout);
    let swap = finding(&line, "swap");
    assert_eq!(swap["state"], "unknown", "{line}");
    assert!(swap["amount_bytes"].as_u64() > Some(256 * M), "the kernel tells how much: {line}");
    assert_eq!(finding(&line, "pressure")["state"], "ok", "the cgroup's own file is there: {line}");

    let ran = run_after(PROCESSES_ONLY, &["reclaim", "app", "50M", "--dry-run"]);
    assert!(ran.status == Some(0) && !ran.stdout.contains("no swap"), "{ran:?}");

    let before = number(&parse(&run(&["stat", "app", "--json"]).stdout), "swap_bytes");
    let words = ["watch", "app", "--keep", "20M", "--duration", "3s", "--json"];
    let ran = run_after(PROCESSES_ONLY, &words);
    let after = number(&parse(&run(&["stat", "app", "--json"]).stdout), "swap_bytes");
    let events = parsed(&ran.stdout);
    let holds = of(&events, "hold");
    assert!(
        holds.iter().any(|hold| hold["guard"] == "slow_swap" && hold["swap_speed"] == "unknown"),
        "{events:?}"
    );
    assert!(after - before < 4 * M as i64, "{before} in swap before, {after} now: {events:?}");

    // What is swapped out may be in zram, as far as can be seen.
    let ran = run_after(PROCESSES_ONLY, &["reclaim", "app", "10M", "--json"]);
    let report = parse(&ran.stdout);
    assert!(number(&report, "reclaimed_bytes") > 8 * M as i64, "{report}");
    assert!(report.get("net_saved_bytes").is_none(), "{report}");
}

fn without_any_proc() {
    let line = "memctl: /proc/self/mountinfo: no such file or directory\n";
    for words in [&["stat"][..], &["watch", "app", "--keep", "1G", "--duration", "1s"]] {
        let ran = run_after("umount -l /proc", words);
        assert_eq!((ran.status, ran.stderr.as_str()), (Some(1), line), "{words:?}");
    }
}

/// Mounts `/proc` so that each user sees only their own processes, until dropped.
struct HidePid;

impl HidePid {
    fn new() -> Self {
        Self::mount("2").then_some(Self).expect("mount /proc with hidepid=2")
    }

    fn mount(level: &str) -> bool {
        let options = format!("remount,hidepid={level}");
        Command::new("/bin/busybox")
            .args(["mount", "-o", &options, "/proc"])
            .status()
            .expect("busybox")
            .success()
    }
}

impl Drop for HidePid {
    fn drop(&mut self) {
        assert!(Self::mount("0") || std::thread::panicking(), "mount /proc again");
    }
}

fn a_hidden_process_is_no_absent_one() {
    use std::os::unix::process::CommandExt;
    let _hidden = HidePid::new();
    let line = |pid: &str| match pid {
        "1" => "memctl: pid:1: a process of another user, which /proc doesn't show (hidepid)\n".to_owned(),
        pid => format!("memctl: pid:{pid}: no such process\n"),
    };
    for pid in ["1", "4194304"] {
        let mut command = memctl(["stat", &format!("pid:{pid}")]);
        let ran: Finished = command.uid(APP).gid(APP).output().expect("memctl runs").into();
        assert_eq!((ran.status, ran.stderr.lines().next()), (Some(1), line(pid).lines().next()), "{pid}");
    }
}

fn page_cache_alone_goes_where_swap_is_hidden() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(30 * M)).uses(&Work::Anon(30 * M));
    let words = ["watch", "app", "--keep", "20M", "--duration", "4s", "--json"];
    let ran = run_after(PROCESSES_ONLY, &words);
    assert_eq!(ran.status, Some(0), "{ran:?}");
    assert!(app.stat("anon") > 28 * M && app.current() < 40 * M, "{}: {ran:?}", app.current());
    // Writes to swap are bounded, as far as they can be seen.
    let bound = ["--type", "all", "--swap-writes", "1M", "--duration", "4s", "--json"];
    let words = [&["watch", "app", "--keep", "10M"][..], &bound].concat();
    let ran = run_after(PROCESSES_ONLY, &words);
    assert!(ran.stderr.contains("the host's writes to swap can't be read"), "{ran:?}");
    let events = parsed(&ran.stdout);
    let summary = of(&events, "summary")[0];
    // The host's pressure is hidden as well.
    assert_eq!(summary["guards_blind"], serde_json::json!(["above", "swap_writes"]), "{events:?}");
    // On a machine short of CPU the kernel may have taken all of it before the first write was ended.
    let is_held = of(&events, "hold").iter().any(|hold| hold["guard"] == "swap_writes");
    assert!(is_held || app.current() < 10 * M, "{}: {events:?}", app.current());
}

/// Mounts a `/proc/meminfo` and a `/proc/swaps` as lxcfs shows them: this total and free swap.
fn shown(total: &str, free: &str) -> String {
    format!(
        "sed 's/^SwapTotal:.*/SwapTotal: {total} kB/; s/^SwapFree:.*/SwapFree: {free} kB/' /proc/meminfo >/run/meminfo \
         && echo Filename Type Size Used Priority >/run/swaps \
         && mount --bind /run/meminfo /proc/meminfo && mount --bind /run/swaps /proc/swaps"
    )
}

fn swap_that_is_shown_wrongly() {
    let app = Cgroup::new("app");
    app.uses(&Work::Anon(40 * M));
    for (total, free, word) in [("0", "18446744073709346016", "impossible"), ("0", "0", "no swap")] {
        let script = shown(total, free);
        let line = parse(&run_after(&script, &["check", "app", "--json"]).stdout);
        let told = finding(&line, "swap shown")["says"].as_str().expect("text");
        assert!(told.contains(word), "{told}");
        assert_eq!(finding(&line, "swap")["state"], "unknown", "the areas are hidden: {line}");
        let stat = parse(&run_after(&script, &["stat", "app", "--json"]).stdout);
        let room = number(&stat, "swap_room_bytes");
        assert!((100 * M as i64..=512 * M as i64).contains(&room), "{stat}");
        let plan = parse(&run_after(&script, &["reclaim", "app", "30M", "--dry-run", "--json"]).stdout);
        assert_eq!(plan["guards"].as_array().map(Vec::len), Some(0), "{plan}");
    }
    let line = parse(&run(&["check", "app", "--json"]).stdout);
    assert!(!line.to_string().contains("swap shown"), "{line}");
}

/// Asserts that stat shows no stall of `app`, and says why, in all of its forms.
#[track_caller]
pub fn assert_pressure_unknown(psi: &str, why: &str) {
    let line = parse(&run(&["stat", "app", "--json"]).stdout);
    assert_eq!((&line["psi"], line.get("pressure")), (&psi.into(), None), "{line}");
    let page = run(&["stat", "app"]).stdout;
    let pressure = page.lines().find_map(|line| line.strip_prefix("pressure")).expect("a line");
    assert_eq!(pressure.trim(), format!("unknown: {why}"), "{page}");
    let table = run(&["stat", "app", "-n", "2", "-i", "100ms"]);
    let stalls: Vec<_> = table.stdout.lines().map(|line| line.split_whitespace().nth(9)).collect();
    assert_eq!(stalls, [Some("STALL%"), Some("-"), Some("-")], "{table:?}");
    assert_eq!(table.stderr, format!("memctl: /app: STALL% is unknown: {why}\n"), "once");
    assert_eq!(run(&["stat", "app", "-n", "2", "-i", "100ms", "-q"]).stderr, "");
}

fn pressure_that_is_off_for_one_cgroup() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(30 * M));
    app.write("cgroup.pressure", "0");
    let before = app.current();
    let line = parse(&run(&["check", "app", "--json"]).stdout);
    let pressure = finding(&line, "pressure");
    assert_eq!(pressure["state"], "note", "{line}");
    assert!(pressure["says"].as_str().is_some_and(|says| says.contains("for this cgroup")), "{line}");
    let root = parse(&run(&["check", "--json"]).stdout);
    assert_eq!(finding(&root, "pressure")["state"], "ok", "{root}");

    assert_pressure_unknown("off_for_cgroup", "PSI is off for this cgroup (cgroup.pressure is 0)");
    let root = parse(&run(&["stat", "/", "--json"]).stdout);
    assert_eq!((&root["psi"], root["pressure"].is_object()), (&"on".into(), true), "{root}");

    let why = "max-pressure can't be kept: PSI is off for this cgroup (cgroup.pressure is 0)";
    let line = format!("memctl: /app: {why}");
    for words in [
        &["reclaim", "app", "5M", "--max-pressure", "5%"][..],
        &["reclaim", "app", "5M", "--max-pressure", "5%", "--dry-run"],
        &["watch", "app", "--keep", "10M", "--max-pressure", "5%", "--duration", "1s"],
    ] {
        assert_fails(words, 1, &line);
    }
    app.assert_untouched(before);

    // 100% is no bound.
    report(&["reclaim", "app", "2M", "--max-pressure", "100%"], 0);

    // Where only the default asks for it, the request is served, and the guard told.
    let ran = run(&["reclaim", "app", "max"]);
    assert!(ran.stderr.contains("the default --max-pressure of 10% can't be kept: PSI is off"), "{ran:?}");
    app.uses(&Work::File(20 * M));
    let ran = run(&["reclaim", "app", "max", "--json", "-q"]);
    assert_eq!(parse(&ran.stdout)["guards_blind"], serde_json::json!(["pressure"]), "{ran:?}");

    // A watch that is to bound stalls says that it can't see them.
    app.uses(&Work::File(20 * M));
    let ran = run(&["watch", "app", "--pressure", "1%", "--duration", "4s", "--json"]);
    let note = "memctl: /app: memory pressure can't be read, so --pressure goes by refaults alone";
    assert_eq!(ran.stderr.matches(note).count(), 1, "{ran:?}");
    let summary = &of(&parsed(&ran.stdout), "summary")[0].clone();
    let blind = summary["guards_blind"].as_array().is_some_and(|all| all.contains(&"pressure".into()));
    assert!(blind, "{summary}");

    // The hint holds.
    app.write("cgroup.pressure", "1");
    let line = parse(&run(&["stat", "app", "--json"]).stdout);
    assert_eq!((&line["psi"], line["pressure"]["some_avg10_ratio"].is_f64()), (&"on".into(), true), "{line}");
    let page = run(&["stat", "app"]).stdout;
    assert!(page.contains("% of the last 10 s") && !page.contains("unknown"), "{page}");
    app.uses(&Work::File(20 * M));
    let report = report(&["reclaim", "app", "5M", "--max-pressure", "50%"], 0);
    assert!(report.get("guards_blind").is_none(), "{report}");
}

fn a_node_without_visible_pressure() {
    let line = "memctl: node:0: max-pressure can't be kept: memory pressure can't be read here";
    let ran = run_after(PROCESSES_ONLY, &["reclaim", "node:0", "1M", "--max-pressure", "5%"]);
    assert_eq!((ran.status, ran.stderr.lines().next()), (Some(1), Some(line)), "{ran:?}");
}

fn what_is_frozen_has_no_estimate() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(40 * M)).uses(&Work::Anon(10 * M));
    app.write("cgroup.freeze", "1");
    let ran = run(&["watch", "app", "--estimate", "--duration", "15s", "--json"]);
    let events = parsed(&ran.stdout);
    let summary = of(&events, "summary")[0];
    assert!(of(&events, "working_set").is_empty(), "{events:?}");
    for key in ["estimated_working_set_bytes", "estimated_confidence_ratio", "suggested_max_bytes"] {
        assert!(summary.get(key).is_none(), "{summary}");
    }
    assert_eq!(summary["not_estimated"], "frozen", "{summary}");
    assert!(app.current() < 40 * M, "it is reclaimed from all the same: {}", app.current());
    let ran = run(&["watch", "app", "--estimate", "--duration", "8s"]);
    app.write("cgroup.freeze", "0");
    assert!(ran.stdout.contains("/app: frozen (paused): nothing can be learned"), "{}", ran.stdout);
}
