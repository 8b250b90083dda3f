//! The file of `--config`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use memctl::cgroup::error::plain;
use memctl::select::watchlist::Watchlist;
use memctl::size::Percent;
use memctl::watch::rules::{BadRules, MOST_BYTES, Rules, line_and_column};

use super::Plan;

/// What is wrong in which file.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{why}")]
pub struct BadFile {
    file: String,
    /// What.
    pub why: BadRules,
}

/// Reads the file, no more of it than it may have.
pub fn read(file: &Path) -> Result<Rules> {
    let name = file.display().to_string();
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|open| open.take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes))
        .map_err(|e| anyhow::anyhow!("{}", plain(&e)))
        .with_context(|| name.clone())?;
    let bad = |why| BadFile { file: name.clone(), why };
    let text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let (line, column) = line_and_column(&String::from_utf8_lossy(e.as_bytes()), at);
        bad(BadRules { line, column, what: "not UTF-8 text".into(), hint: None })
    })?;
    Ok(Rules::parse(&text).map_err(bad)?)
}

/// What is to be watched by them.
pub fn plan(rules: &Rules) -> Result<Plan> {
    Ok(Plan {
        watchlist: Watchlist::of(&rules.words())?,
        rules: rules.each.iter().map(|rule| rule.rule.clone()).collect(),
        cpu: rules.cpu.map(Percent::ratio),
        swap_writes: rules.swap_writes,
        waits: true,
    })
}
