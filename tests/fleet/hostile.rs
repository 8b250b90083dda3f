//! Records that are cut, broken, repeated or large.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use unicode_width::UnicodeWidthStr;

use crate::{all, fleet, lines, records, summed, text};

const BEGIN: &str =
    r#"{"event":"begin","at_usec":0,"version":1,"memctl":"0.1.0","started_usec":1795564800000000}"#;
const START: &str = r#"{"event":"start","cgroup":"/app","at_usec":300,"current_bytes":1048576,"rule":"a"}"#;
const SUMMARY: &str = r#"{"event":"summary","cgroup":"/app","rule":"a","at_usec":900,"requested_bytes":10,"reclaimed_bytes":20,"outrun":3,"cpu_usec":5,"watched_usec":600,"net_saved_bytes":7,"gone":false}"#;

/// Returns the JSON and the errors for a good record and a file with this content.
fn beside_a_good_one(content: &[u8]) -> (Output, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x");
    std::fs::write(&path, content).expect("write a record");
    let output = fleet().arg("--json").args(records(30..=30)).arg(&path).output().expect("fleet runs");
    let said = text(&output.stderr).replace(&path.display().to_string(), "x");
    (output, said)
}

#[test]
fn a_bad_record_is_left_out_and_named() {
    let text = |lines: &[&str]| (lines.join("\n") + "\n").into_bytes();
    let long = format!(r#"{{"event":"start","cgroup":"{}"}}"#, "a".repeat(70_000));
    let (later, future) = (BEGIN.replace("\"version\":1", "\"version\":2"), START.replace("300", "-1"));
    let cases: [(Vec<u8>, &str); 9] = [
        (vec![], "fleet: x: the record is empty\n"),
        (text(&["memctl: watching"]), "fleet: x: not a record: its lines aren't JSON\n"),
        (text(&[r#"{"a":1}"#]), "fleet: x: no watched cgroup in the record\n"),
        (text(&[BEGIN, START, r#"{"event":"x",,}"#]), "fleet: x:3:14: not a line of a record: "),
        (text(&[BEGIN, &future, SUMMARY]), "fleet: x:2:"),
        (text(&[BEGIN, START, r#"{"event":"sample","cgroup":7}"#]), "fleet: x:3:"),
        (text(&[&later, START, SUMMARY]), "fleet: x:1:1: version 2 of the format is newer than 1\n"),
        (text(&[BEGIN, &long, SUMMARY]), "fleet: x:2:65536: the line is longer than 64 KiB\n"),
        (b"{\"event\":\"start\",\"cgroup\":\"\xff\"}\n".to_vec(), "fleet: x:1:"),
    ];
    let good = summed(&records(30..=30));
    for (content, want) in cases {
        let (output, said) = beside_a_good_one(&content);
        assert!(said.starts_with(want) && said.lines().count() == 1, "{said:?} instead of {want:?}");
        assert_eq!(output.status.code(), Some(1), "{want}");
        let lines = lines(&output);
        assert_eq!(all(&lines)["left_out"], 1, "{want}");
        assert_eq!(all(&lines)["reclaimed_bytes"], all(&good)["reclaimed_bytes"], "{want}");
    }
}

#[test]
fn a_line_that_is_cut_off_is_passed_over() {
    let content = [BEGIN, START, SUMMARY, r#"{"event":"end","at_us"#].join("\n");
    let (output, said) = beside_a_good_one(content.as_bytes());
    assert_eq!((output.status.code(), said.as_str()), (Some(0), "fleet: note: x: 1 lines are cut off\n"));
    let good = summed(&records(30..=30));
    let outrun = |lines: &[serde_json::Value]| all(lines)["outrun"].as_u64().expect("a number");
    assert_eq!(outrun(&lines(&output)), outrun(&good) + 3);
}

#[test]
fn the_same_watch_counts_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let [whole, other] = [&records(30..=30)[0], &records(31..=31)[0]];
    let content = std::fs::read_to_string(whole).expect("a record");
    let (copy, prefix, longer) =
        (folder.path().join("copy"), folder.path().join("prefix"), folder.path().join("longer"));
    std::fs::write(&copy, &content).expect("write a record");
    let some: Vec<&str> = content.lines().take(9).collect();
    std::fs::write(&prefix, some.join("\n")).expect("write a record");
    std::fs::write(&longer, content.clone() + &std::fs::read_to_string(other).expect("a record"))
        .expect("write a record");
    let once = summed(std::slice::from_ref(whole));
    for again in [whole, &copy, &prefix] {
        let output = fleet().arg("--json").args([whole, again]).output().expect("fleet runs");
        let want = format!(
            "fleet: note: {}: has a watch of {}, which counts once\n",
            again.display(),
            whole.display()
        );
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), want));
        assert_eq!(all(&lines(&output))["reclaimed_bytes"], all(&once)["reclaimed_bytes"]);
    }
    // The watch after it, in the same file, counts.
    let output = fleet().arg("--json").args([whole, &longer]).output().expect("fleet runs");
    let both = summed(&[whole.clone(), other.clone()]);
    assert_eq!(all(&lines(&output))["reclaimed_bytes"], all(&both)["reclaimed_bytes"]);
    // Neither does a watch count in both groups.
    let output = fleet().arg(whole).arg("--versus").arg(&copy).output().expect("fleet runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).ends_with("fleet: no record is left\n"), "{output:?}");
}

#[test]
fn only_the_last_watch_of_a_node_saves_memory_and_none_for_cgroups_that_are_gone() {
    let saved = |lines: &[&str]| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        std::fs::write(&path, lines.join("\n")).expect("write a record");
        let lines = summed(&[path]);
        (all(&lines)["net_saved_bytes"].as_i64(), all(&lines)["reclaimed_bytes"].as_u64())
    };
    let (later, gone) =
        (BEGIN.replace("000000}", "000001}"), r#"{"event":"gone","cgroup":"/app","at_usec":800}"#);
    assert_eq!(saved(&[BEGIN, START, SUMMARY]), (Some(7), Some(20)));
    assert_eq!(saved(&[BEGIN, START, SUMMARY, &later, START, SUMMARY]), (Some(7), Some(40)));
    assert_eq!(saved(&[BEGIN, START, SUMMARY, &later, START]), (None, Some(20)));
    assert_eq!(saved(&[BEGIN, START, gone, SUMMARY]), (None, Some(20)));
    // The name is used again before the summary of the first: that one is gone, the other saves.
    assert_eq!(saved(&[BEGIN, START, gone, START, SUMMARY, SUMMARY]), (Some(7), Some(40)));
}

/// A summary may come once the name is used again, since a write was in progress.
#[test]
fn two_cgroups_of_one_name_keep_their_own_samples() {
    let sample = |refaulted: u32| {
        format!(
            r#"{{"event":"sample","cgroup":"/app","at_usec":500,"current_bytes":1,"refaulted_bytes":{refaulted}}}"#
        )
    };
    let gone = r#"{"event":"gone","cgroup":"/app","at_usec":600}"#;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x");
    let (first, second) = (sample(40), sample(2));
    let content = [BEGIN, START, &first, gone, START, &second, SUMMARY, SUMMARY].join("\n");
    std::fs::write(&path, content).expect("write a record");
    let lines = summed(&[path]);
    assert_eq!((&all(&lines)["refaulted_bytes"], &all(&lines)["cgroups"]), (&42.into(), &2.into()));
}

/// 100,000 pods one after the other, in a record of 30 MB: what is kept is that of one.
#[test]
fn memory_does_not_grow_with_the_record() {
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -v 24576 && exec \"$0\" --json -"])
        .arg(fleet().get_program())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("fleet runs");
    let mut input = child.stdin.take().expect("a pipe");
    let writer = std::thread::spawn(move || {
        let _ = writeln!(input, "{BEGIN}");
        for number in 0..100_000 {
            let name = format!("/kubepods.slice/pod-{number:064}");
            if writeln!(input, "{}\n{}", START.replace("/app", &name), SUMMARY.replace("/app", &name))
                .is_err()
            {
                break;
            }
        }
    });
    let output = child.wait_with_output().expect("fleet ends");
    writer.join().expect("the record is written");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(all(&lines(&output))["outrun"], 300_000);
}

#[test]
fn numbers_and_names_that_are_too_large_break_nothing() {
    let huge = SUMMARY.replace(":20", ":18446744073709551615").replace(":7", ":9223372036854775807");
    let names = ["b".repeat(5000), "漢字".repeat(40), "\\u001b[31m\\u0007red\\n".into(), "c".into()];
    let mut content = vec![BEGIN.to_owned()];
    for name in &names {
        content.extend([START, &huge].map(|line| line.replace("\"a\"", &format!("\"{name}\""))));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x".repeat(200));
    std::fs::write(&path, content.join("\n")).expect("write a record");
    let dry = records(1..=1);
    for versus in [false, true] {
        let mut command = fleet();
        command.arg(&path).args(versus.then_some("--versus")).args(&dry);
        let output = command.output().expect("fleet runs");
        assert!(output.status.success(), "{output:?}");
        let shown = text(&output.stdout);
        assert!(shown.lines().all(|line| line.width() <= 80), "{shown}");
        assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
        assert!(versus || shown.contains("16E"), "{shown}");
    }
    // More rules than are kept.
    let many: String =
        (0..10_001).map(|number| SUMMARY.replace("\"a\"", &format!("\"{number}\"")) + "\n").collect();
    std::fs::write(&path, format!("{BEGIN}\n{many}")).expect("write a record");
    let output = fleet().arg(&path).output().expect("fleet runs");
    let want = format!("fleet: {}:10002:1: too many names of rules or namespaces\n", path.display());
    assert!(text(&output.stderr).starts_with(&want), "{output:?}");
}

#[test]
fn a_node_without_cgroups_is_a_record() {
    let (output, said) = beside_a_good_one(BEGIN.as_bytes());
    assert_eq!((output.status.code(), said.as_str()), (Some(0), ""));
    assert_eq!(all(&lines(&output))["records"], 2);
}

#[test]
fn usage_and_files_that_cannot_be_read() {
    let run = |args: &[&str]| fleet().args(args).output().expect("fleet runs");
    assert_eq!(run(&[]).status.code(), Some(2));
    assert_eq!(run(&["--versus", "x"]).status.code(), Some(2));
    for (path, why) in [("/none/x", "No such file or directory"), ("/", "Is a directory")] {
        let output = run(&[path]);
        let want = format!("fleet: {path}: {why}\nfleet: no record is left\n");
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(1), want));
    }
}
