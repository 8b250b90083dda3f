//! `memctl plot`.

use std::path::PathBuf;

use crate::environment::{Case, list};
use crate::harness::{M, SmallDisk, assert_fails, run};
use crate::watch::{limited, parsed};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "" => records_of_all_versions, what_is_no_record, one_of_several;
        "guest prompt" => a_watch_is_recorded_and_drawn, a_full_disk_leaves_the_old_picture
    ]
}

const RECORDS: [(&str, &str); 2] = [
    ("version 0", include_str!("../records/version-0.jsonl")),
    ("version 1", include_str!("../records/version-1.jsonl")),
];

/// A folder for a record and its picture.
struct Folder(tempfile::TempDir);

impl Folder {
    fn with(record: &str) -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder"));
        std::fs::write(folder.record(), record).expect("write the record");
        folder
    }

    fn record(&self) -> PathBuf {
        self.0.path().join("record.json")
    }

    fn picture(&self) -> PathBuf {
        self.0.path().join("picture.svg")
    }

    fn words(&self) -> [String; 2] {
        [self.record(), self.picture()].map(|path| path.display().to_string())
    }

    /// Plots the record, and checks the text on standard error.
    fn drawn(&self, says: &str) -> String {
        let [record, picture] = self.words();
        let ran = run(&["plot", &record, "-o", &picture]);
        assert_eq!((ran.status, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "", says));
        std::fs::read_to_string(self.picture()).expect("the picture")
    }
}

fn records_of_all_versions() {
    for (version, record) in RECORDS {
        let svg = Folder::with(record).drawn("");
        assert!(svg.starts_with("<svg") && svg.contains("memctl watch of "), "{version}: {svg}");
        // A full disk truncates the record anywhere.
        let cut = Folder::with(&record[..record.len() - 30]);
        let [name, _] = cut.words();
        let svg = cut.drawn(&format!("memctl: {name}: the last line is cut off; drawing the lines before\n"));
        assert!(svg.contains("usage"), "{version}: {svg}");
    }
    let dropped = "{\"event\":\"dropped\",\"at_usec\":2000000,\"dropped_events\":3}\n";
    let torn = "{\"event\":\"sample\",\"cgroup\":\"/app\",\"at_u\n";
    let torn = Folder::with(&RECORDS[1].1.replacen('\n', &format!("\n{torn}{dropped}"), 1));
    let [name, _] = torn.words();
    torn.drawn(&format!(
        "memctl: {name}: 1 line cut off; drawing the others\n\
         memctl: {name}: 3 events missing: the watch had to drop them\n"
    ));
    let mixed = Folder::with(&format!("memctl: a note\n/app  held: nothing\n{}", RECORDS[1].1));
    let [name, _] = mixed.words();
    mixed.drawn(&format!("memctl: {name}: 2 lines of other text skipped\n"));
    let newer = RECORDS[1].1.replace("\"version\":1", "\"version\":9");
    let newer = Folder::with(&newer);
    let [name, _] = newer.words();
    newer.drawn(&format!("memctl: {name}: record version 9 is newer than 1; drawing only the known parts\n"));
    let twice = Folder::with(&RECORDS[1].1.repeat(2));
    let [name, _] = twice.words();
    twice.drawn(&format!("memctl: {name}: the record has 2 watches; drawing the last\n"));
}

fn what_is_no_record() {
    let none = Folder::with("CGROUP  REQUESTED\n/app  10M\n");
    let [record, picture] = none.words();
    let ran = assert_fails(
        &["plot", &record, "-o", &picture],
        1,
        &format!("memctl: {record}: not a record: its lines aren't JSON"),
    );
    assert!(ran.stderr.contains("hint: record a watch with memctl watch --json"), "{}", ran.stderr);
    let empty = Folder::with("");
    let [record, _] = empty.words();
    assert_fails(&["plot", &record, "-o", &picture], 1, &format!("memctl: {record}: the record is empty"));
    assert!(!none.picture().exists(), "what can't be drawn changes nothing");
    assert_fails(&["plot", "/no/such", "-o", &picture], 1, "memctl: /no/such: no such file or directory");
    assert_fails(&["plot", &record, "-o", "run.png"], 2, "memctl: -o run.png: only SVG is supported");
    let whole = Folder::with(RECORDS[0].1);
    let [record, _] = whole.words();
    let line = "memctl: /no/such/picture.svg: no such file or directory";
    assert_fails(&["plot", &record, "-o", "/no/such/picture.svg"], 1, line);
}

fn a_full_disk_leaves_the_old_picture() {
    let (folder, disk) = (Folder::with(RECORDS[0].1), SmallDisk::new());
    let [record, _] = folder.words();
    let picture = disk.path().join("old.svg");
    std::fs::write(&picture, "old").expect("a picture");
    disk.fill();
    let picture_word = picture.display().to_string();
    let line = format!("memctl: {picture_word}: no space left on device");
    assert_fails(&["plot", &record, "-o", &picture_word], 1, &line);
    assert_eq!(std::fs::read(&picture).expect("it is there"), b"old");
    assert_eq!(std::fs::read_dir(disk.path()).expect("a folder").count(), 2, "and the filler");
}

fn one_of_several() {
    let folder = Folder::with(RECORDS[1].1);
    let [record, _] = folder.words();
    let ran = run(&["plot", &record, "-o", "-", "--cgroup", "db"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    assert!(
        ran.stdout.contains("memctl watch of /db") && ran.stdout.contains("by rule press"),
        "{}",
        ran.stdout
    );
    let ran = assert_fails(
        &["plot", &record, "-o", "-", "--cgroup", "web"],
        1,
        "memctl: --cgroup web: not in the record",
    );
    assert!(ran.stderr.ends_with("hint: the record has /app, /db\n"), "{}", ran.stderr);
    // One in a pod is called by its names.
    let names = r#""cgroup":"/db","namespace":"batch","pod":"db-0","container":"db""#;
    let folder = Folder::with(&RECORDS[1].1.replace(r#""cgroup":"/db""#, names));
    let [record, _] = folder.words();
    for word in ["db", "/db", "batch/db-0/db", "pod:batch/db-0/db"] {
        let ran = run(&["plot", &record, "-o", "-", "--cgroup", word]);
        assert!(
            ran.stdout.contains("memctl watch of batch/db-0/db, "),
            "{word}: {}{}",
            ran.stderr,
            ran.stdout
        );
    }
    let ran = run(&["plot", &record, "-o", "-", "--cgroup", "web"]);
    assert!(ran.stderr.ends_with("hint: the record has /app, batch/db-0/db\n"), "{}", ran.stderr);
}

fn a_watch_is_recorded_and_drawn() {
    let app = limited("app", 64 * M);
    app.uses(&Work::Stream(200 * M));
    let ran = run(&["watch", "app", "--headroom", "20M", "--json", "--duration", "7s"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    let samples = parsed(&ran.stdout).iter().filter(|event| event["event"] == "sample").count();
    assert!((3..=6).contains(&samples), "{samples}: {}", ran.stdout);
    let svg = Folder::with(&ran.stdout).drawn("");
    for wanted in ["memctl watch of /app, 7.", "usage", "limit", "reclaimed", "refaulted", "PSI some", "MiB"]
    {
        assert!(svg.contains(wanted), "{wanted}: {svg}");
    }
}
