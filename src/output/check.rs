//! Output of `memctl check`: a line for each finding, a remedy below it, and the verdict.

use anstyle::AnsiColor;
use memctl::check::{CheckReport, Fact, Finding, State};
use serde::Serialize;

use super::format::{called, escaped, size};
use super::json::NameKeys;
use super::table::{DIM, wrapped};
use super::{print_stdout, terminal_width};
use crate::error::Result;

pub mod rules;

/// A finding, as JSON.
#[derive(Serialize)]
struct Key<'a> {
    check: &'a str,
    state: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount_bytes: Option<u64>,
    says: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    todo: Option<&'a str>,
}

/// All findings, as JSON.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    name: NameKeys<'a>,
    works: bool,
    checks: Vec<Key<'a>>,
}

/// Prints the findings.
pub fn print(checked: &CheckReport, json: bool) -> Result<()> {
    if json {
        let checks = checked.findings.iter().map(|finding| Key {
            check: finding.about,
            state: finding.state.word(),
            amount_bytes: if let Fact::Bytes(bytes, _) = finding.fact { Some(bytes) } else { None },
            says: says(finding),
            todo: finding.todo.as_deref(),
        });
        let line =
            Line { name: NameKeys::from(&checked.name), works: checked.works(), checks: checks.collect() };
        return print_stdout(&(serde_json::to_string(&line)? + "\n"));
    }
    let width = terminal_width().map_or(usize::MAX, usize::from);
    let mut text = String::new();
    for finding in &checked.findings {
        let colour = match finding.state {
            State::Good => AnsiColor::Green,
            State::Note | State::Unknown => AnsiColor::Yellow,
            State::Bad => AnsiColor::Red,
        };
        let style = colour.on_default().bold();
        let head = format!("{:<12}", finding.about);
        let state = format!("{style}{:<8}{style:#}", finding.state.word());
        text += &wrapped(&format!("{DIM}{head}{DIM:#}{state}"), 20, &escaped(&says(finding)), width);
        if let Some(todo) = &finding.todo {
            text += &wrapped(&" ".repeat(20), 20, &format!("-> {}", escaped(todo)), width);
        }
    }
    let (word, colour) = match (checked.works(), checked.reclaimable) {
        (false, _) => ("reclaim will not work", AnsiColor::Red),
        (true, Some(0)) => ("reclaim will work, but nothing is reclaimable now", AnsiColor::Yellow),
        (true, _) => ("reclaim will work", AnsiColor::Green),
    };
    let style = colour.on_default().bold();
    print_stdout(&format!("{text}{style}{word}{style:#}: {}\n", called(&checked.name)))
}

fn says(finding: &Finding) -> String {
    match &finding.fact {
        Fact::Words(words) => words.clone(),
        Fact::Bytes(bytes, words) => format!("{} {words}", size(*bytes)),
    }
}
