//! What the shells have in common.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use clap::Command;
use clap_complete::engine::{CompletionCandidate, complete};
use clap_complete::env::EnvCompleter;

/// Answers a shell: the command, the words up to the cursor, the working directory, and where the
/// answer goes.
type Answer = fn(&mut Command, Vec<OsString>, Option<&Path>, &mut dyn Write) -> io::Result<()>;

/// A shell that is completed in.
pub struct Shell {
    /// Its name.
    pub name: &'static str,
    /// What it reads to know of us.
    pub registration: fn(&Registration<'_>) -> String,
    /// Answers it.
    pub answer: Answer,
}

/// What a registration is made of.
pub struct Registration<'a> {
    /// The variable that asks for completions.
    pub var: &'a str,
    /// The command as a part of function names.
    pub name: &'a str,
    /// The command that is completed.
    pub bin: &'a str,
    /// The program that answers, quoted.
    pub completer: &'a str,
}

impl EnvCompleter for Shell {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is(&self, name: &str) -> bool {
        name == self.name
    }

    fn write_registration(
        &self,
        var: &str,
        name: &str,
        bin: &str,
        completer: &str,
        buf: &mut dyn Write,
    ) -> io::Result<()> {
        let completer = shlex::try_quote(completer).map_err(io::Error::other)?;
        let registration = Registration { var, name, bin, completer: &completer };
        buf.write_all((self.registration)(&registration).as_bytes())
    }

    fn write_complete(
        &self,
        command: &mut Command,
        words: Vec<OsString>,
        directory: Option<&Path>,
        buf: &mut dyn Write,
    ) -> io::Result<()> {
        (self.answer)(command, words, directory, buf)
    }
}

/// A candidate as shells take it: the word, bytes that they choose, and what to say of it in one
/// line.
pub fn shown(candidate: &CompletionCandidate) -> (Vec<u8>, String) {
    let help = candidate.get_help().map(ToString::to_string).unwrap_or_default();
    let help = help.lines().next().unwrap_or_default().to_owned();
    (candidate.get_value().as_bytes().to_vec(), help)
}

/// A candidate a line, then a tab and a word on it.
pub fn tabulated(
    command: &mut Command,
    words: Vec<OsString>,
    directory: Option<&Path>,
    buf: &mut dyn Write,
) -> io::Result<()> {
    let last = words.len().saturating_sub(1);
    for (word, help) in complete(command, words, last, directory)?.iter().map(shown) {
        buf.write_all(&word)?;
        if help.is_empty() { writeln!(buf) } else { writeln!(buf, "\t{help}") }?;
    }
    Ok(())
}
