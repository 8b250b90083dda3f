//! Completion in shells: the command line itself, with live cgroups. The shells ask this binary, so
//! nothing can drift.
//!
//! clap's engine finds the candidates. The protocol of each shell is here, one file for each, since
//! names of cgroups contain characters that shells treat differently: `\x2d` in systemd's unit
//! names, and `:`.

use std::ffi::{OsStr, OsString};

use clap::builder::StyledStr;
use clap::{Command, CommandFactory};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{CompleteEnv, Shells};
use memctl::select::completion::{Candidate, candidates, nodes};

use crate::cli::Cli;
use crate::output::format::{escaped, size};

mod bash;
mod fish;
mod shell;
mod zsh;

/// The variable that names the shell which asks for completions.
const VARIABLE: &str = "MEMCTL_COMPLETE";

/// Answers a shell that asks for completions, and exits. Returns if none does.
pub fn answer() {
    let shells = Shells(&[&bash::BASH, &zsh::ZSH, &fish::FISH]);
    CompleteEnv::with_factory(command).var(VARIABLE).shells(shells).complete();
}

/// Returns the command line, with completers for values from outside of it.
fn command() -> Command {
    let stat = |command: Command| command.mut_arg("words", |arg| arg.add(ArgValueCompleter::new(words)));
    let reclaim = |command: Command| command.mut_arg("words", |arg| arg.add(ArgValueCompleter::new(places)));
    let command = Cli::command().mut_subcommand("reclaim", reclaim).mut_subcommand("stat", stat);
    command
        .mut_subcommand("watch", |watch| watch.mut_arg("words", |arg| arg.add(ArgValueCompleter::new(words))))
        .mut_subcommand("check", |check| check.mut_arg("word", |arg| arg.add(ArgValueCompleter::new(places))))
}

/// Completes cgroups, and sizes after a number. The word that is the size is known only from the
/// one after it.
fn words(current: &OsStr) -> Vec<CompletionCandidate> {
    let found = offered(candidates(current));
    // Only cgroups have bytes that aren't UTF-8.
    let Some(typed) = current.to_str() else { return found.collect() };
    let own = (!typed.is_empty() && "self".starts_with(typed))
        .then(|| described("self", Some("the cgroup that memctl runs in".into())));
    found.chain(own).chain(sizes(typed)).collect()
}

/// Completes cgroups, sizes after a number, and NUMA nodes.
fn places(current: &OsStr) -> Vec<CompletionCandidate> {
    let nodes = current.to_str().map(nodes).unwrap_or_default();
    offered(nodes).chain(words(current)).collect()
}

fn offered(candidates: Vec<Candidate>) -> impl Iterator<Item = CompletionCandidate> {
    // Candidates that would act on a terminal are left out.
    let shown = candidates.into_iter().filter(|candidate| {
        let word = candidate.word.to_string_lossy();
        escaped(&word) == word
    });
    shown.map(|candidate| described(candidate.word, candidate.current.map(size)))
}

/// Returns the sizes that a number can become.
fn sizes(typed: &str) -> Vec<CompletionCandidate> {
    let units = [("K", "KiB"), ("M", "MiB"), ("G", "GiB"), ("%", "percent of the usage")];
    let digits = !typed.is_empty() && typed.bytes().all(|b| b.is_ascii_digit());
    let with_unit = units.into_iter().filter(|_| digits);
    let mut found: Vec<_> = with_unit
        .map(|(unit, name)| described(format!("{typed}{unit}"), Some(format!("{typed} {name}"))))
        .collect();
    if !typed.is_empty() && "max".starts_with(typed) {
        found.push(described("max", Some("all that can be reclaimed".into())));
    }
    found
}

fn described(word: impl Into<OsString>, help: Option<String>) -> CompletionCandidate {
    CompletionCandidate::new(word).help(help.map(StyledStr::from))
}
