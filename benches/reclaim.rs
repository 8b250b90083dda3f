//! The engine against one bare write(2) of the same size, side by side on the same cgroup: the cost
//! of the chunks and the accounting of [`memctl::reclaim::run`] for a byte freed.
//!
//! Runs as root in a guest, where tests/vm/bench-reclaim puts it: it fills a cgroup of its own with
//! page cache again and again. Only ratios of side-by-side runs are judged; the seconds are the
//! emulator's.

#![allow(clippy::disallowed_methods, reason = "reads numbers of its own cgroups")]

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use memctl::cgroup::MemoryCgroup;
use memctl::kind::Kind;
use memctl::reclaim::{Goal, Report, Request, RequestEvent, StoppedBy, Target};
use memctl::size::Amount;
use rustix::fs::{Advice, Mode, OFlags};
use rustix::time::{ClockId, clock_gettime};

const M: u64 = 1 << 20;
const GIB: f64 = (1u64 << 30) as f64;

/// Limits of the issue: the minimum number of pairs, and the maximum ratio for a byte freed.
const PAIRS: usize = 20;
const MOST: f64 = 1.05;

/// Returns the page cache of a run in bytes: more than it frees, since exhaustion isn't measured.
const fn filled_for(bytes: u64) -> u64 {
    bytes + bytes / 4
}

/// Argument of the child of this program that reads a file inside the cgroup.
const FILL: &str = "fill";

fn main() -> Result<()> {
    // `cargo bench` passes `--bench` to every benchmark.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => println!("nothing measured: this fills cgroups, so `make bench-reclaim` runs it in guests"),
        ["pairs"] => pairs(PAIRS)?,
        ["pairs", count] => pairs(count.parse()?)?,
        ["chunks"] => chunks(5)?,
        ["chunks", times] => chunks(times.parse()?)?,
        ["start-up", memctl] => start_up(memctl)?,
        ["parallel", memctl] => parallel(memctl)?,
        [FILL, cgroup, file, bytes, folios] => fill(cgroup, file, bytes.parse()?, folios)?,
        _ => bail!("usage: reclaim pairs [COUNT] | chunks [TIMES] | start-up MEMCTL | parallel MEMCTL"),
    }
    Ok(())
}

/// Kind of folios in the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Folios {
    /// Page by page: in folios of one page on every kernel.
    Small,
    /// With readahead: in large folios, where the file system has them.
    Large,
}

impl Folios {
    fn word(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Large => "large",
        }
    }

    /// Returns the kinds that this kernel distinguishes: ext4 has large folios since 6.16.
    fn here() -> Result<&'static [Self]> {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
        let version =
            numbers.next().zip(numbers.next()).context("a kernel release begins with its version")?;
        Ok(if version >= (6, 16) { &[Self::Small, Self::Large] } else { &[Self::Small] })
    }
}

/// Reads a sparse file from inside the cgroup, to which that page cache is then charged.
fn fill(cgroup: &str, file: &str, bytes: u64, folios: &str) -> Result<()> {
    std::fs::write(Path::new(cgroup).join("cgroup.procs"), "0").context("enter the cgroup")?;
    File::create(file)?.set_len(bytes)?;
    let mut file = File::open(file)?;
    let advice = if folios == Folios::Small.word() { Advice::Random } else { Advice::Normal };
    rustix::fs::fadvise(&file, 0, None, advice)?;
    let mut buffer = vec![0; 256 << 10];
    while file.read(&mut buffer)? > 0 {}
    Ok(())
}

/// A cgroup without children, and the files for both kinds of runs, opened beforehand.
struct Leaf {
    path: PathBuf,
    file: PathBuf,
    target: MemoryCgroup,
    bare: OwnedFd,
}

/// A moment, by both clocks.
#[derive(Clone, Copy)]
struct Moment {
    wall: Instant,
    cpu: Duration,
}

impl Moment {
    fn now() -> Self {
        Self { wall: Instant::now(), cpu: cpu() }
    }
}

/// Cost of a run, from its first write to the end of its last, and the memory freed.
struct Ran {
    wall: Duration,
    cpu: Duration,
    freed: u64,
    /// The engine's own report.
    report: Option<Report>,
    /// Time of the engine outside the writes: its first samples, its last, and the report.
    around: Duration,
}

impl Ran {
    /// Returns a time in seconds per GiB freed.
    fn per_gib(&self, time: Duration) -> f64 {
        time.as_secs_f64() * GIB / self.freed as f64
    }
}

impl Leaf {
    fn new(name: &str) -> Result<Self> {
        let path = Path::new("/sys/fs/cgroup").join(name);
        std::fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        let target = MemoryCgroup::open(&memctl::select::locate(name)?)?;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let bare = rustix::fs::open(path.join("memory.reclaim"), flags, Mode::empty())?;
        Ok(Self { file: Path::new("/data").join(name), path, target, bare })
    }

    /// Makes the page cache of a run anew. The leftovers of the last run go with the file: its
    /// pages, and the shadows of reclaimed ones, by which the kernel would take the new pages for a
    /// working set.
    fn fill(&self, bytes: u64, folios: Folios) -> Result<()> {
        self.clear()?;
        self.add(bytes, folios)
    }

    /// Makes the page cache without dropping anything, not even other leaves' cache.
    fn add(&self, bytes: u64, folios: Folios) -> Result<()> {
        let status = Command::new(std::env::current_exe()?)
            .arg(FILL)
            .args([&self.path, &self.file])
            .args([&bytes.to_string(), folios.word()])
            .status()?;
        ensure!(status.success(), "the cgroup wasn't filled");
        // Work that ends with the child or was deferred must not be measured.
        std::thread::sleep(Duration::from_millis(200));
        Ok(())
    }

    fn clear(&self) -> Result<()> {
        if self.file.exists() {
            std::fs::remove_file(&self.file)?;
        }
        Ok(std::fs::write("/proc/sys/vm/drop_caches", "1")?)
    }

    fn usage(&self) -> Result<u64> {
        Ok(std::fs::read_to_string(self.path.join("memory.current"))?.trim().parse()?)
    }

    /// Fills the cgroup for a run that asks for `bytes`, and measures the run.
    fn measure(
        &mut self,
        bytes: u64,
        folios: Folios,
        run: impl FnOnce(&mut Self) -> Result<(Moment, Moment, Option<Report>)>,
    ) -> Result<Ran> {
        self.fill(filled_for(bytes), folios)?;
        let before = self.usage()?;
        ensure!(before >= bytes, "the cgroup uses only {before} bytes after it was filled");
        let began = Instant::now();
        let (first, last, report) = run(self)?;
        let whole = began.elapsed();
        let (wall, cpu) = (last.wall - first.wall, last.cpu.saturating_sub(first.cpu));
        let freed = before.saturating_sub(self.usage()?).max(1);
        Ok(Ran { wall, cpu, freed, report, around: whole.saturating_sub(wall) })
    }

    /// Runs the engine, in writes of `chunk` or of the size that the engine chooses.
    fn engine(&mut self, bytes: u64, folios: Folios, chunk: Option<u64>) -> Result<Ran> {
        let request = Request { chunk, ..Request::new(Goal::Reclaim(Amount::Bytes(bytes)), Kind::All) };
        self.measure(bytes, folios, |leaf| {
            let (mut first, mut last) = (None, None);
            let report =
                memctl::reclaim::run(&mut leaf.target, &request, &|| false, &mut |event| match event {
                    RequestEvent::Asking { .. } => first = first.or_else(|| Some(Moment::now())),
                    RequestEvent::Asked { .. } => last = Some(Moment::now()),
                    RequestEvent::AwaitingWriteback { .. } | RequestEvent::AwaitingCounters => {}
                })?;
            ensure!(report.stopped_by == StoppedBy::Reached, "the engine got no further: {report:?}");
            let (first, last) = first.zip(last).context("the engine wrote nothing")?;
            Ok((first, last, Some(report)))
        })
    }

    /// Does one bare write of all bytes.
    fn bare(&mut self, bytes: u64, folios: Folios) -> Result<Ran> {
        let word = bytes.to_string();
        self.measure(bytes, folios, |leaf| {
            let first = Moment::now();
            rustix::io::write(&leaf.bare, word.as_bytes()).context("the bare write")?;
            Ok((first, Moment::now(), None))
        })
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        let _ = self.clear();
        let _ = std::fs::remove_dir(&self.path);
    }
}

/// Returns the CPU time of this thread, including time in the kernel.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Numbers in order.
struct Sample(Vec<f64>);

impl FromIterator<f64> for Sample {
    fn from_iter<T: IntoIterator<Item = f64>>(numbers: T) -> Self {
        let mut numbers: Vec<_> = numbers.into_iter().collect();
        numbers.sort_by(f64::total_cmp);
        Self(numbers)
    }
}

impl Sample {
    /// Returns the value below which that share of the numbers lies, interpolated between two of
    /// them.
    fn quantile(&self, share: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        let place = share * last as f64;
        let (low, high) = (place.floor() as usize, place.ceil() as usize);
        match (self.0.get(low), self.0.get(high)) {
            (Some(below), Some(above)) => below + (above - below) * place.fract(),
            _ => f64::NAN,
        }
    }

    fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

/// Runs the engine and a bare write in turns, in reverse order every time, so that drift affects
/// both equally.
///
/// The cost of a byte is judged, from the first write to the last. The fixed cost of a request,
/// however large, stands apart, like the program's start: the samples without which nothing could
/// be reported.
fn pairs(count: usize) -> Result<()> {
    println!("                    engine      bare   ratio of    bare writes' own spread");
    println!(" size folios      median, s/GiB      med.  pairs   p25-p75     min-max");
    let mut verdicts = Vec::new();
    for &folios in Folios::here()? {
        for size in [64 * M, 512 * M] {
            let mut leaf = Leaf::new("bench")?;
            // The first run of each pays for cold caches after boot and in a new cgroup; the engine
            // would lose by that.
            leaf.engine(size, folios, None)?;
            leaf.bare(size, folios)?;
            let mut runs = Vec::new();
            for pair in 0..count {
                runs.push(if pair % 2 == 0 {
                    let engine = leaf.engine(size, folios, None)?;
                    (engine, leaf.bare(size, folios)?)
                } else {
                    let bare = leaf.bare(size, folios)?;
                    (leaf.engine(size, folios, None)?, bare)
                });
            }
            verdicts.push(row(size, folios, &runs));
        }
    }
    println!("\n{count} pairs each. The spread is relative to the bare writes' median.");
    for verdict in verdicts {
        println!("{verdict}");
    }
    Ok(())
}

/// Prints the results of the pairs of engine and bare write, and returns them as a sentence.
fn row(size: u64, folios: Folios, runs: &[(Ran, Ran)]) -> String {
    let name = format!("{:>4}M {:<6}", size / M, folios.word());
    let mut judged = Vec::new();
    for (what, time) in [("wall", (|run| run.wall) as fn(&Ran) -> Duration), ("CPU", |run| run.cpu)] {
        let each = |run: &Ran| run.per_gib(time(run));
        let engine: Sample = runs.iter().map(|(engine, _)| each(engine)).collect();
        let bare: Sample = runs.iter().map(|(_, bare)| each(bare)).collect();
        let paired: Sample = runs.iter().map(|(engine, bare)| each(engine) / each(bare)).collect();
        let ratio = engine.median() / bare.median();
        let [min, p25, p75, max] = [0.0, 0.25, 0.75, 1.0].map(|at| bare.quantile(at) / bare.median());
        println!(
            "{name} {what:<5} {:>8.3}  {:>8.3}   {ratio:>6.3} {:>6.3}   {p25:.2}-{p75:.2}   {min:.2}-{max:.2}",
            engine.median(),
            bare.median(),
            paired.median(),
        );
        let limit = if ratio <= MOST { "at most" } else { "MORE THAN" };
        let spread = match ratio {
            _ if ratio <= p75 => "within the quartiles of the bare writes",
            _ if ratio <= max => "within the range of the bare writes",
            _ => "ABOVE all bare writes",
        };
        judged.push(format!("{what} {ratio:.3}: {limit} {MOST}, and {spread}"));
    }
    let over = |pick: fn(&(Ran, Ran)) -> f64| runs.iter().map(pick).collect::<Sample>().median();
    let writes = over(|(engine, _)| engine.report.as_ref().map_or(f64::NAN, |report| report.chunks.into()));
    let writing = over(|(engine, _)| {
        let writing = engine.report.as_ref().map_or(Duration::ZERO, |report| report.writing);
        100.0 * writing.as_secs_f64() / engine.wall.as_secs_f64()
    });
    let around = over(|(engine, _)| engine.around.as_secs_f64() * 1e3);
    let whole = over(|(engine, bare)| (engine.wall + engine.around).as_secs_f64() / bare.wall.as_secs_f64());
    println!("             {writes} writes, in them {writing:.1}% of the time from the first to the last");
    println!("             {around:.2} ms for its samples and the report around that: {whole:.3} with them");
    format!("{name} {}", judged.join("\n             "))
}

/// Measures the cost of a byte by the amount requested at a time.
fn chunks(times: usize) -> Result<()> {
    const SIZE: u64 = 256 * M;
    let fixed = (17..=26).map(|shift| Some(1 << shift));
    for &folios in Folios::here()? {
        println!("\n{} folios, {}M, {times} times each, medians", folios.word(), SIZE / M);
        println!("   chunk    s/GiB of wall     CPU  in writes   writes  freed/asked");
        let mut leaf = Leaf::new("bench")?;
        let ways: Vec<Option<Option<u64>>> =
            [None, Some(None)].into_iter().chain(fixed.clone().map(Some)).collect();
        let mut runs: Vec<Vec<Ran>> = ways.iter().map(|_| Vec::new()).collect();
        for time in 0..times {
            for place in 0..ways.len() {
                // There and back again: drift affects all equally.
                let way = if time % 2 == 0 { place } else { ways.len() - 1 - place };
                runs[way].push(match ways[way] {
                    None => leaf.bare(SIZE, folios)?,
                    Some(chunk) => leaf.engine(SIZE, folios, chunk)?,
                });
            }
        }
        for (way, runs) in ways.iter().zip(&runs) {
            let median = |of: &dyn Fn(&Ran) -> f64| runs.iter().map(of).collect::<Sample>().median();
            let name = match way {
                None => "bare".to_owned(),
                Some(None) => "adaptive".to_owned(),
                Some(Some(bytes)) => format!("{}K", bytes >> 10),
            };
            println!(
                "{name:>8}         {:>8.3}  {:>8.3}  {:>8.3}   {:>6}     {:>6.3}",
                median(&|run| run.per_gib(run.wall)),
                median(&|run| run.per_gib(run.cpu)),
                median(&|run| run.per_gib(run.report.as_ref().map_or(run.cpu, |report| report.cpu))),
                median(&|run| run.report.as_ref().map_or(1.0, |report| report.chunks.into())),
                median(&|run| run.freed as f64 / SIZE as f64),
            );
        }
        costs(&mut leaf, folios)?;
    }
    Ok(())
}

/// Measures the cost of the engine's samples between the writes, each right after a write of 1M.
fn costs(leaf: &mut Leaf, folios: Folios) -> Result<()> {
    const WRITES: u64 = 64;
    type Look = (&'static str, fn(&mut MemoryCgroup) -> Result<()>);
    let looks: [Look; 7] = [
        ("monotonic clock", |target| {
            target.now();
            Ok(())
        }),
        ("CPU clock", |target| {
            target.cpu();
            Ok(())
        }),
        ("memory.current", |target| target.usage().map(drop).map_err(Into::into)),
        ("memory.stat", |target| target.stat(false).map(drop).map_err(Into::into)),
        ("cpu.stat and memory.stat", |target| target.stat(true).map(drop).map_err(Into::into)),
        ("memory.pressure", |target| {
            target.stalled();
            Ok(())
        }),
        ("memory.swap.current", |target| {
            target.swap_usage();
            Ok(())
        }),
    ];
    println!("\nmedian and largest of {WRITES} looks, each right after a write of 1M, microseconds");
    for (name, look) in looks {
        // A write of 1M may free twice as much, where folios are large.
        leaf.fill(filled_for(2 * WRITES * M), folios)?;
        let mut took = Vec::new();
        for _ in 0..WRITES {
            leaf.target.reclaim(M, None)?;
            let began = Instant::now();
            look(&mut leaf.target)?;
            took.push(began.elapsed().as_secs_f64() * 1e6);
        }
        let took: Sample = took.into_iter().collect();
        println!("{name:<26} {:>8.1} {:>8.1}", took.median(), took.quantile(1.0));
    }
    Ok(())
}

/// Measures two siblings in parallel, against one after the other: the whole program, from start to
/// end.
fn parallel(memctl: &str) -> Result<()> {
    const TIMES: usize = 10;
    const EACH: u64 = 256 * M;
    let leaves = [Leaf::new("bench-one")?, Leaf::new("bench-two")?];
    let run = |jobs: &str| -> Result<f64> {
        for leaf in &leaves {
            leaf.clear()?;
        }
        for leaf in &leaves {
            leaf.add(filled_for(EACH), Folios::Small)?;
        }
        let size = EACH.to_string();
        let mut command = Command::new(memctl);
        command.args(["reclaim", "-q", "bench-one", "bench-two", &size, "--jobs", jobs]);
        let began = Instant::now();
        let status = command.stdin(Stdio::null()).status()?;
        ensure!(status.success(), "memctl --jobs {jobs}: {status}");
        Ok(began.elapsed().as_secs_f64() * 1e3)
    };
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for time in 0..=TIMES {
        // There and back again: drift affects both equally.
        let (first, second) = if time % 2 == 0 { ("1", "2") } else { ("2", "1") };
        let (a, b) = (run(first)?, run(second)?);
        // The first run of each pays for cold caches.
        if time > 0 {
            let (sequential, parallel) = if first == "1" { (a, b) } else { (b, a) };
            one.push(sequential);
            two.push(parallel);
        }
    }
    let ratios: Sample = one.iter().zip(&two).map(|(one, two)| two / one).collect();
    let (one, two): (Sample, Sample) = (one.into_iter().collect(), two.into_iter().collect());
    println!("\n{}M from each of two siblings, medians of {TIMES} pairs, ms", EACH / M);
    println!("one after the other, --jobs 1  {:>8.1}", one.median());
    println!("in parallel, --jobs 2          {:>8.1}", two.median());
    println!(
        "ratio {:.2}, in pairs {:.2} ({:.2}-{:.2})",
        two.median() / one.median(),
        ratios.median(),
        ratios.quantile(0.0),
        ratios.quantile(1.0)
    );
    Ok(())
}

/// Measures the program's start, beside a shell and a program that does nothing.
fn start_up(memctl: &str) -> Result<()> {
    const TIMES: usize = 20;
    let leaf = Leaf::new("bench")?;
    leaf.fill(64 * M, Folios::Small)?;
    let ways: [(&str, &[&str]); 4] = [
        ("true", &["/bin/true"]),
        ("memctl -V", &[memctl, "-V"]),
        ("sh -c 'echo 4096 >memory.reclaim'", &["/bin/sh", "-c", "echo 4096 >memory.reclaim"]),
        ("memctl reclaim bench 4096", &[memctl, "reclaim", "bench", "4096"]),
    ];
    let mut took: Vec<Vec<f64>> = ways.iter().map(|_| Vec::new()).collect();
    for _ in 0..TIMES {
        for ((name, words), took) in ways.iter().zip(&mut took) {
            let mut command = Command::new(words[0]);
            command.args(&words[1..]).current_dir(&leaf.path).stdin(Stdio::null()).stdout(Stdio::null());
            let began = Instant::now();
            let status = command.status()?;
            took.push(began.elapsed().as_secs_f64() * 1e3);
            ensure!(status.success(), "{name}: {status}");
        }
    }
    println!("\nstart-up, from spawn to end, medians of {TIMES}, ms");
    for ((name, _), took) in ways.iter().zip(took) {
        let took: Sample = took.into_iter().collect();
        println!("{name:<34} {:>8.1}", took.median());
    }
    Ok(())
}
