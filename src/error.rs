//! Errors of the program: a message, a hint where one helps, and the exit status.
//!
//! There is no conversion from arbitrary errors: each type that `?` converts has its own below,
//! which decides on hint and exit status, so that a new type can't lose them.

use std::fmt::{self, Display};
use std::io;

use memctl::cgroup::error::{CgroupError, error_text};
use memctl::cgroup::join::JoinError;
use memctl::cgroup::{CgroupPath, Name, diagnose};
use memctl::reclaim::Refusal;
use memctl::record::RecordError;
use memctl::watch::config::ConfigError;
use memctl::watch::config::rule::WatchError;
use rustix::io::Errno;

use crate::exit::Exit;

/// Result of an operation that can fail with an [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the program.
#[derive(Debug)]
pub struct Error {
    /// Causes, the outermost first.
    message: anyhow::Error,
    hint: Option<String>,
    exit: Exit,
}

impl Error {
    /// Creates a failure without a hint.
    pub fn new(message: impl Display) -> Self {
        Self { message: anyhow::anyhow!("{message}"), hint: None, exit: Exit::Failed }
    }

    /// Creates an error of the command line.
    pub fn usage(message: impl Display) -> Self {
        Self { exit: Exit::Usage, ..Self::new(message) }
    }

    /// Creates the failure of an operation on a file, or on another object that `what` names.
    pub fn io(what: impl Display, error: &io::Error) -> Self {
        Self::new(error_text(error)).context(what)
    }

    /// Creates the failure of a read or a write at a cgroup or node. `located` is where a cgroup was
    /// found: if its files are gone, the error says why.
    pub fn target(name: &Name, located: Option<&CgroupPath>, errno: Errno) -> Self {
        match located {
            Some(located) if matches!(errno, Errno::NODEV | Errno::NOENT) => diagnose::lost(located).into(),
            _ => Self::io(name, &errno.into()),
        }
    }

    /// Creates the failure to read a configuration file.
    pub fn config(file: &str, why: &ConfigError) -> Self {
        Self::new(format_args!("{file}:{why}")).with_hint(why.mistake.hint())
    }

    /// Creates the failure to read a record.
    pub fn record(file: &str, why: &RecordError) -> Self {
        let hint = || Some("record a watch with memctl watch --json".to_owned());
        match why {
            RecordError::Io(e) => Self::io(file, e),
            RecordError::Line { .. } => Self::new(format_args!("{file}:{why}")).with_hint(hint()),
            RecordError::Nothing | RecordError::Empty | RecordError::Text => {
                Self::new(format_args!("{file}: {why}")).with_hint(hint())
            }
        }
    }

    /// Adds a hint, if there is one.
    #[must_use]
    pub fn with_hint(self, hint: Option<impl Into<String>>) -> Self {
        Self { hint: hint.map(Into::into).or(self.hint), ..self }
    }

    /// Prefixes the message with the subject of the error.
    #[must_use]
    pub fn context(self, what: impl Display) -> Self {
        Self { message: self.message.context(what.to_string()), ..self }
    }

    /// Returns the hint.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Returns the exit status.
    pub fn exit(&self) -> Exit {
        self.exit
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.message)
    }
}

impl From<CgroupError> for Error {
    fn from(why: CgroupError) -> Self {
        let exit = if why.is_malformed() { Exit::Usage } else { Exit::Failed };
        Self { exit, ..Self::new(&why).with_hint(why.hint()) }
    }
}

impl From<JoinError> for Error {
    fn from(why: JoinError) -> Self {
        match why {
            JoinError::Place(why) => Self::from(why).context("--join"),
            JoinError::Refused { .. } => Self::new(&why).with_hint(why.hint()),
        }
    }
}

impl From<Refusal> for Error {
    fn from(why: Refusal) -> Self {
        Self::new(&why).with_hint(why.hint())
    }
}

impl From<WatchError> for Error {
    fn from(why: WatchError) -> Self {
        Self::new(&why).with_hint(why.hint())
    }
}

impl From<serde_json::Error> for Error {
    fn from(why: serde_json::Error) -> Self {
        Self::new(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_keeps_hint_and_exit_status() {
        let error = Error::usage("not a size").with_hint(Some("give 10M")).context("ten");
        assert_eq!(
            (error.to_string().as_str(), error.hint(), error.exit()),
            ("ten: not a size", Some("give 10M"), Exit::Usage)
        );
        let error = Error::from(CgroupError::NoName).with_hint(None::<String>);
        assert_eq!(error.exit(), Exit::Usage);
        let word = || "app".to_owned();
        let error = Error::from(CgroupError::NoSuchCgroup { word: word(), near: vec!["apps".into()] });
        assert_eq!((error.hint(), error.exit()), (Some("similar names: apps"), Exit::Failed));
    }

    #[test]
    fn errors_of_the_system_carry_no_numbers() {
        let denied = io::Error::from_raw_os_error(13);
        assert_eq!(Error::io("file", &denied).to_string(), "file: permission denied");
    }
}
