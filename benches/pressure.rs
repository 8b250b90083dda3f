//! What `memctl watch --pressure` finds and what that costs an application, beside no controller at all.
//!
//! `pressure compare MEMCTL SECONDS [SHAPE]...` runs in a guest: an application whose hot memory is known, once without a
//! controller, and once with each. `pressure load SHAPE` is that application.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

const CGROUPS: &str = "/sys/fs/cgroup";
const FILE: &str = "/data/pressure";
const M: u64 = 1 << 20;
const PAGE: u64 = 4096;

/// So many pages are touched each time, and so often.
const BATCH: u64 = 256;
const EACH: Duration = Duration::from_millis(2);

/// It has found the working set when no more than that is used, as a share of what is in use.
const FOUND: f64 = 1.15;

/// An application. Amounts are MiB.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    /// All of its anonymous memory, and what of it is hot.
    anon: u64,
    hot: u64,
    /// A file that it reads once, and what of it is hot.
    file: u64,
    hot_file: u64,
    /// How fast the hot part of the anonymous memory moves on, MiB a second.
    drift: f64,
    swap: Swap,
}

#[derive(Clone, Copy, PartialEq)]
enum Swap {
    Zram,
    Slow,
    None,
}

const MAIN: Shape =
    Shape { name: "main", anon: 300, hot: 60, file: 200, hot_file: 0, drift: 0.0, swap: Swap::Zram };
const SHAPES: [Shape; 6] = [
    MAIN,
    Shape { name: "cache", anon: 40, hot: 10, file: 400, hot_file: 60, ..MAIN },
    Shape { name: "large", anon: 550, hot: 90, ..MAIN },
    Shape { name: "drift", drift: 0.5, ..MAIN },
    Shape { name: "noswap", swap: Swap::None, ..MAIN },
    Shape { name: "slowswap", swap: Swap::Slow, ..MAIN },
];

impl Shape {
    fn named(name: &str) -> Result<Self> {
        let shape = SHAPES.iter().find(|shape| shape.name == name);
        shape.copied().with_context(|| format!("{name}: no such shape"))
    }

    /// What must stay, MiB: what is hot, and what can't go.
    fn in_use(&self) -> u64 {
        let anon = if self.swap == Swap::None { self.anon } else { self.hot };
        anon + self.hot_file
    }
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => println!("nothing measured: `make bench-pressure` says on what"),
        ["load", name] => load(Shape::named(name)?)?,
        ["compare", memctl, seconds, ref names @ ..] => {
            println!(
                "{:<9} {:<8} {:>7} {:>7} {:>7} {:>8} {:>8} {:>8} {:>7}",
                "SHAPE", "BY", "FOUND", "LEFT", "SAVED", "STALL", "WORST", "BATCH/s", "CPU"
            );
            for shape in SHAPES.iter().filter(|shape| names.is_empty() || names.contains(&shape.name)) {
                compare(shape, memctl, seconds.parse()?)?;
            }
        }
        _ => bail!("usage: pressure compare MEMCTL SECONDS [SHAPE]..."),
    }
    Ok(())
}

/// The application. At each line on its input it tells how many batches there were since the last, and the slowest.
fn load(shape: Shape) -> Result<()> {
    let mut anon = vec![1u8; (shape.anon * M) as usize];
    let file = File::open(FILE)?;
    let mut buffer = vec![0; M as usize];
    for offset in 0..shape.file {
        file.read_exact_at(&mut buffer, offset * M)?;
    }
    let (tell, told) = channel();
    std::thread::spawn(move || {
        std::io::stdin().lines().map_while(Result::ok).for_each(|line| drop(tell.send(line)));
    });
    println!("ready");
    work(shape, &mut anon, &file, &told)
}

fn work(shape: Shape, anon: &mut [u8], file: &File, told: &Receiver<String>) -> Result<()> {
    let (mut hot, mut random) = (shape.hot, 1u64);
    let (mut batches, mut slowest) = (0u64, Duration::ZERO);
    let (began, mut due) = (Instant::now(), Instant::now());
    let mut page = [0; 8];
    loop {
        let start = Instant::now();
        let moved = (began.elapsed().as_secs_f64() * shape.drift * M as f64) as u64 / PAGE;
        for _ in 0..BATCH {
            // Knuth's MMIX generator: the upper bits are the good ones.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let pages = (hot + shape.hot_file) * M / PAGE;
            let chosen = (random >> 33) % pages;
            if let Some(of_file) = chosen.checked_sub(hot * M / PAGE) {
                file.read_exact_at(&mut page, of_file * PAGE)?;
            } else {
                let place = ((chosen + moved) * PAGE % anon.len() as u64) as usize;
                anon[place] = anon[place].wrapping_add(1);
            }
        }
        batches += 1;
        slowest = slowest.max(start.elapsed());
        match told.try_recv() {
            Ok(line) => {
                if let Some(size) = line.strip_prefix("hot ") {
                    hot = size.parse()?;
                }
                println!("{batches} {}", slowest.as_micros());
                (batches, slowest) = (0, Duration::ZERO);
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => std::process::exit(0),
        }
        // What was late isn't made up for.
        due = (due + EACH).max(Instant::now());
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// The application as the measurement sees it.
struct Load {
    child: Child,
    words: ChildStdin,
    said: BufReader<ChildStdout>,
    asked: Instant,
}

impl Load {
    fn begin(shape: &Shape, app: &Path) -> Result<Self> {
        let mut child = Command::new("/bin/sh")
            .args(["-c", "echo $$ >\"$1/cgroup.procs\"; exec \"$0\" load \"$2\""])
            .arg(std::env::current_exe()?)
            .arg(app)
            .arg(shape.name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let words = child.stdin.take().context("its input")?;
        let mut said = BufReader::new(child.stdout.take().context("its output")?);
        let mut line = String::new();
        said.read_line(&mut line)?;
        ensure!(line == "ready\n", "the load said {line:?}");
        Ok(Self { child, words, said, asked: Instant::now() })
    }

    /// How many batches a second there were since it was asked last, and the slowest in milliseconds.
    fn ask(&mut self, word: &str) -> Result<(f64, f64)> {
        writeln!(self.words, "{word}")?;
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        let (batches, slowest) = line.trim().split_once(' ').context("what the load says")?;
        let time = self.asked.elapsed().as_secs_f64();
        self.asked = Instant::now();
        Ok((batches.parse::<f64>()? / time, slowest.parse::<f64>()? / 1e3))
    }

    fn end(mut self) -> Result<()> {
        drop(self.words);
        self.child.wait()?;
        Ok(())
    }
}

fn compare(shape: &Shape, memctl: &str, seconds: u64) -> Result<()> {
    let verbose = if is_verbose() { "-v" } else { "-q" };
    let watch = [
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
    let controllers: [(&str, &[&str]); 2] = [("none", &[]), ("memctl", &watch)];
    let only = std::env::var("MEMCTL_BENCH_BY").unwrap_or_default();
    for (name, command) in controllers.into_iter().filter(|(name, _)| only.is_empty() || only == *name) {
        let swap = Swapped::on(shape.swap)?;
        println!("{:<9} {:<8} {}", shape.name, name, measure(shape, command, seconds)?);
        drop(swap);
    }
    Ok(())
}

fn measure(shape: &Shape, command: &[&str], seconds: u64) -> Result<String> {
    let app = PathBuf::from(CGROUPS).join("app");
    std::fs::create_dir_all(&app)?;
    File::create(FILE)?.set_len(shape.file * M)?;
    let mut load = Load::begin(shape, &app)?;
    std::thread::sleep(Duration::from_secs(3));
    // What it needs besides its memory and its files: page tables, stacks.
    let fixed = number(&app, "memory.current")?.saturating_sub((shape.anon + shape.file) * M);
    let wanted = ((shape.in_use() * M + fixed) as f64 * FOUND) as u64;
    load.ask("now")?;
    let (began, before) = (Instant::now(), number(&app, "memory.current")?);
    let stalled = stall(&app)?;
    let mut controller = match command {
        [] => None,
        [program, words @ ..] => {
            Some(Command::new(program).args(words).stdout(Stdio::piped()).process_group(0).spawn()?)
        }
    };
    let said = controller.as_mut().and_then(|child| child.stdout.take()).map(|mut out| {
        std::thread::spawn(move || {
            let mut text = String::new();
            out.read_to_string(&mut text).map(|_| text)
        })
    });
    let (mut found, mut worst) = (None, 0.0f64);
    let verbose = is_verbose();
    let mut settled = (0.0, 0u32);
    for half in 0..2 * seconds {
        let due = began + Duration::from_millis(500) * (half as u32 + 1);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let current = number(&app, "memory.current")?;
        if found.is_none() && current <= wanted {
            found = Some(began.elapsed());
        }
        let (rate, slowest) = load.ask("now")?;
        worst = worst.max(slowest);
        if found.is_some() || command.is_empty() {
            settled = (settled.0 + rate, settled.1 + 1);
        }
        if verbose {
            let stall = (stall(&app)? - stalled) as f64 / 1e3;
            println!(
                "  {:>5.1} s {:>4} MiB, {rate:>4.0} batches/s, slowest {slowest:.1} ms, stall {stall:.0} ms",
                began.elapsed().as_secs_f64(),
                current / M
            );
        }
    }
    let (after, stall) = (number(&app, "memory.current")?, stall(&app)? - stalled);
    let mut cpu = 0.0;
    if let Some(mut child) = controller {
        let group = rustix::process::Pid::from_child(&child);
        cpu = cpu_so_far(&child)?;
        rustix::process::kill_process_group(group, rustix::process::Signal::TERM)?;
        child.wait()?;
    }
    if let Some(said) = said.and_then(|thread| thread.join().ok()).transpose()?.filter(|_| verbose) {
        print!("{said}");
    }
    load.end()?;
    std::fs::remove_file(FILE)?;
    // The cgroup is empty a moment later.
    for _ in 0..100 {
        if std::fs::remove_dir(&app).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut out = String::new();
    let found = found.map_or_else(|| "-".to_owned(), |found| format!("{:.0}s", found.as_secs_f64()));
    let _ = write!(
        out,
        "{found:>7} {:>6}M {:>6}M {:>6.0}ms {worst:>6.1}ms {:>8.1} {:>5.0}ms  (within {}M)",
        after / M,
        before.saturating_sub(after) / M,
        stall as f64 / 1e3,
        settled.0 / f64::from(settled.1.max(1)),
        cpu * 1e3,
        wanted / M,
    );
    Ok(out)
}

fn number(app: &Path, file: &str) -> Result<u64> {
    Ok(std::fs::read_to_string(app.join(file))?.trim().parse()?)
}

/// Whether to show the course of it, and what was done.
fn is_verbose() -> bool {
    std::env::var_os("MEMCTL_BENCH_VERBOSE").is_some()
}

/// PSI some, microseconds.
fn stall(app: &Path) -> Result<u64> {
    let text = std::fs::read_to_string(app.join("memory.pressure"))?;
    let total = text.lines().next().and_then(|line| line.rsplit_once("total=")).context("PSI")?.1;
    Ok(total.parse()?)
}

/// CPU time of a process's threads, seconds, to the nanosecond: /proc/PID/task/*/schedstat.
fn cpu_so_far(child: &Child) -> Result<f64> {
    let mut nanos = 0.0;
    for task in std::fs::read_dir(format!("/proc/{}/task", child.id()))? {
        let stat = std::fs::read_to_string(task?.path().join("schedstat"))?;
        nanos += stat.split(' ').next().and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    }
    Ok(nanos / 1e9)
}

/// The guest's swap while a shape runs: zram of 1 GiB, the slow disk, or none.
struct Swapped(Option<&'static str>);

impl Swapped {
    fn on(swap: Swap) -> Result<Self> {
        let device = match swap {
            Swap::None => return Ok(Self(None)),
            Swap::Slow => "/dev/vdc",
            Swap::Zram => "/dev/zram0",
        };
        if swap == Swap::Zram {
            std::fs::write("/sys/block/zram0/disksize", "1G")?;
            shell("mkswap /dev/zram0 >/dev/null")?;
        }
        shell(&format!("swapon {device}"))?;
        Ok(Self(Some(device)))
    }
}

impl Drop for Swapped {
    fn drop(&mut self) {
        let Some(device) = self.0 else { return };
        let _ = shell(&format!("swapoff {device}"));
        if device == "/dev/zram0" {
            let _ = std::fs::write("/sys/block/zram0/reset", "1");
        }
    }
}

fn shell(command: &str) -> Result<()> {
    let status = Command::new("/bin/sh").args(["-c", command]).status()?;
    ensure!(status.success(), "{command}: {status}");
    Ok(())
}
