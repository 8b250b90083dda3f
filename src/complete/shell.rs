//! The part of completion that all shells share.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use clap::Command;
use clap_complete::engine::{CompletionCandidate, complete};
use clap_complete::env::EnvCompleter;

/// Function that answers a shell, given the command, the words up to the cursor, the working
/// directory, and the output.
type Answer = fn(&mut Command, Vec<OsString>, Option<&Path>, &mut dyn Write) -> io::Result<()>;

/// A shell with completion.
pub struct Shell {
    /// Name of the shell.
    pub name: &'static str,
    /// Function that returns the script which the shell loads.
    pub registration: fn(&Registration<'_>) -> String,
    /// Function that answers the shell.
    pub answer: Answer,
}

/// Parameters of a registration script.
pub struct Registration<'a> {
    /// The variable that asks for completions.
    pub var: &'a str,
    /// The command, as a part of function names.
    pub name: &'a str,
    /// The command to complete.
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

/// Returns the parts of a candidate: the word, in bytes, and its help text in one line.
pub fn shown(candidate: &CompletionCandidate) -> (Vec<u8>, String) {
    let help = candidate.get_help().map(ToString::to_string).unwrap_or_default();
    let help = help.lines().next().unwrap_or_default().to_owned();
    (candidate.get_value().as_bytes().to_vec(), help)
}

/// Writes a candidate per line, followed by a tab and its help text.
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
