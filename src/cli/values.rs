//! Values of options that are neither words nor plain sizes.

use std::time::Duration;

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
    /// Not a duration.
    #[error("not a duration (as in 500ms, 10s, 2m)")]
    NotADuration,
    /// Longer than [`LONGEST`].
    #[error("must be at most 365 days")]
    TooLong,
}

/// Longest duration that is accepted. Any sum of such a duration and the time of a clock fits the
/// types of the standard library, whose additions panic where they overflow.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

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

/// Reads a duration: `500ms`, `10s`, `1m30s`, or bare seconds, at most [`LONGEST`].
pub fn duration(word: &str) -> Result<Duration, ValueError> {
    let time = match word.parse::<f64>() {
        Ok(seconds) if seconds > LONGEST.as_secs_f64() => return Err(ValueError::TooLong),
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| ValueError::NotADuration)?,
        Err(_) => match humantime::parse_duration(word) {
            Ok(time) => time,
            Err(humantime::DurationError::NumberOverflow) => return Err(ValueError::TooLong),
            Err(_) => return Err(ValueError::NotADuration),
        },
    };
    match time {
        Duration::ZERO => Err(ValueError::NotPositive),
        time if time > LONGEST => Err(ValueError::TooLong),
        time => Ok(time),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn durations_as_people_write_them() {
        use super::{Duration, LONGEST, duration};
        for (word, millis) in [("500ms", 500), ("10s", 10_000), ("1m30s", 90_000), ("2", 2000), ("0.5", 500)]
        {
            assert_eq!(duration(word), Ok(Duration::from_millis(millis)), "{word}");
        }
        assert_eq!((duration("365d"), duration("31536000")), (Ok(LONGEST), Ok(LONGEST)));
    }

    #[test]
    fn durations_that_no_clock_can_count_are_refused() {
        use super::{ValueError, duration};
        let cases = [
            ("18446744073709551615", ValueError::TooLong),
            ("18446744073709551616", ValueError::TooLong),
            ("18446744073709551615s", ValueError::TooLong),
            ("18446744073709551615s 1s", ValueError::TooLong),
            ("18446744073709551615s 999ms 999999us 2000000ns", ValueError::TooLong),
            ("99999999999999999999999y", ValueError::TooLong),
            ("366d", ValueError::TooLong),
            ("31536000.5", ValueError::TooLong),
            ("1e30", ValueError::TooLong),
            ("inf", ValueError::TooLong),
            ("0", ValueError::NotPositive),
            ("0s", ValueError::NotPositive),
            ("1e-12", ValueError::NotPositive),
            ("-1", ValueError::NotADuration),
            ("-1s", ValueError::NotADuration),
            ("-inf", ValueError::NotADuration),
            ("nan", ValueError::NotADuration),
            ("", ValueError::NotADuration),
        ];
        for (word, why) in cases {
            assert_eq!(duration(word), Err(why), "{word}");
        }
    }
}
