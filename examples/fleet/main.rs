//! Sums up records of many nodes: `cargo run --release --example fleet -- FILE...`.
//!
//! A record is the output of `memctl watch --json`, one file for each node. The sums are those of
//! the `summary` events; for a watch that didn't run to its end, those of its other events. With
//! `--versus`, two groups of nodes are compared. See docs/fleet.md.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

mod json;
mod life;
mod pool;
mod reader;
mod sums;
mod text;

use pool::{Counted, Pool};

/// Sum up records of many nodes (the output of memctl watch --json)
#[derive(Parser)]
#[command(name = "fleet", bin_name = "fleet")]
struct Args {
    /// Print one JSON object per line: the sums of each rule, of each namespace, and of all cgroups
    #[arg(long)]
    json: bool,
    /// Compare the first records, the base, with these
    #[arg(long, value_name = "FILE", num_args = 1..)]
    versus: Vec<PathBuf>,
    /// Records, one file per node; - is standard input
    #[arg(value_name = "FILE", required = true)]
    base: Vec<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut counted = Counted::new();
    let mut is_whole = true;
    let mut sum_up = |paths: &[PathBuf]| {
        let mut pool = Pool::default();
        for path in paths {
            let added = pool.add(path, &mut counted, &mut |note| eprintln!("fleet: note: {note}"));
            if let Err(why) = added {
                eprintln!("fleet: {why}");
                is_whole = false;
            }
        }
        pool
    };
    let base = sum_up(&args.base);
    let versus = (!args.versus.is_empty()).then(|| sum_up(&args.versus));
    if base.records == 0 || versus.as_ref().is_some_and(|versus| versus.records == 0) {
        eprintln!("fleet: no record is left");
        return ExitCode::FAILURE;
    }
    let printed = match (args.json, &versus) {
        (false, None) => Ok(text::sums(&base)),
        (false, Some(versus)) => Ok(text::comparison(&base, versus)),
        (true, None) => json::lines(&base, None),
        (true, Some(versus)) => {
            json::lines(&base, Some("base")).and_then(|text| Ok(text + &json::lines(versus, Some("versus"))?))
        }
    };
    let written = printed
        .map_err(std::io::Error::from)
        .and_then(|text| std::io::stdout().lock().write_all(text.as_bytes()));
    match written {
        Ok(()) if is_whole => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(why) if why.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("fleet: standard output: {why}");
            ExitCode::FAILURE
        }
    }
}
