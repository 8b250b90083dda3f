//! Ctrl-C and SIGTERM on real kernels: a true partial report, and death by the signal.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::environment::{Case, list};
use crate::harness::{Cgroup, M, memctl, number, parse};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "guest reclaim" => a_signal_that_comes_too_late_kills_all_the_same;
        "guest swappiness" => amid_anon;
        "guest prompt" => amid_one_large_write, a_timeout_amid_one_large_write;
        "guest reclaim !swappiness" => a_write_that_can_not_be_interrupted, a_second_signal_kills;
        "guest reclaim" =>
            interrupt_amid_page_cache,
            terminate_amid_page_cache,
            the_table_is_printed_too,
            an_ignored_signal_stays_ignored,
            stopped_and_continued_repeats_at_most_a_chunk
    ]
}

/// A running memctl.
struct Running(Child);

impl Running {
    fn start(words: &[&str]) -> Self {
        let child = memctl(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Self(child.expect("memctl starts"))
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("it is still running");
    }

    fn finish(self) -> Output {
        self.0.wait_with_output().expect("memctl ends")
    }
}

fn after(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// Waits until memctl has reclaimed a good part of the cgroup.
fn under_way(app: &Cgroup, used: u64) {
    let until = Instant::now() + Duration::from_secs(30);
    while app.current() + 4 * M > used {
        assert!(Instant::now() < until, "nothing was reclaimed in half a minute");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Sends the signal amid the reclaim, and returns memctl's output; memctl must report truly, and
/// die by the signal.
fn cut_short(app: &Cgroup, words: &[&str], signal: Signal) -> (Value, Duration, String) {
    let used = app.current();
    let running = Running::start(words);
    under_way(app, used);
    let sent = Instant::now();
    running.signal(signal);
    let output = running.finish();
    let took = sent.elapsed();
    let stdout = String::from_utf8(output.stdout).expect("UTF-8");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.signal(), Some(signal.as_raw()), "{stdout} {stderr}");
    let report = parse(&stdout);
    assert_eq!((&report["stopped_by"], &report["verdict"]), (&"interrupted".into(), &"under".into()));
    let (told, stolen) = (number(&report, "reclaimed_bytes") as u64, app.stolen_settled());
    assert!(stolen > 0 && told.abs_diff(stolen) <= stolen / 20 + M, "{stolen} counted, {report}");
    (report, took, stderr)
}

fn prompt(took: Duration) {
    assert!(took < Duration::from_secs(1), "it took {took:?} to stop");
}

fn amid_anon() {
    let app = Cgroup::new("app");
    app.uses(&Work::Anon(360 * M));
    let (report, took, stderr) = cut_short(&app, &["reclaim", "app", "350M", "--json"], Signal::INT);
    prompt(took);
    assert_eq!(stderr, "");
    assert!(number(&report, "swapped_out_bytes") > 0, "{report}");
}

/// The kernel checks for signals between its own batches as well, if they reach the writing thread.
fn amid_one_large_write() {
    let app = Cgroup::new("app");
    app.uses(&Work::Anon(360 * M));
    let words = ["reclaim", "app", "350M", "--chunk", "350M", "--json"];
    let (report, took, _) = cut_short(&app, &words, Signal::INT);
    prompt(took);
    assert_eq!(number(&report, "chunks"), 1);
}

fn a_timeout_amid_one_large_write() {
    let app = Cgroup::new("app");
    app.uses(&Work::Anon(360 * M));
    let words = ["reclaim", "app", "350M", "--chunk", "350M", "--timeout", "0.1", "--json"];
    let output = Running::start(&words).finish();
    assert_eq!(output.status.code(), Some(124));
    let report = parse(&String::from_utf8(output.stdout).expect("UTF-8"));
    assert!(number(&report, "elapsed_usec") < 1_500_000, "{report}");
}

/// The request is met, and the report says so; but a shell must see that Ctrl-C was pressed.
fn a_signal_that_comes_too_late_kills_all_the_same() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(40 * M));
    let running = Running::start(&["reclaim", "app", "max", "--timeout", "60ms", "--chunk", "4K", "--json"]);
    let stopped = |running: &Running, signal| running.signal(signal);
    after(20);
    stopped(&running, Signal::STOP);
    running.signal(Signal::INT);
    after(100);
    running.signal(Signal::CONT);
    let output = running.finish();
    assert_eq!(output.status.signal(), Some(Signal::INT.as_raw()), "{output:?}");
}

fn interrupt_amid_page_cache() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(300 * M));
    let words = ["reclaim", "app", "290M", "--chunk", "16K", "--json"];
    let (_, took, stderr) = cut_short(&app, &words, Signal::INT);
    prompt(took);
    assert_eq!(stderr, "");
}

fn terminate_amid_page_cache() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(300 * M));
    let words = ["reclaim", "app", "290M", "--chunk", "16K", "--json", "-q"];
    prompt(cut_short(&app, &words, Signal::TERM).1);
}

fn the_table_is_printed_too() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(300 * M));
    let used = app.current();
    let running = Running::start(&["reclaim", "app", "290M", "--chunk", "16K"]);
    under_way(&app, used);
    running.signal(Signal::INT);
    let output = running.finish();
    let stdout = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(output.status.signal(), Some(Signal::INT.as_raw()));
    assert!(stdout.contains("under, interrupted") && stdout.contains("interrupted by a signal"), "{stdout}");
}

/// 6.1 checks for signals only at the end of the whole write.
fn a_write_that_can_not_be_interrupted() {
    let app = Cgroup::new("app");
    app.uses(&Work::Anon(360 * M));
    let words = ["reclaim", "app", "350M", "--chunk", "240M", "--json"];
    let (report, _, stderr) = cut_short(&app, &words, Signal::INT);
    let line = "memctl: stopping: waiting for a write of 240 MiB to return (a second signal kills memctl)\n";
    assert_eq!(stderr, line);
    assert_eq!(number(&report, "chunks"), 1);
}

fn a_second_signal_kills() {
    for (first, second) in
        [(Signal::INT, Signal::INT), (Signal::INT, Signal::TERM), (Signal::TERM, Signal::INT)]
    {
        let app = Cgroup::new("app");
        app.uses(&Work::Anon(360 * M));
        let used = app.current();
        let running = Running::start(&["reclaim", "app", "350M", "--chunk", "340M", "--json"]);
        under_way(&app, used);
        running.signal(first);
        after(50);
        running.signal(second);
        let output = running.finish();
        assert_eq!(output.status.signal(), Some(second.as_raw()));
        assert_eq!(String::from_utf8(output.stdout).expect("UTF-8"), "", "killed, there is no report");
    }
}

fn an_ignored_signal_stays_ignored() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(100 * M));
    let used = app.current();
    let script = "trap '' INT; exec \"$0\" reclaim app 60M --chunk 64K --json";
    let child = Command::new("/bin/sh")
        .args(["-c", script])
        .arg(assert_cmd::cargo::cargo_bin!("memctl"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let running = Running(child.expect("a shell starts"));
    under_way(&app, used);
    running.signal(Signal::INT);
    let output = running.finish();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(parse(&String::from_utf8(output.stdout).expect("UTF-8"))["stopped_by"], "reached");
}

/// A stopped write is restarted in full by the kernel: with chunks, the repetition can't add up.
fn stopped_and_continued_repeats_at_most_a_chunk() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(200 * M));
    let running = Running::start(&["reclaim", "app", "100M", "--json"]);
    for _ in 0..5 {
        after(60);
        if kill_process(Pid::from_child(&running.0), Signal::STOP).is_err() {
            break;
        }
        after(20);
        running.signal(Signal::CONT);
    }
    let output = running.finish();
    let report = parse(&String::from_utf8(output.stdout).expect("UTF-8"));
    assert_eq!((output.status.code(), &report["stopped_by"]), (Some(0), &"reached".into()), "{report}");
    let stolen = app.stolen_settled();
    let chunk = 100 * M / 8;
    assert!(stolen <= 100 * M + chunk, "{stolen}");
    let told = number(&report, "reclaimed_bytes") as u64;
    assert!(told.abs_diff(stolen) <= 2 * M, "{told} told, {stolen} counted");
}
