//! `memctl watch`.

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use memctl::cgroup::MemoryCgroup;
use memctl::cgroup::join::{JoinError, Joined};
use memctl::clock;
use memctl::kind::Kind;
use memctl::reclaim::{Goal, Request};
use memctl::select::locate;
use memctl::select::watchlist::Assigned;
use memctl::size::{Amount, Percent};
use memctl::watch::control;
use memctl::watch::event::MemberView;
use memctl::watch::level::Ancestors;
use memctl::watch::member::Member;
use memctl::watch::options::{Reload, RuledCgroup, WatchOptions};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cli::{Global, Watch};
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output::view::Waiting;
use crate::output::{self, Verbosity};
use crate::signal;

mod follower;
mod lock;
pub mod plan;
pub mod rules;

use follower::{Follower, Reloaded};
use plan::WatchPlan;

/// Maximum number of writes in progress at the same time.
const WORKERS: usize = 4;

/// Time from the start until memory that only the start needed is released.
const SETTLED: Duration = Duration::from_secs(20);

/// Interval between repaints of the table on a terminal.
const REPAINTED: Duration = Duration::from_millis(500);

/// Runs the subcommand.
pub fn run(args: &Watch, global: &Global) -> Result<Exit> {
    let loudness = Verbosity::new(global)?;
    let plan = WatchPlan::of(args)?;
    open_many_files();
    let mut ancestors = Ancestors::default();
    let Start { members, watched, waiting, unresolved } = start(&plan, &mut ancestors)?;
    let mut notes = output::notes::not_watched(&waiting);
    notes.extend(unresolved.iter().cloned());
    if members.is_empty() && notes.is_empty() {
        notes.push("no cgroup is watched: all matches are excluded or can't be reclaimed from".into());
    }
    if args.estimate {
        notes.push("the estimate really reclaims idle memory to find the working set".into());
    }
    if !args.exclude.is_empty() {
        output::notes::nothing_excluded(&plan.watchlist.useless(), loudness);
    }
    signal::install();
    if args.config.is_some() {
        signal::install_reload();
    }
    // A dry run writes nothing, and so doesn't join a cgroup either.
    let join = args.join.as_deref().filter(|_| !args.dry_run);
    let joined = join.map(enter).transpose()?;
    lock::lock_memory(members.iter().map(|member| &*member.located.name), loudness);
    let screen = RefCell::new(output::watch::WatchScreen::new(args.json, args.estimate, loudness));
    for note in &notes {
        screen.borrow_mut().note(note, loudness);
    }
    let mut show = |rows: &mut dyn Iterator<Item = MemberView<'_>>| screen.borrow_mut().show(rows);
    let live = screen.borrow().is_live();
    let settles = Cell::new(Some(clock::now() + SETTLED));
    let stop = || {
        if settles.get().is_some_and(|at| clock::now() >= at) {
            settles.set(None);
            lock::forget_the_start();
        }
        signal::pending().is_some() || output::watch::nobody_reads()
    };
    let (follows, cpu, swap_writes) = (plan.watchlist.follows(), plan.cpu, plan.swap_writes);
    let follower = RefCell::new(Follower::new(plan.watchlist, plan.rules, watched, &unresolved));
    let mut select = |lost: bool, known: &dyn Fn(u64) -> bool| -> Vec<RuledCgroup> {
        let (found, notes) = follower.borrow_mut().found(lost, known);
        for note in notes {
            screen.borrow_mut().note(&note, loudness);
        }
        found
    };
    let mut reload = || {
        let file = args.config.as_deref()?;
        if signal::reload_asked() {
            follower.borrow_mut().read_again(file);
        }
        let read = follower.borrow_mut().reloaded(file)?;
        screen.borrow_mut().reloaded(file, read.as_ref().map(|new| new.rules), loudness);
        let Reloaded { reload, notes, .. } = read.ok()?;
        for note in notes {
            screen.borrow_mut().note(&note, loudness);
        }
        Some(Reload { cpu: args.cpu.map(Percent::ratio).or(reload.cpu), ..reload })
    };
    let ended = control::run(
        members,
        WatchOptions {
            swap_writes,
            workers: WORKERS,
            duration: args.duration,
            cpu,
            dry_run: args.dry_run,
            each_action: loudness == Verbosity::Verbose,
            samples: args.json,
            joined,
            ancestors,
            stop: &stop,
            nudge: signal::nudge,
            alarm: signal::alarm,
            follows,
            select: Some(&mut select),
            reload: Some(&mut reload),
            show: live.then_some((REPAINTED, &mut show)),
            note: Some(&mut |note| match output::notes::of_killer(note) {
                Some(words) => screen.borrow_mut().note(&words, loudness),
                // At the beginning, this happens anyway after `SETTLED`.
                None if settles.get().is_none() => lock::forget_the_start(),
                None => {}
            }),
            tell: &mut |event| screen.borrow_mut().event(&event),
        },
    )
    .map_err(|e| Error::io("can't watch", &e))?;
    output::watch::print(&ended, args.json, args.estimate, loudness)?;
    match signal::pending() {
        // A service that is terminated has done its work.
        Some(signal) if signal != signal::TERMINATE => signal::die_by(signal),
        _ => {}
    }
    Ok(Exit::Success)
}

/// Raises the limit of open files to its maximum: each watched cgroup takes three. The default of
/// 1024 is kept low for programs that use select(2), and memctl doesn't.
fn open_many_files() {
    let limit = getrlimit(Resource::Nofile);
    // If raising fails, the limit stays as it was.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Returns the request that the kernel must support for a kind of memory, and the option that needs
/// it.
fn needed(kind: Option<Kind>) -> Option<(Request, String)> {
    let (kind, word) = match kind? {
        kind @ Kind::File => (kind, "--type file".to_owned()),
        kind @ Kind::Anon => (kind, "--type anon".to_owned()),
        kind @ Kind::Weighed(swappiness) => (kind, format!("--swappiness {swappiness}")),
        Kind::All => return None,
    };
    Some((Request::new(Goal::Reclaim(Amount::Max), kind), word))
}

/// The cgroups of a watch at its start.
struct Start {
    members: Vec<Member>,
    watched: Vec<RuledCgroup>,
    waiting: Waiting,
    /// Notes on words that can't be resolved.
    unresolved: Vec<String>,
}

/// Opens all cgroups that were named before anything starts: an error in one changes nothing
/// anywhere.
fn start(plan: &WatchPlan, ancestors: &mut Ancestors) -> Result<Start> {
    let mut text = String::new();
    let first = plan.watchlist.first()?;
    let mut members = Vec::with_capacity(first.taken.len());
    let (mut watched, mut unlimited) = (Vec::with_capacity(first.taken.len()), Vec::new());
    for Assigned { selected, list } in first.taken {
        let Some(rule) = plan.rules.get(list) else { continue };
        if plan.rules.may_be_left_alone(&selected.located, &first.unresolved) {
            continue;
        }
        let name = selected.located.name.clone();
        let mut able = match MemoryCgroup::open(&selected.located) {
            Ok(able) => able,
            Err(_) if selected.by_glob => continue,
            Err(why) if plan.waits => {
                unlimited.push((name, why.to_string()));
                continue;
            }
            Err(why) => return Err(why.into()),
        };
        if let Some((request, word)) = needed(rule.bounds.kind) {
            request.check(&mut able).map_err(|why| Error::from(why).context(word))?;
        }
        let located = Arc::new(selected.located);
        let ruled = RuledCgroup { located: Arc::clone(&located), rule: Rc::clone(rule) };
        match Member::new(located, Rc::clone(rule), ancestors, clock::now(), Duration::ZERO, &mut text) {
            Ok(member) => {
                members.push(member);
                watched.push(ruled);
            }
            // The cgroup may still get a limit.
            Err(why) if selected.by_glob || plan.waits => unlimited.push((name, why.to_string())),
            Err(why) => return Err(Error::from(why).context(name)),
        }
    }
    let waiting = Waiting { unmatched: first.waiting, unlimited };
    let unresolved = plan.rules.notes(&first.unresolved, &first.troubles);
    Ok(Start { members, watched, waiting, unresolved })
}

/// Moves this process into the cgroup that a word names.
fn enter(word: &OsStr) -> Result<Joined, JoinError> {
    let before = locate("self").ok();
    Joined::enter(&locate(word)?, before.as_ref())
}
