//! The examples of the library, on a real kernel.

use std::path::PathBuf;
use std::process::Command;

use crate::environment::{Case, list};
use crate::harness::{Cgroup, M, root, run};
use crate::watch::limited;
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list!["guest prompt" => a_request_of_the_library, a_thread_of_the_application_reclaims_ahead]
}

/// Returns the path of an example, which cargo builds beside the program.
fn example(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_memctl")).with_file_name("examples").join(name)
}

fn a_request_of_the_library() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(40 * M));
    let output = Command::new(example("reclaim")).args(["app", "5M"]).output().expect("the example runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    let reclaimed: u64 =
        said.split(' ').next().and_then(|bytes| bytes.parse().ok()).expect("a number of bytes");
    assert!((5 * M..8 * M).contains(&reclaimed) && said.ends_with("ended by Reached\n"), "{said}");
    let none = Command::new(example("reclaim")).args(["none", "5M"]).output().expect("the example runs");
    assert_eq!(none.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&none.stderr), "reclaim: none: no such cgroup\n");
}

/// Counters of an application at its limit: memory that its own threads had to reclaim, and events.
#[derive(Debug)]
struct Met {
    direct_bytes: u64,
    limit_events: u64,
}

/// Runs the application under a limit, and returns what it met.
fn stream(file: &str, headroom: &[&str]) -> Met {
    let app = limited("app", 96 * M);
    let procs = app.path().join("cgroup.procs");
    // The shell moves itself and becomes the application.
    let output = Command::new("/bin/sh")
        .args(["-c", "echo 0 >\"$0\" && exec \"$@\""])
        .arg(procs)
        .arg(example("uswapd"))
        .args([file, "8"])
        .args(headroom)
        .output()
        .expect("the application runs");
    assert!(output.status.success(), "{output:?}");
    let of = |file: &str, key: &str| -> u64 {
        let text = std::fs::read_to_string(app.path().join(file)).expect("a file of the cgroup");
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("{file} has {key}"))
    };
    let page = rustix::param::page_size() as u64;
    Met { direct_bytes: of("memory.stat", "pgsteal_direct") * page, limit_events: of("memory.events", "max") }
}

fn a_thread_of_the_application_reclaims_ahead() {
    let file = "/data/stream";
    let made = run_in_shell(&format!("dd if=/dev/zero of={file} bs=1M count=240 2>/dev/null; sync"));
    assert!(made, "a file of 240 MiB");
    // The file's page cache is charged to whoever read it first: to nobody that is left.
    run(&["reclaim", root().to_str().expect("UTF-8"), "max", "-q"]);
    let without = stream(file, &[]);
    run(&["reclaim", root().to_str().expect("UTF-8"), "max", "-q"]);
    let with = stream(file, &["10%"]);
    std::fs::remove_file(file).expect("the file");
    // How many events that is depends on the folios of the page cache: one may stand for 2 MiB. Where
    // the emulator is short of CPU time, less is read.
    assert!(without.direct_bytes > 16 * M && without.limit_events >= 8, "the load is one: {without:?}");
    assert!(with.direct_bytes <= without.direct_bytes.max(100 * M) / 50, "{with:?}, without {without:?}");
    assert!(with.limit_events <= without.limit_events.max(20) / 20, "{with:?}, without {without:?}");
}

fn run_in_shell(line: &str) -> bool {
    Command::new("/bin/sh").args(["-c", line]).status().is_ok_and(|status| status.success())
}
