//! Output conventions: results on stdout; progress, notes and errors on stderr. Colour, progress
//! bars and shortened names on terminals only.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use clap::ColorChoice;

use crate::cli::Global;
use crate::error::{Error, Result};

pub mod check;
pub mod error;
pub mod format;
pub mod json;
pub mod metrics;
pub mod notes;
pub mod plan;
pub mod plot;
pub mod progress;
pub mod reclaim;
pub mod stat;
pub mod status;
pub mod table;
pub mod view;
pub mod watch;
mod writer;

/// Amount of output, set by `--quiet` and `--verbose`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbosity {
    /// No table, progress or notes.
    Quiet,
    /// The default: table, progress and notes.
    Normal,
    /// The default, and every write to the kernel; and paths in place of the names of pods.
    Verbose,
}

impl Verbosity {
    /// Returns the verbosity that the global options ask for, or an error for both of them. The
    /// options can stand on either side of the subcommand, where clap doesn't detect the conflict,
    /// so clap only counts them.
    pub fn new(global: &Global) -> Result<Self> {
        match (global.quiet, global.verbose) {
            (0, 0) => Ok(Self::Normal),
            (0, _) => {
                format::show_paths();
                Ok(Self::Verbose)
            }
            (_, 0) => Ok(Self::Quiet),
            _ => Err(Error::usage("--quiet and --verbose can't be combined")),
        }
    }

    /// Returns whether a progress bar may be drawn.
    pub fn progress(self) -> bool {
        self == Self::Normal && io::stderr().is_terminal()
    }
}

/// Sets the use of colour for everything printed from now on.
pub fn use_colour(choice: ColorChoice) {
    let choice = match choice {
        ColorChoice::Auto => anstream::ColorChoice::Auto,
        ColorChoice::Always => anstream::ColorChoice::Always,
        ColorChoice::Never => anstream::ColorChoice::Never,
    };
    choice.write_global();
}

/// Prints the result. A closed pipe is no error.
pub fn print_stdout(text: &str) -> Result<()> {
    print_more(text).map(drop)
}

/// Prints a part of the result. Returns whether the reader is still there: false for a closed pipe.
pub fn print_more(text: &str) -> Result<bool> {
    write_all(anstream::stdout().lock(), text)
}

fn write_all(mut stdout: impl Write, text: &str) -> Result<bool> {
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Error::io("standard output", &e)),
        written => Ok(written.is_ok()),
    }
}

/// Prints a part of the result that programs read, as it is: an escape sequence in the name of a
/// cgroup belongs to the name. A terminal gets it escaped. Returns whether the reader is still there.
pub fn print_exactly(text: &str) -> Result<bool> {
    let stdout = io::stdout().lock();
    let lines = || {
        text.split_inclusive('\n').map(|line| format!("{}\n", format::escaped(line.trim_end_matches('\n'))))
    };
    let shown = if stdout.is_terminal() { Cow::Owned(lines().collect()) } else { Cow::Borrowed(text) };
    write_all(stdout, &shown)
}

/// Prints a line to stderr. Errors are ignored, since there is nowhere left to report them.
pub fn eprint_line(line: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{line}");
}

/// Returns the height of the terminal in lines, if stdout is one.
pub fn terminal_rows() -> Option<u16> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(size.ws_row).filter(|&rows| rows > 0)
}

/// Returns the width of the terminal in columns, if stdout is one.
pub fn terminal_width() -> Option<u16> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    io::stdout().is_terminal().then_some(if size.ws_col == 0 { 80 } else { size.ws_col })
}
