//! The controllers compared: memctl, and oomd's senpai plugin.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use crate::{CGROUPS, is_verbose};

/// Folder of oomd and everything it needs (tests/vm/oomd).
const OOMD: &str = "/oomd";

/// oomd's plugin, with memory.reclaim and not memory.high. Its defaults, six times the interval and
/// a hundredth of the amount, take it an hour.
const SENPAI: &str = r#"{"rulesets": [{
    "name": "press", "silence-logs": "engine,plugins",
    "detectors": [["always", {"name": "continue", "args": {}}]],
    "actions": [{"name": "senpai", "args": {
        "cgroup": "app", "limit_min_bytes": "1048576", "interval": "1", "max_probe": "0.1", "pressure_pct": "0.1",
        "immediate_backoff": "true"
    }}]
}]}"#;

/// The command of a controller, or none.
pub struct Controller {
    pub name: &'static str,
    pub command: Vec<String>,
}

/// Returns the controllers available here, or those that `MEMCTL_BENCH_BY` names.
pub fn all(memctl: &str) -> Result<Vec<Controller>> {
    let verbose = if is_verbose() { "-v" } else { "-q" };
    let memctl = [
        memctl,
        "watch",
        "app",
        "--pressure",
        "0.1%",
        "--type",
        "all",
        "--swap-writes",
        "max",
        "--json",
        verbose,
    ];
    let mut all = vec![
        Controller { name: "none", command: Vec::new() },
        Controller { name: "memctl", command: memctl.map(str::to_owned).to_vec() },
    ];
    if Path::new(OOMD).exists() {
        let config = format!("{OOMD}/senpai.json");
        std::fs::write(&config, SENPAI)?;
        let (loader, oomd, runtime) =
            (format!("{OOMD}/ld-linux-x86-64.so.2"), format!("{OOMD}/oomd"), format!("{OOMD}/run"));
        let words = [
            &*loader,
            "--library-path",
            OOMD,
            &*oomd,
            "--config",
            &*config,
            "--interval",
            "1",
            "--runtime-dir",
            &*runtime,
        ];
        all.insert(1, Controller { name: "oomd", command: words.map(str::to_owned).to_vec() });
    }
    all.retain(|controller| is_wanted(controller.name));
    Ok(all)
}

/// Returns whether a controller is to be measured: if `MEMCTL_BENCH_BY` names it, or none.
pub fn is_wanted(name: &str) -> bool {
    let only = std::env::var("MEMCTL_BENCH_BY").unwrap_or_default();
    let mut only = only.split_whitespace().peekable();
    only.peek().is_none() || only.any(|wanted| wanted == name)
}

/// What memctl told.
#[derive(Default)]
pub struct Told {
    pub sets: Vec<Set>,
    /// The limit that it suggested at the end, bytes.
    pub suggested: Option<u64>,
}

/// A working set that was told.
pub struct Set {
    pub at: Duration,
    pub mib: u64,
    /// True if it is only a bound.
    pub is_at_most: bool,
    pub confidence: f64,
    /// The limit suggested with it, bytes.
    pub suggested: Option<u64>,
}

/// Returns the command with which a program runs in a cgroup of its own with `MEMCTL_BENCH_CPU_MAX`
/// as its cpu.max, if that is set.
fn below_quota(program: &str, words: &[String]) -> Result<(String, Vec<String>)> {
    let Ok(quota) = std::env::var("MEMCTL_BENCH_CPU_MAX") else {
        return Ok((program.to_owned(), words.to_vec()));
    };
    let cgroup = format!("{CGROUPS}/controller");
    std::fs::write(format!("{CGROUPS}/cgroup.subtree_control"), "+cpu")?;
    std::fs::create_dir_all(&cgroup)?;
    std::fs::write(format!("{cgroup}/cpu.max"), quota).context("cpu.max")?;
    let script = format!("echo $$ >{cgroup}/cgroup.procs; exec \"$0\" \"$@\"");
    let words = ["-c", &script, program].into_iter().map(str::to_owned).chain(words.iter().cloned());
    Ok(("/bin/sh".to_owned(), words.collect()))
}

/// Lines of output, with their times.
type Said = Vec<(Instant, String)>;

/// A running controller.
pub struct Running(Option<(Child, JoinHandle<Said>)>);

impl Running {
    /// Starts a controller; memctl watches the sibling as well, if there is one.
    pub fn begin(controller: &Controller, has_sibling: bool) -> Result<Self> {
        let [program, words @ ..] = &*controller.command else { return Ok(Self(None)) };
        let sibling = (has_sibling && controller.name == "memctl").then_some(crate::SIBLING);
        let (program, words) = below_quota(program, words)?;
        let said_no_more = if is_verbose() { Stdio::inherit() } else { Stdio::null() };
        let mut child = Command::new(program)
            .args(words)
            .args(sibling)
            .stdout(Stdio::piped())
            .stderr(said_no_more)
            .process_group(0)
            .spawn()?;
        let out = BufReader::new(child.stdout.take().context("its output")?);
        let said = std::thread::spawn(move || {
            out.lines().map_while(Result::ok).map(|line| (Instant::now(), line)).collect()
        });
        Ok(Self(Some((child, said))))
    }

    /// Returns the CPU time of the controller's threads in seconds, with nanosecond resolution:
    /// /proc/PID/task/*/schedstat.
    pub fn cpu(&mut self) -> Result<f64> {
        let Some((child, _)) = &mut self.0 else { return Ok(0.0) };
        if let Some(status) = child.try_wait()? {
            anyhow::bail!("it ended: {status}");
        }
        let mut nanos = 0.0;
        for task in std::fs::read_dir(format!("/proc/{}/task", child.id()))? {
            let stat = std::fs::read_to_string(task?.path().join("schedstat"))?;
            nanos += stat.split(' ').next().and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
        }
        Ok(nanos / 1e9)
    }

    /// Stops the controller. Returns what it told.
    pub fn end(self, began: Instant) -> Result<Told> {
        let Some((mut child, said)) = self.0 else { return Ok(Told::default()) };
        kill_process_group(Pid::from_child(&child), Signal::TERM)?;
        child.wait()?;
        let said = said.join().ok().context("a thread that reads")?;
        if is_verbose() {
            for (_, line) in &said {
                println!("{line}");
            }
        }
        if std::env::var_os("MEMCTL_BENCH_RECORD").is_some() {
            let lines = said.iter().filter(|(_, line)| line.starts_with('{'));
            lines.for_each(|(_, line)| println!("record {line}"));
        }
        let told = |(at, line): &(Instant, String)| {
            let event: Value = serde_json::from_str(line).ok()?;
            let is_told = event["event"] == "working_set" && event["cgroup"] == "/app";
            let bytes = event["estimated_working_set_bytes"].as_u64().filter(|_| is_told)?;
            Some(Set {
                at: at.saturating_duration_since(began),
                mib: bytes >> 20,
                is_at_most: event["estimated_at_most"] == true,
                confidence: event["estimated_confidence_ratio"].as_f64()?,
                suggested: event["suggested_max_bytes"].as_u64(),
            })
        };
        let suggested = said.iter().rev().find_map(|(_, line)| {
            let event: Value = serde_json::from_str(line).ok()?;
            let is_last = event["event"] == "summary" && event["cgroup"] == "/app";
            is_last.then(|| event["suggested_max_bytes"].as_u64())
        });
        Ok(Told { sets: said.iter().filter_map(told).collect(), suggested: suggested.flatten() })
    }
}
