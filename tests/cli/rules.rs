//! Rules for a host: `memctl watch --config` and `memctl check --config`.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Child;

use rustix::process::Signal;
use serde_json::Value;

use crate::environment::{Case, list};
use crate::harness::{Cgroup, Finished, M, assert_fails, number, parse, run};
use crate::watch::{after, begin, events, limited, of, output_of, parsed, signal, until};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "" => mistakes_are_told_with_their_place, a_file_stands_alone, a_pipe_is_not_followed;
        "guest reclaim" => the_most_specific_rule_takes_it;
        "guest prompt" => a_host_under_three_rules, a_file_that_is_replaced_is_followed, a_dry_run_of_a_host,
            names_that_come_later
    ]
}

/// A file of rules, removed with its folder.
struct Rules {
    folder: tempfile::TempDir,
}

impl Rules {
    fn new(text: &str) -> Self {
        let rules = Self { folder: tempfile::tempdir().expect("a folder") };
        rules.write(text);
        rules
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path(), text).expect("write the rules");
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("watch.toml")
    }

    fn word(&self) -> String {
        self.path().display().to_string()
    }
}

fn mistakes_are_told_with_their_place() {
    let rules = Rules::new("[[rule]]\nmatch = \"app\"\nheadrom = \"10%\"\n");
    let word = rules.word();
    for verb in ["watch", "check"] {
        let line = format!("memctl: {word}:3:1: unknown key \"headrom\"");
        let ran = assert_fails(&[verb, "--config", &word], 1, &line);
        assert!(ran.stderr.ends_with("hint: similar key: headroom\n"), "{}", ran.stderr);
    }
    let checked = parse(&run(&["check", "--config", &word, "--json"]).stdout);
    assert_eq!((&checked["works"], &checked["config"]), (&false.into(), &word.as_str().into()), "{checked}");
    assert!(
        checked["error"].as_str().is_some_and(|why| why.ends_with("unknown key \"headrom\"")),
        "{checked}"
    );
    rules.write("version = 1\n[[rule]]\nmatch = \"a[\"\nkeep = \"1G\"\n");
    let line = format!("memctl: {word}:2:1: \"a[\": malformed glob: unclosed character class; missing ']'");
    assert_fails(&["check", "--config", &word], 1, &line);
    std::fs::write(rules.path(), b"version = 1\n# \xff\n").expect("write the rules");
    assert_fails(&["check", "--config", &word], 1, &format!("memctl: {word}:2:3: not UTF-8 text"));
    assert_fails(
        &["watch", "--config", "/no/such.toml"],
        1,
        "memctl: /no/such.toml: no such file or directory",
    );
    assert_fails(&["watch", "--config", "/"], 1, "memctl: /: is a directory");
}

fn a_file_stands_alone() {
    for other in [&["app"][..], &["--headroom", "10%"], &["--floor", "1G"], &["--no-lock"]] {
        let words = [&["watch", "--config", "watch.toml"], other].concat();
        let ran = run(&words);
        assert_eq!(ran.status, Some(2), "{words:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("--config"), "{}", ran.stderr);
    }
    let ran = run(&["check", "app", "--config", "watch.toml"]);
    assert_eq!(ran.status, Some(2), "{}", ran.stderr);
}

fn the_most_specific_rule_takes_it() {
    let (one, two, three) = (limited("web-1", 64 * M), limited("web-2", 64 * M), Cgroup::new("web-none"));
    let rules = Rules::new(
        "[[rule]]\nname = 'all'\nmatch = '**'\nexclude = 'web-none'\nkeep = '1G'\n\
         [[rule]]\nname = 'web'\nmatch = 'web-*'\nheadroom = '10%'\n\
         [[rule]]\nname = 'two'\nmatch = 'web-2'\nleave-alone = true\n\
         [[rule]]\nmatch = 'not-there'\npressure = 0.1\n",
    );
    let ran = run(&["check", "--config", &rules.word(), "--json"]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let checked = parse(&ran.stdout);
    let taken = |rule: usize| -> Vec<&str> {
        let cgroups = checked["rules"][rule]["cgroups"].as_array().expect("a list");
        cgroups.iter().filter_map(|one| one["cgroup"].as_str()).collect()
    };
    assert!(!taken(0).iter().any(|name| name.starts_with("/web")), "{checked}");
    assert_eq!((taken(1), taken(2)), (vec!["/web-1", "/web-none"], vec!["/web-2"]), "{checked}");
    assert_eq!(taken(3), Vec::<&str>::new());
    assert_eq!(checked["rules"][1]["line"], 6);
    let none = &checked["rules"][1]["cgroups"][1];
    assert!(
        none["watched"] == false && none["why"].as_str().is_some_and(|why| why.contains("no limit")),
        "{none}"
    );
    let ran = run(&["check", "--config", &rules.word()]);
    let ends = "web (line 6): headroom 10%\n  /web-1\n  /web-none  not watched yet: no limit: memory.high and \
         memory.max are both max\ntwo (line 10): leave-alone\n  /web-2\nnot-there (line 14): pressure 0.1%\n  \
         no cgroup matches now\n";
    assert!(ran.stdout.contains(ends), "{}", ran.stdout);
    drop((one, two, three));
}

fn reloads(events: &[Value]) -> Vec<&Value> {
    of(events, "reload")
}

/// Returns the cgroups whose watch started, and the rule of each.
fn started(events: &[Value]) -> Vec<(String, String)> {
    let word = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
    of(events, "start").iter().map(|event| (word(event, "cgroup"), word(event, "rule"))).collect()
}

/// A watch by rules that reports to a file, so that a test can follow it.
struct Watching {
    child: Child,
    record: PathBuf,
}

impl Watching {
    fn begin(rules: &Rules) -> Self {
        Self::begin_with(rules, &[])
    }

    fn begin_with(rules: &Rules, options: &[&str]) -> Self {
        let record = rules.folder.path().join("record");
        let file = std::fs::File::create(&record).expect("a record");
        let mut command = crate::harness::memctl(["watch", "--config", &rules.word(), "--json"]);
        command.args(options);
        let child = command.stdout(file).stderr(std::process::Stdio::piped()).spawn().expect("memctl starts");
        Self { child, record }
    }

    fn so_far(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.record).expect("the record");
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        parsed(whole).to_vec()
    }
}

fn a_host_under_three_rules() {
    let mut host: Vec<Cgroup> = (0..12).map(|number| limited(&format!("web-{number}"), 64 * M)).collect();
    host.extend((0..6).map(|number| limited(&format!("batch-{number}"), 64 * M)));
    host.extend([limited("db", 64 * M), limited("other", 64 * M)]);
    let text = "[[rule]]\nname = 'web'\nmatch = 'web-*'\nheadroom = '20M'\n\
                [[rule]]\nname = 'batch'\nmatch = 'batch-*'\npressure = 0.1\nfloor = '8M'\n\
                [[rule]]\nname = 'db'\nmatch = 'db'\nkeep = '40M'\n";
    let rules = Rules::new(text);
    let watching = Watching::begin(&rules);
    until("all of three rules", || started(&watching.so_far()).len() == 19);
    for (name, rule) in started(&watching.so_far()) {
        let wanted = name.trim_start_matches('/').split('-').next().unwrap_or_default();
        assert_eq!(wanted, rule, "{name}");
    }
    host[0].uses(&Work::File(60 * M));
    host[18].uses(&Work::File(60 * M));
    host[19].uses(&Work::File(60 * M));
    until("headroom by a rule", || host[0].current() <= 44 * M);
    until("a limit by a rule", || host[18].current() <= 40 * M);
    let other = host[19].current();
    assert!(other >= 58 * M, "no rule takes it: {other}");
    // Rules with one added, and one removed.
    let changed = text.replace("'db'\nmatch = 'db'", "'other'\nmatch = 'other'");
    rules.write(&changed);
    signal(&watching.child, Signal::HUP);
    until("a reload", || reloads(&watching.so_far()).len() == 1);
    until("what a new rule takes", || host[19].current() <= 40 * M);
    let told = watching.so_far();
    assert_eq!((&reloads(&told)[0]["rules"], reloads(&told)[0].get("error")), (&3.into(), None), "{told:?}");
    assert_eq!(of(&told, "released").iter().map(|one| &one["cgroup"]).collect::<Vec<_>>(), ["/db"]);
    assert_eq!(started(&told).len(), 20, "those that stay are not told of again");
    // Rules with a mistake change nothing.
    rules.write("[[rule]]\nmatch = 'web-*'\nheadrom = '1%'\n");
    signal(&watching.child, Signal::HUP);
    until("a refused reload", || reloads(&watching.so_far()).len() == 2);
    host[1].uses(&Work::File(60 * M));
    until("headroom by the old rule", || host[1].current() <= 44 * M);
    let told = watching.so_far();
    let why = reloads(&told)[1]["error"].as_str().unwrap_or_default();
    assert!(why.ends_with("watch.toml:3:1: unknown key \"headrom\""), "{why}");
    assert_eq!((of(&told, "released").len(), started(&told).len()), (1, 20));
    let output = output_of(watching.child);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.ends_with("hint: similar key: headroom\nmemctl: the old rules stay\n"), "{said}");
    let all = parsed(&std::fs::read_to_string(&watching.record).expect("the record"));
    assert_eq!(all[0]["event"], "begin");
    let by_rule = |rule: &str| of(&all, "summary").iter().filter(|one| one["rule"] == rule).count();
    assert_eq!((by_rule("web"), by_rule("batch"), by_rule("db"), by_rule("other")), (12, 6, 1, 1));
}

/// As kubelet replaces a `ConfigMap`: a link of a folder is renamed over, and nobody sends a signal.
fn a_file_that_is_replaced_is_followed() {
    let (web, db) = (limited("web", 64 * M), limited("db", 64 * M));
    let rules = Rules::new("");
    let folder = rules.folder.path();
    let swap = |name: &str, text: Option<&str>| {
        std::fs::create_dir(folder.join(name)).expect("a folder");
        if let Some(text) = text {
            std::fs::write(folder.join(name).join("watch.toml"), text).expect("rules");
        }
        symlink(name, folder.join("..new")).expect("a link");
        std::fs::rename(folder.join("..new"), folder.join("..data")).expect("a swap");
    };
    let rule = |name: &str| format!("[[rule]]\nmatch = '{name}'\nkeep = '40M'\n");
    std::fs::remove_file(folder.join("watch.toml")).expect("it was there");
    symlink("..data/watch.toml", folder.join("watch.toml")).expect("a link");
    swap("1", Some(&rule("web")));
    let watching = Watching::begin_with(&rules, &["--follow-config"]);
    until("the first rules", || started(&watching.so_far()).len() == 1);
    swap("2", Some(&rule("db")));
    until("the second rules", || started(&watching.so_far()).len() == 2);
    assert_eq!(of(&watching.so_far(), "released")[0]["cgroup"], "/web");
    // Each mistake is told once, and the old rules stay.
    swap("3", Some("[[rule]]\nmatch = 'web'\n"));
    until("a mistake", || reloads(&watching.so_far()).len() == 2);
    swap("4", None);
    until("no file", || reloads(&watching.so_far()).len() == 3);
    std::thread::sleep(std::time::Duration::from_secs(13));
    db.uses(&Work::File(60 * M));
    until("the old rules", || db.current() <= 40 * M);
    swap("5", Some(&rule("web")));
    until("the first rules again", || started(&watching.so_far()).len() == 3);
    let output = output_of(watching.child);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.matches("the old rules stay").count() == 2, "{said}");
    let all = parsed(&std::fs::read_to_string(&watching.record).expect("the record"));
    let told: Vec<_> = reloads(&all).iter().map(|one| one.get("error").and_then(Value::as_str)).collect();
    assert!(matches!(told[..], [None, Some(_), Some(_), None]), "{told:?}");
    drop(web);
}

/// A file that can't be read again can't be followed.
fn a_pipe_is_not_followed() {
    let (end, mut write) = std::io::pipe().expect("a pipe");
    write.write_all(b"[[rule]]\nmatch = 'app'\nkeep = '1G'\n").expect("write");
    drop(write);
    let mut command = crate::harness::memctl(["watch", "--config", "/proc/self/fd/0", "--follow-config"]);
    let ran: Finished = command.stdin(end).output().expect("memctl runs").into();
    let why = "memctl: --follow-config: the file of --config must be a regular file, to be read again\n";
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(2), why));
    assert_fails(
        &["watch", "app", "--keep", "1G", "--follow-config"],
        2,
        "memctl: --follow-config: requires --config",
    );
}

fn a_dry_run_of_a_host() {
    let (web, db) = (limited("web-1", 64 * M), limited("db", 64 * M));
    let web_2 = limited("web-2", 64 * M);
    web.uses(&Work::File(50 * M));
    db.uses(&Work::File(40 * M));
    let rules = Rules::new(
        "[[rule]]\nname = 'web'\nmatch = 'web-*'\nheadroom = '30M'\n\
         [[rule]]\nmatch = 'db'\nheadroom = '30M'\nfloor = '45M'\n",
    );
    let ran = run(&["watch", "--config", &rules.word(), "--dry-run", "--duration", "2s"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    let lines: Vec<_> = ran.stdout.lines().collect();
    let table = lines.iter().position(|line| line.starts_with("CGROUP  WOULD RECLAIM  HELD  RULE"));
    let table = &lines[table.unwrap_or_else(|| panic!("no table: {}", ran.stdout))..];
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    // In the order of their names in the file.
    assert_eq!(words(table[1])[0], "/web-1");
    assert!(words(table[1])[1].ends_with('M') && words(table[1])[2..] == ["0", "web"], "{}", ran.stdout);
    assert_eq!(words(table[2]), ["/web-2", "0", "0", "web"]);
    assert_eq!(words(table[3]), ["/db", "0", "1", "db"]);
    assert_eq!(words(table[4]), ["RULE", "CGROUPS", "WOULD", "RECLAIM"]);
    assert!(
        ran.stdout.contains("/db  held, last: down to the floor or the cgroup's protection\n"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.ends_with("; dry run: nothing was written\n"), "{}", ran.stdout);
    assert_eq!((web.stolen(), db.stolen(), web_2.stolen()), (0, 0, 0));
    let told = events(&["--config", &rules.word(), "--dry-run", "--duration", "1s"]);
    let summary = of(&told, "summary");
    assert!(number(summary[0], "would_reclaim_bytes") > 10 * M as i64, "{told:?}");
}

fn names_that_come_later() {
    let rules = Rules::new("[[rule]]\nmatch = 'later'\nkeep = '30M'\n");
    let child = begin(&["--config", &rules.word()]);
    after(300);
    let later = Cgroup::new("later");
    later.uses(&Work::File(50 * M));
    until("what came later is found", || later.current() <= 30 * M);
    let output = output_of(child);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said, "memctl: later: no cgroup matches yet; waiting for one\n");
}
