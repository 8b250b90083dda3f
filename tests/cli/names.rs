//! Names that are not UTF-8, of cgroups and of unrelated mounts, which must not disturb other work.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::mount::{MountFlags, UnmountFlags};
use serde_json::Value;

use crate::environment::{Case, list};
use crate::harness::{Cgroup, M, assert_close, number, parse, root, run, run_bytes};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "guest" =>
            a_mount_of_any_name_is_in_nobodys_way,
            a_cgroup_of_any_name_is_shown,
            no_name_disarms_a_glob;
        "guest reclaim" => a_cgroup_of_any_name_is_reclaimed_from, cgroups_that_read_alike_stay_apart;
        "guest prompt" => a_cgroup_of_any_name_is_watched
    ]
}

const ODD: &[u8] = b"j\xe9b";
/// Displayed form of the name, and percent-encoded form of its path.
const SHOWN: &str = "/j\u{fffd}b";
const PATH_BYTES: &str = "/sys/fs/cgroup/j%E9b";

/// A tmpfs on a directory with any name.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn new(name: &[u8]) -> Self {
        let path = PathBuf::from("/tmp").join(OsStr::from_bytes(name));
        std::fs::create_dir_all(&path).expect("a directory");
        rustix::mount::mount("tmpfs", &path, "tmpfs", MountFlags::empty(), c"").expect("mount it");
        Self(path)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, UnmountFlags::DETACH).expect("unmount it");
        std::fs::remove_dir(&self.0).expect("remove it");
    }
}

fn a_mount_of_any_name_is_in_nobodys_way() {
    let app = Cgroup::new("app");
    let names =
        [&b"caf\xe9"[..], b"\xff\xfe", b"a b\tc\\d - cgroup2", b"\xf0\x9f\x92", b"x - cgroup2 rw,\xe9"];
    let mounts = names.map(Tmpfs::new);
    for words in [
        &["stat", "app"][..],
        &["stat"],
        &["stat", "-r", "--json"],
        &["stat", "ap*"],
        &["stat", "self"],
        &["stat", "/sys/fs/cgroup/app"],
    ] {
        let ran = run(words);
        assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{words:?}");
    }
    let ran = run(&["stat", "nope"]);
    assert_eq!((ran.status, ran.stderr.lines().next()), (Some(1), Some("memctl: nope: no such cgroup")));
    // Not a cgroup, with a name that isn't text either.
    let ran = run_bytes(&[b"stat", b"/tmp/caf\xe9"]);
    assert_eq!(
        (ran.status, ran.stderr.lines().next()),
        (Some(1), Some("memctl: /tmp/caf\u{fffd}: not a cgroup"))
    );
    drop((mounts, app));
}

fn a_cgroup_of_any_name_is_shown() {
    let odd = Cgroup::of_bytes(ODD);
    odd.write("cgroup.subtree_control", "+memory");
    let inner = odd.path().join("inner");
    std::fs::create_dir(&inner).expect("a cgroup");
    let mut child = Command::new("/bin/sleep").arg("300").stdin(Stdio::null()).spawn().expect("sleep");
    std::fs::write(inner.join("cgroup.procs"), child.id().to_string()).expect("enter it");

    let path = [root().as_os_str().as_bytes(), b"/", ODD].concat();
    let process = format!("pid:{}", child.id());
    for (word, name, path_bytes) in [
        (ODD, SHOWN, PATH_BYTES),
        (&path, SHOWN, PATH_BYTES),
        (b"j\xe9*", SHOWN, PATH_BYTES),
        (b"j?b", SHOWN, PATH_BYTES),
        (b"j*b", SHOWN, PATH_BYTES),
        (process.as_bytes(), "/j\u{fffd}b/inner", "/sys/fs/cgroup/j%E9b/inner"),
        (b"j\xe9b/*", "/j\u{fffd}b/inner", "/sys/fs/cgroup/j%E9b/inner"),
    ] {
        let ran = run_bytes(&[b"stat", b"--json", word]);
        let shown = String::from_utf8_lossy(word);
        assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{shown}");
        let line = parse(&ran.stdout);
        assert_eq!((&line["cgroup"], &line["path_bytes"]), (&name.into(), &path_bytes.into()), "{shown}");
    }
    // A name that is valid text has no such key.
    let line = parse(&run(&["stat", "/", "--json"]).stdout);
    assert!(line.get("path_bytes").is_none(), "{line}");

    let table = run(&["stat", "-r"]);
    assert_eq!((table.status, table.stderr.as_str()), (Some(0), ""));
    assert!(table.stdout.contains(SHOWN), "{}", table.stdout);
    let tree = run(&["stat", "-r", "--json"]).stdout;
    let lines: Vec<Value> = tree.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(lines.iter().any(|line| line["path_bytes"] == "/sys/fs/cgroup/j%E9b/inner"), "{tree}");
    let ran = run_bytes(&[b"stat", b"j\xe8b"]);
    assert_eq!(
        (ran.status, ran.stderr.lines().next()),
        (Some(1), Some("memctl: j\u{fffd}b: no such cgroup"))
    );
    // The displayed form of such a name can't be typed.
    assert!(!ran.stderr.contains("similar names"), "{}", ran.stderr);
    child.kill().and_then(|()| child.wait()).expect("it ends");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while std::fs::remove_dir(&inner).is_err() && std::time::Instant::now() < until {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Returns the names of the cgroups in lines of JSON.
fn all(ran: &crate::harness::Finished) -> Vec<String> {
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    let names = ran
        .stdout
        .split_inclusive('\n')
        .map(|line| parse(line)["cgroup"].as_str().expect("a name").to_owned());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

fn no_name_disarms_a_glob() {
    let batch = Cgroup::new("batch");
    let (_one, _two) = (batch.child("*"), batch.child("dbus-x.service"));
    let names = ["/batch/*", "/batch/dbus-x.service"];
    for glob in ["batch/*", "/batch/*"] {
        assert_eq!(all(&run(&["stat", "--json", glob])), names, "{glob}");
    }
    // The path of a cgroup, and the character itself.
    for word in ["/sys/fs/cgroup/batch/*", "batch/[*]"] {
        assert_eq!(all(&run(&["stat", "--json", word])), names[..1], "{word}");
    }
    let rules = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(rules.path(), "[[rule]]\nmatch = 'batch/*'\nkeep = '1G'\n").expect("write the rules");
    let ran = run(&["check", "--config", &rules.path().display().to_string(), "--json"]);
    let checked = parse(&ran.stdout);
    let cgroups = checked["rules"][0]["cgroups"].as_array().expect("a list");
    assert_eq!(cgroups.iter().map(|one| &one["cgroup"]).collect::<Vec<_>>(), names, "{checked}");
}

fn a_cgroup_of_any_name_is_reclaimed_from() {
    let odd = Cgroup::of_bytes(ODD);
    odd.uses(&Work::File(40 * M));
    let ran = run_bytes(&[b"reclaim", ODD, b"8M", b"--json"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    let report = parse(&ran.stdout);
    assert_eq!((&report["cgroup"], &report["path_bytes"]), (&SHOWN.into(), &PATH_BYTES.into()), "{report}");
    assert_eq!(report["path"], "/sys/fs/cgroup/j\u{fffd}b");
    assert_close("reclaimed", number(&report, "reclaimed_bytes") as u64, 8 * M);
    for words in [&[&b"reclaim"[..], ODD, b"4M", b"--dry-run", b"--json"][..], &[b"check", ODD, b"--json"]] {
        let ran = run_bytes(words);
        assert_eq!(ran.status, Some(0), "{}", ran.stderr);
        assert_eq!(parse(&ran.stdout)["path_bytes"], PATH_BYTES, "{}", ran.stdout);
    }
    let ran = run_bytes(&[b"reclaim", b"j?b", b"4M"]);
    assert!(ran.status == Some(0) && ran.stdout.contains(SHOWN), "{}{}", ran.stdout, ran.stderr);
}

fn cgroups_that_read_alike_stay_apart() {
    let (one, other) = (Cgroup::of_bytes(ODD), Cgroup::of_bytes(b"j\xe8b"));
    one.uses(&Work::File(30 * M));
    other.uses(&Work::File(30 * M));
    let before = other.current();
    let ran = run_bytes(&[b"reclaim", ODD, b"8M", b"-q"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    other.assert_untouched(before);
    let ran = run(&["stat", "j*", "-i", "100ms", "-n", "2", "--json"]);
    let lines: Vec<Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of = |bytes: &str| lines.iter().filter(|line| line["path_bytes"] == bytes).count();
    assert_eq!((of(PATH_BYTES), of("/sys/fs/cgroup/j%E8b")), (2, 2), "{}", ran.stdout);
}

fn a_cgroup_of_any_name_is_watched() {
    let odd = Cgroup::of_bytes(ODD);
    odd.uses(&Work::File(40 * M));
    let folder = tempfile::tempdir().expect("a folder");
    let (rules, record) = (folder.path().join("watch.toml"), folder.path().join("record"));
    std::fs::write(&rules, "[[rule]]\nmatch = 'j?b'\nkeep = '20M'\n").expect("write the rules");
    let rules = rules.display().to_string();
    for words in [
        &[&b"watch"[..], ODD, b"--keep", b"20M", b"--duration", b"7s", b"--json"][..],
        &[b"watch", b"--config", rules.as_bytes(), b"--duration", b"1s", b"--json"],
    ] {
        let ran = run_bytes(words);
        assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
        let events: Vec<Value> =
            ran.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        for event in ["start", "summary"] {
            let told = events.iter().find(|one| one["event"] == event).expect("it is told");
            assert_eq!((&told["cgroup"], &told["path_bytes"]), (&SHOWN.into(), &PATH_BYTES.into()), "{told}");
        }
        std::fs::write(&record, &ran.stdout).expect("write the record");
    }
    assert!(odd.current() <= 21 * M, "{}", odd.current());
    let record = record.display().to_string();
    let ran = run_bytes(&[b"plot", record.as_bytes(), b"-o", b"-", b"--cgroup", &[b"/", ODD].concat()]);
    assert!(ran.status == Some(0) && ran.stdout.contains(SHOWN), "{}", ran.stderr);
}
