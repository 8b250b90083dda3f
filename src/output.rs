//! Who reads what: stdout is the answer only; progress, notes and errors go to stderr. Nothing but a terminal ever
//! sees colour, progress or a shortened name.

use std::io::{self, IsTerminal, Write};

use clap::ColorChoice;

use crate::cli::Global;
use crate::error::{Error, Result};

pub mod check;
pub mod error;
pub mod format;
pub mod json;
pub mod notes;
pub mod plan;
pub mod plot;
pub mod progress;
pub mod reclaim;
pub mod stat;
pub mod table;
pub mod view;
pub mod watch;

/// How much the user wants to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbosity {
    /// No table, progress or notes.
    Quiet,
    /// The usual.
    Normal,
    /// Every write to the kernel as well.
    Verbose,
}

impl Verbosity {
    /// Global options can stand on either side of the subcommand, where clap doesn't see that they conflict: so they
    /// are counted there and weighed here.
    pub fn new(global: &Global) -> Result<Self> {
        match (global.quiet, global.verbose) {
            (0, 0) => Ok(Self::Normal),
            (0, _) => Ok(Self::Verbose),
            (_, 0) => Ok(Self::Quiet),
            _ => Err(Error::usage("--quiet and --verbose can't be combined")),
        }
    }

    /// Whether a progress bar may be drawn.
    pub fn progress(self) -> bool {
        self == Self::Normal && io::stderr().is_terminal()
    }
}

/// Settles when colour is used, for all that is printed from now on.
pub fn use_colour(choice: ColorChoice) {
    let choice = match choice {
        ColorChoice::Auto => anstream::ColorChoice::Auto,
        ColorChoice::Always => anstream::ColorChoice::Always,
        ColorChoice::Never => anstream::ColorChoice::Never,
    };
    choice.write_global();
}

/// Prints the answer. A reader that closed the pipe has had enough, which is no error.
pub fn print_stdout(text: &str) -> Result<()> {
    print_more(text).map(drop)
}

/// The same where more may follow. Says whether anybody still reads.
pub fn print_more(text: &str) -> Result<bool> {
    let mut stdout = anstream::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Error::io("standard output", &e)),
        written => Ok(written.is_ok()),
    }
}

/// Prints a line to stderr. If even that fails there is nobody left to tell.
pub fn eprint_line(line: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{line}");
}

/// The height of the terminal that stdout is, if it is one.
pub fn terminal_rows() -> Option<u16> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(size.ws_row).filter(|&rows| rows > 0)
}

/// The width of the terminal that stdout is, if it is one.
pub fn terminal_width() -> Option<u16> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    io::stdout().is_terminal().then_some(if size.ws_col == 0 { 80 } else { size.ws_col })
}
