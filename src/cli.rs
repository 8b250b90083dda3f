//! The command line, as clap types. Doc comments here are the help and the man pages. No I/O.

// Backticks would show in the help.
#![allow(clippy::doc_markdown)]

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ColorChoice, Parser, Subcommand, ValueEnum};
use memctl::duration::parse_duration;
use memctl::kind::Swappiness;
use memctl::size::{
    Amount, Percent, parse_bytes_or_zero, parse_headroom, parse_only_bytes, parse_some_percent,
};
use memctl::watch::config::address::Address;

// By their paths, since the tests read this file from elsewhere.
#[path = "cli/examples.rs"]
mod examples;
#[path = "cli/values.rs"]
mod values;

use examples::{AFTER, AFTER_CHECK, AFTER_PLOT, AFTER_RECLAIM, AFTER_STAT, AFTER_WATCH};
use values::{SizeOrMax, amount, bytes_or_max, seconds};

/// Reclaim memory from cgroups and report the result
///
/// memctl makes the Linux kernel reclaim memory from cgroups through their memory.reclaim files. It
/// reports how much was requested, how much was reclaimed, what prevented more, and what it cost.
#[derive(Debug, Parser)]
#[command(name = "memctl", version, max_term_width = 100, after_long_help = AFTER)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// Options of every subcommand.
    #[command(flatten)]
    pub global: Global,
    /// Subcommand to run.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every subcommand.
#[derive(Args, Debug)]
pub struct Global {
    /// When to use colour
    ///
    /// Defaults to auto, which uses colour on terminals and honours NO_COLOR and CLICOLOR_FORCE.
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        value_name = "WHEN",
        default_value = "auto",
        hide_default_value = true
    )]
    pub color: ColorChoice,
    /// Suppress the table, progress and notes, but not errors or --json
    #[arg(short, long, global = true, help_heading = "Global options", action = ArgAction::Count)]
    pub quiet: u8,
    /// Print each write to the kernel on standard error
    #[arg(short, long, global = true, help_heading = "Global options", action = ArgAction::Count)]
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

/// Draw a recorded watch as an SVG picture
///
/// Draws, over the time of a watch recorded with memctl watch --json: usage, working set and limit;
/// reclaimed and refaulted memory; and the share of the time in which tasks were stalled. Several
/// cgroups are drawn as one, unless --cgroup selects one. The picture is one SVG page, readable on
/// light and dark backgrounds.
#[derive(Args, Debug)]
#[command(after_long_help = AFTER_PLOT)]
pub struct Plot {
    /// Output of memctl watch --json: a file, or - for standard input
    pub record: PathBuf,
    /// Write the picture to FILE (*.svg), or to standard output with -
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Draw only this cgroup
    #[arg(long, value_name = "CGROUP")]
    pub cgroup: Option<OsString>,
}

/// Check whether reclaim works here and, if not, show why and what to do
///
/// Checks the cgroup2 mount, the memory controller, the kernel's version of the interface,
/// permissions, swap, and everything else reclaim depends on. Each key of memory.reclaim is tried
/// with a request for 0 bytes, which reclaims nothing.
#[derive(Args, Debug)]
#[command(override_usage = "memctl check [OPTIONS] [CGROUP]\n       memctl check [OPTIONS] --config <FILE>")]
#[command(after_long_help = AFTER_CHECK)]
pub struct Check {
    /// Cgroup or node:N to check [default: the root cgroup]
    #[arg(value_name = "CGROUP")]
    pub word: Option<OsString>,
    /// Check the rules in FILE and show which cgroups they match
    ///
    /// FILE is a configuration of memctl watch --config: see watch.toml(5). An error in it is
    /// reported with its line.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["word", "write"])]
    pub config: Option<PathBuf>,
    /// Also reclaim 1 MiB and check that the counters move
    #[arg(long)]
    pub write: bool,
    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// Show usage, reclaimable memory, limits and pressure of cgroups
///
/// Without CGROUP, lists the cgroups directly below the root, largest first, and a total. A single
/// cgroup gets a full page; several cgroups, or a tree, get a row each.
#[allow(clippy::struct_excessive_bools)] // They are flags.
#[derive(Args, Debug)]
#[command(override_usage = "memctl stat [OPTIONS] [CGROUP]...", after_long_help = AFTER_STAT)]
pub struct Stat {
    /// Cgroups: paths, units, pid:N, container:ID, pod:UID, pod:NS/NAME, self, or globs
    #[arg(value_name = "CGROUP")]
    pub words: Vec<OsString>,
    /// Show the whole tree below, indented
    #[arg(short, long)]
    pub recursive: bool,
    /// Descend at most N levels
    ///
    /// N is at least 1. With or without --recursive.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub depth: Option<u16>,
    /// Sort by current, working-set, reclaimable, pressure, headroom, refaults or name
    ///
    /// Defaults to current. Sorts in descending order, but headroom and names in ascending order.
    /// In a tree, siblings are sorted.
    #[arg(
        long,
        value_name = "KEY",
        hide_possible_values = true,
        default_value = "current",
        hide_default_value = true
    )]
    pub sort: SortKey,
    /// Update every DUR and show rates
    ///
    /// Repaints the table on a terminal; elsewhere prints a new one for each update. Shows, since
    /// the previous update, refaults and reclaimed memory per second, and the share of scanned
    /// pages that was reclaimed. A bare number is in seconds. Defaults to 1s with -n.
    #[arg(short, long, value_name = "DUR", value_parser = parse_duration)]
    pub interval: Option<Duration>,
    /// Stop after N updates [default: 1; unlimited with -i]
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub iterations: Option<u32>,
    /// Number of threads to read with [default: 1]
    ///
    /// More threads help with thousands of cgroups: most of the time is spent in the kernel, which
    /// folds the counters of each cgroup.
    #[arg(long, value_name = "N", default_value = "1", hide_default_value = true, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: u16,
    /// Print sizes in bytes
    #[arg(short, long)]
    pub bytes: bool,
    /// Omit the header and the total
    #[arg(long)]
    pub no_legend: bool,
    /// Print one line of JSON per cgroup
    #[arg(long)]
    pub json: bool,
    /// Print metrics for Prometheus, for a timer that writes a file for node exporter
    ///
    /// Write them to another name beside the file first, and rename that: node exporter may read a
    /// file at any time.
    #[arg(long, conflicts_with_all = ["json", "interval", "iterations"])]
    pub prometheus: bool,
}

/// Sort key of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SortKey {
    /// Usage
    Current,
    /// Usage minus inactive page cache
    WorkingSet,
    /// Reclaimable memory
    Reclaimable,
    /// Share of the last 10 s in which tasks were stalled
    Pressure,
    /// Free memory below the limit, least first
    Headroom,
    /// Refaulted memory
    Refaults,
    /// Name, in alphabetical order
    Name,
}

/// Keep memory free below a cgroup's limit, or reclaim idle memory continuously
///
/// With --headroom, samples each cgroup as often as its growth requires, and reclaims before the
/// limit is reached. It keeps free the headroom, or if that is more, what may arrive before the
/// next sample (a quarter of the limit at most). With --pressure, reclaims idle memory gently and
/// continuously until only the working set is left, and reports its size. Both options may be
/// combined. Runs until a signal arrives or --duration has passed; then prints a summary.
#[allow(clippy::struct_excessive_bools)] // They are flags.
#[derive(Args, Debug)]
#[command(
    override_usage = "memctl watch [OPTIONS] --headroom <SIZE|PCT> <CGROUP>...\n       memctl watch [OPTIONS] --keep <SIZE> <CGROUP>...\n       memctl watch [OPTIONS] --pressure <PCT> <CGROUP>...\n       memctl watch [OPTIONS] --estimate [--duration <DUR>] <CGROUP>...\n       memctl watch [OPTIONS] --config <FILE>"
)]
#[command(after_long_help = AFTER_WATCH)]
pub struct Watch {
    /// Cgroups: paths, units, pid:N, container:ID, pod:UID, pod:NS/NAME, self, or globs
    ///
    /// Cgroups that match a glob are watched from the time they appear until they are removed.
    #[arg(required_unless_present = "config", value_name = "CGROUP")]
    pub words: Vec<OsString>,
    /// Keep SIZE or PCT of the limit free
    ///
    /// The limit is the lower of memory.high and memory.max.
    #[arg(long, value_name = "SIZE|PCT", value_parser = parse_headroom)]
    pub headroom: Option<Amount>,
    /// Keep the usage below SIZE, as if SIZE were the limit
    ///
    /// Below SIZE, enough is kept free for the allocations expected before the next sample, and at
    /// least --headroom if that is given too.
    #[arg(long, value_name = "SIZE", value_parser = parse_only_bytes)]
    pub keep: Option<u64>,
    /// Reclaim idle memory continuously, aiming at stalls of at most PCT of the time
    ///
    /// Start with 0.1% (the sign may be left out). The cgroup needs no limit. Stalls are those that
    /// the kernel counts (PSI some), over a minute; they may be more until the working set is found,
    /// and with slow swap. Writes to swap devices that wear out are limited to 1M per second by
    /// default: see --swap-writes.
    #[arg(long, value_name = "PCT", value_parser = parse_some_percent)]
    pub pressure: Option<Percent>,
    /// Estimate the working set and print it at the end (reclaims memory to find it)
    ///
    /// Finds the working set as --pressure does (with 0.1% unless --pressure is given too). At the
    /// end, prints its size and a suggested memory.max. Takes ten reuse times or more, and a time in
    /// which the cgroup is as busy as it gets: see --reuse.
    #[arg(long, conflicts_with_all = ["headroom", "keep", "dry_run"])]
    pub estimate: bool,
    /// Count memory that is touched within DUR as in use [default: 60s]
    ///
    /// After each press of --pressure or --estimate, nothing is reclaimed for DUR: what comes back
    /// in that time is in use. A suggested memory.max is printed after the first such time. At least
    /// 1s.
    #[arg(long, value_name = "DUR", value_parser = parse_duration)]
    pub reuse: Option<Duration>,
    /// Watch cgroups by the rules in FILE
    ///
    /// FILE is in TOML: see watch.toml(5). Each cgroup follows the most specific rule that matches
    /// it. The file is read again on SIGHUP; if it contains an error, the old rules stay in force.
    /// memctl check --config FILE shows which cgroups each rule matches.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["words", "headroom", "keep", "pressure", "estimate", "reuse", "floor", "swap_free",
        "swap_writes", "max_pressure", "exclude", "kind", "swappiness", "ancestors", "no_lock"])]
    pub config: Option<PathBuf>,
    /// Read the file of --config again when its text has changed
    ///
    /// Looks at it every 10 s, through symbolic links, and reads a changed text a second later, if it
    /// stays. For files that are replaced by those who send no SIGHUP, such as a ConfigMap of
    /// Kubernetes.
    #[arg(long, requires = "config")]
    pub follow_config: bool,
    /// Never reclaim below a usage of SIZE
    #[arg(long, value_name = "SIZE", default_value = "0", hide_default_value = true, value_parser = parse_bytes_or_zero)]
    pub floor: u64,
    /// Use at most PCT of one CPU, including time spent in the kernel
    #[arg(long, value_name = "PCT", value_parser = parse_some_percent)]
    pub cpu: Option<Percent>,
    /// Reclaim no anonymous memory while less than PCT of swap is free [default: 25%]
    #[arg(long, value_name = "PCT", default_value = "25%", hide_default_value = true)]
    pub swap_free: Percent,
    /// Reclaim no anonymous memory while the host swaps out more than SIZE per second
    ///
    /// Ignored if all swap is on zram or behind zswap; if only some of it is, writes to zram count
    /// too. Defaults to 1M with --pressure, to spare SSDs; otherwise, and with max, there is no
    /// limit.
    #[arg(long, value_name = "SIZE|max", value_parser = bytes_or_max)]
    pub swap_writes: Option<SizeOrMax>,
    /// Pause while the cgroup is stalled for more than PCT of the time
    #[arg(long, value_name = "PCT")]
    pub max_pressure: Option<Percent>,
    /// Exclude cgroups that match GLOB; may be repeated
    ///
    /// Applies to matches of globs only: a cgroup given by name is watched. GLOB may begin with the
    /// mount point or not, and a unit's name alone matches the unit. pod:NAMESPACE/NAME matches all
    /// cgroups in the pod. Globs never match memctl's own cgroup, the pod that it runs in with all
    /// above, init.scope, sshd, journald, udevd, dbus, the kubelet and container runtimes; name these
    /// to watch them.
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<OsString>,
    /// Reclaim all, file (Linux 6.11) or anon (6.16)
    ///
    /// anon needs room in swap. By default, page cache is reclaimed, and anonymous memory if swap
    /// is known to be fast: on zram, zswap or non-rotating disks.
    #[arg(long = "type", value_name = "TYPE", conflicts_with = "swappiness", hide_possible_values = true)]
    pub kind: Option<MemoryType>,
    /// Balance anon and file: 0..200 (6.11), max (6.16)
    #[arg(long, value_name = "N")]
    pub swappiness: Option<Swappiness>,
    /// Also keep headroom below the limits of ancestors
    ///
    /// By default, limits of ancestors are ignored, so that a leaking sibling doesn't squeeze this
    /// cgroup. With this option, all watched cgroups below such a limit give a share of what is
    /// missing, in proportion to their usage.
    #[arg(long, requires = "headroom")]
    pub ancestors: bool,
    /// Move memctl into CGROUP, which is then charged for its CPU time
    ///
    /// CGROUP is the application's own cgroup, or one for maintenance work. When no other process
    /// is left in it, memctl returns to its original cgroup.
    #[arg(long, value_name = "CGROUP")]
    pub join: Option<OsString>,
    /// Don't wait for other memctl processes that reclaim from the same cgroup
    ///
    /// By default, memctl waits up to 2 s for another memctl on the same cgroup. The lock is
    /// advisory, an flock(2) on the cgroup's directory, and is held only while memory is reclaimed.
    /// Anyone who can open the directory can hold it: locks of users other than root and the caller
    /// are waited for once, and then ignored for 10 minutes, twice as long each time, up to a day.
    #[arg(long)]
    pub no_lock: bool,
    /// Write metrics for Prometheus to FILE, for node exporter's textfile collector
    ///
    /// FILE is replaced as a whole, at most every 5 s, and removed at the end. Its folder must
    /// exist, and memctl must be allowed to create files there.
    #[arg(long, value_name = "FILE")]
    pub metrics: Option<PathBuf>,
    /// Serve metrics for Prometheus at ADDR: IP:PORT or unix:PATH
    ///
    /// GET /metrics has the metrics. GET /healthz is 200, or 503 if the control loop is stuck.
    #[arg(long, value_name = "ADDR")]
    pub metrics_listen: Option<Address>,
    /// Give at most N cgroups series of their own [default: 500]
    ///
    /// The series of the rules include all cgroups. 0 leaves only those.
    #[arg(long, value_name = "N")]
    pub metrics_cgroups: Option<u32>,
    /// Stop after DUR: 500ms, 10s, 2m, or bare seconds
    #[arg(long, value_name = "DUR", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Report what would be reclaimed; write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print one line of JSON per event
    #[arg(long)]
    pub json: bool,
}

/// Reclaim memory from cgroups now, in chunks, and report the result
///
/// Requests SIZE bytes from the kernel in chunks that adapt to its speed, measures the result of
/// each, and continues until the request is met, nothing more can be reclaimed, a limit given on
/// the command line is reached, or a signal arrives. Then reports how much was reclaimed, how that
/// was measured, and what it cost.
#[derive(Args, Debug)]
#[command(
    override_usage = "memctl reclaim [OPTIONS] <CGROUP>... <SIZE>\n       memctl reclaim [OPTIONS] --to <SIZE> <CGROUP>..."
)]
#[command(after_long_help = AFTER_RECLAIM)]
pub struct Reclaim {
    /// Cgroups, then how much to reclaim from each
    ///
    /// CGROUP is a path below the cgroup2 mount (/sys/fs/cgroup/app), the same without the mount
    /// point (app, /app), self, a systemd unit (nginx.service), pid:N, container:ID, pod:UID (a
    /// prefix of the ID is enough), pod:NAMESPACE/NAME, pod:NAMESPACE/NAME/CONTAINER, or a glob
    /// ('batch/*'; ** crosses levels). node:N is a NUMA node with all of its memory (Linux 6.17, root
    /// only). A name that matches several cgroups is an error. A cgroup that is given several times
    /// is reclaimed from once.
    ///
    /// SIZE is a number of bytes, optionally with K, M, G, T, P or E (powers of 1024, in any case,
    /// also spelled MiB: 10M, 1.5GiB); a percentage of the current usage (25%); or max, for
    /// everything the kernel can reclaim. It must be at least 4096 bytes and is rounded up to whole
    /// pages.
    #[arg(required = true, value_name = "CGROUP>... <SIZE")]
    pub words: Vec<OsString>,
    /// Reclaim until the usage is at most SIZE
    ///
    /// The usage is memory.current. A percentage is relative to the usage at the start.
    #[arg(long, value_name = "SIZE", value_parser = amount)]
    pub to: Option<Amount>,
    /// Reclaim SIZE from all cgroups together, cheapest first
    ///
    /// Reclaims inactive page cache first, from each cgroup in proportion to its amount; then, in
    /// slices, from the cgroup that gave most per CPU second so far. --timeout then applies to all
    /// cgroups together. A percentage is relative to the usage of all. max reclaims everything the
    /// kernel can, or, with --max-cost, what is cheap enough.
    #[arg(long, value_name = "SIZE", conflicts_with = "to")]
    pub total: Option<Amount>,
    /// Reclaim all, file (Linux 6.11) or anon (6.16)
    ///
    /// Defaults to all. anon needs room in swap.
    #[arg(long = "type", value_name = "TYPE", conflicts_with = "swappiness", hide_possible_values = true)]
    pub kind: Option<MemoryType>,
    /// Balance anon and file: 0..200 (6.11), max (6.16)
    ///
    /// Overrides vm.swappiness for these requests: 0 reclaims page cache only, max anonymous memory
    /// only. Even with 200, cold page cache is reclaimed.
    #[arg(long, value_name = "N")]
    pub swappiness: Option<Swappiness>,
    /// Stop after DUR: 500ms, 10s, 2m, or bare seconds
    #[arg(long, value_name = "DUR", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
    /// Stop when stalled for more than PCT of the time
    ///
    /// Limits the share of the last 10 s (at first, of the time since the start) in which tasks of
    /// the cgroup were stalled on memory (PSI some). Defaults to 10% for the root cgroup, for
    /// node:N (which uses the host's pressure) and for max, which nothing else limits; otherwise
    /// there is no default. Checked from half a second on. 100% disables the limit. Where stalls
    /// can't be seen (PSI is off, or hidden), PCT is refused, and a default is noted as not kept.
    #[arg(long, value_name = "PCT")]
    pub max_pressure: Option<Percent>,
    /// Stop when a GiB costs more than SECONDS of CPU time
    ///
    /// Measured over the most recent 20 ms (or more) of CPU time spent in writes. Cold memory is
    /// reclaimed first and is cheap; the cost rises as it runs out. With max, stopping for this
    /// reason is a success.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub max_cost: Option<f64>,
    /// Limit the rate to SIZE per second, over all cgroups
    #[arg(long, value_name = "SIZE", value_parser = parse_only_bytes)]
    pub max_rate: Option<u64>,
    /// Number of cgroups to reclaim from in parallel [default: 1]
    #[arg(long, value_name = "N", default_value = "1", hide_default_value = true, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: u16,
    /// Watch for DUR afterwards and report refaults
    ///
    /// Reports memory that was refaulted, restored (refaulted, and in use when evicted) and swapped
    /// in since the request began, and how long the cgroup was stalled while it was watched. For
    /// comparison, the usual rates are measured before the request, for DUR or 2 s, whichever is
    /// less. Several cgroups are watched together, after the last request. A signal ends this phase
    /// early.
    #[arg(long, value_name = "DUR", value_parser = parse_duration)]
    pub settle: Option<Duration>,
    /// Don't wait for other memctl processes that reclaim from the same cgroup
    ///
    /// By default, memctl waits up to 2 s for another memctl on the same cgroup, and locks out
    /// others meanwhile; then it prints a note and continues. The lock is advisory, an flock(2) on
    /// the cgroup's directory. Anyone who can open the directory can hold it: locks of users other
    /// than root and the caller are waited for at most 2 s in all.
    #[arg(long)]
    pub no_lock: bool,
    /// Request SIZE with each write instead of adapting
    ///
    /// A write can't always be interrupted, and it blocks the removal of the cgroup while it runs.
    #[arg(long, value_name = "SIZE", value_parser = parse_only_bytes)]
    pub chunk: Option<u64>,
    /// Accept a deviation of PCT [default: 3% or 2 MiB]
    ///
    /// A result within PCT of the request is exact. Defaults to 3%, or, for over-reclaim, to one
    /// large folio (2 MiB) if that is more.
    #[arg(long, value_name = "PCT")]
    pub tolerance: Option<Percent>,
    /// Show what would be requested and what is reclaimable; write nothing
    ///
    /// Shows the calculation: evictable page cache, plus anonymous memory that fits into swap, plus
    /// reclaimable slab, minus memory that memory.min of child cgroups protects; and what would
    /// stop the request. The exit status is the expected one.
    #[arg(long, conflicts_with = "settle")]
    pub dry_run: bool,
    /// Print the report as one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// Type of memory to reclaim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MemoryType {
    /// The coldest memory of any type
    All,
    /// Anonymous memory only
    Anon,
    /// Page cache only
    File,
}

impl From<MemoryType> for memctl::kind::Kind {
    fn from(kind: MemoryType) -> Self {
        match kind {
            MemoryType::All => Self::All,
            MemoryType::Anon => Self::Anon,
            MemoryType::File => Self::File,
        }
    }
}
