//! The application: streams, allocates, writes, and touches memory.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::{M, Shape};

const STREAM: &str = "/data/stream";
const MAPPED: &str = "/data/mapped";
const SYNCED: &str = "/data/synced";
const PAGE: u64 = 4096;

/// Number of pages of the mapped file that are read in one operation, and the interval.
const TOUCHED: u64 = 256;
const EACH: Duration = Duration::from_millis(10);

/// Bytes of tmpfs and of a growing file written at once.
const PIECE: usize = 256 << 10;

/// Size at which a file that is written begins anew.
const LARGEST: u64 = 200 * M;

/// Makes the files that the application reads.
pub fn prepare(shape: &Shape) -> Result<()> {
    for (path, size) in [(STREAM, shape.file), (MAPPED, shape.mapped)] {
        File::create(path)?.set_len(size * M)?;
    }
    Ok(())
}

/// Removes the application's files.
pub fn clear(shape: &Shape) -> Result<()> {
    std::fs::remove_file(STREAM)?;
    std::fs::remove_file(MAPPED)?;
    if shape.synced > 0 {
        std::fs::remove_file(SYNCED)?;
    }
    Ok(())
}

/// What the application says at its end.
pub struct Said {
    /// Microseconds of the slowest burst, and of its operations: one in two, 99 in 100, 999 in
    /// 1,000, and the slowest.
    pub slowest: f64,
    pub half: f64,
    pub most: f64,
    pub nearly_all: f64,
    pub worst: f64,
    pub operations: u64,
    /// Bytes streamed, written, and read in the mapped file.
    pub done: u64,
}

impl Said {
    pub fn parse(line: &str) -> Result<Self> {
        let words: Vec<u64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [slowest, done, operations, half, most, nearly_all, worst] = *words else {
            anyhow::bail!("the load said {line:?} at its end");
        };
        let [slowest, half, most, nearly_all, worst] =
            [slowest, half, most, nearly_all, worst].map(|usec| usec as f64);
        Ok(Self { slowest, half, most, nearly_all, worst, operations, done })
    }
}

/// Operations done so far.
#[derive(Default)]
struct Done {
    bytes: AtomicU64,
    /// Microseconds.
    took: Mutex<Vec<u32>>,
}

impl Done {
    /// Records an operation on so many bytes.
    fn record(&self, bytes: u64, began: Instant) {
        self.bytes.fetch_add(bytes, Relaxed);
        if let Ok(mut took) = self.took.lock() {
            took.push(began.elapsed().as_micros() as u32);
        }
    }

    /// Returns the number of operations, and the quantiles of their times.
    fn quantiles(&self) -> Result<[u64; 5]> {
        let mut took = self.took.lock().ok().context("the times")?;
        took.sort_unstable();
        let at = |share: f64| took.get((share * took.len() as f64) as usize).copied().map_or(0, u64::from);
        Ok([took.len() as u64, at(0.5), at(0.99), at(0.999), took.last().copied().map_or(0, u64::from)])
    }
}

static DONE: Done = Done { bytes: AtomicU64::new(0), took: Mutex::new(Vec::new()) };
static SLOWEST: AtomicU64 = AtomicU64::new(0);

/// Runs the application. When its input ends, it prints what `Said` has.
pub fn load(shape: Shape) -> Result<()> {
    let begin = |wanted: u64, work: fn(Shape) -> Result<()>| {
        if wanted > 0 {
            std::thread::spawn(move || work(shape).unwrap_or_else(|error| eprintln!("{error:#}")));
        }
    };
    begin(shape.stream, stream);
    begin(shape.paged, stream_mapped);
    begin(shape.mapped, read_mapped);
    begin(shape.synced, write_synced);
    begin(shape.tmpfs, fill_tmpfs);
    begin(shape.hot, keep_hot);
    begin(shape.burst, burst);
    begin(shape.leak, |shape| grow(shape.leak, None));
    begin(shape.saw, |shape| grow(shape.saw / 5, Some(5)));
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    let [operations, half, most, nearly_all, worst] = DONE.quantiles()?;
    let (slowest, bytes) = (SLOWEST.load(Relaxed), DONE.bytes.load(Relaxed));
    println!("{slowest} {bytes} {operations} {half} {most} {nearly_all} {worst}");
    std::process::exit(0);
}

fn keep_hot(shape: Shape) -> Result<()> {
    let mut hot = vec![1u8; (shape.hot * M) as usize];
    loop {
        touch(&mut hot);
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn burst(shape: Shape) -> Result<()> {
    loop {
        std::thread::sleep(Duration::from_secs(2));
        let began = Instant::now();
        let mut burst = vec![0u8; (shape.burst * M) as usize];
        touch(&mut burst);
        SLOWEST.fetch_max(began.elapsed().as_micros() as u64, Relaxed);
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn grow(each_second: u64, seconds: Option<u64>) -> Result<()> {
    let mut kept = Vec::new();
    loop {
        std::thread::sleep(Duration::from_millis(250));
        let mut more = vec![0u8; (each_second * M / 4) as usize];
        touch(&mut more);
        kept.push(more);
        if seconds.is_some_and(|seconds| kept.len() as u64 == seconds * 4) {
            kept.clear();
        }
    }
}

fn touch(memory: &mut [u8]) {
    memory.iter_mut().step_by(PAGE as usize).for_each(|byte| *byte = byte.wrapping_add(1));
    std::hint::black_box(memory);
}

fn stream(shape: Shape) -> Result<()> {
    let mut buffer = vec![0u8; M as usize];
    let mut file = File::open(STREAM)?;
    let (began, mut done) = (Instant::now(), 0);
    loop {
        let now = Instant::now();
        match file.read(&mut buffer)? as u64 {
            0 => drop(file.seek(SeekFrom::Start(0))?),
            bytes => {
                done += bytes;
                DONE.record(bytes, now);
            }
        }
        let due = Duration::from_secs_f64(done as f64 / (shape.stream * M) as f64);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
    }
}

/// Maps a file of so many bytes, for ever.
fn map(path: &str, size: u64) -> Result<&'static [u8]> {
    use rustix::mm::{MapFlags, ProtFlags, mmap};
    let file = OwnedFd::from(File::open(path)?);
    // SAFETY: a new mapping of `size` bytes, at an address that the kernel chooses.
    let start =
        unsafe { mmap(std::ptr::null_mut(), size as usize, ProtFlags::READ, MapFlags::SHARED, &file, 0) }?;
    // SAFETY: it is never unmapped, nobody writes to the file or cuts it while this process runs.
    Ok(unsafe { std::slice::from_raw_parts(start.cast::<u8>(), size as usize) })
}

fn stream_mapped(shape: Shape) -> Result<()> {
    let memory = map(STREAM, shape.file * M)?;
    let (began, mut done) = (Instant::now(), 0);
    for piece in memory.chunks(M as usize).cycle() {
        let now = Instant::now();
        let sum = piece.iter().step_by(PAGE as usize).fold(0u8, |sum, &byte| sum.wrapping_add(byte));
        std::hint::black_box(sum);
        done += piece.len() as u64;
        DONE.record(piece.len() as u64, now);
        let due = Duration::from_secs_f64(done as f64 / (shape.paged * M) as f64);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
    }
    Ok(())
}

fn read_mapped(shape: Shape) -> Result<()> {
    let size = shape.mapped * M;
    let memory = map(MAPPED, size)?;
    let (mut random, mut due) = (1u64, Instant::now());
    loop {
        let now = Instant::now();
        for _ in 0..TOUCHED {
            // Knuth's MMIX generator: the upper bits are the good ones.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            std::hint::black_box(memory[(((random >> 33) * PAGE) % size) as usize]);
        }
        DONE.record(TOUCHED * PAGE, now);
        due = (due + EACH).max(Instant::now());
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

fn write_synced(shape: Shape) -> Result<()> {
    let piece = vec![1u8; PIECE];
    let mut file = File::create(SYNCED)?;
    let (began, mut done, mut size) = (Instant::now(), 0u64, 0);
    loop {
        let now = Instant::now();
        file.write_all(&piece)?;
        file.sync_all()?;
        DONE.record(PIECE as u64, now);
        (done, size) = (done + PIECE as u64, size + PIECE as u64);
        if size >= LARGEST {
            (file, size) = (File::create(SYNCED)?, 0);
        }
        let due = Duration::from_secs_f64(done as f64 / (shape.synced * M) as f64);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
    }
}

fn fill_tmpfs(shape: Shape) -> Result<()> {
    let pieces = shape.tmpfs * M / PIECE as u64;
    loop {
        // A file of the kernel's own tmpfs.
        let mut file = File::from(rustix::fs::memfd_create("bench", rustix::fs::MemfdFlags::CLOEXEC)?);
        for _ in 0..pieces {
            file.write_all(&vec![1u8; PIECE])?;
            std::thread::sleep(Duration::from_secs(5) / pieces as u32);
        }
    }
}
