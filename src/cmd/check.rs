//! `memctl check`.

use std::ffi::OsStr;

use memctl::cgroup::error::CgroupError;
use memctl::check;

use crate::cli::{Check, Global};
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output::{self, Verbosity};

pub mod config;

/// Runs the subcommand.
pub fn run(args: &Check, global: &Global) -> Result<Exit> {
    let loudness = Verbosity::new(global)?;
    if let Some(file) = &args.config {
        return config::run(file, args.json, loudness);
    }
    let word = args.word.as_deref().unwrap_or(OsStr::new("/"));
    if word.is_empty() {
        return Err(CgroupError::NoName.into());
    }
    if check::is_several(word) {
        let what = format!("{}: check takes a single cgroup", word.display());
        return Err(Error::usage(what).with_hint(Some("use memctl stat for globs")));
    }
    let mut tell = |event| output::notes::event(None, &event, loudness);
    let checked = check::check(word, args.write, &mut tell);
    if args.json || loudness != Verbosity::Quiet {
        output::check::print(&checked, args.json)?;
    }
    Ok(if checked.works() { Exit::Success } else { Exit::Failed })
}
