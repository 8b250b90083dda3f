//! Keeps memory free below the limit of its own cgroup, in a thread of an application.
//!
//! When an application meets its limit, the kernel reclaims in whatever thread allocates next,
//! which may be the one that answers. Here a thread that has time does it ahead of the limit: it
//! embeds a watch of the application's own cgroup. The application is made up: one thread streams a
//! file, and one answers every few milliseconds.
//!
//! `uswapd FILE SECONDS [HEADROOM]` streams FILE for that long; without HEADROOM (such as 10%),
//! nothing reclaims ahead. It prints the slowest answer.

use std::error::Error;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use memctl::select::locate;
use memctl::size::parse_headroom;
use memctl::watch::config::rule::RuleSpec;
use memctl::watch::members::Members;
use memctl::watch::options::WatchOptions;

static STOP: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (file, seconds, headroom) = match &words[..] {
        [file, seconds] => (PathBuf::from(file), seconds.parse(), None),
        [file, seconds, headroom] => (PathBuf::from(file), seconds.parse(), Some(headroom.clone())),
        _ => (PathBuf::new(), "".parse(), None),
    };
    let Ok(seconds) = seconds else {
        eprintln!("usage: uswapd FILE SECONDS [HEADROOM]");
        return ExitCode::from(2);
    };
    let reclaiming = headroom.map(|headroom| std::thread::spawn(move || keep_free(&headroom)));
    // The watch samples for the first time before the load begins.
    std::thread::sleep(Duration::from_millis(200));
    let streaming = std::thread::spawn(move || stream(&file));
    let answering = std::thread::spawn(answer);
    std::thread::sleep(Duration::from_secs(seconds));
    STOP.store(true, Ordering::Relaxed);
    let results = [
        ("stream", streaming.join().map(|read| read.map_err(|e| e.to_string()))),
        ("uswapd", reclaiming.map_or(Ok(Ok(())), std::thread::JoinHandle::join)),
    ];
    if let Ok(slowest) = answering.join() {
        println!("slowest answer: {slowest:?}");
    }
    for (thread, result) in results {
        if let Ok(Err(why)) = result {
            eprintln!("{thread}: {why}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Reclaims ahead of the limit until the program stops.
fn keep_free(headroom: &str) -> Result<(), String> {
    let watch = || -> Result<(), Box<dyn Error>> {
        let spec = RuleSpec { headroom: Some(parse_headroom(headroom)?), ..RuleSpec::default() };
        let own = Arc::new(locate("self")?);
        let mut members = Members::new(false)?;
        members.add(own, Rc::new(spec.rule()?))?;
        // The single member is reclaimed from in this thread.
        members.watch(WatchOptions::new(&|| STOP.load(Ordering::Relaxed), &mut |_| {}))?;
        Ok(())
    };
    watch().map_err(|why| why.to_string())
}

/// Reads a file over and over, at 60 MiB per second at most.
fn stream(file: &Path) -> std::io::Result<()> {
    let (mut file, mut buffer) = (File::open(file)?, vec![0; 1 << 20]);
    while !STOP.load(Ordering::Relaxed) {
        if file.read(&mut buffer)? == 0 {
            file.rewind()?;
        }
        std::thread::sleep(Duration::from_millis(16));
    }
    Ok(())
}

/// Allocates a little for each answer, and returns the time that the slowest one took.
fn answer() -> Duration {
    let mut slowest = Duration::ZERO;
    while !STOP.load(Ordering::Relaxed) {
        let began = Instant::now();
        let memory = vec![1_u8; 256 << 10];
        assert_eq!(std::hint::black_box(memory).len(), 256 << 10);
        slowest = slowest.max(began.elapsed());
        std::thread::sleep(Duration::from_millis(5));
    }
    slowest
}
