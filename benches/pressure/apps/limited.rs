//! PostgreSQL below a limit, while a base backup streams its files through the page cache: without a
//! controller, with memory.high, beside a loop in the shell, and beside `memctl watch --headroom`, in
//! turns.

use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

use super::figures::{Figures, Meter, Rounds};
use super::postgres::Postgres;
use super::{App, cgroup, service};
use crate::controller::{Controller, Running, is_wanted};
use crate::{M, remove};

/// The limit, and what a controller is to keep free below it.
const LIMIT: u64 = 256 * M;
const HEADROOM: u64 = LIMIT / 10;

/// A load that leaves time for the backup in an emulator: no request waits for a processor for long.
const LOADED: Postgres = Postgres { rows: 160_000, rate: 100 };

/// Time for which the backup runs before the measurement.
const WARM_UP: Duration = Duration::from_secs(15);

/// Kilobytes per second of the backup.
const RATE: &str = "8192";

/// A backup after the other.
struct Backup(Child);

impl Backup {
    fn begin() -> Result<Self> {
        let once = super::postgres::backup(RATE);
        let script = format!("while {once} >/dev/null; do :; done");
        let mut command = service::command(None, &["/bin/sh", "-c", &script]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn()?;
        Ok(Self(child))
    }

    fn end(mut self) -> Result<()> {
        ensure!(self.0.try_wait()?.is_none(), "the base backup failed");
        kill_process_group(Pid::from_child(&self.0), Signal::TERM)?;
        self.0.wait()?;
        Ok(())
    }
}

pub fn compare(memctl: &str, seconds: u64, rounds: u32) -> Result<()> {
    service::prepare()?;
    let app = "/sys/fs/cgroup/app";
    let looped = format!(
        "while :; do read used <{app}/memory.current; free=$(({LIMIT} - used)); \
         [ $free -ge {HEADROOM} ] || echo $(({HEADROOM} - free)) >{app}/memory.reclaim; sleep 1; done 2>/dev/null"
    );
    let headroom = HEADROOM.to_string();
    let watch = |more: &[&str]| {
        let words = [memctl, "watch", "app", "--headroom", &headroom, "--json", "-q"];
        words.iter().chain(more).map(|word| (*word).to_owned()).collect()
    };
    let controllers = [
        ("none", Vec::new()),
        ("memory.high", Vec::new()),
        ("shell-1s", vec!["sh".into(), "-c".into(), looped]),
        ("memctl", watch(&[])),
        ("memctl-join", watch(&["--join", "app"])),
    ]
    .map(|(name, command)| Controller { name, command });
    println!("{:<14}{}", "BY", Figures::head());
    let mut all = Rounds::default();
    for _ in 0..rounds {
        for controller in controllers.iter().filter(|controller| is_wanted(controller.name)) {
            all.add(controller.name, &measure(controller, seconds)?);
        }
    }
    all.tell();
    Ok(())
}

fn measure(controller: &Controller, seconds: u64) -> Result<Figures> {
    let at = cgroup()?;
    let limit = |file: &str, bytes: u64| std::fs::write(at.join(file), bytes.to_string()).context("a limit");
    limit("memory.max", LIMIT)?;
    if controller.name == "memory.high" {
        limit("memory.high", LIMIT - HEADROOM)?;
    }
    let loaded = LOADED.begin(&at, true)?;
    let backup = Backup::begin()?;
    let mut running = Running::begin(controller, false)?;
    let began = Instant::now();
    std::thread::sleep(WARM_UP);
    let (meter, cpu) = (Meter::begin(&at)?, running.cpu()?);
    std::thread::sleep(Duration::from_secs(seconds));
    let (mut figures, times) = meter.end()?;
    figures.cpu = running.cpu()? - cpu;
    running.end(began)?;
    backup.end()?;
    figures.requests = loaded.end()?.within(times);
    remove(&at);
    Ok(figures)
}
