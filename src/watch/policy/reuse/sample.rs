//! A sample for the check of a press.

use std::time::Duration;

use crate::kind::Kind;

/// Bytes that refaulted since the cgroup was created, in use or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refaulted {
    pub all: u64,
    /// Anonymous memory of these.
    pub anon: u64,
}

impl Refaulted {
    /// Returns what refaulted since an earlier sample.
    pub(super) fn since(self, before: Self) -> Self {
        Self { all: self.all.saturating_sub(before.all), anon: self.anon.saturating_sub(before.anon) }
    }

    /// Returns the bytes that can come from a press of this kind.
    pub(super) fn of(self, kind: Kind) -> u64 {
        if kind == Kind::Anon { self.anon } else { self.all }
    }

    /// Returns whether most of them are page cache.
    pub(super) fn is_mostly_file(self) -> bool {
        self.anon < self.all / 2
    }
}

/// Anonymous memory that could be taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Anon {
    /// There is none, it is too little to count, or there is no room for it in swap.
    #[default]
    None,
    /// There is some, and the kernel chooses between it and page cache.
    Mixed,
    /// There is some, and the kernel takes it first if asked to.
    First,
    /// There is some, and the kernel can take it alone.
    Alone,
}

impl Anon {
    /// Returns the kind to ask for in order to take it before page cache, where the kernel can.
    pub(super) fn before_cache(self) -> Option<Kind> {
        match self {
            Self::None | Self::Mixed => None,
            Self::First => Some(Kind::MOSTLY_ANON),
            Self::Alone => Some(Kind::Anon),
        }
    }
}

/// A sample. Amounts are bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReuseSample {
    /// Time of the sample, on the monotonic clock.
    pub at: Duration,
    /// `memory.current`.
    pub current: u64,
    /// Part of the usage that is compressed copies (zswap).
    pub copies: u64,
    pub refaulted: Refaulted,
    /// Anonymous memory that was taken since the cgroup was created; `None` if unknown.
    pub taken_anon: Option<u64>,
    /// Bytes in swap; `None` if unknown.
    pub in_swap: Option<u64>,
    /// Anonymous memory that counts beside the rest, and could be swapped out.
    pub anon: Anon,
}

impl ReuseSample {
    /// Returns the usage without copies.
    pub(super) fn set(&self) -> u64 {
        self.current.saturating_sub(self.copies)
    }
}
