//! Errors in reading a record.

/// Error in reading a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// I/O error.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Invalid line.
    #[error("{line}:{column}: {what}")]
    Line {
        /// Line number, from 1.
        line: usize,
        /// Column in bytes, from 1.
        column: usize,
        /// Description of the error.
        what: String,
    },
    /// Text that isn't JSON, and no line of a watched cgroup.
    #[error("not a record: its lines aren't JSON")]
    Text,
    /// The record contains no line of a watched cgroup.
    #[error("no watched cgroup in the record")]
    Nothing,
    /// The record is empty.
    #[error("the record is empty")]
    Empty,
}
