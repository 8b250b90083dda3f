//! Real applications: what `memctl watch --pressure` finds beside them, what that costs their users,
//! and how they fare under the limit that it suggests.
//!
//! Debian's PostgreSQL, Redis and Java, from the disk of tests/vm/apps, and a process with the shape of
//! a virtual machine's. Each is measured without a controller first, and then its working set is:
//! everything is reclaimed, and what it has taken back after a minute, and after two, is what it used
//! within that time.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};

use crate::controller::{self, Controller, Running, Set};
use crate::guest::{Swap, Swapped, number, scanned, stall};
use crate::{CGROUPS, M, is_verbose, remove};
use latency::Latencies;

mod client;
mod java;
mod latency;
pub mod limited;
mod postgres;
mod redis;
mod service;
pub mod vmm;

/// Time for which an application is measured without a controller, and under a suggested limit.
const MEASURED: Duration = Duration::from_secs(60);

/// Bytes reclaimed at once.
const STEP: u64 = 10 * M;

/// Time between its start and the measurement, and between its load's start and the measurement
/// where memory was there before.
const WARM_UP: Duration = Duration::from_secs(60);
const SHORT_WARM_UP: Duration = Duration::from_secs(10);

/// An application with its load.
pub trait App {
    fn name(&self) -> &'static str;

    /// Starts the service in a cgroup, and its load: it has all its data in memory if `all`.
    fn begin(&self, cgroup: &Path, all: bool) -> Result<Box<dyn Loaded>>;
}

/// An application under load.
pub trait Loaded {
    /// Ends load and service, and returns the requests of the load.
    fn end(self: Box<Self>) -> Result<Latencies>;
}

pub fn compare(memctl: &str, seconds: u64, names: &[&str]) -> Result<()> {
    service::prepare()?;
    let apps: [Box<dyn App>; 4] =
        [Box::new(postgres::Postgres), Box::new(redis::Redis), Box::new(java::Java), Box::new(vmm::Vmm)];
    for name in names {
        ensure!(apps.iter().any(|app| app.name() == *name), "{name}: no such application");
    }
    for app in apps.iter().filter(|app| names.is_empty() || names.contains(&app.name())) {
        println!("{:<9} {:<8} {}", app.name(), "BY", Figures::HEAD);
        let swap = Swapped::on(Swap::Zram)?;
        let mut without = None;
        for controller in controller::all(memctl)? {
            if controller.command.is_empty() {
                without = Some(alone(app.as_ref())?);
                continue;
            }
            let suggested = controlled(app.as_ref(), &controller, seconds, without.as_ref())?;
            if let Some(limit) = suggested {
                under(app.as_ref(), limit, without.as_ref())?;
            }
        }
        drop(swap);
    }
    Ok(())
}

/// What a time of measuring showed.
struct Figures {
    requests: Latencies,
    time: Duration,
    stalled: Duration,
    current: u64,
    /// Milliseconds of the controller.
    cpu: f64,
}

impl Figures {
    const HEAD: &'static str = "   USAGE  REQUESTS/s      p50      p99    p99.9      max  STALLED  CPU";

    fn row(&self, alone: Option<&Alone>) -> String {
        let rate = self.rate();
        let share = alone.map_or_else(String::new, |(without, _)| {
            format!("  {:.1}% of its requests", 100.0 * rate / without.rate())
        });
        let [half, most, nearly, worst] = self.requests.quantiles([0.5, 0.99, 0.999, 1.0]);
        format!(
            "{:>6}M {rate:>11.1} {half:>6.1}ms {most:>6.1}ms {nearly:>6.1}ms {worst:>6.1}ms {:>7.2}% {:>4.1}%{share}",
            self.current / M,
            100.0 * self.stalled.as_secs_f64() / self.time.as_secs_f64(),
            self.cpu / 10.0 / self.time.as_secs_f64(),
        )
    }

    fn rate(&self) -> f64 {
        self.requests.count() as f64 / self.time.as_secs_f64()
    }
}

/// A time of measuring that began.
struct Meter {
    began: (Instant, SystemTime),
    stalled: u64,
}

impl Meter {
    fn begin(app: &Path) -> Result<Self> {
        Ok(Self { began: (Instant::now(), SystemTime::now()), stalled: stall(app)? })
    }

    /// Returns the figures up to now, whose requests are known when the load ended.
    fn end(self, app: &Path) -> Result<(Figures, [SystemTime; 2])> {
        let figures = Figures {
            requests: Latencies::default(),
            time: self.began.0.elapsed(),
            stalled: Duration::from_micros(stall(app)? - self.stalled),
            current: number(app, "memory.current")?,
            cpu: 0.0,
        };
        Ok((figures, [self.began.1, SystemTime::now()]))
    }
}

/// Prints what happens, if that is wanted.
fn progress(what: &str) {
    if is_verbose() {
        println!("  {what}");
    }
}

fn cgroup() -> Result<PathBuf> {
    let app = PathBuf::from(CGROUPS).join("app");
    std::fs::create_dir_all(&app)?;
    // What the page cache has of the files is charged to whoever read them first.
    std::fs::write("/proc/sys/vm/drop_caches", "3")?;
    Ok(app)
}

/// Figures of an application without a controller, and the bytes that it takes back within one
/// minute, and within two.
type Alone = (Figures, [u64; 2]);

/// Measures the application without a controller, and its working set.
fn alone(app: &dyn App) -> Result<Alone> {
    let at = cgroup()?;
    let loaded = app.begin(&at, true)?;
    std::thread::sleep(SHORT_WARM_UP);
    progress("measuring without a controller");
    let meter = Meter::begin(&at)?;
    std::thread::sleep(MEASURED);
    let (mut figures, measured) = meter.end(&at)?;
    progress("reclaiming all of it");
    let least = reclaim_all(&at)?;
    let mut used = [0; 2];
    for used in &mut used {
        std::thread::sleep(Duration::from_secs(60));
        *used = number(&at, "memory.current")?;
    }
    figures.requests = loaded.end()?.within(measured);
    remove(&at);
    println!("{:<9} {:<8} {}", app.name(), "none", figures.row(None));
    println!(
        "  in use within 1 minute: {} MiB, within 2: {} MiB (reclaimed to {} MiB before)",
        used[0] / M,
        used[1] / M,
        least / M
    );
    Ok((figures, used))
}

/// Reclaims until what the load takes back is all that writes reclaim, and returns the usage then.
/// Beside page cache in use the kernel may fail to take anonymous memory, so it is asked for that
/// alone as well, where it can be (since Linux 6.16).
fn reclaim_all(at: &Path) -> Result<u64> {
    const RETRIES: u32 = 3;
    let mut failed = 0;
    while failed < RETRIES {
        let before = number(at, "memory.current")?;
        for kind in ["", " swappiness=max"] {
            // What it says isn't what it did.
            let _ = std::fs::write(at.join("memory.reclaim"), format!("{STEP}{kind}"));
        }
        failed = if number(at, "memory.current")? + STEP / 2 > before { failed + 1 } else { 0 };
    }
    number(at, "memory.current")
}

/// Measures the application beside a controller, and returns the suggested limit in bytes.
fn controlled(
    app: &dyn App,
    controller: &Controller,
    seconds: u64,
    alone: Option<&Alone>,
) -> Result<Option<u64>> {
    let at = cgroup()?;
    let loaded = app.begin(&at, true)?;
    std::thread::sleep(SHORT_WARM_UP);
    let meter = Meter::begin(&at)?;
    let mut running = Running::begin(controller, false)?;
    let began = Instant::now();
    for second in 1..=seconds {
        std::thread::sleep((began + Duration::from_secs(second)).saturating_duration_since(Instant::now()));
        if is_verbose() || second % 30 == 0 {
            let (usage, cpu) = (number(&at, "memory.current")? / M, running.cpu()?);
            println!("  {second:>4} s {usage:>4} MiB, {}, {cpu:.2} s of CPU", scanned(&at)?);
        }
    }
    let (mut figures, times) = meter.end(&at)?;
    figures.cpu = running.cpu()? * 1e3;
    let told = running.end(began)?;
    figures.requests = loaded.end()?.within(times);
    remove(&at);
    println!("{:<9} {:<8} {}", app.name(), controller.name, figures.row(alone));
    for Set { at, mib, is_at_most, confidence, suggested } in &told.sets {
        let of_used = alone.map_or_else(String::new, |(_, used)| {
            let [one, two] = used.map(|used| 100.0 * *mib as f64 / (used / M) as f64);
            format!(" {one:.0}% of what it uses within 1 minute, {two:.0}% within 2;")
        });
        println!(
            "  told after {:.0} s: {}{mib} MiB ({:.0}% sure),{of_used} limit {}",
            at.as_secs_f64(),
            if *is_at_most { "at most " } else { "" },
            100.0 * confidence,
            suggested.map_or_else(|| "none".to_owned(), |bytes| format!("{} MiB", bytes / M)),
        );
    }
    Ok(told.suggested)
}

/// Measures the application, started anew, under a limit and without a controller.
fn under(app: &dyn App, limit: u64, alone: Option<&Alone>) -> Result<()> {
    let at = cgroup()?;
    std::fs::write(at.join("memory.max"), limit.to_string()).context("memory.max")?;
    let loaded = app.begin(&at, false)?;
    std::thread::sleep(WARM_UP);
    let meter = Meter::begin(&at)?;
    std::thread::sleep(MEASURED);
    let (mut figures, times) = meter.end(&at)?;
    figures.requests = loaded.end()?.within(times);
    remove(&at);
    println!("{:<9} {:<8} {}", app.name(), format!("max={}M", limit / M), figures.row(alone));
    Ok(())
}
