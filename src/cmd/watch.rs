//! `memctl watch`.

use std::ffi::OsStr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use memctl::cgroup::MemoryCgroup;
use memctl::cgroup::error::CgroupError;
use memctl::cgroup::join::{JoinError, Joined};
use memctl::host::files;
use memctl::kind::Kind;
use memctl::reclaim::Refusal;
use memctl::select::locate;
use memctl::select::watchlist::Assigned;
use memctl::watch::config::rule::WatchError;
use memctl::watch::event::MemberView;
use memctl::watch::members::Members;
use memctl::watch::meter::Meter;
use memctl::watch::options::{RuledCgroup, WatchOptions};

use crate::cli::{Global, Watch};
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::metrics::{Required, WatchMetrics};
use crate::notify::Notifier;
use crate::output::view::Waiting;
use crate::output::{self, Verbosity};
use crate::signal;

mod follower;
mod lock;
pub mod plan;
pub mod rules;
mod rules_file;
mod session;

use follower::Follower;
use plan::{SearchNote, WatchPlan};
use rules_file::RulesFile;
use session::Session;

/// Maximum number of writes in progress at the same time.
const WORKERS: usize = 4;

/// Interval between repaints of the table on a terminal.
const REPAINTED: Duration = Duration::from_millis(500);

/// Runs the subcommand.
pub fn run(args: &Watch, global: &Global) -> Result<Exit> {
    let loudness = Verbosity::new(global)?;
    // Clap doesn't ask for it beside what conflicts with it.
    if args.follow_config && args.config.is_none() {
        return Err(Error::usage("--follow-config: requires --config"));
    }
    let plan = WatchPlan::of(args)?;
    let rules_file = args.config.as_ref().map(|file| RulesFile::new(file.clone(), plan.stamp));
    if args.follow_config && rules_file.as_ref().is_some_and(|file| !file.can_change()) {
        let why = "--follow-config: the file of --config must be a regular file, to be read again";
        return Err(Error::usage(why));
    }
    files::open_many_files();
    let Start { members, watched, waiting, unresolved } = start(&plan, args.dry_run)?;
    let mut notes = first_notes(args, &waiting, &unresolved, members.is_empty());
    if !args.exclude.is_empty() {
        output::notes::nothing_excluded(&plan.watchlist.useless(), loudness);
    }
    let (follows, cpu, swap_writes) = (plan.watchlist.follows(), plan.cpu, plan.swap_writes);
    let rules = plan.rules.in_force();
    let named = Required { file: args.metrics.is_some(), listen: args.metrics_listen.is_some() };
    let metrics = WatchMetrics::open(&plan.metrics, named, args.config.as_ref().map(|_| rules.len()))?;
    signal::install();
    if args.config.is_some() {
        signal::install_reload();
    }
    // A dry run writes nothing, and so doesn't join a cgroup either.
    let join = args.join.as_deref().filter(|_| !args.dry_run);
    let joined = join.map(enter).transpose()?;
    notes.extend(lock::lock_memory(members.names().map(|name| &**name)));
    let service = Notifier::new(plan.rules.purpose(args.estimate));
    let follower = Follower::new(plan.watchlist, plan.rules, watched, &unresolved);
    let session = Session::new(args, loudness, follower, service, (metrics, plan.metrics), rules_file);
    for note in &notes {
        session.note(note);
    }
    let live = session.screen.borrow().is_live();
    let mut show = |rows: &mut dyn Iterator<Item = MemberView<'_>>| session.screen.borrow_mut().show(rows);
    let ended = members
        .watch(WatchOptions {
            swap_writes,
            workers: WORKERS,
            duration: args.duration,
            cpu,
            dry_run: args.dry_run,
            each_action: loudness == Verbosity::Verbose,
            samples: args.json || session.metrics.is_some(),
            rules,
            joined,
            stop: &|| session.is_over(),
            nudge: signal::nudge,
            alarm: signal::alarm,
            signals: signal::wakeup_fd(),
            follows,
            select: Some(&mut |lost, known| session.select(lost, known)),
            reload: Some(&mut || session.reload()),
            turned: Some(&mut |cgroups| session.turned(cgroups)),
            show: live.then_some((REPAINTED, &mut show)),
            meter: session.metrics.as_ref().map(|metrics| metrics as &dyn Meter),
            note: Some(&mut |note| session.watch_note(note)),
            emit: &mut |event| session.event(&event),
        })
        .map_err(|e| Error::io("can't watch", &e))?;
    session.service.stopping();
    let written = session.end(&ended);
    match signal::pending() {
        // A service that is terminated has done its work.
        Some(signal) if signal != signal::TERMINATE => signal::die_by(signal),
        None if !written => return Ok(Exit::Failed),
        _ => {}
    }
    Ok(Exit::Success)
}

/// Returns notes on what is watched, and how.
fn first_notes(args: &Watch, waiting: &Waiting, unresolved: &[SearchNote], is_empty: bool) -> Vec<String> {
    let mut notes = output::notes::not_watched(waiting);
    notes.extend(unresolved.iter().map(|note| note.text.clone()));
    if is_empty && notes.is_empty() {
        notes.push("no cgroup is watched: all matches are excluded or can't be reclaimed from".into());
    }
    if args.estimate {
        notes.push("the estimate really reclaims idle memory to find the working set".into());
    }
    notes
}

/// Returns the option that asks for a kind of memory.
fn option_of(kind: Option<Kind>) -> String {
    match kind {
        Some(Kind::File) => "--type file".to_owned(),
        Some(Kind::Anon) => "--type anon".to_owned(),
        Some(Kind::Weighed(swappiness)) => format!("--swappiness {swappiness}"),
        Some(Kind::All) | None => "--type all".to_owned(),
    }
}

/// The cgroups of a watch at its start.
struct Start {
    members: Members,
    watched: Vec<RuledCgroup>,
    waiting: Waiting,
    /// Notes on words that can't be resolved.
    unresolved: Vec<SearchNote>,
}

/// Opens all cgroups that were named before anything starts: an error in one changes nothing
/// anywhere.
fn start(plan: &WatchPlan, dry_run: bool) -> Result<Start> {
    let mut first = plan.watchlist.first()?;
    plan.watchlist.without_nameless(&mut first);
    let mut members = Members::new(dry_run).map_err(|e| Error::io("can't watch", &e))?;
    let (mut watched, mut unlimited) = (Vec::with_capacity(first.taken.len()), Vec::new());
    for Assigned { selected, list } in first.taken {
        let Some(rule) = plan.rules.get(list) else { continue };
        if plan.rules.may_be_left_alone(&selected.located, &first.unresolved) {
            continue;
        }
        let name = selected.located.name.clone();
        let located = Arc::new(selected.located);
        let added = members.add(Arc::clone(&located), Rc::clone(rule)).map_err(|why| match why {
            // The user wants to know the reason.
            WatchError::Cgroup(why) => WatchError::Cgroup(MemoryCgroup::open(&located).err().unwrap_or(why)),
            why => why,
        });
        match added {
            Ok(()) => watched.push(RuledCgroup { located, rule: Rc::clone(rule) }),
            // The same for every cgroup.
            Err(WatchError::Refused(why)) if !matches!(why, Refusal::NoPressure(_)) => {
                return Err(Error::from(why).context(option_of(rule.bounds.kind)));
            }
            Err(WatchError::Cgroup(why)) if selected.by_glob => {
                unlimited.extend(denied(&why).map(|why| (name, why)));
            }
            // Removed since it was found.
            Err(WatchError::Errno(Errno::NOENT | Errno::NODEV | Errno::STALE)) if selected.by_glob => {}
            // The cgroup may still get a limit.
            Err(why) if selected.by_glob || plan.waits => unlimited.push((name, reason(&why))),
            Err(WatchError::Cgroup(why)) => return Err(why.into()),
            Err(why) => return Err(Error::from(why).context(name)),
        }
    }
    let waiting = Waiting { unmatched: first.waiting, unlimited };
    let unresolved = plan.rules.notes(&first.unresolved, &first.troubles);
    Ok(Start { members, watched, waiting, unresolved })
}

/// Returns why a cgroup isn't watched for now, with what the user can do about the host.
fn reason(why: &WatchError) -> String {
    match (why, why.hint()) {
        (WatchError::Errno(_), Some(hint)) => format!("{why} ({hint})"),
        _ => why.to_string(),
    }
}

/// Returns why memctl may not reclaim from a cgroup that a glob matches, if that is so. It is hardly
/// meant, and the same for all of them; other cgroups that can't be reclaimed from are no news.
fn denied(why: &CgroupError) -> Option<String> {
    let what = match why {
        CgroupError::Permission { .. } => "permission denied",
        CgroupError::ReadOnly { .. } => "the cgroup file system is mounted read-only",
        _ => return None,
    };
    // The file is another one for each of them.
    let hint = why.hint().filter(|hint| !hint.contains("memory.reclaim"));
    Some(hint.map_or_else(|| what.to_owned(), |hint| format!("{what} ({hint})")))
}

/// Moves this process into the cgroup that a word names.
fn enter(word: &OsStr) -> Result<Joined, JoinError> {
    let before = locate("self").ok();
    Joined::enter(&locate(word)?, before.as_ref())
}
