//! Errors: one lower-case line `memctl: what: why`, then `hint: …` where one helps.

use std::io;

use anstyle::{AnsiColor, Style};
use clap::CommandFactory;
use clap::error::ErrorKind;
use memctl::cgroup::error::{self, Unreclaimable};
use memctl::cgroup::join::NotJoined;
use memctl::reclaim::{Refusal, StoppedBy};
use memctl::size::{Amount, SizeError};
use memctl::watch::rule::Unwatchable;
use rustix::io::Errno;

use super::remark;
use crate::cmd::plot;
use crate::cmd::watch::rules;
use crate::exit::{Exit, UsageError};
use crate::output::reclaim::removed;
use crate::output::words::escaped;
use memctl::reclaim::batch::Outcome;

const RED: Style = AnsiColor::Red.on_default().bold();
const DIM: Style = Style::new().dimmed();

/// Prints an error and says how to exit.
pub fn print(error: &anyhow::Error) -> Exit {
    let (hint, exit) = if let Some(usage) = error.downcast_ref::<UsageError>() {
        (usage.hint.clone(), Exit::Usage)
    } else if let Some(place) = error.downcast_ref::<Unreclaimable>() {
        let exit = if matches!(place, Unreclaimable::NoName) { Exit::Usage } else { Exit::Failed };
        (place.hint(), exit)
    } else if let Some(not_joined) = error.downcast_ref::<NotJoined>() {
        (not_joined.hint(), Exit::Failed)
    } else if let Some(refusal) = error.downcast_ref::<Refusal>() {
        (refusal.hint().map(str::to_owned), Exit::Failed)
    } else if let Some(bad) = error.downcast_ref::<rules::BadFile>() {
        (bad.why.hint.clone(), Exit::Failed)
    } else if let Some(bad) = error.downcast_ref::<plot::BadFile>() {
        (bad.hint(), Exit::Failed)
    } else if let Some(unwatchable) = error.downcast_ref::<Unwatchable>() {
        (unwatchable.hint().map(str::to_owned), Exit::Failed)
    } else {
        (None, Exit::Failed)
    };
    let chain: Vec<_> = error.chain().map(ToString::to_string).collect();
    line(&chain.join(": "), hint.as_deref());
    exit
}

/// Prints what went wrong with one of several requests, if something did.
pub fn print_outcome(outcome: &Outcome) {
    let name = &outcome.name;
    let report = match &outcome.report {
        Ok(report) => report,
        Err(errno) => return line(&format!("{name}: {}", plain(*errno)), None),
    };
    match report.stopped_by {
        StoppedBy::Failed(errno) => {
            let file = outcome.path.join(report.subject.file());
            line(&format!("{}: {}", file.display(), plain(errno)), None);
        }
        StoppedBy::Removed => line(&format!("{name}: {}", removed(report.subject)), None),
        _ => {}
    }
}

fn line(what: &str, hint: Option<&str>) {
    remark(&format!("{RED}memctl:{RED:#} {}", escaped(what)));
    if let Some(hint) = hint {
        remark(&format!("{DIM}hint:{DIM:#} {}", escaped(hint)));
    }
}

/// Prints help and version as clap does, and everything else in our form.
pub fn explain(error: &clap::Error) -> Exit {
    if !error.use_stderr() {
        // A closed pipe included: whoever reads help has read enough.
        let _ = error.print();
        return Exit::Reached;
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return Exit::Usage;
    }
    // What isn't UTF-8 is told with marks in its place.
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let (what, hint) = in_our_form(&error.render().to_string(), words);
    line(&what, Some(&hint));
    Exit::Usage
}

/// From clap's paragraphs to one line and a hint.
fn in_our_form(rendered: &str, words: impl Iterator<Item = String>) -> (String, String) {
    let words: Vec<_> = words.collect();
    let command = crate::cli::Cli::command();
    let verb = words.iter().find(|word| command.find_subcommand(word).is_some());
    let help = || format!("see 'memctl {}--help'", verb.map_or(String::new(), |verb| format!("{verb} ")));
    // What clap takes for an unknown option may have been meant as a number.
    let negative = |word: &&String| {
        let digits =
            word.strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        digits && word.parse::<Amount>() == Err(SizeError::Negative)
    };
    if rendered.contains("unexpected argument")
        && let Some(at) = words.iter().position(|word| negative(&word))
    {
        let what = match words[..at].last().filter(|before| before.starts_with("--")) {
            Some(option) => format!("{option} {}: must not be negative", words[at]),
            None => format!("{}: {}", words[at], SizeError::Negative),
        };
        return (what, help());
    }
    let unexpected = rendered.split_once("unexpected argument '").and_then(|(_, rest)| rest.split_once('\''));
    if let (Some("check"), Some((word, _))) = (verb.map(String::as_str), unexpected)
        && !word.starts_with('-')
    {
        return (format!("{word}: check takes a single cgroup"), help());
    }
    // clap would name all words of `reclaim` as missing, even where --to says how much.
    if rendered.contains("required arguments were not provided") {
        let missing = rendered.split("\n\n").next().unwrap_or_default();
        if missing.contains("--headroom") && !missing.contains("CGROUP") {
            return ("--ancestors: requires --headroom".to_owned(), help());
        }
        let to = words.iter().any(|word| word == "--to" || word.starts_with("--to="));
        let what = match verb.map(String::as_str) {
            Some("plot") if missing.contains("RECORD") => "plot: RECORD and -o FILE.svg are required",
            Some("plot") => "plot: -o FILE.svg is required",
            Some("reclaim") if to => "reclaim: a CGROUP is required",
            Some("reclaim") => "reclaim: a CGROUP and a SIZE are required",
            _ => "a CGROUP is required",
        };
        return (what.to_owned(), help());
    }
    let first = rendered.split("\n\n").next().unwrap_or_default();
    let what = first.trim_start_matches("error: ").lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let tip = rendered.lines().find_map(|l| l.trim().strip_prefix("tip: "));
    let possible = rendered.lines().find_map(|l| l.trim().strip_prefix("[possible values: "));
    let hint = match (tip, possible) {
        (_, Some(values)) if !what.contains("possible values") => {
            format!("use one of {}", values.trim_end_matches(']'))
        }
        (Some(tip), _) if !tip.contains("as a value") => tip.to_owned(),
        _ => help(),
    };
    (what.replace(" [possible values", "; possible values").trim_end_matches(']').to_owned(), hint)
}

/// What the kernel calls an error, in lower case.
pub fn plain(errno: Errno) -> String {
    error::plain(&io::Error::from(errno))
}
