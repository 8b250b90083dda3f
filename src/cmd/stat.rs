//! `memctl stat`.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::time::{Duration, Instant};

use memctl::cgroup::error::CgroupError;
use memctl::cgroup::mount::Hidden;
use memctl::cgroup::stat::{PackedStat, Rates};
use memctl::cgroup::{CgroupPath, Details, Mount, Name, Reading, Survey, diagnose};
use memctl::host::files;
use memctl::kind::Kind;
use memctl::reclaim::Reclaimable;
use memctl::select::pods::Pods;
use memctl::select::{Match, locate, select_there};
use rustix::io::Errno;

use crate::cli::{Global, SortKey, Stat};
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output::format::{errno_text, shortened};
use crate::output::view::{Row, StatView};
use crate::output::{self, Verbosity, notes};

/// Default interval between two samples.
const INTERVAL: Duration = Duration::from_secs(1);

/// Maximum length of a name in an error, in characters.
const NAME_WIDTH: usize = 400;

/// Runs the subcommand.
pub fn run(args: &Stat, global: &Global) -> Result<Exit> {
    let loudness = Verbosity::new(global)?;
    let times = args.iterations.or_else(|| args.interval.is_none().then_some(1));
    let again = args.interval.is_some() || times.is_some_and(|times| times > 1);
    let interval = args.interval.unwrap_or(INTERVAL);
    let mut screen = output::stat::StatScreen::new(args, again);
    let mut known = Previous::default();
    let mut exit = Exit::Success;
    let mut told = HashSet::new();
    let mut next = Instant::now();
    files::open_many_files();
    for look in 1u32.. {
        let Sample { mut view, unreadable, left_out } = look_at(args)?;
        if again {
            known.rate(view.rows_mut());
        }
        // A header without rows would be empty.
        let nothing = view.rows().is_empty();
        let silent = nothing || loudness == Verbosity::Quiet && !args.json && !args.prometheus;
        let heard = silent || screen.show(&view)?;
        // A page and JSON give the reason themselves.
        let has_rows = again || matches!(view, StatView::Rows(_));
        if has_rows && !args.json && look == 1 && loudness != Verbosity::Quiet {
            for note in notes::without_pressure(view.rows()) {
                output::eprint_line(&note);
            }
        }
        if nothing && unreadable.is_empty() && look == 1 {
            if let Some(why) = locate("/").ok().and_then(|root| diagnose::none_below(&root)) {
                return Err(why.into());
            }
            if loudness != Verbosity::Quiet {
                output::eprint_line("no cgroup below the root (for the root itself: memctl stat /)");
            }
        }
        let (gone, unreadable): (Vec<_>, Vec<_>) =
            unreadable.into_iter().partition(|why| look > 1 && why.word.is_some());
        for why in gone.iter().filter(|why| told.insert(why.error.to_string())) {
            let name = why.word.as_deref().unwrap_or_default();
            if loudness != Verbosity::Quiet {
                output::eprint_line(&format!("{}: gone", output::format::escaped(name)));
            }
        }
        // Each error is reported once: later samples will hardly succeed.
        for why in unreadable.iter().filter(|why| told.insert(why.error.to_string())) {
            exit = output::error::print(&why.error);
        }
        for (name, count) in left_out.into_iter().filter(|(name, _)| told.insert(format!("{name}: depth"))) {
            notes::left_out(&name, count, loudness);
        }
        let lost = nothing && !(unreadable.is_empty() && gone.is_empty());
        if !heard || lost || times.is_some_and(|times| look >= times) {
            break;
        }
        next += interval;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(exit)
}

/// An error that keeps a cgroup from being shown.
struct Failure {
    error: Error,
    /// The word that matches nothing, if that is the only error: a cgroup that was there in the
    /// first sample and is missing later has vanished.
    word: Option<String>,
}

impl From<CgroupError> for Failure {
    fn from(why: CgroupError) -> Self {
        Self { word: why.word().map(str::to_owned), error: why.into() }
    }
}

/// A sample of all cgroups that were requested.
struct Sample {
    view: StatView,
    unreadable: Vec<Failure>,
    /// Requested cgroups with others too deep below them, and the number of those.
    left_out: Vec<(Name, usize)>,
}

/// Takes a sample of all cgroups that were requested.
fn look_at(args: &Stat) -> Result<Sample> {
    let depth = args.depth.map_or(if args.recursive { usize::MAX } else { 0 }, usize::from);
    let (mut shown, mut unreadable, mut selected) = (Vec::new(), Vec::new(), Vec::new());
    let mut left_out = Vec::new();
    let (jobs, pods) = (usize::from(args.jobs), Pods::default());
    if args.words.is_empty() {
        // The cgroups below the root stand for it: its own figures are the host's.
        let root = locate("/")?;
        let survey = Survey::new(depth.max(1), jobs);
        shown = named(sorted(survey.of(&root), 1, args.sort, root.mount.hidden()), &pods, &root.mount);
        left_out.push((root.name.clone(), survey.left_out()));
        unreadable.extend(failures(survey, &root));
    } else {
        let missing;
        (selected, missing) = select_there(&args.words);
        unreadable.extend(missing.into_iter().map(Failure::from));
        for Match { located, .. } in &selected {
            let survey = Survey::new(depth, jobs);
            let rows = sorted(survey.of(located), 0, args.sort, located.mount.hidden());
            shown.extend(named(rows, &pods, &located.mount));
            left_out.push((located.name.clone(), survey.left_out()));
            unreadable.extend(failures(survey, located));
        }
        if depth == 0 {
            shown.sort_by(|one, other| order(args.sort, one, other));
        }
    }
    let one = args.words.len() == 1 && depth == 0 && shown.len() == 1;
    let view = match (shown.pop(), &selected[..]) {
        (Some(mut only), [Match { located, .. }]) if one => {
            only.details = Some(Box::new(Details::of(located)));
            StatView::Page(Box::new(only))
        }
        (last, _) => StatView::Rows(shown.into_iter().chain(last).collect()),
    };
    left_out.retain(|&(_, count)| count > 0);
    Ok(Sample { view, unreadable, left_out })
}

/// Gives rows the names of their pods.
fn named(mut rows: Vec<Row>, pods: &Pods, mount: &Mount) -> Vec<Row> {
    for row in &mut rows {
        pods.name(&mut row.reading.name, mount);
    }
    rows
}

/// Returns the errors of a survey, with the reason for the cgroup that was requested.
fn failures(survey: Survey, asked: &CgroupPath) -> Vec<Failure> {
    let failure = |(name, errno): (Name, Errno)| {
        if name == asked.name {
            diagnose::unreadable(asked, errno).into()
        } else {
            Failure { error: Error::new(errno_text(errno)).context(shortened(&name, NAME_WIDTH)), word: None }
        }
    };
    survey.unreadable().into_iter().map(failure).collect()
}

/// The previous sample, by name.
#[derive(Default)]
struct Previous(HashMap<Name, (Instant, PackedStat)>);

impl Previous {
    /// Sets the rates since the previous sample, and stores this one for the next.
    fn rate(&mut self, rows: &mut [Row]) {
        let now = Instant::now();
        let mut seen = HashMap::with_capacity(rows.len());
        for shown in rows {
            if let Some((then, before)) = self.0.get(&shown.reading.name) {
                shown.rates = Some(Rates::new(&before.unpack(), &shown.reading.stat(), now - *then));
            }
            seen.insert(shown.reading.name.clone(), (now, shown.reading.packed().clone()));
        }
        // Cgroups that vanished are dropped.
        self.0 = seen;
    }
}

/// Sorts siblings, each cgroup before its descendants, and leaves out the levels above `from`.
#[allow(clippy::vec_box)] // As the survey hands them on.
fn sorted(readings: Vec<Box<Reading>>, from: usize, key: SortKey, hidden: Option<Hidden>) -> Vec<Row> {
    let shown = readings.into_iter().map(|reading| {
        let reclaimable = Reclaimable::new(Kind::All, &reading.stat(), &reading.conditions);
        Row { reading, reclaimable, rates: None, hidden, details: None }
    });
    let shown: Vec<_> = shown.collect();
    let places = in_order(&shown, key);
    let mut shown: Vec<_> = shown.into_iter().map(Some).collect();
    let mut out: Vec<_> = places.into_iter().filter_map(|place| shown[place].take()).collect();
    out.retain(|shown| shown.reading.depth >= from);
    for shown in &mut out {
        shown.reading.depth -= from;
    }
    out
}

/// Sorts each cgroup, with its descendants, among its siblings, on every level, and returns the
/// indices in order. Takes no stack for the levels.
fn in_order(shown: &[Row], key: SortKey) -> Vec<usize> {
    let mut places = Vec::with_capacity(shown.len());
    let mut open = siblings(shown, 0..shown.len(), key);
    while let Some(run) = open.pop() {
        places.push(run.start);
        open.extend(siblings(shown, run.start + 1..run.end, key));
    }
    places
}

/// Returns the topmost cgroups of a range, each with its descendants, the last in order first.
fn siblings(shown: &[Row], among: Range<usize>, key: SortKey) -> Vec<Range<usize>> {
    let Some(first) = shown.get(among.start).filter(|_| !among.is_empty()) else { return Vec::new() };
    let depth = first.reading.depth;
    let mut heads: Vec<_> =
        among.clone().filter(|&place| shown[place].reading.depth <= depth).map(|head| head..head).collect();
    for next in 1..=heads.len() {
        heads[next - 1].end = heads.get(next).map_or(among.end, |run| run.start);
    }
    heads.sort_by(|one, other| order(key, &shown[one.start], &shown[other.start]));
    heads.reverse();
    heads
}

fn order(key: SortKey, one: &Row, other: &Row) -> std::cmp::Ordering {
    let names = || one.reading.name.cmp(&other.reading.name);
    let largest = |of: &dyn Fn(&Row) -> Option<u64>| of(other).cmp(&of(one)).then_with(names);
    match key {
        SortKey::Name => names(),
        SortKey::Current => largest(&|shown| shown.reading.current),
        SortKey::WorkingSet => largest(&|shown| shown.reading.working_set()),
        SortKey::Reclaimable => largest(&|shown| Some(shown.reclaimable.bytes())),
        SortKey::Pressure => largest(&|shown| shown.reading.pressure.map(|all| u64::from(all.some.avg10))),
        SortKey::Refaults => largest(&|shown| shown.reading.stat().refaulted()),
        // Without a limit, the headroom is infinite.
        SortKey::Headroom => {
            let room = |shown: &Row| shown.reading.bound.as_ref().map_or(u64::MAX, |bound| bound.headroom);
            room(one).cmp(&room(other)).then_with(names)
        }
    }
}
