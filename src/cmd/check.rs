//! `memctl check`.

use anyhow::Result;
use memctl::check;

use crate::cli::{Check, Global};
use crate::exit::Exit;
use crate::output::{self, Loudness};

/// Runs the subcommand.
pub fn run(args: &Check, global: &Global) -> Result<Exit> {
    let loudness = Loudness::new(global)?;
    let word = args.word.as_deref().unwrap_or("/");
    let checked = check::check(word, args.write);
    if args.json || loudness != Loudness::Quiet {
        output::check::print(&checked, args.json)?;
    }
    Ok(if checked.works() { Exit::Reached } else { Exit::Failed })
}
