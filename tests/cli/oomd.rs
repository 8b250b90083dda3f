//! systemd-oomd beside memctl: the cgroups that it kills, and memctl's messages about it.

use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::environment::{Case, list};
use crate::harness::{memctl, parse, run};
use crate::systemd::install;
use crate::watch::{after, begin, of, parsed, signal};

pub fn cases() -> Vec<Case> {
    list![
        "systemd" =>
            who_is_monitored_is_told,
            who_cannot_be_asked_is_taken_for_monitored,
            the_service_may_ask,
            the_one_that_thrashes_is_killed
    ]
}

const ROUND: &str = include_str!("../vm/oomd-round");

/// Runs a command to its end; it must succeed.
#[track_caller]
fn systemctl(words: &[&str]) {
    let ran = Command::new("systemctl").args(words).stdin(Stdio::null()).output().expect("systemctl runs");
    assert!(ran.status.success(), "{words:?}: {}", String::from_utf8_lossy(&ran.stderr));
}

/// systemd-oomd, and a slice that it monitors, with a service in it.
struct Oomd;

impl Oomd {
    fn start(slice: &str) -> Self {
        std::fs::write("/run/systemd/system/t.slice", format!("[Slice]\n{slice}")).expect("write the unit");
        systemctl(&["daemon-reload"]);
        systemctl(&["start", "systemd-oomd.socket", "systemd-oomd.service"]);
        let words = ["-q", "--slice=t.slice", "--unit=a.service", "sleep", "infinity"];
        assert!(Command::new("systemd-run").args(words).status().expect("systemd-run runs").success());
        Self
    }
}

impl Drop for Oomd {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("/usr/bin/oomctl").stderr(Stdio::null()).status();
        let units = ["a.service", "t.slice", "systemd-oomd.socket", "systemd-oomd.service"];
        let _ = Command::new("systemctl").arg("stop").args(units).status();
        let _ = std::fs::remove_file("/run/systemd/system/t.slice");
        let _ = Command::new("systemctl").arg("daemon-reload").status();
    }
}

/// Returns the states and texts of `check` about killers.
fn checked(word: &str) -> Vec<(String, String)> {
    let told = parse(&run(&["check", word, "--json"]).stdout);
    let checks = told["checks"].as_array().expect("a list").iter().filter(|check| check["check"] == "oomd");
    let text = |check: &serde_json::Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
    checks.map(|check| (text(check, "state"), text(check, "says") + &text(check, "todo"))).collect()
}

/// Returns the standard error of a watch, and its events.
fn watched(words: &[&str]) -> (String, crate::watch::Events) {
    let child = begin(&[words, &["--json"]].concat());
    after(6000);
    signal(&child, Signal::TERM);
    let output = child.wait_with_output().expect("memctl ends");
    (String::from_utf8_lossy(&output.stderr).into_owned(), parsed(&String::from_utf8_lossy(&output.stdout)))
}

fn who_is_monitored_is_told() {
    assert_eq!(checked("system.slice")[0].0, "ok", "none runs");
    let monitored =
        "ManagedOOMMemoryPressure=kill\nManagedOOMMemoryPressureLimit=7.5%\nManagedOOMSwap=kill\n";
    let _oomd = Oomd::start(monitored);
    for word in ["a.service", "t.slice"] {
        let told = checked(word);
        assert!(
            matches!(&told[..], [(note, one), (too, two)] if note == "note" && too == "note"
            && one.contains("monitors /t.slice: while its memory full avg10 is over 7.50%")
            && one.contains("above 3.75%") && one.contains("ManagedOOMPreference=avoid")
            && two.contains("90.00%") && two.contains("above 10.00%")),
            "{told:?}"
        );
    }
    let told = checked("system.slice");
    assert!(
        matches!(&told[..], [(ok, words)] if ok == "ok" && words.contains("monitors no cgroup")),
        "{told:?}"
    );
    // A mistake that fills swap is reported once, and only where it can occur.
    let (said, events) = watched(&["a.service", "--keep", "20M", "--swap-free", "10%"]);
    assert_eq!(said.matches("kills the largest user of swap").count(), 1, "{said}");
    assert!(of(&events, "summary")[0]["guards_blind"].is_null(), "{events:?}");
    let (said, _) = watched(&["a.service", "--keep", "20M", "--swap-free", "11%"]);
    assert_eq!(said, "");
    let (said, _) = watched(&["system.slice", "--keep", "900M", "--swap-free", "5%"]);
    assert_eq!(said, "");
}

fn who_cannot_be_asked_is_taken_for_monitored() {
    let _oomd = Oomd::start("");
    let mounted = Command::new("mount").args(["--bind", "/dev/null", "/usr/bin/oomctl"]).status();
    assert!(mounted.expect("mount runs").success());
    let told = checked("a.service");
    assert!(
        matches!(&told[..], [(unknown, words)] if unknown == "unknown"
        && words.contains("systemd-oomd runs, but can't be queried: oomctl: permission denied")
        && words.contains("2.50%")),
        "{told:?}"
    );
    let (said, events) = watched(&["a.service", "--pressure", "0.1%"]);
    assert_eq!(said.matches("can't check for OOM killers: systemd-oomd runs").count(), 1, "{said}");
    for event in ["sample", "summary"] {
        let last = of(&events, event).last().map(|event| event["guards_blind"].to_string());
        assert_eq!(last.as_deref(), Some("[\"above\"]"), "{events:?}");
    }
}

/// The unit that comes with memctl blocks only features that memctl doesn't need.
fn the_service_may_ask() {
    const RULES: &str = "[[rule]]\nmatch = 'a.service'\nkeep = '20M'\nswap-free = '10%'\n";
    let unit = include_str!("../../contrib/systemd/memctl-watch.service");
    let _oomd = Oomd::start("ManagedOOMMemoryPressure=kill\nManagedOOMSwap=kill\n");
    install("memctl-watch.service", unit, "watch.toml", RULES);
    systemctl(&["start", "memctl-watch.service"]);
    after(6000);
    systemctl(&["stop", "memctl-watch.service"]);
    let said = Command::new("journalctl").args(["--unit=memctl-watch.service", "--output=cat"]).output();
    let said = String::from_utf8_lossy(&said.expect("journalctl runs").stdout).into_owned();
    assert!(
        said.contains("where systemd-oomd kills the largest user of swap") && !said.contains("can't check"),
        "{said}"
    );
}

/// Runs one round; returns the cgroup that systemd-oomd killed, the number of memctl's holds, and
/// the whole line.
fn round(mode: &str) -> (String, u32, String) {
    let script = Path::new("/run/oomd-round");
    std::fs::write(script, ROUND).expect("write the script");
    let program = memctl([""; 0]).get_program().to_owned();
    let ran = Command::new("sh").arg(script).args(["5", mode]).arg(program).output().expect("sh runs");
    let line = String::from_utf8_lossy(&ran.stdout).trim().to_owned();
    println!("{line}");
    let rest = line.strip_prefix(&format!("5 {mode}: ")).unwrap_or_else(|| panic!("{line}: {ran:?}"));
    let victim = rest.split(' ').next().unwrap_or_default().to_owned();
    let held = rest.split("held ").nth(1).and_then(|rest| rest.split([',', ';']).next()?.parse().ok());
    (victim, held.unwrap_or_else(|| panic!("{line}")), line)
}

/// One round each without memctl, with --keep, --pressure and --headroom; `bench-oomd` has more.
fn the_one_that_thrashes_is_killed() {
    let mut void = round("none");
    if void.0 != "b" {
        println!("void: without memctl the one that thrashes was not killed; once more");
        void = round("none");
    }
    assert_eq!(
        void.0, "b",
        "without memctl the one that thrashes is killed, or nothing is shown: {}",
        void.2
    );
    for mode in ["keep", "pressure", "headroom"] {
        let (victim, held, line) = round(mode);
        assert_eq!(victim, "b", "{line}");
        assert_eq!(held > 0, mode != "headroom", "{line}");
        // With the thrashing cgroup the pressure ends, and so does the guard.
        assert!(mode != "keep" || line.contains("goes on after"), "{line}");
    }
    Command::new("systemctl")
        .args(["stop", "systemd-oomd.socket", "systemd-oomd.service"])
        .status()
        .expect("systemctl");
    let _ = std::fs::remove_dir_all("/data/oomd");
}
