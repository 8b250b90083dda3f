//! `memctl plot`.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use anyhow::{Context, Result};
use memctl::cgroup::diagnose::plain;
use memctl::record::{BadRecord, Record};

use crate::cli::{Global, Plot};
use crate::exit::{Exit, UsageError};
use crate::output::{self, Loudness, plot};

/// A record that can't be drawn, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{file}{}{why}", if matches!(.why, BadRecord::Line { .. }) { ":" } else { ": " })]
pub struct BadFile {
    file: String,
    why: BadRecord,
}

impl BadFile {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self.why {
            BadRecord::Io(_) => None,
            BadRecord::Line { .. } | BadRecord::Nothing | BadRecord::Empty => {
                Some("a record is what memctl watch --json writes".into())
            }
        }
    }
}

/// Runs the subcommand.
pub fn run(args: &Plot, global: &Global) -> Result<Exit> {
    let loudness = Loudness::new(global)?;
    let name = args.record.display().to_string();
    let to_stdout = args.output == Path::new("-");
    if !to_stdout && args.output.extension().is_none_or(|extension| !extension.eq_ignore_ascii_case("svg")) {
        let what = format!("-o {}: only SVG is drawn", args.output.display());
        return Err(UsageError {
            what,
            hint: Some("name a file that ends in .svg, or - for standard output".into()),
        }
        .into());
    }
    let open =
        open(&args.record).map_err(|e| anyhow::anyhow!("{}", plain(&e))).with_context(|| name.clone())?;
    let bad = |why| match why {
        BadRecord::Io(e) => anyhow::anyhow!("{}", plain(&e)).context(name.clone()),
        why => BadFile { file: name.clone(), why }.into(),
    };
    let record = Record::read(open).map_err(bad)?;
    output::notes::read(&name, &record, loudness);
    let course = match &args.cgroup {
        None => Cow::Owned(record.together(plot::LOOKS)),
        Some(cgroup) => Cow::Borrowed(named(&record, &cgroup.to_string_lossy())?),
    };
    let svg = plot::picture(&record, &course)?;
    if to_stdout {
        output::answer(&svg)?;
    } else {
        let written = File::create(&args.output).and_then(|mut file| file.write_all(svg.as_bytes()));
        written
            .map_err(|e| anyhow::anyhow!("{}", plain(&e)))
            .with_context(|| args.output.display().to_string())?;
    }
    Ok(Exit::Reached)
}

/// A file, or standard input.
fn open(record: &Path) -> std::io::Result<Box<dyn BufRead>> {
    if record == Path::new("-") {
        return Ok(Box::new(std::io::stdin().lock()));
    }
    Ok(Box::new(BufReader::new(File::open(record)?)))
}

/// The cgroup of that name: with its slash or without it, or the last part of its name where no other has that.
fn named<'a>(record: &'a Record, cgroup: &str) -> Result<&'a memctl::record::Course, UsageError> {
    let is = |name: &str| name.trim_start_matches('/') == cgroup.trim_start_matches('/');
    let ends = |name: &str| name.rsplit('/').next() == Some(cgroup);
    let mut ending = record.courses.iter().filter(|course| ends(&course.name));
    let only = ending.next().filter(|_| ending.next().is_none());
    record.courses.iter().find(|course| is(&course.name)).or(only).ok_or_else(|| {
        let mut known: Vec<_> = record.courses.iter().take(8).map(|course| course.name.as_str()).collect();
        if record.courses.len() > known.len() {
            known.push("…");
        }
        UsageError {
            what: format!("--cgroup {cgroup}: not in the record"),
            hint: Some(format!("it has {}", known.join(", "))),
        }
    })
}
