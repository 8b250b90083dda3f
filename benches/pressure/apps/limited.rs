//! PostgreSQL below a limit, while a base backup streams its files through the page cache: without a
//! controller, with memory.high, beside a loop in the shell, and beside `memctl watch --headroom`, in
//! turns.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

use super::postgres::Postgres;
use super::{App, Figures, Meter, cgroup, service};
use crate::controller::{Controller, Running};
use crate::guest::counter;
use crate::{M, remove};

/// The limit, and what a controller is to keep free below it.
const LIMIT: u64 = 256 * M;
const HEADROOM: u64 = LIMIT / 10;

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

/// What a controller came to in one round. Amounts are MiB.
struct Round {
    figures: Figures,
    direct: f64,
    refaulted: f64,
}

/// Figures of a round, in the order of the columns.
impl Round {
    const HEAD: [&str; 9] = [
        "REQUESTS/s",
        "P50 ms",
        "P99 ms",
        "P99.9 ms",
        "MAX ms",
        "DIRECT M",
        "STALL ms",
        "REFAULT M",
        "CPU ms",
    ];

    fn row(&self) -> [f64; 9] {
        let [half, most, nearly, worst] = self.figures.requests.quantiles([0.5, 0.99, 0.999, 1.0]);
        let stalled = self.figures.stalled.as_secs_f64() * 1e3;
        let rate = self.figures.rate();
        [rate, half, most, nearly, worst, self.direct, stalled, self.refaulted, self.figures.cpu]
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
    println!("{:<12} {}", "BY", Round::HEAD.map(|name| format!("{name:>11}")).join(""));
    let mut all = controllers.each_ref().map(|_| Vec::new());
    for _ in 0..rounds {
        for (controller, rows) in controllers.iter().zip(&mut all) {
            let row = measure(controller, seconds)?.row();
            println!("{:<12} {}", controller.name, row.map(|figure| format!("{figure:>11.1}")).join(""));
            rows.push(row);
        }
    }
    println!("\nmean, and the least and the most of {rounds} rounds");
    for (controller, rows) in controllers.iter().zip(&all) {
        for (column, name) in Round::HEAD.iter().enumerate() {
            let figures = || rows.iter().map(|row| row[column]);
            let mean = figures().sum::<f64>() / f64::from(rounds.max(1));
            let (least, most) = (figures().fold(f64::MAX, f64::min), figures().fold(f64::MIN, f64::max));
            println!("{:<12} {name:>11} {mean:>9.1}  ({least:.1} to {most:.1})", controller.name);
        }
    }
    Ok(())
}

fn measure(controller: &Controller, seconds: u64) -> Result<Round> {
    let at = cgroup()?;
    let limit = |file: &str, bytes: u64| std::fs::write(at.join(file), bytes.to_string()).context("a limit");
    limit("memory.max", LIMIT)?;
    if controller.name == "memory.high" {
        limit("memory.high", LIMIT - HEADROOM)?;
    }
    let loaded = Postgres.begin(&at, true)?;
    let backup = Backup::begin()?;
    let mut running = Running::begin(controller, false)?;
    let began = Instant::now();
    std::thread::sleep(WARM_UP);
    let of = |at: &Path| -> Result<[u64; 2]> {
        Ok([counter(at, "pgsteal_direct")?, counter(at, "workingset_refault_file")?])
    };
    let (meter, before, cpu) = (Meter::begin(&at)?, of(&at)?, running.cpu()?);
    std::thread::sleep(Duration::from_secs(seconds));
    let (mut figures, times) = meter.end(&at)?;
    let after = of(&at)?;
    figures.cpu = (running.cpu()? - cpu) * 1e3;
    running.end(began)?;
    backup.end()?;
    figures.requests = loaded.end()?.within(times);
    remove(&at);
    let mib = |index: usize| (after[index] - before[index]) as f64 * 4096.0 / M as f64;
    Ok(Round { figures, direct: mib(0), refaulted: mib(1) })
}
