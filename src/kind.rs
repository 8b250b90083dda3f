//! The kind of memory to reclaim: anonymous memory, page cache, or both by a weight.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Kind of memory to reclaim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// The pages that the kernel finds coldest.
    #[default]
    All,
    /// Anonymous memory only: `swappiness=max`.
    Anon,
    /// Page cache only: `swappiness=0`.
    File,
    /// Anonymous memory and page cache, by a weight that the user gave.
    Weighed(Swappiness),
}

impl Kind {
    /// Anonymous memory first, where the kernel can't take it alone (6.11 to 6.15). Page cache that is
    /// older leaves all the same; beside page cache in use, 24 MiB of anonymous memory left and none
    /// of that (6.12).
    pub(crate) const MOSTLY_ANON: Self = Self::Weighed(Swappiness::Value(200));

    /// Returns the kind that a user asks for by a kind or a weight; `None` where the choice is left
    /// to memctl.
    #[must_use]
    pub fn of(kind: Option<Self>, swappiness: Option<Swappiness>) -> Option<Self> {
        match (kind, swappiness) {
            (Some(Self::Anon), _) | (_, Some(Swappiness::Max)) => Some(Self::Anon),
            (Some(Self::File), _) | (_, Some(Swappiness::Value(0))) => Some(Self::File),
            (_, Some(swappiness)) => Some(Self::Weighed(swappiness)),
            (kind, None) => kind,
        }
    }

    /// Returns the swappiness to write for the kind.
    #[must_use]
    pub fn swappiness(self) -> Option<Swappiness> {
        match self {
            Self::All => None,
            Self::Anon => Some(Swappiness::Max),
            Self::File => Some(Swappiness::Value(0)),
            Self::Weighed(swappiness) => Some(swappiness),
        }
    }

    /// Returns whether anonymous memory is taken alone, or first.
    #[must_use]
    pub(crate) fn prefers_anon(self) -> bool {
        matches!(self, Self::Anon | Self::MOSTLY_ANON)
    }

    /// Returns whether anonymous memory may be reclaimed.
    #[must_use]
    pub fn takes_anon(self) -> bool {
        self.swappiness() != Some(Swappiness::Value(0))
    }

    /// Returns whether page cache may be reclaimed.
    #[must_use]
    pub fn takes_file(self) -> bool {
        self.swappiness() != Some(Swappiness::Max)
    }
}

/// Weight of anonymous memory against page cache in one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swappiness {
    /// From 0, page cache only, to 200, as for `vm.swappiness` (since 6.11).
    Value(u8),
    /// Anonymous memory only (since 6.16; truly so since 7.3).
    Max,
}

/// Error for a word that is no swappiness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("must be 0 to 200, or max")]
pub struct ParseSwappinessError;

impl FromStr for Swappiness {
    type Err = ParseSwappinessError;

    fn from_str(word: &str) -> Result<Self, ParseSwappinessError> {
        if word == "max" {
            return Ok(Self::Max);
        }
        let plain = word.bytes().all(|b| b.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
        match word.parse() {
            Ok(value) if plain && value <= 200 => Ok(Self::Value(value)),
            _ => Err(ParseSwappinessError),
        }
    }
}

impl fmt::Display for Swappiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => write!(f, "{value}"),
            Self::Max => f.write_str("max"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swappiness_is_what_the_kernel_takes() {
        assert_eq!("0".parse(), Ok(Swappiness::Value(0)));
        assert_eq!("200".parse(), Ok(Swappiness::Value(200)));
        assert_eq!("max".parse(), Ok(Swappiness::Max));
        for word in ["", "201", "256", "-1", "+1", "060", "1.5", "Max", "60 "] {
            assert_eq!(word.parse::<Swappiness>(), Err(ParseSwappinessError), "{word:?}");
        }
    }

    #[test]
    fn a_weight_at_its_end_is_a_kind() {
        let weighed = Swappiness::Value(60);
        assert_eq!(Kind::of(None, None), None);
        assert_eq!(Kind::of(Some(Kind::All), None), Some(Kind::All));
        assert_eq!(Kind::of(None, Some(Swappiness::Value(0))), Some(Kind::File));
        assert_eq!(Kind::of(None, Some(Swappiness::Max)), Some(Kind::Anon));
        assert_eq!(Kind::of(Some(Kind::All), Some(weighed)), Some(Kind::Weighed(weighed)));
        assert_eq!(Kind::of(Some(Kind::Anon), Some(weighed)), Some(Kind::Anon));
    }
}
