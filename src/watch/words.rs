//! What a watch is told, on the command line and in a file of rules: from words to values.

use crate::size::{Amount, Percent, SizeError, parse_only_bytes};

/// Reads what is to be free: a size, or a share of the limit.
///
/// # Errors
/// What is wrong with it.
pub fn headroom(word: &str) -> Result<Amount, String> {
    match word.parse() {
        Ok(Amount::Max) => Err("must be less than the limit".into()),
        Err(SizeError::NotANumber) => Err("neither a size nor a percentage (as in 64M, 10%)".into()),
        read => read.map_err(|why: SizeError| why.to_string()),
    }
}

/// Reads a share that is more than nothing.
///
/// # Errors
/// What is wrong with it.
pub fn some_percent(word: &str) -> Result<Percent, String> {
    match word.parse::<Percent>() {
        Ok(share) if share.ratio() == 0.0 => Err(SizeError::Nothing.to_string()),
        read => read.map_err(|why| why.to_string()),
    }
}

/// Reads a size, or 0.
///
/// # Errors
/// What is wrong with it.
pub fn bytes_or_none(word: &str) -> Result<u64, String> {
    if word == "0" { Ok(0) } else { parse_only_bytes(word).map_err(|why| why.to_string()) }
}

/// Reads a size, or `max` for no bound.
///
/// # Errors
/// What is wrong with it.
pub fn bytes_or_max(word: &str) -> Result<Option<u64>, String> {
    match parse_only_bytes(word) {
        _ if word == "max" => Ok(None),
        Err(SizeError::NotANumber) => Err("neither a size nor max (as in 1M)".into()),
        read => read.map(Some).map_err(|why| why.to_string()),
    }
}
