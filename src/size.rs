//! Byte sizes as people write them.
//!
//! This module parses words such as `10M`, `1.5GiB`, `25%` or `max` into numbers, and refuses every
//! word that two readers could read differently. It does no rounding beyond what its documentation
//! states, and doesn't depend on the use of the size.
//!
//! The kernel's own parser (`memparse`, lib/cmdline.c) reads a leading `0` as octal, `0x` as
//! hexadecimal, and wraps silently on overflow up to Linux 7.1. That is why memctl parses here and
//! only ever writes plain decimal byte counts.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Smallest request in bytes: below one page of 4 KiB the kernel answers "done" without acting.
pub(crate) const SMALLEST: u64 = 4096;

/// Smallest size that is refused, in bytes: differences between sizes must fit a signed number,
/// whole pages included.
const LARGEST: u64 = (1 << 63) - (1 << 20);

/// An amount of memory, given by a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// A number of bytes, at least `SMALLEST`.
    Bytes(u64),
    /// A share of the cgroup's current usage.
    Share(Percent),
    /// All that the kernel will free.
    Max,
}

/// A percentage from 0 to 100, kept in millionths of a percent so that it compares and prints
/// exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u64);

/// Reason why a word is not a size. The caller names the word itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs)]
pub enum SizeError {
    #[error("a size can't be empty")]
    Empty,
    #[error("a size can't be negative")]
    Negative,
    #[error("a size must not have a sign")]
    Signed,
    #[error("hexadecimal sizes are not supported")]
    Hex,
    #[error("a size must not have leading zeros (the kernel reads them as octal)")]
    LeadingZero,
    #[error("{0}B is ambiguous: write {0} or {0}iB (a power of 1024), or the number of bytes")]
    Decimal(char),
    #[error("{0:?} is not a unit (K, M, G, T, P, E, powers of 1024)")]
    Unit(char),
    #[error("not a size (as in 10M, 1.5G, 25% or max)")]
    NotANumber,
    /// The word is not a share.
    #[error("not a percentage (as in 5%, 0.1%)")]
    NotAPercentage,
    #[error("a percentage can't be negative")]
    NegativePercentage,
    #[error("must be less than 8 EiB")]
    Overflow,
    #[error("must be at least 4096 bytes, one page")]
    TooSmall,
    /// A plain number that would be a share of a limit.
    #[error("must be at least 4096 bytes, one page; {0} is a share of the limit")]
    MissingPercentSign(Percent),
    #[error("must be more than 0")]
    Nothing,
    #[error("must be at most 100%")]
    OverAll,
    #[error("must be a size, not a percentage")]
    NoShare,
    #[error("must be a size, not max")]
    NoMax,
    #[error("must be less than the limit")]
    NothingLeft,
    #[error("neither a size nor a percentage (as in 64M, 10%)")]
    NeitherSizeNorPercentage,
    #[error("neither a size nor max (as in 1M)")]
    NeitherSizeNorMax,
}

impl Percent {
    const UNIT: u64 = 1_000_000;

    /// A quarter.
    pub const QUARTER: Self = Self(25 * Self::UNIT);

    /// Returns this share of `whole`, rounded down.
    #[must_use]
    pub(crate) fn of(self, whole: u64) -> u64 {
        (u128::from(whole) * u128::from(self.0) / u128::from(100 * Self::UNIT)) as u64
    }

    /// Returns this share of a usage as a request: at least `SMALLEST` bytes, unless nothing is used.
    #[must_use]
    pub(crate) fn of_usage(self, used: u64) -> u64 {
        if used == 0 { 0 } else { self.of(used).max(SMALLEST) }
    }

    /// Returns the share as a ratio between 0 and 1.
    #[must_use]
    pub fn ratio(self) -> f64 {
        self.0 as f64 / (100 * Self::UNIT) as f64
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0 as f64 / Self::UNIT as f64)
    }
}

impl FromStr for Percent {
    type Err = SizeError;

    /// Parses `25%`, `2.5%`, and for options that are percentages by name also plain `25`.
    fn from_str(word: &str) -> Result<Self, SizeError> {
        let (whole, fraction, rest) = split_number(word).map_err(|why| match why {
            SizeError::NotANumber => SizeError::NotAPercentage,
            SizeError::Negative => SizeError::NegativePercentage,
            why => why,
        })?;
        if !matches!(rest, "" | "%") {
            return Err(SizeError::NotAPercentage);
        }
        match scale(whole, fraction, Self::UNIT) {
            Ok(parts) if parts <= 100 * Self::UNIT => Ok(Self(parts)),
            // A number that is too large for an integer is too large for a percentage as well.
            Ok(_) | Err(SizeError::Overflow) => Err(SizeError::OverAll),
            Err(why) => Err(why),
        }
    }
}

impl FromStr for Amount {
    type Err = SizeError;

    fn from_str(word: &str) -> Result<Self, SizeError> {
        if word.eq_ignore_ascii_case("max") {
            Ok(Self::Max)
        } else if word.ends_with('%') {
            match word.parse()? {
                Percent(0) => Err(SizeError::Nothing),
                share => Ok(Self::Share(share)),
            }
        } else {
            parse_bytes(word).map(Self::Bytes)
        }
    }
}

/// Parses a size in bytes: `4096`, `10M`, `10MiB`, `10Mi`, `1.5g`.
///
/// # Errors
/// [`SizeError`], for every word that is not exactly one size of at least [`SMALLEST`].
pub(crate) fn parse_bytes(word: &str) -> Result<u64, SizeError> {
    let (whole, fraction, unit) = split_number(word)?;
    let scaled = scale(whole, fraction, multiplier(unit)?)?;
    match scaled {
        ..SMALLEST => Err(SizeError::TooSmall),
        SMALLEST..LARGEST => Ok(scaled),
        _ => Err(SizeError::Overflow),
    }
}

/// Parses a size in bytes, where a percentage or `max` has no meaning.
///
/// # Errors
/// [`SizeError`], also for a share and for `max`.
pub fn parse_only_bytes(word: &str) -> Result<u64, SizeError> {
    match word.parse()? {
        Amount::Bytes(bytes) => Ok(bytes),
        Amount::Share(_) => Err(SizeError::NoShare),
        Amount::Max => Err(SizeError::NoMax),
    }
}

/// Returns whether a word was meant as a size, right or wrong, rather than as the name of a cgroup.
#[must_use]
pub fn looks_like_size(word: &str) -> bool {
    match word.parse::<Amount>() {
        Err(SizeError::NotANumber | SizeError::NotAPercentage | SizeError::Unit(_) | SizeError::Empty) => {
            false
        }
        Ok(_) | Err(_) => true,
    }
}

/// Rounds `bytes` up to whole pages; `None` past 2^64.
#[must_use]
pub(crate) fn whole_pages(bytes: u64, page: u64) -> Option<u64> {
    bytes.checked_next_multiple_of(page)
}

/// Splits `1.5G` into `1`, `5` and `G`, and refuses every spelling of a number that the kernel or a
/// reader could take for another.
fn split_number(word: &str) -> Result<(&str, &str, &str), SizeError> {
    match word.as_bytes() {
        [] => return Err(SizeError::Empty),
        [b'-', b'0'..=b'9' | b'.', ..] => return Err(SizeError::Negative),
        [b'+', b'0'..=b'9' | b'.', ..] => return Err(SizeError::Signed),
        [b'0', b'x' | b'X', ..] => return Err(SizeError::Hex),
        [b'0', b'0'..=b'9', ..] => return Err(SizeError::LeadingZero),
        _ => {}
    }
    let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, rest) = word.split_at(digits(word));
    if whole.is_empty() {
        return Err(SizeError::NotANumber);
    }
    let Some(rest_after_point) = rest.strip_prefix('.') else { return Ok((whole, "", rest)) };
    let (fraction, unit) = rest_after_point.split_at(digits(rest_after_point));
    if fraction.is_empty() { Err(SizeError::NotANumber) } else { Ok((whole, fraction, unit)) }
}

fn multiplier(unit: &str) -> Result<u64, SizeError> {
    let mut letters = unit.chars();
    let Some(letter) = letters.next() else { return Ok(1) };
    let upper = letter.to_ascii_uppercase();
    let rest = letters.as_str();
    let Some(power) = "BKMGTPE".find(upper) else {
        return Err(if letter.is_alphabetic() && rest.len() <= 2 {
            SizeError::Unit(letter)
        } else {
            SizeError::NotANumber
        });
    };
    match rest.to_ascii_lowercase().as_str() {
        "" => Ok(1 << (10 * power)),
        "i" | "ib" if power > 0 => Ok(1 << (10 * power)),
        "b" if power > 0 => Err(SizeError::Decimal(upper)),
        _ => Err(SizeError::NotANumber),
    }
}

/// Returns `whole.fraction × unit`, rounded up, in integers: a size must not depend on floating
/// point.
fn scale(whole: &str, fraction: &str, unit: u64) -> Result<u64, SizeError> {
    let whole: u64 = whole.parse().map_err(|_| SizeError::Overflow)?;
    // Eighteen digits are finer than any unit can show; more would overflow.
    let fraction = &fraction[..fraction.len().min(18)];
    let denominator = 10u128.pow(fraction.len() as u32);
    let numerator: u128 =
        if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| SizeError::Overflow)? };
    let part = (numerator * u128::from(unit)).div_ceil(denominator);
    u64::try_from(u128::from(whole) * u128::from(unit) + part).map_err(|_| SizeError::Overflow)
}

/// Parses a size, or a share of a limit.
///
/// # Errors
/// [`SizeError`].
pub fn parse_headroom(word: &str) -> Result<Amount, SizeError> {
    match word.parse() {
        Ok(Amount::Max) | Err(SizeError::OverAll) => Err(SizeError::NothingLeft),
        Err(SizeError::NotANumber) => Err(SizeError::NeitherSizeNorPercentage),
        Err(SizeError::TooSmall) => Err(match word.parse::<Percent>() {
            // Also a part of one, as in 0.1; 0 is no share, and 100% leaves nothing.
            Ok(share) if share > Percent(0) && share.ratio() < 1.0 => SizeError::MissingPercentSign(share),
            _ => SizeError::TooSmall,
        }),
        read => read,
    }
}

/// Parses a percentage that is more than 0.
///
/// # Errors
/// [`SizeError`].
pub fn parse_some_percent(word: &str) -> Result<Percent, SizeError> {
    match word.parse::<Percent>() {
        Ok(share) if share.ratio() == 0.0 => Err(SizeError::Nothing),
        read => read,
    }
}

/// Parses a size, or 0.
///
/// # Errors
/// [`SizeError`].
pub fn parse_bytes_or_zero(word: &str) -> Result<u64, SizeError> {
    if word == "0" { Ok(0) } else { parse_only_bytes(word) }
}

/// Parses a size; `max`, for no bound, is `None`.
///
/// # Errors
/// [`SizeError`].
pub fn parse_bytes_or_max(word: &str) -> Result<Option<u64>, SizeError> {
    match parse_only_bytes(word) {
        _ if word == "max" => Ok(None),
        Err(SizeError::NotANumber) => Err(SizeError::NeitherSizeNorMax),
        read => read.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_as_people_write_them() {
        let cases = [
            ("4096", 4096),
            ("4096B", 4096),
            ("10M", 10 << 20),
            ("10m", 10 << 20),
            ("10MiB", 10 << 20),
            ("10mib", 10 << 20),
            ("10Mi", 10 << 20),
            ("4K", 4096),
            ("1.5G", 3 << 29),
            ("0.5M", 1 << 19),
            ("1.1M", 1_153_434),
            ("2T", 2 << 40),
            ("3P", 3 << 50),
            ("7E", 7 << 60),
        ];
        for (word, bytes) in cases {
            assert_eq!(word.parse(), Ok(Amount::Bytes(bytes)), "{word}");
        }
        assert_eq!("max".parse(), Ok(Amount::Max));
        assert_eq!("MAX".parse(), Ok(Amount::Max));
    }

    #[test]
    fn a_share_of_a_usage_is_at_least_a_page() {
        let share = |word: &str, used| word.parse::<Percent>().unwrap().of_usage(used);
        assert_eq!(share("25%", 1 << 20), 1 << 18);
        assert_eq!((share("0.0001%", 1 << 20), share("0.0001%", 0)), (4096, 0));
    }

    #[test]
    fn words_that_are_refused_and_why() {
        let cases = [
            ("", SizeError::Empty),
            ("-10M", SizeError::Negative),
            ("+10M", SizeError::Signed),
            ("0x10000", SizeError::Hex),
            ("010M", SizeError::LeadingZero),
            ("00", SizeError::LeadingZero),
            ("0", SizeError::TooSmall),
            ("0%", SizeError::Nothing),
            ("4095", SizeError::TooSmall),
            ("1K", SizeError::TooSmall),
            ("10MB", SizeError::Decimal('M')),
            ("10kb", SizeError::Decimal('K')),
            ("10Q", SizeError::Unit('Q')),
            ("10Mx", SizeError::NotANumber),
            ("10 M", SizeError::NotANumber),
            ("M", SizeError::NotANumber),
            ("1.M", SizeError::NotANumber),
            (".5M", SizeError::NotANumber),
            ("1,5M", SizeError::NotANumber),
            ("1e6", SizeError::NotANumber),
            ("16E", SizeError::Overflow),
            ("8E", SizeError::Overflow),
            ("9223372036854775807", SizeError::Overflow),
            ("18446744073709551615", SizeError::Overflow),
            ("18446744073709551616", SizeError::Overflow),
            ("101%", SizeError::OverAll),
            ("100.000001%", SizeError::OverAll),
            ("-5%", SizeError::NegativePercentage),
            ("99999999999999999999999%", SizeError::OverAll),
            ("app", SizeError::NotANumber),
        ];
        for (word, why) in cases {
            assert_eq!(word.parse::<Amount>(), Err(why), "{word}");
        }
    }

    #[test]
    fn shares_are_exact() {
        let quarter: Percent = "25%".parse().unwrap();
        assert_eq!(quarter.of(400), 100);
        assert_eq!(quarter.of(u64::MAX), u64::MAX / 4);
        assert_eq!("2.5%".parse::<Percent>().unwrap().to_string(), "2.5%");
        assert_eq!("100%".parse::<Percent>().unwrap().of(u64::MAX), u64::MAX);
        assert_eq!("0.1".parse::<Percent>().unwrap().of(1_000_000), 1000);
    }

    #[test]
    fn a_name_is_not_taken_for_a_size() {
        for name in ["app", "10min.slice", "1000", "m", "10Q"] {
            assert_eq!(looks_like_size(name), name == "1000", "{name}");
        }
        for size in ["10M", "10MB", "0", "-1", "010", "0x1", "50%", "120%", "max", "99999999999E"] {
            assert!(looks_like_size(size), "{size}");
        }
    }

    #[test]
    fn a_share_without_its_sign_is_told() {
        for word in ["10", "0.1", "99.9"] {
            let share = format!("{word}%").parse().expect("a share");
            assert_eq!(parse_headroom(word), Err(SizeError::MissingPercentSign(share)), "{word}");
        }
        for word in ["0", "0.0", "100", "10B", "4095", "1K", "0.5K"] {
            assert_eq!(parse_headroom(word), Err(SizeError::TooSmall), "{word}");
        }
    }

    #[test]
    fn a_headroom_of_all_or_more_leaves_nothing() {
        for word in ["max", "150%", "99999999999999999999999%"] {
            assert_eq!(parse_headroom(word), Err(SizeError::NothingLeft), "{word}");
        }
        assert!(parse_headroom("100%").is_ok(), "refused with the rule");
    }

    proptest! {
        #[test]
        fn any_word_is_answered(word in ".{0,24}") {
            let _ = word.parse::<Amount>();
            let _ = looks_like_size(&word);
        }

        #[test]
        fn bytes_survive_the_round_trip(bytes in SMALLEST..LARGEST) {
            prop_assert_eq!(bytes.to_string().parse(), Ok(Amount::Bytes(bytes)));
        }

        #[test]
        fn no_size_wraps(n in 1u64.., unit in 0usize..6) {
            let word = format!("{n}{}", ["K", "M", "G", "T", "P", "E"][unit]);
            let exact = u128::from(n) << (10 * (unit + 1));
            match word.parse() {
                Ok(Amount::Bytes(b)) => prop_assert_eq!(u128::from(b), exact),
                other => {
                    prop_assert_eq!(other, Err(SizeError::Overflow));
                    prop_assert!(exact >= u128::from(LARGEST));
                }
            }
        }
    }
}
