//! Error output: one lower-case line `memctl: what: why`, then `hint: …` where one helps.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use clap::error::ErrorKind;
use memctl::reclaim::StoppedBy;
use memctl::reclaim::batch::Outcome;
use rustix::io::Errno;

use super::eprint_line;
use super::format::{errno_text, escaped};
use super::reclaim::removed;
use crate::error::Error;
use crate::exit::Exit;
use crate::usage::translate_clap_error;

const RED: Style = AnsiColor::Red.on_default().bold();
const DIM: Style = Style::new().dimmed();

/// Prints an error and returns the exit status.
pub fn print(error: &Error) -> Exit {
    print_lines(&error.to_string(), error.hint());
    error.exit()
}

/// Prints the error of one of several requests, if it had one.
pub fn print_outcome(outcome: &Outcome) {
    let (name, located) = (&outcome.name, outcome.located.as_ref());
    let print_of = |errno| {
        let error = Error::target(name, located, errno);
        print_lines(&error.to_string(), error.hint());
    };
    let report = match &outcome.report {
        Ok(report) => report,
        Err(errno) => return print_of(*errno),
    };
    match report.stopped_by {
        StoppedBy::Failed(errno) => {
            let file = outcome.path.join(report.subject.file());
            print_lines(&format!("{}: {}", file.display(), errno_text(errno)), None);
        }
        StoppedBy::Removed if located.is_some() => print_of(Errno::NODEV),
        StoppedBy::Removed => print_lines(&format!("{name}: {}", removed(report.subject)), None),
        _ => {}
    }
}

fn print_lines(what: &str, hint: Option<&str>) {
    for line in lines(what, hint) {
        eprint_line(&line);
    }
}

/// Returns the lines for an error, without newlines.
pub fn lines(what: &str, hint: Option<&str>) -> Vec<String> {
    let what = format!("{RED}memctl:{RED:#} {}", escaped(what));
    let hint = hint.map(|hint| format!("{DIM}hint:{DIM:#} {}", escaped(hint)));
    [what].into_iter().chain(hint).collect()
}

/// Prints a message of clap's: help and version unchanged, errors in memctl's form.
pub fn print_clap(error: &clap::Error) -> Exit {
    if !error.use_stderr() {
        return match error.print().and_then(|()| io::stdout().flush()) {
            // The reader has read enough of the help.
            Err(why) if why.kind() != io::ErrorKind::BrokenPipe => print(&Error::io("standard output", &why)),
            _ => Exit::Success,
        };
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return Exit::Usage;
    }
    // Bytes that aren't UTF-8 are shown as replacement characters.
    let words: Vec<_> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    print(&translate_clap_error(error, &words))
}
