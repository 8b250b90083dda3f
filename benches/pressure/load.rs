//! The application: anonymous memory and a file, parts of which are hot.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::{M, Shape, Twist};

/// Returns the path of the file that an application in a cgroup reads.
pub fn file_of(app: &Path) -> PathBuf {
    let name = app.file_name().unwrap_or_default().to_string_lossy();
    PathBuf::from(format!("/data/pressure-{name}"))
}

pub const PAGE: u64 = 4096;

/// Number of pages touched at a time, and the interval.
const BATCH: u64 = 256;
const EACH: Duration = Duration::from_millis(2);

/// Distance of pages touched one after the other, where each is touched once in a time: a prime, so
/// that all have their turn.
const STRIDE: u64 = 7919;

/// Runs the application. For each line on its input it prints the number of batches since the last,
/// and the slowest.
pub fn load(shape: Shape, path: &Path) -> Result<()> {
    let mut anon = allocate(shape)?;
    let file = File::open(path)?;
    let mut buffer = vec![0; M as usize];
    for offset in 0..shape.file {
        file.read_exact_at(&mut buffer, offset * M)?;
    }
    let (tell, told) = channel();
    std::thread::spawn(move || {
        std::io::stdin().lines().map_while(Result::ok).for_each(|line| drop(tell.send(line)));
    });
    if shape.writes > 0 {
        let log = path.with_extension("log");
        std::thread::spawn(move || write(&log, shape.writes).unwrap_or_else(|error| eprintln!("{error:#}")));
    }
    println!("ready");
    work(shape, &mut anon, &file, &told)
}

/// Returns the anonymous memory, all of it touched.
fn allocate(shape: Shape) -> Result<Vec<u8>> {
    use rustix::mm::{Advice, madvise};
    let size = (shape.anon * M) as usize;
    // As zeros it is mapped and not touched yet.
    let mut anon = vec![0u8; size];
    if shape.twist == Twist::Huge {
        let start = anon.as_mut_ptr().cast::<std::ffi::c_void>();
        let skipped = start.align_offset(PAGE as usize);
        // SAFETY: whole pages within the vector. The advice changes how they are backed, and not
        // what they contain.
        unsafe { madvise(start.wrapping_add(skipped), size - PAGE as usize, Advice::LinuxHugepage) }?;
    }
    anon.fill(1);
    Ok(anon)
}

/// Writes a file at so many MiB per second, for ever.
fn write(path: &Path, each_second: u64) -> Result<()> {
    let piece = vec![1; M as usize / 4];
    loop {
        let mut log = File::create(path)?;
        for _ in 0..each_second * 4 * 30 {
            log.write_all(&piece)?;
            std::thread::sleep(Duration::from_millis(250) / each_second as u32);
        }
    }
}

fn work(shape: Shape, anon: &mut [u8], file: &File, told: &Receiver<String>) -> Result<()> {
    let (mut hot, mut random) = (shape.hot, 1u64);
    let (mut batches, mut slowest) = (0u64, Duration::ZERO);
    let (began, mut due) = (Instant::now(), Instant::now());
    let mut page = [0; 8];
    let mut touched = 0u64;
    loop {
        let start = Instant::now();
        let pages = (hot + shape.hot_file) * M / PAGE;
        let batch = match shape.reuse {
            0 if shape.zipf > 0 => (began.elapsed().as_secs_f64() * shape.zipf as f64) as u64 - touched,
            0 => BATCH,
            seconds => (began.elapsed().as_secs_f64() * (pages / seconds) as f64) as u64 - touched,
        };
        let moved = (began.elapsed().as_secs_f64() * shape.drift * M as f64) as u64 / PAGE;
        for _ in 0..batch {
            advance(&mut random);
            let chosen = match shape.reuse {
                0 if shape.zipf > 0 => ranked(random, anon.len() as u64 / PAGE),
                0 => (random >> 33) % pages,
                _ => touched * STRIDE % pages,
            };
            touched += 1;
            let of_file = chosen.checked_sub(hot * M / PAGE).filter(|_| shape.zipf == 0);
            if let Some(of_file) = of_file {
                file.read_exact_at(&mut page, of_file * PAGE)?;
            } else {
                // One page in so many, if the hot part is spread.
                let apart = if shape.twist == Twist::Huge { shape.anon / shape.hot } else { 1 };
                let place = ((chosen * apart + moved) * PAGE % anon.len() as u64) as usize;
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
        // A late batch isn't made up for.
        due = (due + EACH).max(Instant::now());
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// Takes the next number of Knuth's MMIX generator: its upper bits are the good ones.
pub fn advance(random: &mut u64) {
    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
}

/// Returns one of so many pages by Zipf's law: page n is n times as rare as the first. Their ranks
/// are in no order.
fn ranked(random: u64, pages: u64) -> u64 {
    let share = (random >> 11) as f64 / (1u64 << 53) as f64;
    ((pages as f64).powf(share) as u64 * STRIDE) % pages
}

/// The application, from the measurement's side.
pub struct Load {
    child: Child,
    words: ChildStdin,
    said: BufReader<ChildStdout>,
    asked: Instant,
}

impl Load {
    pub fn begin(shape: &Shape, app: &Path) -> Result<Self> {
        let mut child = Command::new("/bin/sh")
            .args(["-c", "echo $$ >\"$1/cgroup.procs\"; exec \"$0\" load \"$2\" \"$3\""])
            .arg(std::env::current_exe()?)
            .arg(app)
            .arg(shape.name)
            .arg(file_of(app))
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

    /// Returns the number of batches per second since the last call, and the slowest in
    /// milliseconds.
    pub fn ask(&mut self, word: &str) -> Result<(f64, f64)> {
        writeln!(self.words, "{word}")?;
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        let (batches, slowest) = line.trim().split_once(' ').context("what the load says")?;
        let time = self.asked.elapsed().as_secs_f64();
        self.asked = Instant::now();
        Ok((batches.parse::<f64>()? / time, slowest.parse::<f64>()? / 1e3))
    }

    pub fn end(mut self) -> Result<()> {
        drop(self.words);
        self.child.wait()?;
        Ok(())
    }
}
