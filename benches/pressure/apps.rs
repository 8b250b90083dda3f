//! Real applications: what `memctl watch --pressure` finds beside them, what that costs their users,
//! and how they fare under the limit that it suggests.
//!
//! Debian's PostgreSQL, Redis and Java, from the disk of tests/vm/apps, and a process with the shape of
//! a virtual machine's. Each is measured without a controller first, and then its working set is:
//! everything is reclaimed, and what it has taken back after a minute, and after two, is what it used
//! within that time.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::controller::{self, Controller, Running, Set};
use crate::guest::{Swap, Swapped, number, scanned};
use crate::{CGROUPS, M, is_verbose, remove};
use figures::{Figures, Meter, Rounds};
use latency::Latencies;

mod client;
mod figures;
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

/// Latency from which a request is told of, if that is wanted.
const SLOW: Duration = Duration::from_millis(100);

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

pub fn compare(memctl: &str, seconds: u64, rounds: u32, names: &[&str]) -> Result<()> {
    service::prepare()?;
    let apps: [Box<dyn App>; 4] = [
        Box::new(postgres::Postgres::USUAL),
        Box::new(redis::Redis),
        Box::new(java::Java),
        Box::new(vmm::Vmm),
    ];
    for name in names {
        ensure!(apps.iter().any(|app| app.name() == *name), "{name}: no such application");
    }
    ensure!(
        controller::is_wanted("none") || !controller::is_wanted("memory.high"),
        "memory.high needs none, which measures what is in use"
    );
    let mut controllers = controller::all(memctl)?;
    // Where it makes sense alone: with shapes, an application's hot memory is touched all the time.
    if controller::is_wanted("shell-1s") {
        controllers.push(shell());
    }
    for app in apps.iter().filter(|app| names.is_empty() || names.contains(&app.name())) {
        println!("{}: {}", app.name(), Figures::head());
        let (mut all, mut used) = (Rounds::default(), None);
        for _ in 0..rounds {
            let swap = Swapped::on(Swap::Zram)?;
            for controller in &controllers {
                if controller.command.is_empty() {
                    let figures = alone(app.as_ref(), &mut used)?;
                    all.add("none", &figures);
                    // By who knows what is in use, to the tenth.
                    if let Some([minute, _]) = used.filter(|_| controller::is_wanted("memory.high")) {
                        all.add("memory.high", &under(app.as_ref(), "memory.high", minute / 10 * 11)?);
                    }
                    continue;
                }
                let (figures, last, suggested) = controlled(app.as_ref(), controller, seconds, used)?;
                all.add(controller.name, &figures);
                all.add(&format!("{} (end)", controller.name), &last);
                if let Some(limit) = suggested {
                    all.add("suggested", &under(app.as_ref(), "memory.max", limit)?);
                }
            }
            drop(swap);
        }
        all.tell();
    }
    Ok(())
}

/// Returns what many write in a shell: a hundredth each second, as long as nothing is stalled.
fn shell() -> Controller {
    let app = format!("{CGROUPS}/app");
    let script = format!(
        "while :; do read _ stalled _ <{app}/memory.pressure; read used <{app}/memory.current; \
         [ $stalled != avg10=0.00 ] || echo $((used / 100)) >{app}/memory.reclaim; sleep 1; done 2>/dev/null"
    );
    Controller { name: "shell-1s", command: vec!["sh".into(), "-c".into(), script] }
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

/// Measures the application without a controller, and, unless that is known, the bytes that it takes
/// back within one minute, and within two.
fn alone(app: &dyn App, used: &mut Option<[u64; 2]>) -> Result<Figures> {
    let at = cgroup()?;
    let loaded = app.begin(&at, true)?;
    std::thread::sleep(SHORT_WARM_UP);
    progress("measuring without a controller");
    let meter = Meter::begin(&at)?;
    std::thread::sleep(MEASURED);
    let (mut figures, measured) = meter.end()?;
    if used.is_none() {
        progress("reclaiming all of it");
        let least = reclaim_all(&at)?;
        let mut after = [0; 2];
        for after in &mut after {
            std::thread::sleep(Duration::from_secs(60));
            *after = number(&at, "memory.current")?;
        }
        let [one, two] = after.map(|bytes| bytes / M);
        println!(
            "  in use within 1 minute: {one} MiB, within 2: {two} MiB (reclaimed to {} MiB before)",
            least / M
        );
        *used = Some(after);
    }
    figures.requests = loaded.end()?.within(measured);
    remove(&at);
    Ok(figures)
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

/// Measures the application beside a controller, and in the last minute of that, and returns the
/// suggested limit in bytes.
fn controlled(
    app: &dyn App,
    controller: &Controller,
    seconds: u64,
    used: Option<[u64; 2]>,
) -> Result<(Figures, Figures, Option<u64>)> {
    let at = cgroup()?;
    let loaded = app.begin(&at, true)?;
    std::thread::sleep(SHORT_WARM_UP);
    let meter = Meter::begin(&at)?;
    let mut running = Running::begin(controller, false)?;
    let began = Instant::now();
    let (mut last, last_from) = (None, seconds.saturating_sub(MEASURED.as_secs()).max(1));
    for second in 1..=seconds {
        std::thread::sleep((began + Duration::from_secs(second)).saturating_duration_since(Instant::now()));
        if is_verbose() || second % 30 == 0 {
            let (usage, cpu) = (number(&at, "memory.current")? / M, running.cpu()?);
            println!("  {second:>4} s {usage:>4} MiB, {}, {cpu:.2} s of CPU", scanned(&at)?);
        }
        if second == last_from {
            last = Some((Meter::begin(&at)?, running.cpu()?));
        }
    }
    let (mut figures, times) = meter.end()?;
    let cpu = running.cpu()?;
    let (last, before) = last.context("at least a second")?;
    let (mut last, last_times) = last.end()?;
    (figures.cpu, last.cpu) = (cpu, cpu - before);
    let told = running.end(began)?;
    let requests = loaded.end()?;
    (last.requests, figures.requests) = (requests.within(last_times), requests.within(times));
    for (at, took) in figures.requests.slow(SLOW) {
        let at = at.duration_since(times[0]).unwrap_or_default().as_secs_f64();
        progress(&format!("{at:.1} s: a request took {} ms", took.as_millis()));
    }
    remove(&at);
    for Set { at, mib, is_at_most, confidence, suggested } in &told.sets {
        let of_used = used.map_or_else(String::new, |used| {
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
    Ok((figures, last, told.suggested))
}

/// Measures the application, started anew, under a limit and without a controller.
fn under(app: &dyn App, file: &str, limit: u64) -> Result<Figures> {
    let at = cgroup()?;
    println!("  {file} = {} MiB", limit / M);
    std::fs::write(at.join(file), limit.to_string()).with_context(|| file.to_owned())?;
    let loaded = app.begin(&at, false)?;
    std::thread::sleep(WARM_UP);
    let meter = Meter::begin(&at)?;
    std::thread::sleep(MEASURED);
    let (mut figures, times) = meter.end()?;
    figures.requests = loaded.end()?.within(times);
    remove(&at);
    Ok(figures)
}
