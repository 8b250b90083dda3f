//! Readers of `memctl watch` that stall, leave, or have no room: the watch goes on.

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Signal, setsid};

use crate::environment::{Case, list};
use crate::harness::{Cgroup, M, SmallDisk, memctl, number, root};
use crate::watch::{after, of, parsed, signal, until};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "guest prompt" =>
            a_reader_that_stalls_holds_up_neither_reclaim_nor_the_end,
            a_full_disk_ends_no_watch,
            a_reader_that_leaves_a_service_ends_no_watch,
            with_a_single_process_events_are_written_all_the_same
    ]
}

/// Usage that `--keep` of the cases keeps: what is charged at once is some of it.
const KEPT: u64 = 40 * M;

/// Returns a pipe without room for another byte.
fn full_pipe() -> (PipeReader, PipeWriter, usize) {
    let (from, mut to) = pipe().expect("a pipe");
    let flags = fcntl_getfl(&to).expect("its flags");
    fcntl_setfl(&to, flags | OFlags::NONBLOCK).expect("set them");
    let mut filled = 0;
    for chunk in [4096, 1] {
        while let Ok(written) = to.write(&vec![b'\n'; chunk]) {
            filled += written;
        }
    }
    fcntl_setfl(&to, flags).expect("set them back");
    (from, to, filled)
}

/// Starts memctl watch as a service is: without a terminal.
fn begin_into(out: impl Into<Stdio>, words: &[&str]) -> Child {
    let words: Vec<_> = ["watch"].iter().chain(words).copied().collect();
    let mut command = memctl(words);
    command.stdin(Stdio::null()).stdout(out).stderr(Stdio::piped());
    // SAFETY: setsid is one system call, which is async-signal-safe.
    unsafe { command.pre_exec(|| setsid().map(drop).map_err(Into::into)) };
    command.spawn().expect("memctl starts")
}

/// Adds page cache to the cgroup for some seconds, and asserts that its usage is brought down again
/// each time.
fn keeps_below(app: &Cgroup, seconds: usize) {
    for _ in 0..seconds {
        app.uses(&Work::File(10 * M));
        until("the usage to keep", || app.current() <= KEPT);
        after(500);
    }
}

/// Ends the watch by SIGTERM. Returns its status, standard error, and the time this took.
fn terminated(child: Child) -> (Option<i32>, String, Duration) {
    signal(&child, Signal::TERM);
    let sent = Instant::now();
    let output = child.wait_with_output().expect("memctl ends");
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    (output.status.code(), said, sent.elapsed())
}

fn a_reader_that_stalls_holds_up_neither_reclaim_nor_the_end() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(60 * M));
    let (from, to, _) = full_pipe();
    let child = begin_into(to, &["app", "--keep", "40M", "--json"]);
    keeps_below(&app, 5);
    let (status, said, took) = terminated(child);
    assert!(took < Duration::from_millis(1500), "{took:?}");
    let line = "memctl: standard output: the end wasn't written: not read in time\n";
    assert_eq!((status, said.as_str()), (Some(0), line));
    drop(from);

    // A reader that goes on gets all of it.
    let (mut from, to, filled) = full_pipe();
    let child = begin_into(to, &["app", "--keep", "40M", "--json"]);
    keeps_below(&app, 3);
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        from.read_to_end(&mut text).expect("the events");
        String::from_utf8(text).expect("UTF-8")
    });
    let (status, said, _) = terminated(child);
    assert_eq!((status, said.as_str()), (Some(0), ""));
    let events = parsed(&reader.join().expect("the reader ends")[filled..]);
    assert_eq!((&events[0]["event"], of(&events, "dropped").len()), (&"begin".into(), 0), "{events:?}");
    assert_eq!(events.last().map(|last| &last["event"]), Some(&"end".into()), "{events:?}");
}

fn a_full_disk_ends_no_watch() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(60 * M));
    let disk = SmallDisk::new();
    disk.fill();
    let record = disk.path().join("record");
    let file = File::create(&record).expect("a record");
    let child = begin_into(file, &["app", "--keep", "40M", "--json"]);
    keeps_below(&app, 4);
    assert_eq!(std::fs::metadata(&record).expect("the record").len(), 0);
    disk.make_room();
    until("the record", || std::fs::metadata(&record).expect("the record").len() > 0);
    let (status, said, _) = terminated(child);
    let line = "memctl: standard output: no space left on device; the watch goes on\n";
    assert_eq!((status, said.as_str()), (Some(0), line), "once");
    let events = parsed(&std::fs::read_to_string(&record).expect("the record"));
    assert_eq!((&events[0]["event"], of(&events, "start").len()), (&"begin".into(), 1), "{events:?}");
    assert_eq!(events.last().map(|last| &last["event"]), Some(&"end".into()), "{events:?}");

    // To the end of the watch: the record isn't whole.
    let full = SmallDisk::new();
    full.fill();
    let file = File::create(full.path().join("record")).expect("a record");
    let child = begin_into(file, &["app", "--keep", "40M", "--json", "--duration", "1s"]);
    let output = child.wait_with_output().expect("memctl ends");
    let end = "memctl: standard output: the end wasn't written: no space left on device\n";
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!((output.status.code(), said), (Some(1), format!("{line}{end}")));
}

fn a_reader_that_leaves_a_service_ends_no_watch() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(60 * M));
    let (from, to) = pipe().expect("a pipe");
    drop(from);
    let child = begin_into(to, &["app", "--keep", "40M"]);
    keeps_below(&app, 3);
    let (status, said, took) = terminated(child);
    assert!(took < Duration::from_millis(1500), "{took:?}");
    let lines = "memctl: standard output: broken pipe; the watch goes on\n\
                 memctl: standard output: the end wasn't written: broken pipe\n";
    assert_eq!((status, said.as_str()), (Some(0), lines));
}

fn with_a_single_process_events_are_written_all_the_same() {
    let control = root().join("cgroup.subtree_control");
    std::fs::write(&control, "+pids").expect("the controller of processes");
    let (app, one) = (Cgroup::new("app"), Cgroup::new("one"));
    app.uses(&Work::File(60 * M));
    one.uses(&Work::Anon(M));
    one.write("pids.max", "1");
    // Moving there isn't limited, only starting threads there.
    let words = ["app", "--keep", "40M", "--json", "--join", "one", "--duration", "3s"];
    let output = begin_into(Stdio::piped(), &words).wait_with_output().expect("memctl ends");
    std::fs::write(&control, "-pids").expect("as before");
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    let line = "memctl: no thread for the output: resource temporarily unavailable; what isn't read in time is \
                dropped\n";
    assert_eq!((output.status.code(), said.as_str()), (Some(0), line));
    let events = parsed(&String::from_utf8(output.stdout).expect("UTF-8"));
    assert!(app.current() <= KEPT && !of(&events, "reclaim").is_empty(), "{events:?}");
    assert!(number(of(&events, "end")[0], "total_reclaimed_bytes") > 0, "{events:?}");
}
