//! Errors of the command line found by clap, reduced to one line and a hint.

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use memctl::size::{Amount, SizeError};

use crate::cli::Cli;
use crate::error::Error;

/// Translates an error of clap's, given the words of the command line.
pub fn translate_clap_error(error: &clap::Error, words: &[String]) -> Error {
    let command = Cli::command();
    let verb = words.iter().map(String::as_str).find(|word| command.find_subcommand(word).is_some());
    let help = format!("see 'memctl {}--help'", verb.map_or(String::new(), |verb| format!("{verb} ")));
    if error.kind() == ErrorKind::UnknownArgument
        && let Some((message, hint)) = dashed(error, words)
    {
        return Error::usage(message).with_hint(Some(hint));
    }
    let message = match error.kind() {
        ErrorKind::UnknownArgument => unknown(error, verb, words),
        ErrorKind::MissingRequiredArgument => Some(missing(error, verb, words)),
        _ => None,
    };
    match message {
        Some(message) => Error::usage(message).with_hint(Some(help)),
        None => Error::usage(first_paragraph(error)).with_hint(Some(suggestion(error).unwrap_or(help))),
    }
}

/// Returns a message for an unexpected word that is something other than an unknown option.
fn unknown(error: &clap::Error, verb: Option<&str>, words: &[String]) -> Option<String> {
    // A word that clap takes for an option may have been meant as a number.
    let is_negative = |word: &String| {
        let digits =
            word.strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        digits && word.parse::<Amount>() == Err(SizeError::Negative)
    };
    if let Some(at) = words.iter().position(is_negative) {
        return Some(match words[..at].last().filter(|before| before.starts_with("--")) {
            Some(option) => format!("{option} {}: must not be negative", words[at]),
            None => format!("{}: {}", words[at], SizeError::Negative),
        });
    }
    let word = strings(error, ContextKind::InvalidArg).into_iter().next()?;
    let is_second = verb == Some("check") && !word.starts_with('-');
    is_second.then(|| format!("{word}: check takes a single cgroup"))
}

/// Returns a message and a hint for a cgroup's name that begins with a dash, such as `-.mount`,
/// which clap takes for options. No option has a dot or a slash in it.
fn dashed(error: &clap::Error, words: &[String]) -> Option<(String, String)> {
    let taken = strings(error, ContextKind::InvalidArg).into_iter().next()?;
    let is_name = |word: &&String| {
        !word.starts_with("--")
            && word.starts_with(&*taken)
            && word.contains(['.', '/'])
            && taken.starts_with('-')
    };
    let (at, word) = words.iter().enumerate().find(|(_, word)| is_name(word))?;
    if word[1..].starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let hint = match at.checked_sub(1).map(|before| words[before].as_str()) {
        Some(option @ ("--exclude" | "--join")) => {
            format!("a value that begins with a dash: {option}={word}")
        }
        _ => format!("put -- in front of names that begin with a dash: -- {word}"),
    };
    Some((format!("{word}: no such option"), hint))
}

/// Returns a message on the missing arguments. clap would name all words of `reclaim` as missing,
/// even where --to or --total has the amount.
fn missing(error: &clap::Error, verb: Option<&str>, words: &[String]) -> String {
    let missing = strings(error, ContextKind::InvalidArg);
    let is_missing = |what: &str| missing.iter().any(|arg| arg.contains(what));
    if is_missing("--headroom") && !is_missing("CGROUP") {
        return "--ancestors: requires --headroom".to_owned();
    }
    let is_amount = |word: &str| {
        ["--to", "--total"].contains(&word) || word.starts_with("--to=") || word.starts_with("--total=")
    };
    let has_amount = words.iter().any(|word| is_amount(word));
    let message = match verb {
        Some("plot") if is_missing("RECORD") => "plot: RECORD and -o FILE.svg are required",
        Some("plot") => "plot: -o FILE.svg is required",
        Some("reclaim") if has_amount => "reclaim: a CGROUP is required",
        Some("reclaim") => "reclaim: a CGROUP and a SIZE are required",
        _ => "a CGROUP is required",
    };
    message.to_owned()
}

/// Returns the first paragraph of clap's own message, as one line.
fn first_paragraph(error: &clap::Error) -> String {
    let rendered = error.render().to_string();
    let first = rendered.split("\n\n").next().unwrap_or_default();
    let line = first.trim_start_matches("error: ").lines().map(str::trim).collect::<Vec<_>>().join(" ");
    line.replace(" [possible values", "; possible values").trim_end_matches(']').to_owned()
}

/// Returns clap's suggestion. Possible values are in the message already.
fn suggestion(error: &clap::Error) -> Option<String> {
    let similar = |kind: ContextKind, what: &str| {
        let names = strings(error, kind);
        let quoted: Vec<_> = names.iter().map(|name| format!("'{name}'")).collect();
        match &quoted[..] {
            [] => None,
            [only] => Some(format!("a similar {what} exists: {only}")),
            several => Some(format!("some similar {what}s exist: {}", several.join(", "))),
        }
    };
    similar(ContextKind::SuggestedArg, "argument")
        .or_else(|| similar(ContextKind::SuggestedSubcommand, "subcommand"))
        .or_else(|| similar(ContextKind::SuggestedValue, "value"))
}

/// Returns the words of a context, if there are any.
fn strings(error: &clap::Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        _ => Vec::new(),
    }
}
