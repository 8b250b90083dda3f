//! A host that systemd manages: units, a user's own service manager, login sessions, delegation.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::environment::{Case, list};
use crate::harness::{
    Finished, M, assert_close, assert_fails, memctl, number, parse, refused, report, root, run,
};

pub fn cases() -> Vec<Case> {
    list![
        "systemd" =>
            a_unit_of_the_system,
            escaped_names_are_typed_either_way,
            the_same_name_in_both_managers_is_ambiguous_to_its_user,
            a_user_reclaims_from_a_service_of_its_own,
            what_is_not_the_users_is_refused,
            a_glob_takes_what_is_the_users,
            a_login_session_is_not_the_users,
            a_unit_delegated_to_a_user,
            accounting_that_is_off_is_turned_on_by_the_hint,
            a_service_watches_a_service,
            a_service_watches_a_host
    ]
}

/// The unprivileged user of the guest.
pub const APP: u32 = 1000;

/// The cgroup of that user's own service manager.
const OWN: &str = "/user.slice/user-1000.slice/user@1000.service";

/// Returns a command run as that user, with access to its service manager.
pub fn as_app(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.uid(APP).gid(APP).current_dir("/");
    command.env("HOME", "/home/app").env("XDG_RUNTIME_DIR", format!("/run/user/{APP}"));
    command
}

fn memctl_as_app(words: &[&str]) -> Finished {
    as_app(memctl(words).get_program()).args(words).output().expect("memctl runs").into()
}

/// Runs a command to its end, which must be a success, and returns its output.
#[track_caller]
pub fn output(command: &mut Command) -> String {
    let ran: Finished =
        command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}")).into();
    assert_eq!(ran.status, Some(0), "{command:?}: {}{}", ran.stdout, ran.stderr);
    ran.stdout.trim().to_owned()
}

/// Starts the user's service manager, as a login or lingering does, and waits for it.
pub fn user_manager() {
    output(Command::new("loginctl").args(["enable-linger", "app"]));
    let until = Instant::now() + Duration::from_secs(60);
    while !Path::new("/run/user/1000/systemd/private").exists() {
        assert!(Instant::now() < until, "the user's manager didn't start");
        std::thread::sleep(Duration::from_millis(100));
    }
    output(as_app("systemctl").args(["--user", "is-system-running", "--wait"]));
}

/// Service manager to which a service belongs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    System,
    User,
}

impl Manager {
    /// Returns a command for a program of systemd that addresses this manager.
    pub fn command(self, program: &str) -> Command {
        match self {
            Self::System => Command::new(program),
            Self::User => {
                let mut command = as_app(program);
                command.arg("--user");
                command
            }
        }
    }
}

/// A running service that holds page cache. Dropping it stops the service.
pub struct Service {
    manager: Manager,
    unit: &'static str,
    data: PathBuf,
}

impl Service {
    /// Starts a service with `bytes` of page cache, and with properties such as `User=app`.
    pub fn start(manager: Manager, unit: &'static str, bytes: u64, properties: &[&str]) -> Self {
        let whose = if manager == Manager::User { "user" } else { "system" };
        let data = PathBuf::from(format!("/data/{unit}.{whose}"));
        std::fs::File::create(&data).and_then(|file| file.set_len(bytes)).expect("make a file on /data");
        let read = format!("ExecStartPre=/bin/sh -c \"cat '{}' >/dev/null\"", data.display());
        let mut command = manager.command("systemd-run");
        command.args(["--quiet", "--unit", unit, "--property=Type=exec", "--property", &read]);
        for property in properties {
            command.args(["--property", property]);
        }
        output(command.args(["sleep", "infinity"]));
        Self { manager, unit, data }
    }

    pub fn show(&self, property: &str) -> String {
        output(self.manager.command("systemctl").args(["show", "--value", "--property", property, self.unit]))
    }

    /// Returns the name of its cgroup, as systemd reports it.
    pub fn name(&self) -> String {
        self.show("ControlGroup")
    }

    pub fn path(&self) -> PathBuf {
        root().join(self.name().trim_start_matches('/'))
    }

    fn current(&self) -> u64 {
        let text = std::fs::read_to_string(self.path().join("memory.current")).expect("it is there");
        text.trim().parse().expect("a number")
    }

    /// Returns a value of its memory.stat, after the time the kernel takes to fold its counters.
    fn stat(&self, key: &str) -> u64 {
        std::thread::sleep(Duration::from_millis(2600));
        let text = std::fs::read_to_string(self.path().join("memory.stat")).expect("memory.stat");
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{key} in {text}"))
    }

    /// Asserts that the report agrees with the unit's own memory.stat.
    #[track_caller]
    fn assert_reclaimed(&self, report: &Value, file_before: u64, bytes: u64) {
        assert_eq!(report["cgroup"], self.name());
        assert_eq!(report["verdict"], "exact", "{report}");
        assert_close("told", number(report, "reclaimed_bytes") as u64, bytes);
        assert_close("gone", file_before.saturating_sub(self.stat("file")), bytes);
        assert_close("stolen", self.stat("pgsteal") * 4096, bytes);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.manager.command("systemctl").args(["stop", self.unit]).status();
        let _ = std::fs::remove_file(&self.data);
    }
}

fn a_unit_of_the_system() {
    let some = Service::start(Manager::System, "some.service", 40 * M, &[]);
    let before = some.stat("file");
    let told = report(&["reclaim", "some.service", "10M"], 0);
    some.assert_reclaimed(&told, before, 10 * M);
    let process = format!("pid:{}", some.show("MainPID"));
    for word in ["some.service", "system.slice/some.service", &process] {
        assert_eq!(report(&["stat", word], 0)["cgroup"], some.name(), "{word}");
    }
    // The last word alone isn't its name, but leads to it.
    let ran = assert_fails(&["stat", "some"], 1, "memctl: some: no such cgroup");
    assert!(ran.stderr.contains("hint: similar names: system.slice/some.service"), "{}", ran.stderr);
    // systemd's name for the root.
    assert_eq!(parse(&run(&["stat", "--json", "--", "-.slice"]).stdout)["cgroup"], "/");
}

fn escaped_names_are_typed_either_way() {
    let units = Path::new("/run/systemd/system");
    let (mount, template) = (units.join(r"run-a\x2db.mount"), units.join("my-app@.service"));
    std::fs::write(&mount, "[Mount]\nWhat=tmpfs\nWhere=/run/a-b\nType=tmpfs\n").expect("a unit");
    std::fs::write(&template, "[Service]\nType=exec\nExecStart=sleep infinity\n").expect("a unit");
    output(Command::new("systemctl").arg("daemon-reload"));
    let started = [r"run-a\x2db.mount", "my-app@1.service"];
    output(Command::new("systemctl").arg("start").args(started));
    for (words, name) in [
        ([r"run-a\x2db.mount", "run-a-b.mount"], r"/system.slice/run-a\x2db.mount"),
        ([r"system-my\x2dapp.slice", "system-my-app.slice"], r"/system.slice/system-my\x2dapp.slice"),
        (
            [r"my-app@1.service", r"my\x2dapp@1.service"],
            r"/system.slice/system-my\x2dapp.slice/my-app@1.service",
        ),
    ] {
        for word in words {
            assert_eq!(report(&["stat", word], 0)["cgroup"], name, "{word}");
        }
    }
    output(Command::new("systemctl").arg("stop").args(started));
    std::fs::remove_file(mount).and_then(|()| std::fs::remove_file(template)).expect("remove the units");
    assert_fails(&["stat", "my-app@1.service"], 1, "memctl: my-app@1.service: no such cgroup");
}

fn the_same_name_in_both_managers_is_ambiguous_to_its_user() {
    user_manager();
    let system = Service::start(Manager::System, "mine.service", 20 * M, &[]);
    let own = Service::start(Manager::User, "mine.service", 20 * M, &[]);
    let words = ["reclaim", "mine.service", "5M"];
    let line = format!("memctl: mine.service: ambiguous, matches {}, {}", system.name(), own.name());
    let ran = refused(memctl_as_app(&words), &words, 1, &line);
    assert!(ran.stderr.ends_with("\nhint: name the cgroup by its path\n"), "{}", ran.stderr);
    // What a user calls a unit of its own is nothing to root.
    assert_eq!(report(&["stat", "mine.service"], 0)["cgroup"], system.name());
    let told = report(&["reclaim", &own.name(), "5M"], 0);
    assert_eq!((&told["cgroup"], &told["verdict"]), (&own.name().into(), &"exact".into()));
    assert_eq!(system.stat("pgsteal"), 0);
}

fn a_user_reclaims_from_a_service_of_its_own() {
    user_manager();
    let mine = Service::start(Manager::User, "mine.service", 40 * M, &[]);
    assert_eq!(mine.name(), format!("{OWN}/app.slice/mine.service"));
    let before = mine.stat("file");
    let ran = memctl_as_app(&["check", "mine.service"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    assert!(ran.stdout.ends_with(&format!("\nreclaim will work: {}\n", mine.name())), "{}", ran.stdout);
    let ran = memctl_as_app(&["reclaim", "mine.service", "10M", "--json"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    mine.assert_reclaimed(&parse(&ran.stdout), before, 10 * M);
}

fn what_is_not_the_users_is_refused() {
    const DELEGATE: &str = "run as root, or delegate the unit: User= and Delegate=memory";
    const OWN_ONLY: &str =
        "run as root, or name a cgroup of your own, such as one started with systemd-run --user";
    let some = Service::start(Manager::System, "some.service", 20 * M, &[]);
    for (word, hint) in [
        ("system.slice/some.service", DELEGATE),
        ("some.service", DELEGATE),
        ("system.slice", OWN_ONLY),
        ("user-1000.slice", OWN_ONLY),
        ("/", OWN_ONLY),
    ] {
        let words = ["reclaim", word, "10M"];
        let told = report(&["stat", word], 0);
        let name = told["cgroup"].as_str().expect("a name").trim_start_matches('/');
        let file = root().join(name).join("memory.reclaim").display().to_string();
        let ran = refused(memctl_as_app(&words), &words, 1, &format!("memctl: {file}: permission denied"));
        assert!(ran.stderr.ends_with(&format!("\nhint: {hint}\n")), "{word}: {}", ran.stderr);
        let checked = memctl_as_app(&["check", word]);
        assert_eq!((checked.status, checked.stderr.as_str()), (Some(1), ""), "{word}: {}", checked.stdout);
        assert!(checked.stdout.contains(&format!("-> {hint}\n")), "{word}: {}", checked.stdout);
    }
    assert_eq!(some.stat("pgsteal"), 0);
}

fn a_glob_takes_what_is_the_users() {
    user_manager();
    let system = Service::start(Manager::System, "mine.service", 20 * M, &[]);
    let mine = Service::start(Manager::User, "mine.service", 20 * M, &[]);
    let ran = memctl_as_app(&["reclaim", "**/mine.service", "5M", "--json"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    assert_eq!(parse(&ran.stdout)["cgroup"], mine.name());
    assert_eq!(system.stat("pgsteal"), 0);
}

/// Installs a unit that comes with memctl, memctl in the place that the unit expects, and a file in
/// /etc/memctl.
pub fn install(unit: &str, text: &str, file: &str, content: &str) {
    std::fs::create_dir_all("/usr/local/bin").expect("make /usr/local/bin");
    std::fs::copy(memctl([""; 0]).get_program(), "/usr/local/bin/memctl").expect("install memctl");
    std::fs::write(format!("/run/systemd/system/{unit}"), text).expect("write the unit");
    std::fs::create_dir_all("/etc/memctl").expect("make /etc/memctl");
    std::fs::write(format!("/etc/memctl/{file}"), content).expect("write the file");
    output(Command::new("systemctl").arg("daemon-reload"));
}

pub fn comes_down_to(service: &Service, most: u64) {
    let until = Instant::now() + Duration::from_secs(30);
    while service.current() > most {
        assert!(Instant::now() < until, "{}, not {most}", service.current());
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn a_service_watches_a_host() {
    const UNIT: &str = include_str!("../../contrib/systemd/memctl-watch.service");
    let rules = |keep: &str| format!("[[rule]]\nmatch = 'system.slice/some*.service'\nkeep = '{keep}'\n");
    install("memctl-watch.service", UNIT, "watch.toml", &rules("30M"));
    let some = Service::start(Manager::System, "some-other.service", 50 * M, &[]);
    output(Command::new("systemctl").args(["start", "memctl-watch.service"]));
    comes_down_to(&some, 31 * M);
    std::fs::write("/etc/memctl/watch.toml", rules("20M")).expect("write the rules");
    output(Command::new("systemctl").args(["reload", "memctl-watch.service"]));
    comes_down_to(&some, 21 * M);
    output(Command::new("systemctl").args(["stop", "memctl-watch.service"]));
    let said = output(Command::new("journalctl").args(["--unit=memctl-watch.service", "--output=cat"]));
    assert!(said.contains("memctl: /etc/memctl/watch.toml: read again: 1 rule\n"), "{said}");
    // A mistake is reported before anything is started.
    std::fs::write("/etc/memctl/watch.toml", "kep = 1").expect("write the rules");
    let ran = Command::new("systemctl").args(["start", "memctl-watch.service"]).output().expect("systemctl");
    assert!(!ran.status.success(), "{ran:?}");
    let said = output(Command::new("journalctl").args(["--unit=memctl-watch.service", "--output=cat"]));
    assert!(said.contains("memctl: /etc/memctl/watch.toml:1:1: unknown key \"kep\"\n"), "{said}");
    output(Command::new("systemctl").args(["stop", "memctl-watch.service"]));
}

fn a_service_watches_a_service() {
    const UNIT: &str = include_str!("../../contrib/systemd/memctl-watch@.service");
    install("memctl-watch@.service", UNIT, "watch-some.service", "HEADROOM=20M\nOPTIONS=--json\n");
    let some = Service::start(Manager::System, "some.service", 50 * M, &["MemoryMax=60M"]);
    let watch = "memctl-watch@some.service.service";
    output(Command::new("systemctl").args(["start", watch]));
    comes_down_to(&some, 41 * M);
    let pid = output(Command::new("systemctl").args(["show", "--property=MainPID", "--value", watch]));
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    assert!(!status.contains("VmLck:\t       0 kB"), "its memory is locked: {status}");
    output(Command::new("systemctl").args(["stop", watch]));
    let ended = output(Command::new("systemctl").args(["show", "--property=Result,ExecMainStatus", watch]));
    assert!(ended.contains("Result=success") && ended.contains("ExecMainStatus=0"), "{ended}");
    let said = output(Command::new("journalctl").args(["--unit", watch, "--output=cat"]));
    assert!(said.contains("\"event\":\"summary\""), "{said}");
}

/// Runs memctl as the user in a login session of its own, as PAM opens one.
fn in_a_session(words: &[&str]) -> Finished {
    let mut command = Command::new("systemd-run");
    command.args(["--quiet", "--pipe", "--wait", "--uid=app", "--property=PAMName=login"]);
    command.arg(memctl(words).get_program()).args(words).output().expect("systemd-run runs").into()
}

fn a_login_session_is_not_the_users() {
    user_manager();
    let ran = in_a_session(&["reclaim", "self", "1M"]);
    let (line, hint) = ran.stderr.split_once('\n').expect("a line and a hint");
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(1), ""), "{}", ran.stderr);
    let scope = line.strip_prefix("memctl: /sys/fs/cgroup/user.slice/user-1000.slice/session-");
    assert!(scope.is_some_and(|rest| rest.ends_with(".scope/memory.reclaim: permission denied")), "{line}");
    assert!(hint.ends_with("such as one started with systemd-run --user\n"), "{hint}");
    // As the hint says.
    let mut command = as_app("systemd-run");
    command.args(["--user", "--quiet", "--pipe", "--wait"]).arg(memctl(["check"]).get_program());
    let ran: Finished = command.args(["check", "self"]).output().expect("systemd-run runs").into();
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    assert!(ran.stdout.contains(&format!("\nreclaim will work: {OWN}/app.slice/run-")), "{}", ran.stdout);
}

fn a_unit_delegated_to_a_user() {
    let delegated = Service::start(Manager::System, "some.service", 40 * M, &["User=app", "Delegate=memory"]);
    let before = delegated.stat("file");
    let ran = memctl_as_app(&["reclaim", "some.service", "10M", "--json"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    delegated.assert_reclaimed(&parse(&ran.stdout), before, 10 * M);
    drop(delegated);
    // Each property alone is not enough.
    for property in ["User=app", "Delegate=memory"] {
        let service = Service::start(Manager::System, "some.service", 20 * M, &[property]);
        let words = ["reclaim", "some.service", "5M"];
        let line = "memctl: /sys/fs/cgroup/system.slice/some.service/memory.reclaim: permission denied";
        refused(memctl_as_app(&words), &words, 1, line);
        drop(service);
    }
}

fn accounting_that_is_off_is_turned_on_by_the_hint() {
    user_manager();
    for manager in [Manager::System, Manager::User] {
        let lean =
            Service::start(manager, "lean.service", 20 * M, &["Slice=lean.slice", "MemoryAccounting=no"]);
        let name = lean.name();
        let parent = name.trim_end_matches("/lean.service");
        let line = format!(
            "memctl: {name}: the memory controller is not enabled in cgroup.subtree_control of {parent}"
        );
        // By its path: the name of a user's unit is nothing to root.
        assert_fails(&["reclaim", &name, "5M"], 1, &line);
        let ran = assert_fails(&["stat", &name], 1, &line);
        let option = if manager == Manager::User { "--user " } else { "" };
        let todo = format!("systemctl {option}set-property lean.service MemoryAccounting=yes");
        assert!(ran.stderr.ends_with(&format!("\nhint: {todo}\n")), "{}", ran.stderr);
        let mut shell = if manager == Manager::User { as_app("sh") } else { Command::new("sh") };
        output(shell.args(["-c", &todo]));
        assert_eq!(report(&["stat", &name], 0)["cgroup"], name);
        output(manager.command("systemctl").args(["revert", "lean.service"]));
    }
}
