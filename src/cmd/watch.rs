//! `memctl watch`.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use memctl::cgroup::join::Joined;
use memctl::cgroup::reclaim::Swappiness;
use memctl::cgroup::{Located, MemoryCgroup, Selected, Watchlist};
use memctl::clock;
use memctl::reclaim::{self, Goal, Request};
use memctl::size::{Amount, Percent};
use memctl::watch::control;
use memctl::watch::event::View;
use memctl::watch::guard::{Bounds, Take};
use memctl::watch::headroom::Headroom;
use memctl::watch::level::Ancestors;
use memctl::watch::member::Member;
use memctl::watch::options::Options;
use memctl::watch::rule::Rule;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cli::{Global, Kind, Watch};
use crate::exit::{Exit, UsageError};
use crate::output::{self, Loudness};
use crate::signal;

mod lock;

/// What may be watched later.
pub struct Waiting {
    /// Globs that match nothing yet.
    pub unmatched: Vec<String>,
    /// What globs match and can't be watched yet, and why.
    pub unlimited: Vec<(Arc<str>, String)>,
}

/// How many writes may be under way at the same time.
const WORKERS: usize = 4;

/// What an estimate is stalled for if nobody says otherwise, and what goes to swap a second at the most: an SSD is to last.
const GENTLE: f64 = 0.001;
const GENTLE_WRITES: u64 = 1 << 20;

/// On a terminal, the table is painted anew so often.
const REPAINTED: Duration = Duration::from_millis(500);

/// Runs the subcommand.
pub fn run(args: &Watch, global: &Global) -> Result<Exit> {
    let loudness = Loudness::new(global)?;
    let rule = Rc::new(rule(args)?);
    open_many_files();
    let mut watchlist = Watchlist::new(&args.words, &args.exclude).map_err(|why| UsageError {
        what: format!("--exclude: {why}"),
        hint: Some("GLOB has *, ?, [...], {a,b}; ** crosses levels".into()),
    })?;
    let mut ancestors = Ancestors::default();
    let (members, waiting) = members(&watchlist, &rule, &mut ancestors)?;
    output::notes::not_watched(&waiting, loudness);
    if !args.exclude.is_empty() {
        output::notes::nothing_excluded(&watchlist.useless(), loudness);
    }
    signal::install();
    // A dry run writes nothing, this neither.
    let join = args.join.as_deref().filter(|_| !args.dry_run);
    let joined = join.map(Joined::enter).transpose()?;
    lock::lock_memory(members.iter().map(|member| &*member.located.name), loudness);
    if args.estimate {
        output::notes::estimating(loudness);
    }
    let screen = RefCell::new(output::watch::Screen::new(args.json, args.estimate, loudness));
    let mut show = |rows: &mut dyn Iterator<Item = View<'_>>| screen.borrow_mut().show(rows);
    let live = screen.borrow().is_live();
    let follows = watchlist.follows();
    let mut select = |lost: bool, known: &dyn Fn(&Path) -> bool| -> Vec<Arc<Located>> {
        watchlist
            .now(clock::now(), lost, known)
            .into_iter()
            .map(|selected| Arc::new(selected.located))
            .collect()
    };
    let ended = control::run(
        members,
        Options {
            rule,
            workers: WORKERS,
            duration: args.duration,
            cpu: args.cpu.map(Percent::ratio),
            dry_run: args.dry_run,
            each_action: loudness == Loudness::Verbose,
            joined,
            ancestors,
            stop: &|| signal::pending().is_some() || output::watch::nobody_reads(),
            nudge: signal::nudge,
            follows,
            select: &mut select,
            show: live.then_some((REPAINTED, &mut show)),
            tell: &mut |event| screen.borrow_mut().event(&event),
        },
    )
    .context("can't watch")?;
    output::watch::print(&ended, args.json, args.estimate, loudness)?;
    match signal::pending() {
        // A service that is told to stop has done its work.
        Some(signal) if signal != signal::TERMINATE => signal::die_by(signal),
        _ => {}
    }
    Ok(Exit::Reached)
}

/// Raises the number of files that may be open as far as it goes: each cgroup under watch takes three. What was 1024 by
/// default is kept low for programs that use select(2), which this isn't.
fn open_many_files() {
    let limit = getrlimit(Resource::Nofile);
    // Where it can't be raised, it ends where it did.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

fn rule(args: &Watch) -> Result<Rule, UsageError> {
    let pressure = args.pressure.map(Percent::ratio).or(args.estimate.then_some(GENTLE));
    let headroom = match args.headroom {
        Some(Amount::Bytes(bytes)) => Headroom::Bytes(bytes),
        Some(Amount::Share(share)) => Headroom::Share(share.ratio()),
        Some(Amount::Max) => Headroom::Share(1.0),
        None if args.keep.is_some() || pressure.is_some() => Headroom::Bytes(0),
        None => {
            return Err(UsageError {
                what: "watch: what is to be done? --headroom, --keep, --pressure or --estimate".into(),
                hint: Some(
                    "--headroom 10% keeps that much free below the limit, --keep SIZE sets a limit, --pressure 0.1% \
                     presses out what isn't in use"
                        .into(),
                ),
            });
        }
    };
    if headroom == Headroom::Share(1.0) {
        let what = "--headroom: it leaves nothing of the limit".into();
        return Err(UsageError { what, hint: Some("give less than 100%".into()) });
    }
    let take = match (args.kind, args.swappiness) {
        (Some(Kind::Anon), _) | (_, Some(Swappiness::Max)) => Take::Anon,
        (Some(Kind::File), _) | (_, Some(Swappiness::Value(0))) => Take::File,
        (_, Some(swappiness)) => Take::Weighed(swappiness),
        (Some(Kind::All), _) => Take::All,
        (None, _) => Take::Careful,
    };
    Ok(Rule {
        headroom,
        pressure,
        keep: args.keep,
        ancestors: args.ancestors,
        lock: !args.no_lock,
        bounds: Bounds {
            floor: args.floor,
            swap_free: args.swap_free,
            swap_writes: args.swap_writes.map_or(pressure.map(|_| GENTLE_WRITES), |bound| bound.0),
            max_pressure: args.max_pressure,
            take,
        },
    })
}

/// What the kernel must be able to serve, and what asks for it.
fn needed(take: Take) -> Option<(Request, String)> {
    let (kind, word) = match take {
        Take::All | Take::Careful => return None,
        Take::File => (reclaim::Kind::File, "--type file".to_owned()),
        Take::Anon => (reclaim::Kind::Anon, "--type anon".to_owned()),
        Take::Weighed(swappiness) => {
            (reclaim::Kind::Weighed(swappiness), format!("--swappiness {swappiness}"))
        }
    };
    Some((Request::new(Goal::Reclaim(Amount::Max), kind), word))
}

/// Makes sure of all that was named before anything is begun: a mistake in one changes nothing anywhere.
fn members(
    watchlist: &Watchlist,
    rule: &Rc<Rule>,
    ancestors: &mut Ancestors,
) -> Result<(Vec<Member>, Waiting)> {
    let needed = needed(rule.bounds.take);
    let mut text = String::new();
    let (first, unmatched) = watchlist.first()?;
    let mut members = Vec::with_capacity(first.len());
    let mut unlimited = Vec::new();
    for Selected { located, by_glob } in first {
        let mut able = match MemoryCgroup::open(&located) {
            Ok(able) => able,
            Err(_) if by_glob => continue,
            Err(why) => return Err(why.into()),
        };
        if let Some((request, word)) = &needed {
            request.check(&mut able).with_context(|| word.clone())?;
        }
        let name = Arc::clone(&located.name);
        match Member::new(
            Arc::new(located),
            Rc::clone(rule),
            ancestors,
            clock::now(),
            Duration::ZERO,
            &mut text,
        ) {
            Ok(member) => members.push(member),
            // It may get a limit yet.
            Err(why) if by_glob => unlimited.push((name, why.to_string())),
            Err(why) => return Err(anyhow::Error::from(why).context(name)),
        }
    }
    Ok((members, Waiting { unmatched, unlimited }))
}
