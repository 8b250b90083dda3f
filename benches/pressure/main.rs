//! Results of `memctl watch --pressure` and their cost for an application, beside oomd's senpai
//! plugin and no controller.
//!
//! `pressure compare MEMCTL SECONDS [SHAPE[:TIMES]]...` runs in a guest: an application with a
//! known amount of hot memory, with each controller in turn. `pressure load SHAPE FILE` is that
//! application, and `pressure limits SHAPE MIB...` plays it under limits. `pressure apps MEMCTL ROUNDS SECONDS [APP]...` does it with real applications, and
//! `pressure vmm IMAGE` is one of them. `pressure limited MEMCTL SECONDS ROUNDS` has one of them below
//! a limit, beside `memctl watch --headroom`.

#![allow(clippy::disallowed_methods, reason = "reads numbers of its own cgroups")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

mod apps;
mod controller;
mod guest;
mod limit;
mod load;

use controller::{Controller, Running, Told};
use guest::{Swap, Swapped, number, stall, used};
use load::{Load, file_of};

const CGROUPS: &str = "/sys/fs/cgroup";
/// Name of the second cgroup, see `Twist::Sibling`.
const SIBLING: &str = "sibling";
const M: u64 = 1 << 20;

/// Maximum usage at which the working set counts as found, as a multiple of the memory in use.
const FOUND: f64 = 1.15;

/// Number of runs of the decisive shape, if none is named.
const TIMES: u32 = 5;

/// Interval between samples of usage and batches.
const EACH: Duration = Duration::from_millis(500);

/// Times at which swap is switched off and on again, in seconds.
const SWAP_OFF: u64 = 40;
const SWAP_ON: u64 = 50;

/// Times in the shape that changes, in seconds: the hot memory doubles, halves, and the run ends.
const DOUBLES: u64 = 60;
const HALVES: u64 = 100;
const ENDS: u64 = 180;

/// An application. Amounts are in MiB.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    /// Total and hot anonymous memory.
    anon: u64,
    hot: u64,
    /// Total and hot part of a file that the application reads once.
    file: u64,
    hot_file: u64,
    /// Speed at which the hot part of the anonymous memory moves on, in MiB per second.
    drift: f64,
    /// Seconds in which each hot page is touched once; 0 for random pages all the time.
    reuse: u64,
    /// Touches per second of pages by a Zipf law; 0 for another law.
    zipf: u64,
    /// MiB per second that are written to another file.
    writes: u64,
    swap: Swap,
    twist: Twist,
}

/// What is special about an application.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Twist {
    None,
    /// The hot part of the anonymous memory doubles, and halves.
    Changes,
    /// The anonymous memory is in huge pages, and its hot part spread over all of them.
    Huge,
    /// Another one like it runs beside it, under the same controller and with the same swap.
    Sibling,
    /// Swap is switched off midway, and on again.
    SwapOff,
}

const MAIN: Shape = Shape {
    name: "main",
    anon: 300,
    hot: 60,
    file: 200,
    hot_file: 0,
    drift: 0.0,
    reuse: 0,
    zipf: 0,
    writes: 0,
    swap: Swap::Zram,
    twist: Twist::None,
};
const SHAPES: [Shape; 20] = [
    MAIN,
    Shape { name: "cache", anon: 40, hot: 10, file: 400, hot_file: 60, ..MAIN },
    // Services, whose program is page cache in use.
    Shape { name: "mixed5", hot_file: 5, ..MAIN },
    Shape { name: "mixed20", hot_file: 20, ..MAIN },
    Shape { name: "mixed60", hot_file: 60, ..MAIN },
    Shape { name: "large", anon: 550, hot: 90, ..MAIN },
    Shape { name: "drift", drift: 0.5, ..MAIN },
    Shape { name: "noswap", swap: Swap::None, ..MAIN },
    Shape { name: "zswap", swap: Swap::Zswap, ..MAIN },
    Shape { name: "disk", file: 100, swap: Swap::Disk, ..MAIN },
    Shape { name: "slowswap", swap: Swap::Slow, ..MAIN },
    Shape { name: "change", twist: Twist::Changes, ..MAIN },
    Shape { name: "huge", twist: Twist::Huge, ..MAIN },
    // Of 300 MiB, 177 are touched within a minute.
    Shape { name: "zipf", hot: 177, zipf: 4000, ..MAIN },
    Shape { name: "writer", file: 100, writes: 4, swap: Swap::Disk, ..MAIN },
    Shape { name: "siblings", anon: 150, hot: 30, file: 50, swap: Swap::Disk, twist: Twist::Sibling, ..MAIN },
    Shape { name: "swapoff", twist: Twist::SwapOff, ..MAIN },
    Shape { name: "reuse10", hot: 120, reuse: 10, ..MAIN },
    Shape { name: "reuse30", hot: 120, reuse: 30, ..MAIN },
    Shape { name: "reuse60", hot: 120, reuse: 60, ..MAIN },
];

impl Shape {
    fn named(name: &str) -> Result<Self> {
        let shape = SHAPES.iter().find(|shape| shape.name == name);
        shape.copied().with_context(|| format!("{name}: no such shape"))
    }

    /// Returns the memory that must stay, in MiB: the hot part, and anything that can't be
    /// reclaimed.
    fn in_use(&self) -> u64 {
        let anon = if self.swap == Swap::None { self.anon } else { self.hot };
        anon + self.hot_file
    }
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => println!("nothing measured: `make bench-pressure` says on what"),
        ["apps", memctl, rounds, seconds, ref names @ ..] => {
            apps::compare(memctl, seconds.parse()?, rounds.parse()?, names)?;
        }
        ["limited", memctl, seconds, rounds] => {
            apps::limited::compare(memctl, seconds.parse()?, rounds.parse()?)?;
        }
        ["limits", name, ref limits @ ..] => {
            let limits = limits.iter().map(|limit| limit.parse()).collect::<Result<Vec<_>, _>>()?;
            limit::compare(&Shape::named(name)?, &limits)?;
        }
        ["vmm", image] => apps::vmm::run(image.as_ref())?,
        ["load", name, file] => load::load(Shape::named(name)?, file.as_ref())?,
        ["compare", memctl, seconds, ref names @ ..] => {
            let mut wanted = names.iter().map(|name| repeated(name)).collect::<Result<Vec<_>>>()?;
            if wanted.is_empty() {
                wanted = SHAPES
                    .iter()
                    .map(|shape| (*shape, if shape.name == MAIN.name { TIMES } else { 1 }))
                    .collect();
            }
            println!(
                "{:<9} {:<8} {:>7} {:>7} {:>7} {:>8} {:>8} {:>8} {:>7}",
                "SHAPE", "BY", "FOUND", "LEFT", "SAVED", "STALL", "WORST", "BATCH/s", "CPU"
            );
            for (shape, times) in wanted {
                compare(&shape, memctl, seconds.parse()?, times)?;
            }
        }
        _ => bail!(
            "usage: pressure compare MEMCTL SECONDS [SHAPE[:TIMES]]..., or pressure apps MEMCTL ROUNDS SECONDS [APP]..."
        ),
    }
    Ok(())
}

fn repeated(name: &str) -> Result<(Shape, u32)> {
    let (name, times) = name.split_once(':').unwrap_or((name, "1"));
    Ok((Shape::named(name)?, times.parse().with_context(|| format!("{name}:{times}: how often?"))?))
}

fn compare(shape: &Shape, memctl: &str, seconds: u64, times: u32) -> Result<()> {
    for controller in controller::all(memctl)? {
        let mut courses = Vec::new();
        for _ in 0..times {
            let swap = Swapped::on(shape.swap)?;
            let course =
                measure(shape, &controller, if shape.twist == Twist::Changes { ENDS } else { seconds })?;
            println!("{:<9} {:<8} {}", shape.name, controller.name, course.row());
            if shape.twist == Twist::Changes {
                if !controller.command.is_empty() {
                    course.tell_changes(shape);
                }
            } else {
                course.tell_estimates(shape);
            }
            if let Some(limit) = course.told.suggested {
                println!("  {}", limit::under(shape, limit, course.batches)?);
            }
            courses.push(course);
            drop(swap);
        }
        if times > 1 {
            println!(
                "{:<9} {:<8} {}  median of {times}",
                shape.name,
                controller.name,
                Course::median(&courses).row()
            );
        }
    }
    Ok(())
}

/// A sample of half a second.
struct Seen {
    at: Duration,
    current: u64,
    /// Batches per second.
    batches: f64,
    /// Slowest batch in milliseconds.
    slowest: f64,
}

/// Results of a run.
#[derive(Default)]
struct Course {
    found: Option<Duration>,
    /// Bytes.
    wanted: u64,
    before: u64,
    after: u64,
    fixed: u64,
    /// Milliseconds.
    stalled: f64,
    worst: f64,
    cpu: f64,
    /// Batches per second, after the working set was found.
    batches: f64,
    seen: Vec<Seen>,
    told: Told,
}

impl Course {
    fn row(&self) -> String {
        let found = self.found.map_or_else(|| "-".to_owned(), |found| format!("{:.0}s", found.as_secs_f64()));
        format!(
            "{found:>7} {:>6}M {:>6}M {:>6.0}ms {:>6.1}ms {:>8.1} {:>5.0}ms  (within {}M, {:.1} batches/s and slow {:.4} ms over all)",
            self.after / M,
            self.before.saturating_sub(self.after) / M,
            self.stalled,
            self.worst,
            self.batches,
            self.cpu,
            self.wanted / M,
            self.seen.iter().map(|seen| seen.batches).sum::<f64>() / self.seen.len().max(1) as f64,
            self.slow(),
        )
    }

    /// Returns the median of the slowest batches of each half a second, in milliseconds: of 245
    /// batches, about one in 350 takes longer.
    fn slow(&self) -> f64 {
        let mut slowest: Vec<_> = self.seen.iter().map(|seen| seen.slowest).collect();
        slowest.sort_unstable_by(f64::total_cmp);
        slowest.get(slowest.len() / 2).copied().unwrap_or_default()
    }

    /// Returns the median of each figure.
    fn median(of: &[Self]) -> Self {
        let middle = |figure: &dyn Fn(&Self) -> f64| {
            let mut figures: Vec<_> = of.iter().map(figure).collect();
            figures.sort_unstable_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        // Never counts as later than any time.
        let found = middle(&|course| course.found.map_or(f64::MAX, |found| found.as_secs_f64()));
        Self {
            found: Duration::try_from_secs_f64(found).ok(),
            wanted: middle(&|course| course.wanted as f64) as u64,
            before: middle(&|course| course.before as f64) as u64,
            after: middle(&|course| course.after as f64) as u64,
            stalled: middle(&|course| course.stalled),
            worst: middle(&|course| course.worst),
            cpu: middle(&|course| course.cpu),
            batches: middle(&|course| course.batches),
            ..Self::default()
        }
    }

    /// Prints each estimate that is no bound beside what is in use, so that confidence can be compared
    /// with what came of it.
    fn tell_estimates(&self, shape: &Shape) {
        let in_use = (shape.in_use() * M + self.fixed) / M;
        for set in self.told.sets.iter().filter(|set| !set.is_at_most) {
            println!(
                "  estimate after {:.0} s: {}M at {:.0}%, in use {in_use}M ({:+.0}%)",
                set.at.as_secs_f64(),
                set.mib,
                100.0 * set.confidence,
                100.0 * (set.mib as f64 / in_use as f64 - 1.0)
            );
        }
    }

    /// Prints the delays until changes were followed.
    fn tell_changes(&self, shape: &Shape) {
        let (doubled, halved) = (Duration::from_secs(DOUBLES), Duration::from_secs(HALVES));
        let is_in = |hot: u64| (hot * M + self.fixed, ((hot * M + self.fixed) as f64 * FOUND) as u64);
        let ((large, _), (small, small_most)) = (is_in(2 * shape.hot), is_in(shape.hot));
        let between = self.seen.iter().filter(|seen| seen.at > doubled && seen.at <= halved);
        // Over the 20 s before.
        let before =
            self.seen.iter().filter(|seen| seen.at <= doubled && seen.at + Duration::from_secs(20) > doubled);
        let mut before: Vec<_> = before.map(|seen| seen.batches).collect();
        before.sort_unstable_by(f64::total_cmp);
        let undisturbed = before.get(before.len() / 2).copied().unwrap_or_default();
        // For two seconds in a row.
        let between: Vec<_> = between.collect();
        let is_quick = |seen: &&Seen| seen.batches >= 0.95 * undisturbed && seen.slowest < 30.0;
        let quick = between.windows(4).find(|seen| seen.iter().all(is_quick));
        let worked =
            quick.map_or(Duration::MAX, |seen| seen[0].at.saturating_sub(EACH).saturating_sub(doubled));
        let after = |from: Duration, is: &dyn Fn(&Seen) -> bool| {
            let seen = self.seen.iter().find(|seen| seen.at > from && is(seen));
            seen.map_or_else(
                || "never".to_owned(),
                |seen| format!("{:.1} s", seen.at.saturating_sub(from).as_secs_f64()),
            )
        };
        let told = |from: Duration, wanted: u64| {
            let near = |told: u64| (told * M).abs_diff(wanted) as f64 <= (FOUND - 1.0) * wanted as f64;
            let told = self.told.sets.iter().find(|set| set.at > from && !set.is_at_most && near(set.mib));
            told.map_or_else(
                || "never".to_owned(),
                |set| format!("{:.1} s", set.at.saturating_sub(from).as_secs_f64()),
            )
        };
        println!(
            "  doubled: all in memory after {}, at full speed after {:.1} s, told after {}",
            after(doubled, &|seen| seen.current as f64 >= 0.95 * large as f64),
            worked.as_secs_f64(),
            told(doubled, large),
        );
        println!(
            "  halved: found again after {}, told after {}",
            after(halved, &|seen| seen.current <= small_most),
            told(halved, small)
        );
    }
}

/// Starts the application in a cgroup of its own, under a limit in bytes if there is one.
fn begin(shape: &Shape, name: &str, limit: Option<u64>) -> Result<(PathBuf, Load)> {
    let app = PathBuf::from(CGROUPS).join(name);
    std::fs::create_dir_all(&app)?;
    if let Some(limit) = limit {
        std::fs::write(app.join("memory.max"), limit.to_string())?;
    }
    std::fs::File::create(file_of(&app))?.set_len(shape.file * M)?;
    let load = Load::begin(shape, &app)?;
    Ok((app, load))
}

/// Ends the application, and removes its cgroup and its file.
fn end(shape: &Shape, app: &Path, load: Load) -> Result<()> {
    load.end()?;
    std::fs::remove_file(file_of(app))?;
    if shape.writes > 0 {
        std::fs::remove_file(file_of(app).with_extension("log"))?;
    }
    remove(app);
    Ok(())
}

fn measure(shape: &Shape, controller: &Controller, seconds: u64) -> Result<Course> {
    let (app, mut load) = begin(shape, "app", None)?;
    let mut sibling = if shape.twist == Twist::Sibling { Some(begin(shape, SIBLING, None)?) } else { None };
    std::thread::sleep(Duration::from_secs(3));
    // Memory besides its data and files: page tables, stacks.
    let fixed = number(&app, "memory.current")?.saturating_sub((shape.anon + shape.file) * M);
    let wanted = ((shape.in_use() * M + fixed) as f64 * FOUND) as u64;
    load.ask("now")?;
    let (began, before) = (Instant::now(), number(&app, "memory.current")?);
    let mut course = Course { wanted, before, fixed, ..Course::default() };
    let stalled = stall(&app)?;
    let mut running = Running::begin(controller, shape.twist == Twist::Sibling)?;
    for half in 1..=2 * seconds {
        let due = began + EACH * half as u32;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if shape.twist == Twist::SwapOff && half == 2 * SWAP_OFF {
            guest::shell("swapoff /dev/zram0")?;
        }
        if shape.twist == Twist::SwapOff && half == 2 * SWAP_ON {
            guest::shell("swapon /dev/zram0")?;
        }
        let seen = look(&app, &mut load, shape, half, began)?;
        if course.found.is_none() && seen.current <= wanted {
            course.found = Some(seen.at);
        }
        course.worst = course.worst.max(seen.slowest);
        if is_verbose() {
            let stall = (stall(&app)? - stalled) as f64 / 1e3;
            println!(
                "  {:>5.1} s {:>4} MiB, {:>4.0} batches/s, slowest {:.1} ms, stall {stall:.0} ms, {}",
                seen.at.as_secs_f64(),
                seen.current / M,
                seen.batches,
                seen.slowest,
                guest::scanned(&app)?
            );
        }
        course.seen.push(seen);
    }
    let settled = course.found.unwrap_or_default();
    let later: Vec<_> =
        course.seen.iter().filter(|seen| seen.at > settled).map(|seen| seen.batches).collect();
    course.batches = later.iter().sum::<f64>() / later.len().max(1) as f64;
    (course.after, course.stalled) = (used(&app)?, (stall(&app)? - stalled) as f64 / 1e3);
    course.cpu = running.cpu()? * 1e3;
    course.told = running.end(began)?;
    if let Some((at, load)) = sibling.take() {
        println!("  its sibling: {} MiB, {:.0} ms stalled", used(&at)? / M, stall(&at)? as f64 / 1e3);
        end(shape, &at, load)?;
    }
    end(shape, &app, load)?;
    Ok(course)
}

/// Takes a sample, at which the hot memory may change.
fn look(app: &Path, load: &mut Load, shape: &Shape, half: u64, began: Instant) -> Result<Seen> {
    let current = used(app)?;
    let word = match half {
        half if shape.twist == Twist::Changes && half == 2 * DOUBLES => format!("hot {}", 2 * shape.hot),
        half if shape.twist == Twist::Changes && half == 2 * HALVES => format!("hot {}", shape.hot),
        _ => "now".to_owned(),
    };
    let (batches, slowest) = load.ask(&word)?;
    Ok(Seen { at: began.elapsed(), current, batches, slowest })
}

fn remove(app: &Path) {
    // The cgroup is empty a moment later.
    for _ in 0..100 {
        if std::fs::remove_dir(app).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Returns whether to print the course and the actions.
fn is_verbose() -> bool {
    std::env::var_os("MEMCTL_BENCH_VERBOSE").is_some()
}
