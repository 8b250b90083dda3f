//! Savings of `memctl watch` for an application, beside nothing and beside a user's own loop in the
//! shell.
//!
//! `watch compare MEMCTL SECONDS [SHAPE]...` runs in a guest: an application under a limit, once
//! without a controller, and once with each, or with those that `MEMCTL_BENCH_BY` names. With
//! `MEMCTL_BENCH_ABOVE`, the limit is that of the application's parent, as below a slice.
//! `MEMCTL_BENCH_EACH` is what it reclaims each time that it meets its limit, bytes, for kernels that
//! don't tell who reclaimed, where `none` isn't among them.
//! `watch load …` is that application. The cost of a watch where nothing happens is in `rest.rs`.

#![allow(clippy::disallowed_methods, reason = "reads numbers of its own cgroups")]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

mod load;
mod rest;

const CGROUPS: &str = "/sys/fs/cgroup";
const M: u64 = 1 << 20;

/// Returns the application's cgroup, and the one with the limit, by their names.
fn cgroups() -> [&'static str; 2] {
    if std::env::var_os("MEMCTL_BENCH_ABOVE").is_some() { ["slice/app", "slice"] } else { ["app", "app"] }
}

/// An application, and its limit. Amounts are in MiB.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    limit: u64,
    /// Amount read per second, in a loop, and the size of the file.
    stream: u64,
    file: u64,
    /// Memory touched all the time.
    hot: u64,
    /// Memory allocated at once every three seconds, and freed after one.
    burst: u64,
    /// Memory allocated each second and never freed.
    leak: u64,
    /// Memory grown over five seconds, and freed at once.
    saw: u64,
    /// Amount of the same file read through a mapping per second, in a loop.
    paged: u64,
    /// Size of a mapped file of which random pages are read all the time.
    mapped: u64,
    /// Amount written to a file per second, with fsync(2) after each quarter of a MiB.
    synced: u64,
    /// Amount of tmpfs filled over five seconds, and freed at once.
    tmpfs: u64,
}

const NOTHING: Shape = Shape {
    name: "",
    limit: 192,
    stream: 0,
    file: 700,
    hot: 1,
    burst: 0,
    leak: 0,
    saw: 0,
    paged: 0,
    mapped: 0,
    synced: 0,
    tmpfs: 0,
};

const SHAPES: [Shape; 12] = [
    Shape { name: "stream", limit: 256, stream: 60, hot: 60, burst: 30, ..NOTHING },
    Shape { name: "narrow", stream: 45, hot: 60, burst: 30, ..NOTHING },
    Shape { name: "bursts", limit: 1024, stream: 60, file: 1400, hot: 60, burst: 100, ..NOTHING },
    Shape { name: "paged", limit: 256, paged: 60, hot: 60, burst: 30, ..NOTHING },
    // Read again and again: a file that fits below the limit, but not below the headroom, and one
    // that is a little larger than the limit.
    Shape { name: "fits", stream: 120, file: 178, ..NOTHING },
    Shape { name: "loop", stream: 120, file: 200, ..NOTHING },
    // In use: all but half of the headroom.
    Shape { name: "hot", mapped: 176, ..NOTHING },
    // The same, with a stream beside it that arrives at the limit.
    Shape { name: "over", mapped: 176, stream: 20, ..NOTHING },
    Shape { name: "fsync", synced: 8, stream: 20, hot: 40, ..NOTHING },
    Shape { name: "tmpfs", tmpfs: 80, stream: 45, hot: 40, ..NOTHING },
    Shape { name: "leak", limit: 256, stream: 20, hot: 40, leak: 8, ..NOTHING },
    Shape { name: "sawtooth", limit: 256, stream: 40, hot: 40, saw: 80, ..NOTHING },
];

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => println!("nothing measured: `make bench-watch` says on what"),
        ["load", name] => load::load(shape(name)?)?,
        ["compare", memctl, seconds, ref names @ ..] => {
            println!(
                "{:<9} {:<10} {:>7} {:>8} {:>9} {:>9} {:>9} {:>6} {:>6} {:>7}",
                "SHAPE", "CONTROLLER", "DIRECT", "STALL", "LATE", "BURST", "CPU", "/WRITE", "LATE", "STREAM"
            );
            let all = SHAPES.map(|shape| shape.name);
            for name in if names.is_empty() { &all } else { names } {
                compare(&shape(name)?, memctl, seconds.parse()?)?;
            }
        }
        ["rest", memctl, count, seconds] => rest::real(memctl, count.parse()?, seconds.parse()?)?,
        ["synthetic", count, busy, seconds] => {
            rest::synthetic(count.parse()?, busy.parse()?, seconds.parse()?)?;
        }
        ["stir", tree, busy] => rest::stir(tree.as_ref(), busy.parse()?)?,
        _ => bail!(
            "usage: watch compare MEMCTL SECONDS [SHAPE]... | watch rest MEMCTL COUNT SECONDS | watch synthetic COUNT BUSY SECONDS"
        ),
    }
    Ok(())
}

fn shape(name: &str) -> Result<Shape> {
    SHAPES.iter().find(|shape| shape.name == name).copied().with_context(|| format!("{name}: no such shape"))
}

fn compare(shape: &Shape, memctl: &str, seconds: u64) -> Result<()> {
    let (headroom, [app, limited]) = (shape.limit * M / 10, cgroups());
    let looped = |pause: &str| {
        format!(
            "while :; do read used <current; free=$(({limit} - used)); \
             [ $free -ge {headroom} ] || echo $(({headroom} - free)) >reclaim; sleep {pause}; done 2>/dev/null",
            limit = shape.limit * M
        )
        .replace("<current", &format!("<{CGROUPS}/{limited}/memory.current"))
        .replace(">reclaim", &format!(">{CGROUPS}/{app}/memory.reclaim"))
    };
    // The first run's cost in an emulator or a cold cache is no part of the comparison.
    let warm = PathBuf::from(CGROUPS).join("warm");
    std::fs::create_dir_all(&warm)?;
    std::fs::write(warm.join("memory.max"), (64 * M).to_string())?;
    Command::new(memctl)
        .args(["watch", "warm", "--headroom", "10%", "--json", "--duration", "2s"])
        .output()?;
    std::fs::remove_dir(&warm)?;
    let controllers: [(&str, Vec<String>); 4] = [
        ("none", Vec::new()),
        ("shell-1s", vec!["sh".into(), "-c".into(), looped("1")]),
        ("shell-0.1s", vec!["sh".into(), "-c".into(), looped("0.1")]),
        ("memctl", {
            let words = [memctl, "watch", app, "--headroom", "10%", "--json"].into_iter();
            words.chain((app != limited).then_some("--ancestors")).map(str::to_owned).collect()
        }),
    ];
    // Some of them only: `none` first, which the others are compared with.
    let only = std::env::var("MEMCTL_BENCH_BY").unwrap_or_default();
    let wanted = |name: &str| only.is_empty() || only.split_whitespace().any(|word| word == name);
    let mut each = std::env::var("MEMCTL_BENCH_EACH").ok().and_then(|bytes| bytes.parse().ok());
    for (name, command) in controllers.iter().filter(|(name, _)| wanted(name)) {
        println!("{:<9} {:<10} {}", shape.name, name, measure(shape, command, seconds, &mut each)?);
    }
    Ok(())
}

/// Measures the application beside a controller. `each` is what it reclaims each time that it meets
/// its limit, bytes: measured where there is no controller, and used where the kernel doesn't tell
/// who reclaimed.
fn measure(shape: &Shape, command: &[String], seconds: u64, each: &mut Option<f64>) -> Result<String> {
    let [app, limited] = cgroups().map(|name| Path::new(CGROUPS).join(name));
    std::fs::create_dir_all(&limited)?;
    if app != limited {
        std::fs::write(limited.join("cgroup.subtree_control"), "+memory")?;
        std::fs::create_dir_all(&app)?;
    }
    std::fs::write(limited.join("memory.max"), (shape.limit * M).to_string())?;
    load::prepare(shape)?;
    let mut load = Command::new("/bin/sh")
        .args(["-c", "echo $$ >\"$2\"/cgroup.procs; exec \"$0\" load \"$1\""])
        .arg(std::env::current_exe()?)
        .arg(shape.name)
        .arg(&app)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = BufReader::new(load.stdout.take().context("its output")?);
    let mut line = String::new();
    said.read_line(&mut line)?;
    ensure!(line == "ready\n", "the load said {line:?}");
    let controller = match command {
        [] => None,
        [program, words @ ..] => {
            Some(Command::new(program).args(words).stdout(Stdio::piped()).process_group(0).spawn()?)
        }
    };
    let began = Instant::now();
    let before = Counters::of(&app, &limited)?;
    // The first third is for learning.
    std::thread::sleep(Duration::from_secs(seconds) / 3);
    let learned = Counters::of(&app, &limited)?;
    let learning = began.elapsed();
    let cpu_learning =
        controller.as_ref().map(|child| rest::cpu_so_far(child.id())).transpose()?.unwrap_or(0.0);
    std::thread::sleep(Duration::from_secs(seconds) * 2 / 3);
    let after = Counters::of(&app, &limited)?;
    let spent = match controller {
        Some(child) => end(child, learning, cpu_learning)?,
        None => Spent::default(),
    };
    drop(load.stdin.take());
    line.clear();
    said.read_line(&mut line)?;
    load.wait()?;
    let said = load::Said::parse(&line)?;
    load::clear(shape)?;
    // The cgroup is empty a moment later.
    for _ in 0..100 {
        let _ = std::fs::remove_dir(&app);
        if std::fs::remove_dir(&limited).is_ok() || !limited.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let total = (after.proactive.unwrap_or(0) - before.proactive.unwrap_or(0)) as f64 / M as f64
        + (after.direct - before.direct) as f64 / M as f64;
    let met = after.met - before.met;
    if command.is_empty() {
        *each = Some((after.direct - before.direct) as f64 / met.max(1) as f64);
    }
    // Before 6.15 the kernel counts all reclaim as direct.
    let direct = |from: &Counters, to: &Counters| {
        let counted = (to.direct - from.direct) as f64;
        let own = each.filter(|_| to.proactive.is_none()).map(|each| each * (to.met - from.met) as f64);
        own.map_or(counted, |own| own.min(counted)) / M as f64
    };
    let mut out = String::new();
    let _ = write!(
        out,
        "{:>6.0}M {:>6.0}ms {:>7.1}ms {:>7.0}ms {:>7.0}ms {:>6.2} {:>6.2} {:>6}M",
        direct(&before, &after),
        (after.stalled - before.stalled) as f64 / 1e3,
        (after.stalled - learned.stalled) as f64 / 1e3,
        said.slowest / 1e3,
        spent.cpu * 1e3,
        if spent.writing > 0.0 { spent.cpu / spent.writing } else { 0.0 },
        if spent.late_writing > 0.0 { spent.late_cpu / spent.late_writing } else { 0.0 },
        said.done / M
    );
    let _ = write!(
        out,
        "  {} operations, p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.1} ms;",
        said.operations,
        said.half / 1e3,
        said.most / 1e3,
        said.nearly_all / 1e3,
        said.worst / 1e3
    );
    let _ = write!(
        out,
        "  direct {:.1}% of {total:.0}M, {:.1}M of it late, limit met {met} times, refaults {:.0}M",
        100.0 * direct(&before, &after) / total.max(1.0),
        direct(&learned, &after),
        (after.refaulted - before.refaulted) as f64 / M as f64
    );
    Ok(out)
}

/// CPU time of a controller, in seconds: in total and inside its writes, if it reports that; and
/// the same after it has learned.
#[derive(Default)]
struct Spent {
    cpu: f64,
    writing: f64,
    late_cpu: f64,
    late_writing: f64,
}

/// Stops a controller that had finished learning after `learning`, with `cpu_learning` spent by
/// then.
fn end(mut child: Child, learning: Duration, cpu_learning: f64) -> Result<Spent> {
    let (ticks, so_far) = (cpu_ticks(&child)?, rest::cpu_so_far(child.id())?);
    let group = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process_group(group, rustix::process::Signal::TERM)?;
    let mut said = String::new();
    child.stdout.take().context("its output")?.read_to_string(&mut said)?;
    child.wait()?;
    if std::env::var_os("MEMCTL_BENCH_RECORD").is_some() {
        said.lines().filter(|line| line.starts_with('{')).for_each(|line| println!("record {line}"));
    }
    let mut spent = Spent { cpu: ticks, late_cpu: so_far - cpu_learning, ..Spent::default() };
    for line in said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()) {
        let usec = |key: &str| line[key].as_f64().map(|usec| usec / 1e6);
        if line["event"] == "summary" {
            spent.writing += usec("cpu_usec").unwrap_or(0.0);
        }
        if line["event"] == "reclaim" && usec("at_usec") > Some(learning.as_secs_f64()) {
            spent.late_writing += usec("cpu_usec").unwrap_or(0.0);
        }
        spent.cpu = usec("total_cpu_usec").unwrap_or(spent.cpu);
    }
    Ok(spent)
}

/// Returns the CPU time of a process and of the children that it waited for, in seconds:
/// /proc/PID/stat.
fn cpu_ticks(child: &Child) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id()))?;
    let (_, fields) = stat.rsplit_once(')').context("a stat")?;
    let times = fields.split_whitespace().skip(11).take(4).filter_map(|field| field.parse::<f64>().ok());
    Ok(times.sum::<f64>() / rustix::param::clock_ticks_per_second() as f64)
}

struct Counters {
    direct: u64,
    refaulted: u64,
    /// Number of times that the limit was met.
    met: u64,
    /// `None` where it isn't counted for itself.
    proactive: Option<u64>,
    stalled: u64,
}

impl Counters {
    fn of(app: &Path, limited: &Path) -> Result<Self> {
        let stat = std::fs::read_to_string(app.join("memory.stat"))?;
        let events = std::fs::read_to_string(limited.join("memory.events"))?;
        let value = |text: &str, key: &str| -> Option<u64> {
            text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
        };
        let bytes = |key: &str| value(&stat, key).map(|pages| pages * 4096);
        let pressure = std::fs::read_to_string(app.join("memory.pressure"))?;
        let stalled = pressure.lines().next().and_then(|line| line.rsplit_once("total=")?.1.parse().ok());
        Ok(Self {
            met: value(&events, "max").unwrap_or(0),
            refaulted: bytes("workingset_refault_file").unwrap_or(0),
            direct: bytes("pgsteal_direct").unwrap_or(0),
            proactive: bytes("pgsteal_proactive"),
            stalled: stalled.unwrap_or(0),
        })
    }
}
