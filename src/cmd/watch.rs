//! `memctl watch`.

use std::sync::Arc;

use anyhow::{Context, Result};
use memctl::cgroup::{Located, MemoryCgroup, Selected, Watchlist};
use memctl::size::Amount;
use memctl::watch::control::{self, Options};
use memctl::watch::guard::{Bounds, Take};
use memctl::watch::headroom::Headroom;
use memctl::watch::member::{Member, Rule, Unwatchable};

use crate::cli::{Global, Kind, Watch};
use crate::exit::{Exit, UsageError};
use crate::output::{self, Loudness};
use crate::signal;

/// How many writes may be under way at the same time.
const WORKERS: usize = 4;

/// Runs the subcommand.
pub fn run(args: &Watch, global: &Global) -> Result<Exit> {
    let loudness = Loudness::new(global)?;
    let rule = rule(args)?;
    let watchlist = Watchlist::new(&args.words, &args.exclude)?;
    let members = members(&watchlist, rule)?;
    signal::install();
    let mut shown = output::watch::Shown::new(args.json, loudness);
    let mut select = || -> Vec<Arc<Located>> {
        watchlist.now().into_iter().map(|selected| Arc::new(selected.located)).collect()
    };
    let ended = control::run(
        members,
        Options {
            rule,
            workers: WORKERS,
            duration: args.duration,
            cpu: args.cpu.map(memctl::size::Percent::ratio),
            dry_run: args.dry_run,
            stop: &|| signal::pending().is_some() || output::watch::nobody_reads(),
            nudge: signal::nudge,
            select: &mut select,
            tell: &mut |event| shown.event(&event),
        },
    )
    .context("can't watch")?;
    output::watch::print(&ended, args.json, loudness)?;
    match signal::pending() {
        // A service that is told to stop has done its work.
        Some(signal) if signal != signal::TERMINATE => signal::die_by(signal),
        _ => {}
    }
    Ok(Exit::Reached)
}

fn rule(args: &Watch) -> Result<Rule, UsageError> {
    let headroom = match args.headroom {
        Some(Amount::Bytes(bytes)) => Headroom::Bytes(bytes),
        Some(Amount::Share(share)) => Headroom::Share(share.ratio()),
        Some(Amount::Max) => Headroom::Share(1.0),
        None if args.keep.is_some() => Headroom::Bytes(0),
        None => {
            return Err(UsageError {
                what: "watch: how much is to be kept free?".into(),
                hint: Some(
                    "--headroom 10% keeps that much free below the limit, --keep SIZE sets a limit".into(),
                ),
            });
        }
    };
    if headroom == Headroom::Share(1.0) {
        let what = "--headroom: it leaves nothing of the limit".into();
        return Err(UsageError { what, hint: Some("give less than 100%".into()) });
    }
    let take = match args.kind {
        None => Take::Careful,
        Some(Kind::All) => Take::All,
        Some(Kind::Anon) => Take::Anon,
        Some(Kind::File) => Take::File,
    };
    Ok(Rule {
        headroom,
        keep: args.keep,
        bounds: Bounds {
            floor: args.floor,
            swap_free: args.swap_free,
            swap_writes: args.swap_writes,
            max_pressure: args.max_pressure,
            take,
        },
    })
}

/// Makes sure of all that was named before anything is begun: a mistake in one changes nothing anywhere.
fn members(watchlist: &Watchlist, rule: Rule) -> Result<Vec<Member>> {
    let mut text = String::new();
    let mut members = Vec::new();
    for Selected { located, by_glob } in watchlist.first()? {
        let able = MemoryCgroup::open(&located);
        if by_glob && able.is_err() {
            continue;
        }
        able?;
        let name = located.name.clone();
        match Member::new(Arc::new(located), rule, control::now(), std::time::Duration::ZERO, &mut text) {
            Ok(member) => members.push(member),
            // It may get a limit yet.
            Err(_) if by_glob => {}
            Err(why) => return Err(unwatchable(&name, &why)),
        }
    }
    Ok(members)
}

fn unwatchable(name: &str, why: &Unwatchable) -> anyhow::Error {
    let (what, hint) = match why {
        Unwatchable::Errno(errno) => {
            return anyhow::anyhow!("{}", output::error::plain(*errno)).context(name.to_owned());
        }
        Unwatchable::NoLimit => (
            format!("{name}: it has no limit, neither memory.high nor memory.max"),
            "--keep SIZE gives it one that memctl keeps",
        ),
        Unwatchable::NoRoom { limit } => (
            format!("{name}: --headroom leaves nothing of its limit of {}", output::words::size(*limit)),
            "give less than the limit",
        ),
    };
    UsageError { what, hint: Some(hint.into()) }.into()
}
