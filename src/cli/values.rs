//! Values of options that are neither words nor plain sizes.

use memctl::size::{Amount, SizeError, parse_bytes_or_max};

/// Why a value of an option is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not a size.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// `max` where a usage is expected.
    #[error("max is not a usage; to reclaim everything: memctl reclaim CGROUP max")]
    MaxUsage,
    /// Zero, or less.
    #[error("must be more than 0")]
    NotPositive,
    /// Not a number of seconds.
    #[error("not a number of seconds (as in 0.5, 2)")]
    NotSeconds,
}

/// Reads a usage: a size, or a share of the usage.
pub fn amount(word: &str) -> Result<Amount, ValueError> {
    match word.parse() {
        Ok(Amount::Max) => Err(ValueError::MaxUsage),
        other => Ok(other?),
    }
}

/// A size, or `None` for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeOrMax(pub Option<u64>);

/// Reads a size, or max for no limit.
pub fn bytes_or_max(word: &str) -> Result<SizeOrMax, SizeError> {
    parse_bytes_or_max(word).map(SizeOrMax)
}

/// Reads a cost: seconds of CPU time.
pub fn seconds(word: &str) -> Result<f64, ValueError> {
    match word.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && seconds > 0.0 => Ok(seconds),
        Ok(_) => Err(ValueError::NotPositive),
        Err(_) => Err(ValueError::NotSeconds),
    }
}
