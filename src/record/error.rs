//! Why a record can't be read.

/// Why a record can't be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It couldn't be read at all.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// What is wrong with it.
    #[error("{line}:{column}: {what}")]
    Line {
        /// Where, from 1.
        line: usize,
        /// In bytes, from 1.
        column: usize,
        /// What.
        what: String,
    },
    /// There is nothing in it that a watch would have written.
    #[error("no watched cgroup in the record")]
    Nothing,
    /// There is nothing in it at all.
    #[error("the record is empty")]
    Empty,
}
