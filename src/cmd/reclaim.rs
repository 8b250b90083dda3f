//! `memctl reclaim`.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use memctl::cgroup::error::CgroupError;
use memctl::cgroup::{CgroupPath, Name};
use memctl::kind;
use memctl::reclaim::batch::{self, InOrder, Job, Outcomes, Scheduler, Total, settle};
use memctl::reclaim::{self, Goal, OpenTarget, Plan, Rate, RecentStalls, Request, Tolerance, TotalPlan};
use memctl::select::{TargetSpec, places};
use memctl::size::{Amount, looks_like_size};
use rustix::io::Errno;

use crate::cli::{Global, MemoryType, Reclaim};
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output::progress::{ProgressBars, WaitBar};
use crate::output::view::DryRun;
use crate::output::{self, Verbosity, notes};
use crate::signal;

/// Default of `--max-pressure` where nothing else limits a request: for the root, a node, and
/// `max`.
const DEFAULT_MAX_PRESSURE: &str = "10%";

/// Runs the subcommand.
pub fn run(args: &Reclaim, global: &Global) -> Result<Exit> {
    let loudness = Verbosity::new(global)?;
    let (words, goal) = split(args)?;
    // Prepares all of them before the first write: an error in one changes nothing anywhere.
    let mut jobs = prepare(args, &words, goal, loudness)?;
    if args.dry_run {
        return foretell(jobs, args, loudness);
    }
    signal::install();
    if let Some(time) = args.settle {
        watching("measuring the usual refaults", loudness, |options| {
            settle::baseline(&mut jobs, time, options);
        });
    }
    let mut outcomes = serve(jobs, args, loudness)?;
    if let Some(time) = args.settle {
        watching("measuring refaults", loudness, |options| {
            settle::settle(&mut outcomes, time, options);
        });
    }
    output::reclaim::print(&outcomes, args.json, loudness)?;
    // Even if the signal came too late to stop anything: a shell that runs memctl in a loop must
    // get it.
    if let Some(signal) = signal::pending() {
        signal::die_by(signal);
    }
    for outcome in &outcomes.each {
        output::error::print_outcome(outcome);
    }
    Ok(Exit::from(&outcomes))
}

/// Runs the requests, and shows their progress.
fn serve(jobs: Vec<Job>, args: &Reclaim, loudness: Verbosity) -> Result<Outcomes> {
    let names = names(&jobs);
    let targets = targets(&jobs);
    let parallel = usize::from(args.jobs);
    match args.total {
        None => {
            let progress = ProgressBars::new(&names, loudness.progress());
            run_batch(InOrder::new(jobs), &names, progress, parallel, loudness)
        }
        Some(amount) => {
            let total = Total::new(jobs, amount, is_stopped);
            let total = total.map_err(|(index, errno)| unreadable(&targets[index], errno))?;
            let progress = ProgressBars::of_total(&names, total.requested(), loudness.progress());
            run_batch(total, &names, progress, parallel, loudness)
        }
    }
}

fn run_batch(
    scheduler: impl Scheduler,
    names: &[String],
    mut progress: ProgressBars,
    parallel: usize,
    loudness: Verbosity,
) -> Result<Outcomes> {
    let mut emit = |report| match report {
        batch::Progress::Step(index, event) => {
            progress.show(index, &event);
            notes::event((names.len() > 1).then(|| names[index].as_str()), &event, loudness);
        }
        batch::Progress::Locked(index, holder) => {
            progress.suspend(|| notes::locked(&names[index], holder, loudness));
        }
        batch::Progress::Completed { index, is_last } => progress.served(index, is_last),
        batch::Progress::Tick => progress.tick(),
        batch::Progress::Stopping => signal::restore_defaults(),
        batch::Progress::InFlight(bytes) => progress.suspend(|| notes::waiting_for_write(bytes, loudness)),
    };
    let steps = loudness.progress() || loudness == Verbosity::Verbose;
    let mut options =
        batch::BatchOptions { parallel, steps, stop: is_stopped, nudge: signal::nudge, emit: &mut emit };
    let outcomes = batch::run(scheduler, &mut options);
    progress.finish();
    outcomes.map_err(|e| Error::io("can't create an eventfd", &e))
}

fn is_stopped() -> bool {
    signal::pending().is_some()
}

/// Runs `watch`, and shows the progress of the time it spends on measuring.
fn watching(what: &'static str, loudness: Verbosity, watch: impl FnOnce(&mut settle::SettleOptions<'_>)) {
    let mut bar = None;
    let mut emit = |report: settle::SettleProgress<'_>| match report {
        settle::SettleProgress::Begins(time) => {
            notes::watching(what, time, loudness);
            bar = Some(WaitBar::new(what, time, loudness.progress()));
        }
        settle::SettleProgress::Tick => bar.iter().for_each(WaitBar::tick),
        settle::SettleProgress::Ends => bar.iter().for_each(WaitBar::finish),
        settle::SettleProgress::Lost(name) => notes::unwatched(name, loudness),
    };
    watch(&mut settle::SettleOptions { stop: is_stopped, emit: &mut emit });
}

fn names(jobs: &[Job]) -> Vec<String> {
    jobs.iter().map(|job| job.place.name().to_string()).collect()
}

fn targets(jobs: &[Job]) -> Vec<(Name, Option<CgroupPath>)> {
    jobs.iter().map(|job| (job.place.name().clone(), job.place.located().cloned())).collect()
}

fn unreadable((name, located): &(Name, Option<CgroupPath>), errno: Errno) -> Error {
    Error::target(name, located.as_ref(), errno)
}

/// Opens the cgroups and checks that the kernel can serve the requests.
fn prepare(args: &Reclaim, words: &[OsString], goal: Goal, loudness: Verbosity) -> Result<Vec<Job>> {
    let rate = args.max_rate.map(|rate| Arc::new(Rate::new(rate)));
    let mut jobs = Vec::new();
    let mut report = |why: &CgroupError| notes::not_searched(&why.to_string(), loudness);
    for wanted in places(words, &mut report)? {
        let by_glob = matches!(&wanted, TargetSpec::Cgroup(selected) if selected.by_glob);
        let mut place = match OpenTarget::open(&wanted) {
            Ok(place) => place,
            // A glob gives no promise about the cgroups that it happens to match, or their
            // lifetime.
            Err(why) if by_glob => {
                notes::passed_over(&why.to_string(), loudness);
                continue;
            }
            Err(why) => return Err(why.into()),
        };
        let mut request = request(args, goal, rate.clone());
        let check = if args.dry_run { Request::check_without_a_write } else { Request::check };
        check(&request, place.target()).map_err(|why| Error::from(why).context(place.name()))?;
        if request.max_pressure.is_none() && (place.is_of_the_host() || goal == Goal::Reclaim(Amount::Max)) {
            request.max_pressure = DEFAULT_MAX_PRESSURE.parse().ok();
            if let (Some(most), Some(why)) = (request.max_pressure, place.target().psi().reason()) {
                notes::unbounded(&place.name().to_string(), most, why, loudness);
            }
        }
        jobs.push(Job { place, request, lock: !args.no_lock, usual: None, stalls: RecentStalls::default() });
    }
    if jobs.is_empty() {
        return Err(CgroupError::NoneReclaimable {
            word: words.join(OsStr::new(" ")).to_string_lossy().into_owned(),
        }
        .into());
    }
    Ok(jobs)
}

/// Prints the forecast of the requests, without a write.
fn foretell(mut jobs: Vec<Job>, args: &Reclaim, loudness: Verbosity) -> Result<Exit> {
    let targets = targets(&jobs);
    let lost = |index: usize, errno| unreadable(&targets[index], errno);
    let whole = args.total.map(|amount| Total::foretell(&mut jobs, amount)).transpose();
    let whole = whole.map_err(|(index, errno)| lost(index, errno))?;
    let mut plans = Vec::new();
    for (index, job) in jobs.iter_mut().enumerate() {
        plans.push(Plan::of(job.place.target(), &job.request).map_err(|errno| lost(index, errno))?);
    }
    let first = &jobs[0].request;
    let total = whole.map(|requested| TotalPlan::new(requested, &mut plans, first));
    if let Some(rate) = first.rate.as_ref().filter(|_| total.is_none()) {
        reclaim::share_rate(&mut plans, rate, usize::from(args.jobs));
    }
    let foretold: Vec<_> = jobs
        .into_iter()
        .zip(plans)
        .map(|(Job { place, lock, .. }, plan)| DryRun {
            name: place.name().clone(),
            path: place.path().to_path_buf(),
            plan,
            locked: lock && matches!(place.try_lock(), Ok(false)),
        })
        .collect();
    output::plan::print(&foretold, total.as_ref(), args.json, loudness)?;
    let guards = || foretold.iter().flat_map(|one| &one.plan.guards);
    let worst = match &total {
        // A cgroup that is left out only matters if the others can't make up for it.
        Some(total) => total.guards.iter().map(|&guard| Exit::from(guard)).max(),
        None => guards().map(|&guard| Exit::from(guard)).max(),
    };
    Ok(worst.unwrap_or(Exit::Success))
}

/// Splits the words into the cgroups and the amount requested from each.
fn split(args: &Reclaim) -> Result<(Vec<OsString>, Goal)> {
    let usage = |what: String, hint: &str| Error::usage(what).with_hint(Some(hint));
    let mut words = args.words.clone();
    if let Some(to) = args.to {
        if let Some(last) = last_size(&words) {
            let what = format!("{last}: SIZE can't be combined with --to");
            return Err(usage(what, "give either SIZE or --to SIZE"));
        }
        return Ok((words, Goal::DownTo(to)));
    }
    if let Some(total) = args.total {
        if let Some(last) = last_size(&words) {
            let what = format!("{last}: SIZE can't be combined with --total");
            return Err(usage(what, "give either SIZE, for each, or --total SIZE"));
        }
        return Ok((words, Goal::Reclaim(total)));
    }
    // A size is ASCII.
    let last = words.pop().unwrap_or_default().to_string_lossy().into_owned();
    if words.is_empty() {
        return Err(if looks_like_size(&last) {
            usage(format!("{last}: no cgroup given"), "memctl reclaim CGROUP SIZE")
        } else {
            usage(format!("{last}: no size given"), "memctl reclaim CGROUP SIZE, such as 10M")
        });
    }
    let amount: Amount = match last.parse() {
        Ok(amount) => amount,
        Err(why) => {
            let swapped = words[0].to_str().is_some_and(looks_like_size) && !looks_like_size(&last);
            let hint = swapped.then(|| "give the cgroup first: memctl reclaim CGROUP SIZE".to_owned());
            let what = if last.is_empty() { why.to_string() } else { format!("{last}: {why}") };
            return Err(Error::usage(what).with_hint(hint));
        }
    };
    Ok((words, Goal::Reclaim(amount)))
}

/// Returns the last of several words, if it looks like a size.
fn last_size(words: &[OsString]) -> Option<&str> {
    let last = words.last().filter(|_| words.len() > 1)?;
    last.to_str().filter(|last| looks_like_size(last))
}

fn request(args: &Reclaim, goal: Goal, rate: Option<Arc<Rate>>) -> Request {
    let kind = match (args.kind, args.swappiness) {
        (None | Some(MemoryType::All), Some(swappiness)) => kind::Kind::Weighed(swappiness),
        (given, _) => given.map(Into::into).unwrap_or_default(),
    };
    Request {
        goal,
        kind,
        chunk: args.chunk,
        timeout: args.timeout,
        max_pressure: args.max_pressure,
        max_cost: args.max_cost,
        rate,
        alarm: Some(signal::alarm),
        tolerance: args.tolerance.map_or(Tolerance::Folio, Tolerance::Share),
    }
}
