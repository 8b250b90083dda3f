//! Durations as people write them.

use std::time::Duration;

/// Why a duration is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Zero, or less.
    #[error("must be more than 0")]
    NotPositive,
    /// Not a duration.
    #[error("not a duration (as in 500ms, 10s, 2m)")]
    NotADuration,
    /// Longer than a year.
    #[error("must be at most 365 days")]
    TooLong,
}

/// Longest duration that is accepted. Any sum of such a duration and the time of a clock fits the
/// types of the standard library, whose additions panic where they overflow.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Parses a duration: `500ms`, `10s`, `1m30s`, or bare seconds, at most a year.
///
/// # Errors
/// [`DurationError`].
pub fn parse_duration(word: &str) -> Result<Duration, DurationError> {
    let time = match word.parse::<f64>() {
        Ok(seconds) if seconds > LONGEST.as_secs_f64() => return Err(DurationError::TooLong),
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| DurationError::NotADuration)?,
        Err(_) => match humantime::parse_duration(word) {
            Ok(time) => time,
            // Of a fraction, it has more digits than fit.
            Err(humantime::DurationError::NumberOverflow) if word.contains('.') => {
                return Err(DurationError::NotADuration);
            }
            Err(humantime::DurationError::NumberOverflow) => return Err(DurationError::TooLong),
            Err(_) => return Err(DurationError::NotADuration),
        },
    };
    match time {
        Duration::ZERO => Err(DurationError::NotPositive),
        time if time > LONGEST => Err(DurationError::TooLong),
        time => Ok(time),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn durations_as_people_write_them() {
        use super::{Duration, LONGEST, parse_duration};
        for (word, millis) in [("500ms", 500), ("10s", 10_000), ("1m30s", 90_000), ("2", 2000), ("0.5", 500)]
        {
            assert_eq!(parse_duration(word), Ok(Duration::from_millis(millis)), "{word}");
        }
        assert_eq!((parse_duration("365d"), parse_duration("31536000")), (Ok(LONGEST), Ok(LONGEST)));
    }

    #[test]
    fn durations_that_no_clock_can_count_are_refused() {
        use super::{DurationError, parse_duration};
        let cases = [
            ("18446744073709551615", DurationError::TooLong),
            ("18446744073709551616", DurationError::TooLong),
            ("18446744073709551615s", DurationError::TooLong),
            ("18446744073709551615s 1s", DurationError::TooLong),
            ("18446744073709551615s 999ms 999999us 2000000ns", DurationError::TooLong),
            ("99999999999999999999999y", DurationError::TooLong),
            ("366d", DurationError::TooLong),
            ("31536000.5", DurationError::TooLong),
            ("1e30", DurationError::TooLong),
            ("inf", DurationError::TooLong),
            ("0", DurationError::NotPositive),
            ("0s", DurationError::NotPositive),
            ("1e-12", DurationError::NotPositive),
            ("-1", DurationError::NotADuration),
            ("-1s", DurationError::NotADuration),
            ("0.00000000000000000000001s", DurationError::NotADuration),
            ("-inf", DurationError::NotADuration),
            ("nan", DurationError::NotADuration),
            ("", DurationError::NotADuration),
        ];
        for (word, why) in cases {
            assert_eq!(parse_duration(word), Err(why), "{word}");
        }
    }
}
