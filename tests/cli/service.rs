//! memctl as a service of systemd: readiness, status, reload, watchdog and sandbox, by the units that
//! come with memctl.

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::environment::{Case, list};
use crate::harness::{M, memctl, run, status_kib};
use crate::metrics;
use crate::systemd::{APP, Manager, Service, as_app, comes_down_to, install, output, user_manager};
use crate::watch::{after, signal, until};

pub fn cases() -> Vec<Case> {
    list![
        "systemd" =>
            what_a_service_manager_is_sent,
            a_start_and_a_reload_return_once_the_rules_are_in_force,
            a_service_that_hangs_or_is_killed_is_restarted,
            all_of_it_works_in_the_sandbox,
            metrics_are_served_over_tcp_as_the_page_says,
            a_service_runs_without_its_metrics,
            a_user_watches_a_service_of_its_own
    ]
}

const UNIT: &str = include_str!("../../contrib/systemd/memctl-watch.service");
const TEMPLATE: &str = include_str!("../../contrib/systemd/memctl-watch@.service");
const USER_TEMPLATE: &str = include_str!("../../contrib/systemd/user/memctl-watch@.service");

/// A unit of memctl. Dropping it stops it and removes its drop-in.
struct Watch {
    manager: Manager,
    unit: &'static str,
}

impl Watch {
    /// Installs the service for a host with these rules, and a drop-in.
    fn of_host(rules: &str, drop_in: &str) -> Self {
        let watch = Self { manager: Manager::System, unit: "memctl-watch.service" };
        std::fs::create_dir_all(watch.drop_ins()).expect("make a folder for the drop-in");
        std::fs::write(watch.drop_ins().join("test.conf"), drop_in).expect("write the drop-in");
        install(watch.unit, UNIT, "watch.toml", rules);
        watch
    }

    fn drop_ins(&self) -> PathBuf {
        PathBuf::from(format!("/run/systemd/system/{}.d", self.unit))
    }

    /// Starts it. Systemd waits until it is ready.
    #[track_caller]
    fn start(&self) {
        assert!(self.systemctl("start"), "{}", self.journal());
    }

    /// Runs systemctl for this unit, and returns whether it succeeded.
    fn systemctl(&self, verb: &str) -> bool {
        let mut command = self.manager.command("systemctl");
        command.args([verb, self.unit]).stdin(Stdio::null()).status().expect("systemctl runs").success()
    }

    fn show(&self, property: &str) -> String {
        output(self.manager.command("systemctl").args(["show", "--value", "--property", property, self.unit]))
    }

    fn status(&self) -> String {
        self.show("StatusText")
    }

    fn restarts(&self) -> String {
        self.show("NRestarts")
    }

    /// Returns a path in /proc of its main process.
    fn process(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.show("MainPID")))
    }

    fn journal(&self) -> String {
        let unit = if self.manager == Manager::User { "--user-unit" } else { "--unit" };
        output(Command::new("journalctl").args([unit, self.unit, "--output=cat"]))
    }

    fn kill(&self, signal: &str) {
        output(Command::new("systemctl").args(["kill", "--kill-whom=main", "--signal", signal, self.unit]));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.manager.command("systemctl").args(["stop", self.unit]).status();
        let _ = std::fs::remove_dir_all(self.drop_ins());
    }
}

fn write_rules(rules: &str) {
    std::fs::write("/etc/memctl/watch.toml", rules).expect("write the rules");
}

fn keep(size: &str) -> String {
    format!("[[rule]]\nmatch = 'system.slice/some*.service'\nkeep = '{size}'\n")
}

/// Returns a file of a thousand rules, of which the first has a cgroup.
fn thousand(size: &str) -> String {
    let others = (1..1000).map(|n| format!("[[rule]]\nmatch = '*.slice/none-{n}.service'\nkeep = '1G'\n"));
    keep(size) + &others.collect::<String>()
}

fn what_a_service_manager_is_sent() {
    let some = Service::start(Manager::System, "some.service", 20 * M, &[]);
    let path = Path::new("/run/memctl-test.notify");
    let socket = UnixDatagram::bind(path).expect("make a socket");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("set a timeout");
    let received = || {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).expect("a message arrives");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let mut command = memctl(["watch", "some.service", "--keep", "30M"]);
    command.env("NOTIFY_SOCKET", path).env("WATCHDOG_USEC", "400000");
    let child = command.stdout(Stdio::null()).spawn().expect("memctl starts");
    assert_eq!(received(), "READY=1\nSTATUS=keeping the usage of 1 cgroup below 30 MiB\n");
    let began = std::time::Instant::now();
    for _ in 0..6 {
        assert_eq!(received(), "WATCHDOG=1\n");
    }
    // Five intervals of 200 ms: the loop wakes for each, and would rest for 2 s otherwise.
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(4), "{took:?}");
    signal(&child, Signal::TERM);
    let mut last = received();
    while last == "WATCHDOG=1\n" {
        last = received();
    }
    assert_eq!(last, "STOPPING=1\nSTATUS=stopping\nEXTEND_TIMEOUT_USEC=10000000\n");
    let ended = child.wait_with_output().expect("memctl ends");
    assert!(ended.status.success(), "{ended:?}");
    std::fs::remove_file(path).expect("remove the socket");
    // A socket that isn't there stops nothing.
    let mut command = memctl(["watch", "some.service", "--keep", "30M", "--duration", "1s"]);
    let ended = command.env("NOTIFY_SOCKET", path).output().expect("memctl runs");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && said.contains("memctl: NOTIFY_SOCKET: no such file or directory\n"));
    assert_eq!(said.matches("NOTIFY_SOCKET").count(), 1, "{said}");
    drop(some);
}

fn a_start_and_a_reload_return_once_the_rules_are_in_force() {
    let some = Service::start(Manager::System, "some.service", 40 * M, &[]);
    let watch = Watch::of_host(&thousand("30M"), "");
    watch.start();
    assert_eq!(watch.status(), "watching 1 cgroup by 1000 rules");
    comes_down_to(&some, 31 * M);
    write_rules(&keep("25M"));
    // The reload waits for a memctl that takes the signal late.
    watch.kill("STOP");
    let mut reload = Command::new("systemctl").args(["reload", watch.unit]).spawn().expect("systemctl runs");
    let mut has_ended = || reload.try_wait().expect("it is a child").is_some();
    let waits = || watch.show("ActiveState") == "reloading" && watch.show("ControlPID") == "0";
    until("the end of its commands", || has_ended() || waits());
    assert!(!has_ended(), "it returned before memctl went on");
    watch.kill("CONT");
    assert!(reload.wait().expect("systemctl ends").success());
    assert_eq!(watch.status(), "keeping the usage of 1 cgroup below 25 MiB");
    write_rules(&thousand("20M"));
    assert!(watch.systemctl("reload"));
    assert_eq!(watch.status(), "watching 1 cgroup by 1000 rules");
    comes_down_to(&some, 21 * M);
    // A mistake fails the reload before memctl hears of it.
    write_rules("kep = 1\n");
    assert!(!watch.systemctl("reload"));
    let said = watch.journal();
    assert!(said.contains("memctl: /etc/memctl/watch.toml:1:1: unknown key \"kep\"\n"), "{said}");
    assert_eq!(watch.status(), "watching 1 cgroup by 1000 rules");
    // A file that is broken after the check is refused by memctl itself, which says so.
    watch.kill("HUP");
    until("the refusal", || watch.status().contains("; the old rules stay: /etc/memctl/watch.toml:1:1: "));
    assert_eq!(watch.show("ActiveState,SubState"), "active\nrunning");
    let other = Service::start(Manager::System, "some-other.service", 40 * M, &[]);
    comes_down_to(&other, 21 * M);
    until("the number", || watch.status().starts_with("watching 2 cgroups by 1000 rules; "));
    write_rules(&keep("20M"));
    assert!(watch.systemctl("reload"));
    assert_eq!(watch.status(), "keeping the usage of 2 cgroups below 20 MiB");
    assert_eq!(watch.restarts(), "0");
}

fn a_service_that_hangs_or_is_killed_is_restarted() {
    let some = Service::start(Manager::System, "some.service", 20 * M, &[]);
    let watch = Watch::of_host(&keep("30M"), "[Service]\nWatchdogSec=3s\nRestartSec=100ms\n");
    watch.start();
    // A loop that turns is left alone.
    after(5000);
    assert_eq!(watch.restarts(), "0", "{}", watch.journal());
    let works = |restarts: &str| {
        let is_ready = || watch.restarts() == restarts && watch.show("SubState") == "running";
        until("the restart", is_ready);
        assert_eq!(watch.status(), "keeping the usage of 1 cgroup below 30 MiB");
    };
    watch.kill("STOP");
    works("1");
    let said = watch.journal();
    assert!(said.contains("Watchdog timeout"), "{said}");
    watch.kill("KILL");
    works("2");
    drop(some);
}

/// Returns whether the process holds a pressure file open for writing: a trigger.
fn has_trigger(watch: &Watch) -> bool {
    let files = std::fs::read_dir(watch.process("fd")).expect("its files");
    files.flatten().any(|file| {
        let is_pressure =
            std::fs::read_link(file.path()).is_ok_and(|path| path.ends_with("some.service/memory.pressure"));
        let info = watch.process("fdinfo").join(file.file_name());
        let flags = |text: String| text.lines().find_map(|line| line.strip_prefix("flags:")?.chars().last());
        is_pressure && std::fs::read_to_string(info).ok().and_then(flags) == Some('2')
    })
}

fn all_of_it_works_in_the_sandbox() {
    const RECORD: &str = "/var/log/memctl/watch.jsonl";
    const METRICS: &str = "/var/lib/prometheus/node-exporter/memctl.prom";
    const SOCKET: &str = "/run/memctl/metrics.sock";
    // Systemd opens the record before it makes the folder, which an earlier start made.
    std::fs::create_dir_all("/var/log/memctl").expect("make the folder of the record");
    let rule = "[[rule]]\nmatch = 'some.service'\nheadroom = '20M'\n";
    let rules = &format!("metrics = '{METRICS}'\nmetrics-listen = 'unix:{SOCKET}'\n{rule}");
    let folder = Path::new(METRICS).parent().expect("a folder");
    std::fs::create_dir_all(folder).expect("make the folder of node exporter");
    let watch =
        Watch::of_host(rules, &format!("[Service]\nStandardOutput=append:{RECORD}\nStandardError=journal\n"));
    std::fs::write("/etc/memctl/watch.env", "OPTIONS=--json --join joined.service\n").expect("write options");
    let joined = Service::start(Manager::System, "joined.service", 0, &[]);
    let some = Service::start(Manager::System, "some.service", 50 * M, &["MemoryMax=60M"]);
    watch.start();
    until("a trigger", || has_trigger(&watch));
    comes_down_to(&some, 41 * M);
    let pid = watch.show("MainPID").parse().expect("a process");
    assert!(status_kib(pid, "VmLck") > 1000);
    let cgroup = std::fs::read_to_string(watch.process("cgroup")).expect("it runs");
    assert_eq!(cgroup, "0::/system.slice/joined.service\n");
    assert_eq!(std::fs::read_to_string(watch.process("oom_score_adj")).expect("it runs"), "-500\n");
    // It is notified from another cgroup than the unit's.
    assert_eq!(watch.status(), "keeping 20 MiB free below the limit of 1 cgroup");
    // For other users as well, whatever the unit's umask is.
    until("metrics", || {
        std::fs::metadata(METRICS).is_ok_and(|file| file.permissions().mode() & 0o777 == 0o644)
    });
    let scraped = metrics::response(|| UnixStream::connect(SOCKET));
    assert!(scraped.contains("\nmemctl_rule_cgroups{rule=\"some.service\"} 1\n"), "{scraped}");
    // The record is drawn while the watch goes on.
    until("a picture", || {
        run(&["plot", RECORD, "--cgroup", "some.service", "-o", "/tmp/watch.svg"]).status == Some(0)
    });
    assert!(watch.systemctl("stop"));
    assert_eq!(watch.show("Result"), "success");
    assert!(![METRICS, SOCKET].iter().any(|path| Path::new(path).exists()), "metrics of the past stay");
    let record = std::fs::read_to_string(RECORD).expect("a record");
    assert!(record.contains("\"event\":\"summary\""), "{record}");
    std::fs::remove_file("/etc/memctl/watch.env").expect("remove the options");
    drop(joined);
    install("memctl-watch@.service", TEMPLATE, "watch.toml", rules);
    for unit in ["memctl-watch.service", "memctl-watch@some.service.service"] {
        let analysis = output(Command::new("systemd-analyze").args(["security", "--no-pager", unit]));
        let level = analysis
            .split_once("Overall exposure level for")
            .and_then(|(_, rest)| rest.split_once(": ")?.1.split_whitespace().next()?.parse::<f64>().ok());
        assert!(level.is_some_and(|level| level <= 2.0), "{unit}: {level:?}: {analysis}");
    }
}

fn metrics_are_served_over_tcp_as_the_page_says() {
    const PAGE: &str = include_str!("../../docs/service.md");
    let drop_in = PAGE.split("    [Service]\n").find(|text| text.starts_with("    PrivateNetwork=no"));
    let lines = drop_in.expect("the page has it").lines().map_while(|line| line.strip_prefix("    "));
    let drop_in = lines.fold("[Service]\n".to_owned(), |text, line| text + line + "\n");
    assert!(drop_in.ends_with("IPAddressAllow=localhost\n"), "{drop_in}");
    let watch = Watch::of_host(&format!("metrics-listen = '127.0.0.1:19560'\n{}", keep("1G")), &drop_in);
    watch.start();
    let scraped = metrics::response(|| TcpStream::connect("127.0.0.1:19560"));
    assert!(scraped.contains("\nmemctl_config_last_reload_successful 1\n"), "{scraped}");
}

fn a_service_runs_without_its_metrics() {
    let metrics = "metrics = '/srv/memctl.prom'\nmetrics-listen = '127.0.0.1:19560'\n";
    let watch = Watch::of_host(&format!("{metrics}{}", keep("1G")), "");
    watch.start();
    assert_eq!(watch.show("ActiveState"), "active");
    for why in [
        "/srv/memctl.prom: read-only file system; trying again (a service may write only where ReadWritePaths=",
        "127.0.0.1:19560: address family not supported by protocol; trying again (a service needs RestrictAddress",
    ] {
        until(why, || watch.journal().contains(why));
    }
    assert!(watch.systemctl("stop"));
}

fn a_user_watches_a_service_of_its_own() {
    user_manager();
    install("memctl-watch@.service", TEMPLATE, "watch.toml", "");
    std::fs::create_dir_all("/run/systemd/user").expect("make a folder for the unit");
    std::fs::write("/run/systemd/user/memctl-watch@.service", USER_TEMPLATE).expect("write the unit");
    let config = Path::new("/home/app/.config/memctl");
    // The user's own: systemd makes folders beside it.
    output(as_app("mkdir").arg("-p").arg(config));
    std::fs::write(config.join("watch-my-own.service"), "HEADROOM=20M\n").expect("write the options");
    output(as_app("systemctl").args(["--user", "daemon-reload"]));
    let mine = Service::start(Manager::User, "my-own.service", 50 * M, &["MemoryMax=60M"]);
    let watch = Watch { manager: Manager::User, unit: "memctl-watch@my-own.service.service" };
    watch.start();
    assert_eq!(watch.status(), "keeping 20 MiB free below the limit of 1 cgroup");
    comes_down_to(&mine, 41 * M);
    let status = std::fs::read_to_string(watch.process("status")).expect("it runs");
    assert!(status.contains(&format!("\nUid:\t{APP}\t")), "{status}");
    assert_eq!(watch.show("WatchdogUSec"), "1min");
    assert!(watch.systemctl("stop"));
    assert_eq!(watch.show("Result"), "success");
    // A name with a backslash: the kernel's name of the cgroup has it as well.
    std::fs::write(config.join("watch-ax2db.service"), "HEADROOM=24M\n").expect("write the options");
    let run =
        ["--user", "--quiet", "--unit", r"a\x2db.service", "--property=MemoryMax=60M", "sleep", "infinity"];
    output(as_app("systemd-run").args(run));
    let watch = Watch { manager: Manager::User, unit: r"memctl-watch@a\x2db.service.service" };
    watch.start();
    assert_eq!(watch.status(), "keeping 24 MiB free below the limit of 1 cgroup");
    output(as_app("systemctl").args(["--user", "stop", r"a\x2db.service"]));
    std::fs::remove_dir_all(config).expect("remove the options");
}
