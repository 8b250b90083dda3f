//! The command `fleet` (examples/fleet), on records of real watches that tests/vm/fleet-records
//! made, and on records that no watch writes.

#![allow(clippy::disallowed_methods, reason = "reads records, which are UTF-8")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

mod hostile;
mod sums;

/// Returns a command that runs `fleet`, which cargo builds beside the program.
fn fleet() -> Command {
    let path = PathBuf::from(env!("CARGO_BIN_EXE_memctl")).with_file_name("examples").join("fleet");
    assert!(path.exists(), "{}: missing: cargo build --example fleet", path.display());
    let mut command = Command::new(path);
    command.stdin(Stdio::null());
    command
}

/// Returns the text of a stream.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs `fleet --json` and returns its lines. It must succeed and report nothing.
fn summed(paths: &[PathBuf]) -> Vec<Value> {
    let output = fleet().arg("--json").args(paths).output().expect("fleet runs");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    lines(&output)
}

/// Returns the lines of JSON in an output.
fn lines(output: &Output) -> Vec<Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Returns the line of all cgroups.
fn all(lines: &[Value]) -> &Value {
    lines.iter().find(|line| line["sum"] == "all").expect("the sum of all cgroups")
}

/// Returns the records of real watches with these numbers.
fn records(numbers: std::ops::RangeInclusive<u32>) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fleet/records");
    numbers.map(|number| folder.join(format!("{number:02}.jsonl"))).collect()
}

/// Returns the events of a record.
fn events(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("a record");
    text.lines().map(|line| serde_json::from_str(line).expect("a line")).collect()
}

/// Writes events as a record.
fn write(path: &Path, events: &[Value]) {
    let lines: Vec<String> = events.iter().map(Value::to_string).collect();
    std::fs::write(path, lines.join("\n")).expect("write a record");
}
