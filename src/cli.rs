//! The command line, as clap types. The documents here are the help and the man pages; nothing is read or written.

// Backticks would show in the help.
#![allow(clippy::doc_markdown)]

use std::ffi::OsString;
use std::num::IntErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ColorChoice, Parser, Subcommand, ValueEnum};
use memctl::cgroup::reclaim::Swappiness;
use memctl::size::{Amount, Percent, SizeError, parse_only_bytes};
use memctl::watch::words::{self, bytes_or_none, headroom, some_percent};

// By its path, since the tests read this file from elsewhere.
#[path = "cli/examples.rs"]
mod examples;

use examples::{AFTER, AFTER_CHECK, AFTER_PLOT, AFTER_RECLAIM, AFTER_STAT, AFTER_WATCH};

/// Reclaim memory from a cgroup, and see what it cost
///
/// memctl asks the Linux kernel to reclaim memory from one cgroup, through the cgroup's memory.reclaim file, and
/// says how much was asked for, how much was got, what stood in the way, and what it cost.
#[derive(Debug, Parser)]
#[command(name = "memctl", version, max_term_width = 100, after_long_help = AFTER)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// What every subcommand understands.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every subcommand understands.
#[derive(Args, Debug)]
pub struct Global {
    /// When to use colour
    ///
    /// With auto, the default, colour is used on terminals; NO_COLOR and CLICOLOR_FORCE are honoured.
    #[arg(
        long,
        global = true,
        help_heading = "Everywhere",
        value_name = "WHEN",
        default_value = "auto",
        hide_default_value = true
    )]
    pub color: ColorChoice,
    /// No table, progress or notes; errors and --json stay
    #[arg(short, long, global = true, help_heading = "Everywhere", action = ArgAction::Count)]
    pub quiet: u8,
    /// Tell of every write to the kernel, on standard error
    #[arg(short, long, global = true, help_heading = "Everywhere", action = ArgAction::Count)]
    pub verbose: u8,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    Reclaim(Reclaim),
    Watch(Watch),
    Stat(Stat),
    Check(Check),
    Plot(Plot),
}

/// Draw a recorded watch as a picture
///
/// Draws usage, working set and limit, what was reclaimed and what came back, and the share of the time in which tasks were
/// stalled, over the time of a watch that was recorded with memctl watch --json. Several cgroups are drawn as one, unless
/// one is named. One page of SVG, readable in light and in dark.
#[derive(Args, Debug)]
#[command(after_long_help = AFTER_PLOT)]
pub struct Plot {
    /// What memctl watch --json wrote: a file, or - for standard input
    pub record: PathBuf,
    /// Where to write the picture: a file that ends in .svg, or - for standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Draw this cgroup alone
    #[arg(long, value_name = "CGROUP")]
    pub cgroup: Option<OsString>,
}

/// Say whether reclaim will work here, and if not, why and what to do
///
/// Looks at the cgroup2 mount, the memory controller, the kernel's generation of the interface, permissions, swap, and
/// what else reclaim depends on. Each key of memory.reclaim is tried with a request for nothing, which is harmless.
#[derive(Args, Debug)]
#[command(override_usage = "memctl check [OPTIONS] [CGROUP]\n       memctl check [OPTIONS] --config <FILE>")]
#[command(after_long_help = AFTER_CHECK)]
pub struct Check {
    /// The cgroup, or node:N; the root by default
    #[arg(value_name = "CGROUP")]
    pub word: Option<OsString>,
    /// See which cgroups the rules in FILE take, instead
    ///
    /// FILE is one for memctl watch --config: watch.toml(5). A mistake in it is told with its line.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["word", "write"])]
    pub config: Option<PathBuf>,
    /// Also reclaim 1 MiB, and see the counters move
    #[arg(long)]
    pub write: bool,
    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// Show how much cgroups use, how much of it could be reclaimed, and what stands in the way
///
/// Without a cgroup: those below the root, largest first, and a total. One cgroup alone gets a full page; several, or a
/// tree, a row each.
#[allow(clippy::struct_excessive_bools)] // They are flags.
#[derive(Args, Debug)]
#[command(override_usage = "memctl stat [OPTIONS] [CGROUP]...", after_long_help = AFTER_STAT)]
pub struct Stat {
    /// The cgroups: paths, unit names, pid:N, container:ID, pod:UID, self, or globs
    #[arg(value_name = "CGROUP")]
    pub words: Vec<OsString>,
    /// The whole tree below, indented
    #[arg(short, long)]
    pub recursive: bool,
    /// So many levels below (at least 1), with or without -r
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub depth: Option<u16>,
    /// By current, working-set, reclaimable, pressure, headroom, refaults, name
    ///
    /// Largest first, by current as a default; headroom least first, and names in their order. In a tree, siblings are
    /// sorted.
    #[arg(
        long,
        value_name = "KEY",
        hide_possible_values = true,
        default_value = "current",
        hide_default_value = true
    )]
    pub sort: SortKey,
    /// Look again every DUR, and show rates
    ///
    /// On a terminal it repaints in place; elsewhere it prints on. What came back, what was reclaimed (both a second),
    /// and the share of what was looked at for reclaim that could be taken, each since the look before. A bare number is of
    /// seconds; -n without -i looks each second.
    #[arg(short, long, value_name = "DUR", value_parser = duration)]
    pub interval: Option<Duration>,
    /// Look so many times [default: 1, or without end with -i]
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub iterations: Option<u32>,
    /// Read with so many threads at a time [default: 1]
    ///
    /// Worth it with thousands of cgroups: the time is the kernel's, which folds the counters of each.
    #[arg(long, value_name = "N", default_value = "1", hide_default_value = true, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: u16,
    /// Bytes, not units
    #[arg(short, long)]
    pub bytes: bool,
    /// No header and no total
    #[arg(long)]
    pub no_legend: bool,
    /// Print one line of JSON for each cgroup
    #[arg(long)]
    pub json: bool,
}

/// What rows are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SortKey {
    /// Usage
    Current,
    /// Usage less inactive page cache
    WorkingSet,
    /// What could be reclaimed
    Reclaimable,
    /// Stalls in the last 10 s
    Pressure,
    /// What the limit leaves, least first
    Headroom,
    /// What came back
    Refaults,
    /// The name, in its order
    Name,
}

/// Keep memory free below a cgroup's limit, or press out what isn't in use
///
/// With --headroom it looks at each cgroup as often as its growth asks for, and reclaims before the limit is met: what
/// is kept free is the headroom, or what the cgroup was seen to take at once, where that is more. With --pressure it
/// reclaims gently all the time, until what is left is in use, and tells how much that is. Both may be given. It runs
/// until a signal comes or --duration is over; then it tells what came of it.
#[allow(clippy::struct_excessive_bools)] // They are flags.
#[derive(Args, Debug)]
#[command(
    override_usage = "memctl watch [OPTIONS] --headroom <SIZE|PCT> <CGROUP>...\n       memctl watch [OPTIONS] --keep <SIZE> <CGROUP>...\n       memctl watch [OPTIONS] --pressure <PCT> <CGROUP>...\n       memctl watch [OPTIONS] --estimate [--duration <DUR>] <CGROUP>...\n       memctl watch [OPTIONS] --config <FILE>"
)]
#[command(after_long_help = AFTER_WATCH)]
pub struct Watch {
    /// The cgroups: paths, unit names, pid:N, container:ID, pod:UID, self, or globs
    ///
    /// What a glob matches is followed as it comes and goes.
    #[arg(required_unless_present = "config", value_name = "CGROUP")]
    pub words: Vec<OsString>,
    /// Keep that much free below the limit
    ///
    /// A size, or a share of the limit, which is the lower of memory.high and memory.max.
    #[arg(long, value_name = "SIZE|PCT", value_parser = headroom)]
    pub headroom: Option<Amount>,
    /// Keep the usage below SIZE, as if that were the limit
    ///
    /// What may arrive between two looks is kept free below it; --headroom keeps free at least that much.
    #[arg(long, value_name = "SIZE", value_parser = parse_only_bytes)]
    pub keep: Option<u64>,
    /// Press out what isn't in use: stall the cgroup for no more than PCT of the time
    ///
    /// 0.1% is a good beginning. Needs no limit. What goes to swap is bounded to 1M a second where it wears out (see
    /// --swap-writes).
    #[arg(long, value_name = "PCT", value_parser = some_percent)]
    pub pressure: Option<Percent>,
    /// Tell only what is in use, at the end; really reclaims
    ///
    /// Finds the working set as --pressure does (0.1% unless that is given, too), and prints at the end how large it is,
    /// and which memory.max would do.
    #[arg(long, conflicts_with_all = ["headroom", "keep", "dry_run"])]
    pub estimate: bool,
    /// Follow the rules in FILE, for cgroups by name or glob
    ///
    /// A TOML file: watch.toml(5). The most specific rule takes a cgroup. On SIGHUP the file is read again; one with a
    /// mistake in it changes nothing. memctl check --config FILE shows what each rule takes.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["words", "headroom", "keep", "pressure", "estimate", "floor", "swap_free",
        "swap_writes", "max_pressure", "exclude", "kind", "swappiness", "ancestors", "no_lock"])]
    pub config: Option<PathBuf>,
    /// Never bring the usage below SIZE
    #[arg(long, value_name = "SIZE", default_value = "0", hide_default_value = true, value_parser = bytes_or_none)]
    pub floor: u64,
    /// Spend no more than PCT of a CPU, the kernel's work included
    #[arg(long, value_name = "PCT", value_parser = some_percent)]
    pub cpu: Option<Percent>,
    /// Take no anonymous memory when less of the swap is free [default: 25%]
    #[arg(long, value_name = "PCT", default_value = "25%", hide_default_value = true)]
    pub swap_free: Percent,
    /// Take no anonymous memory while more than SIZE a second goes to the host's swap, but for zram and zswap
    ///
    /// With --pressure 1M by default, for the sake of an SSD; max lifts it.
    #[arg(long, value_name = "SIZE|max", value_parser = bytes_or_max)]
    pub swap_writes: Option<Bound>,
    /// Hold while the cgroup is stalled for more than PCT of the time
    #[arg(long, value_name = "PCT")]
    pub max_pressure: Option<Percent>,
    /// Leave out what GLOB matches; can be given again and again
    ///
    /// Of what globs match: a cgroup that is named is watched. With the mount or without it; a unit by its name alone.
    /// A glob never takes memctl's own cgroup, init.scope, sshd, journald, the kubelet, and container runtimes; a plain
    /// name still does.
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<OsString>,
    /// Take all, anon (Linux 6.16 and swap), or file (6.11)
    ///
    /// By default anonymous memory is taken only where swap is zram, zswap, or no rotating disk.
    #[arg(long = "type", value_name = "TYPE", conflicts_with = "swappiness", hide_possible_values = true)]
    pub kind: Option<Kind>,
    /// Weigh anon against file: 0..200 (6.11), max (6.16)
    #[arg(long, value_name = "N")]
    pub swappiness: Option<Swappiness>,
    /// Count the limits of the cgroups above, too
    ///
    /// By default they don't count: a sibling that leaks should not squeeze this one. Where they do, all that are
    /// watched below such a limit give a share of what is missing, by what each uses.
    #[arg(long, requires = "headroom")]
    pub ancestors: bool,
    /// Move into CGROUP first, which then pays the CPU time
    ///
    /// The application's own cgroup, or a slice for such work. When nobody else is left inside, memctl goes back to
    /// where it was.
    #[arg(long, value_name = "CGROUP")]
    pub join: Option<OsString>,
    /// Don't keep off a cgroup while another memctl is at it
    ///
    /// By default memctl waits for up to 2 s for another one on the same cgroup. The lock is advisory, an flock on the
    /// cgroup's directory, and held only while memory is reclaimed.
    #[arg(long)]
    pub no_lock: bool,
    /// Stop after DUR: 500ms, 10s, 2m, or bare seconds
    #[arg(long, value_name = "DUR", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Decide and tell, but never write
    #[arg(long)]
    pub dry_run: bool,
    /// Print a line of JSON for everything that happens
    #[arg(long)]
    pub json: bool,
}

/// Reclaim memory from a cgroup now, in chunks, and report what came of it
///
/// Asks the kernel for SIZE bytes of the cgroup's memory, in chunks that adapt to its speed, takes stock after each of
/// them, and asks for what is still missing until it is reached, nothing more is to be had, a signal comes, or a
/// bound that was given is met. Then tells what was reclaimed and by which measure, and what it cost.
#[derive(Args, Debug)]
#[command(
    override_usage = "memctl reclaim [OPTIONS] <CGROUP>... <SIZE>\n       memctl reclaim [OPTIONS] --to <SIZE> <CGROUP>..."
)]
#[command(after_long_help = AFTER_RECLAIM)]
pub struct Reclaim {
    /// The cgroups, then how much to reclaim from each
    ///
    /// A cgroup is a path below the cgroup2 mount (/sys/fs/cgroup/app), the same without the mount (app, /app), self,
    /// a systemd unit by its name (nginx.service), pid:N, container:ID and pod:UID (the
    /// beginning of an ID will do), or a glob ('batch/*'; ** crosses levels). node:N is a NUMA node, all of its memory
    /// (Linux 6.17, root only). A name that fits several is an error. Each is taken once, however often it is named. SIZE is a number of bytes, or one with K, M, G, T, P or E, powers of 1024, in any case, also spelled
    /// MiB (10M, 1.5GiB); or a share of what the cgroup uses now (25%); or max, for all the kernel will give. It is
    /// at least 4096 bytes, and rounded up to whole pages.
    #[arg(required = true, value_name = "CGROUP>... <SIZE")]
    pub words: Vec<OsString>,
    /// Reclaim until it uses no more than SIZE
    ///
    /// Judged by memory.current. A share is of what the cgroup uses at the start.
    #[arg(long, value_name = "SIZE", value_parser = amount)]
    pub to: Option<Amount>,
    /// Reclaim SIZE over all cgroups together, cheapest first
    ///
    /// Inactive page cache first, from each in proportion to what it has; then, in slices, from whichever gave most for
    /// a CPU second so far. --timeout is then for all together. A share is of what all of them use; with max, all that
    /// goes, for which --max-cost can set a price.
    #[arg(long, value_name = "SIZE", conflicts_with = "to")]
    pub total: Option<Amount>,
    /// Take all, anon (Linux 6.16 and swap), or file (6.11)
    #[arg(long = "type", value_name = "TYPE", conflicts_with = "swappiness", hide_possible_values = true)]
    pub kind: Option<Kind>,
    /// Weigh anon against file: 0..200 (6.11), max (6.16)
    ///
    /// As vm.swappiness: 0 takes page cache only, max anonymous memory only. Even 200 takes page cache where it is
    /// cold.
    #[arg(long, value_name = "N")]
    pub swappiness: Option<Swappiness>,
    /// Stop after DUR: 500ms, 10s, 2m, or bare seconds
    #[arg(long, value_name = "DUR", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Stop when stalled for more than PCT of the time
    ///
    /// The share of the time since the start in which tasks of the cgroup stood still for want of memory (PSI some).
    /// For the root cgroup, for max, and for node:N, where it is the whole host's, it is 10% by default, since nothing
    /// else would hold those back; elsewhere there is no such bound. It is looked at after half a second. 100% switches it off.
    #[arg(long, value_name = "PCT")]
    pub max_pressure: Option<Percent>,
    /// Stop when a GiB costs more than SECONDS of CPU time
    ///
    /// The price of late: of the last 20 ms of CPU time or more, in the writes. Cold memory goes first and is cheap; the
    /// price rises as it runs out. With max this is no shortfall.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub max_cost: Option<f64>,
    /// Reclaim at most SIZE a second, over all cgroups
    #[arg(long, value_name = "SIZE", value_parser = parse_only_bytes)]
    pub max_rate: Option<u64>,
    /// Reclaim from so many cgroups at a time [default: 1]
    #[arg(long, value_name = "N", default_value = "1", hide_default_value = true, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: u16,
    /// Then watch for DUR, and tell what came back
    ///
    /// Tells what refaulted, what of that had been in use (restores) and what was swapped in since the request began,
    /// against the rate before it, for which the cgroup is watched for DUR, but no more than 2 s, beforehand; and how
    /// long the cgroup was stalled in that time. Several cgroups are watched together, after the last of them. A signal
    /// ends the watching early.
    #[arg(long, value_name = "DUR", value_parser = duration)]
    pub settle: Option<Duration>,
    /// Don't keep other memctl off the cgroup meanwhile
    ///
    /// Without it memctl waits for up to 2 s for another one on the same cgroup. The lock is advisory, an flock on the
    /// cgroup's directory: anybody who can open that can hold it, so after that time memctl says so and goes on.
    #[arg(long)]
    pub no_lock: bool,
    /// Ask for SIZE with each write, instead of adapting
    ///
    /// A write can't always be interrupted, and blocks the removal of the cgroup while it lasts.
    #[arg(long, value_name = "SIZE", value_parser = parse_only_bytes)]
    pub chunk: Option<u64>,
    /// How far off is still exact [default: 3%, or 2 MiB]
    ///
    /// By default 3% of the request, or one large folio of 2 MiB where that is more.
    #[arg(long, value_name = "PCT")]
    pub tolerance: Option<Percent>,
    /// Only say what would be asked of whom, and what is reclaimable
    ///
    /// Shows the arithmetic: page cache that could be evicted, plus anonymous memory as far as swap has room, less what
    /// memory.min of child cgroups protects; and what would stop the request. Nothing is written to the kernel. The
    /// exit status is the one that the arithmetic foretells.
    #[arg(long, conflicts_with = "settle")]
    pub dry_run: bool,
    /// Print the report as one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// Which memory to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Whatever the kernel finds coldest
    All,
    /// Anonymous memory only
    Anon,
    /// Page cache only
    File,
}

fn amount(word: &str) -> Result<Amount, String> {
    match word.parse() {
        Ok(Amount::Max) => {
            Err("a usage of max has no meaning; to reclaim all there is: memctl reclaim CGROUP max".into())
        }
        other => other.map_err(|e: SizeError| e.to_string()),
    }
}

/// A size, or none at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound(pub Option<u64>);

/// Reads a size, or max for no bound.
fn bytes_or_max(word: &str) -> Result<Bound, String> {
    words::bytes_or_max(word).map(Bound)
}

/// Reads a price: seconds of CPU time.
fn seconds(word: &str) -> Result<f64, String> {
    match word.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && seconds > 0.0 => Ok(seconds),
        Ok(_) => Err("it must be more than nothing".into()),
        Err(_) => Err("it is not a number of seconds (as in 0.5, 2)".into()),
    }
}

/// Reads a duration: `500ms`, `10s`, `1m30s`, or bare seconds.
fn duration(word: &str) -> Result<Duration, String> {
    let bare: Result<u64, _> = word.parse();
    let read = match bare {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(e) if *e.kind() == IntErrorKind::PosOverflow => None,
        Err(_) => match word.parse::<f64>() {
            Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
            Err(_) => humantime::parse_duration(word).ok(),
        },
    };
    match read {
        None => Err("it is not a duration (as in 500ms, 10s, 2m)".into()),
        Some(Duration::ZERO) => Err("it must be more than no time at all".into()),
        Some(time) => Ok(time),
    }
}
