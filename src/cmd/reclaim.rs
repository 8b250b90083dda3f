//! `memctl reclaim`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use memctl::cgroup::{MemoryCgroup, locate};
use memctl::reclaim::{self, Event, Goal, Request, StoppedBy, Tolerance};
use memctl::size::{Amount, Percent, looks_like_size};

use crate::cli::{Global, Kind, Reclaim};
use crate::exit::{Exit, UsageError};
use crate::output::{self, Loudness, notes, progress::Progress};
use crate::signal;

/// How often the waiting thread looks for a signal and draws.
const LOOK: Duration = Duration::from_millis(20);

/// How long after a signal a write may stay in flight before that is worth a word.
const PATIENCE: Duration = Duration::from_millis(200);

/// The bound on pressure where nothing else would hold a request back: the root, and `max`.
const DEFAULT_MAX_PRESSURE: &str = "10%";

/// Runs the subcommand.
pub fn run(args: &Reclaim, global: &Global) -> Result<Exit> {
    let loudness = Loudness::new(global)?;
    let (word, goal) = split(args)?;
    let located = locate(&word)?;
    let mut cgroup = MemoryCgroup::open(&located)?;
    let name = cgroup.cgroup().name().to_owned();
    let request = request(args, goal, cgroup.cgroup().is_root());
    request.check(&mut cgroup).with_context(|| name.clone())?;

    signal::install();
    let progress = Progress::new(&name, loudness.progress());
    let timeout = request.timeout;
    let (told, hear) = channel();
    let in_flight = Arc::new(AtomicU64::new(0));
    let asked = Arc::clone(&in_flight);
    let heard = loudness.progress() || loudness == Loudness::Verbose;
    let worker = std::thread::Builder::new().name("reclaim".into());
    let worker = worker.spawn(move || {
        reclaim::run(&mut cgroup, &request, &|| signal::pending().is_some(), &mut |event| {
            asked.store(if let Event::Asking { bytes } = event { bytes } else { 0 }, Ordering::Relaxed);
            if heard {
                // Nobody listens any more only when nobody needs to know.
                let _ = told.send(event);
            }
        })
    });
    let worker = worker.context("can't start a thread")?;
    attend(&worker, &hear, timeout, &in_flight, &progress, loudness);
    let report = worker.join().map_err(|_| anyhow!("{name}: the reclaiming thread panicked"))?;
    progress.finish();
    let report = report.with_context(|| name.clone())?;

    output::reclaim::print(&name, &located.path, &report, args.json, loudness)?;
    // Even if it came too late to cut anything short: a shell that runs memctl in a loop must see it.
    if let Some(signal) = signal::pending() {
        signal::die_by(signal);
    }
    if let StoppedBy::Failed(errno) = report.stopped_by {
        return Err(anyhow!("{}", output::error::plain(errno))
            .context(located.path.join("memory.reclaim").display().to_string()));
    }
    if report.stopped_by == StoppedBy::Removed {
        return Err(anyhow!("the cgroup was removed meanwhile").context(name));
    }
    Ok(Exit::from(&report))
}

/// Waits for the reclaiming thread: draws what it tells, and passes signals and the end of the time on to it, which
/// is why it is a thread of its own.
fn attend<T>(
    worker: &std::thread::JoinHandle<T>,
    hear: &Receiver<Event>,
    timeout: Option<Duration>,
    in_flight: &AtomicU64,
    progress: &Progress,
    loudness: Loudness,
) {
    let began = Instant::now();
    let mut since_signal: Option<Instant> = None;
    let mut said = false;
    loop {
        match hear.recv_timeout(LOOK) {
            Ok(event) => {
                progress.show(&event);
                notes::event(&event, loudness);
            }
            Err(RecvTimeoutError::Timeout) => progress.tick(),
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let late = timeout.is_some_and(|timeout| began.elapsed() >= timeout);
        if signal::pending().is_some() && since_signal.is_none() {
            since_signal = Some(Instant::now());
            signal::let_the_next_kill();
        }
        if late || since_signal.is_some() {
            // Again and again: one that comes just before the write would be lost.
            signal::nudge(worker);
        }
        let overdue = since_signal.is_some_and(|since| since.elapsed() >= PATIENCE);
        let bytes = in_flight.load(Ordering::Relaxed);
        if overdue && !said && bytes > 0 {
            said = true;
            progress.suspend(|| notes::waiting_for_write(bytes, loudness));
        }
    }
}

/// Splits the words into the cgroup and how much is asked of it.
fn split(args: &Reclaim) -> Result<(String, Goal)> {
    let usage = |what: String, hint: &str| anyhow::Error::from(UsageError { what, hint: Some(hint.into()) });
    let mut words = args.words.clone();
    let goal = if let Some(to) = args.to {
        if let Some(last) = words.last().filter(|last| words.len() > 1 && looks_like_size(last)) {
            let what = format!("{last}: --to already says how much");
            return Err(usage(what, "give either SIZE or --to SIZE"));
        }
        Goal::DownTo(to)
    } else {
        let last = words.pop().unwrap_or_default();
        if words.is_empty() {
            return Err(if looks_like_size(&last) {
                usage(format!("{last}: of which cgroup?"), "memctl reclaim CGROUP SIZE")
            } else {
                usage(
                    format!("{last}: how much is to be reclaimed?"),
                    "memctl reclaim CGROUP SIZE, such as 10M",
                )
            });
        }
        let amount: Amount =
            last.parse().map_err(|why| UsageError { what: format!("{last}: {why}"), hint: None })?;
        Goal::Reclaim(amount)
    };
    match <[String; 1]>::try_from(words) {
        Ok([word]) => Ok((word, goal)),
        Err(words) => Err(usage(
            format!("{}: one cgroup at a time, please", words.join(" ")),
            "memctl reclaim CGROUP SIZE",
        )),
    }
}

fn request(args: &Reclaim, goal: Goal, is_root: bool) -> Request {
    let unbounded = is_root || goal == Goal::Reclaim(Amount::Max);
    let default: Option<Percent> = DEFAULT_MAX_PRESSURE.parse().ok().filter(|_| unbounded);
    let kind = match (args.kind, args.swappiness) {
        (Some(Kind::Anon), _) => reclaim::Kind::Anon,
        (Some(Kind::File), _) => reclaim::Kind::File,
        (_, Some(swappiness)) => reclaim::Kind::Weighed(swappiness),
        _ => reclaim::Kind::All,
    };
    Request {
        goal,
        kind,
        chunk: args.chunk,
        timeout: args.timeout,
        max_pressure: args.max_pressure.or(default),
        tolerance: args.tolerance.map_or(Tolerance::Folio, Tolerance::Share),
    }
}
