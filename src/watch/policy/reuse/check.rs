//! The check of a press: what came back by its end, and what is new meanwhile.

use std::time::Duration;

use super::sample::{Refaulted, ReuseSample};

/// Lengths of the two parts of a pause.
pub(super) const SETTLING: Duration = Duration::from_secs(2);
pub(super) const MEASURING: Duration = Duration::from_secs(2);

/// Share of a press that comes back at least if some of the memory that is left is in use.
pub(crate) const BACK_SHARE: f64 = 0.1;

/// Share of a press that came back below which the usage is only a bound: less may do.
pub(crate) const CONFIRMED_SHARE: f64 = 0.5;

/// Bytes that come back at least for the memory to have been in use.
pub(super) const NOISE_BYTES: f64 = (256 << 10) as f64;

/// Divisor of the usage that gives the change from which the workload counts as changed, and its
/// minimum.
pub(super) const CHANGE_DIVISOR: u64 = 8;
pub(super) const MIN_CHANGE: u64 = 2 << 20;

/// What was pressed out last before a knee, and what of it came back at once: bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Margin {
    pub reclaimed: f64,
    pub returned: f64,
    /// True if something came back at once, or the kernel scanned much and took little: what is
    /// left was touched.
    pub is_touched: bool,
}

/// Result of a sample during a check.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Checked {
    /// The check goes on until this time.
    Waiting(Duration),
    /// This many bytes are new, and no refaults: they may be pressed out at once, while the check
    /// goes on. A service that writes a log grows all the time.
    New(u64),
    /// Memory was freed: the check is void.
    Void,
    /// The time is over. `None` if nothing is known of what was pressed out.
    Over(Option<Settled>),
}

/// Usage at the end of a check: that of the working set, as far as what is left is in use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Settled {
    /// Bytes, with what came back.
    pub usage: u64,
    /// Part of the usage that is compressed copies (zswap).
    pub copies: u64,
    /// Anonymous memory besides that was taken alone, and stayed away. Under a limit the kernel
    /// takes page cache first, and might leave it in memory.
    pub alone: u64,
    /// Share of what was pressed out that came back, from 0 to 1; at a knee, of what was pressed
    /// out last. The less it is, the more of what is left is likely to be idle as well.
    pub share: f64,
    /// True if some of the usage was never pressed out: much of it arrived during the check, or
    /// page cache came back, and the kernel took nothing else.
    pub is_bound: bool,
}

/// A check in progress.
#[derive(Clone, Copy, Debug)]
pub(super) struct Check {
    pub(super) began: Duration,
    pub(super) until: Duration,
    /// Usage, copies and refaults at the beginning.
    pub(super) usage: u64,
    pub(super) copies: u64,
    pub(super) refaulted: Refaulted,
    /// New memory that turned out to be in use.
    pub(super) accepted: u64,
    /// Usage that is no news, and the largest.
    pub(super) seen: u64,
    pub(super) peak: u64,
    /// Set if the press ended at a knee.
    pub(super) knee: Option<Margin>,
    /// True while new memory is pressed out.
    pub(super) is_pressing: bool,
    /// The slice of new memory that is pressed out or was, if any.
    pub(super) slice: Option<Slice>,
    pub(super) stage: Stage,
}

/// What may be pressed out of new memory before a pause: the kernel takes what was touched longest
/// ago, and that may be other memory that is in use, instead of what is new. Amounts are bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slice {
    pub(super) size: u64,
    pub(super) left: u64,
    /// Refaults per second before the first slice.
    pub(super) usual: f64,
    pub(super) pause: Option<Pause>,
}

/// The pause after a slice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pause {
    pub(super) until: Duration,
    /// Refaults at the beginning of its second part.
    pub(super) refaulted: Option<u64>,
}

impl Slice {
    fn new(size: u64, usual: f64) -> Self {
        Self { size, left: size, usual, pause: None }
    }
}

/// Stage of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// A pause of the approach: what is touched all the time comes back.
    Settling,
    /// A pause of the approach: what still comes back is counted.
    Measuring,
    /// The check that ends the approach.
    First,
    /// A later check.
    Later,
    /// None: a rest of this length before the next press.
    Resting(Duration),
}

impl Check {
    /// Returns the bytes that arrived since it began, other than by refaults.
    pub(super) fn arrived(&self, sample: ReuseSample) -> u64 {
        let refaulted = sample.refaulted.since(self.refaulted).all;
        sample.current.saturating_sub(self.usage).saturating_sub(refaulted)
    }

    /// Returns how much of the `new` bytes may be pressed out now. After each slice it pauses as
    /// the approach does; if much of the slice would come back within the reuse `time`, all that is
    /// new is accepted, or else the next slice is twice as large.
    pub(super) fn press_new(&mut self, sample: ReuseSample, new: u64, time: Duration) -> Checked {
        let begins = self.began + SETTLING + MEASURING;
        if sample.at < begins && self.slice.is_none() {
            return Checked::Waiting(begins.min(self.until));
        }
        let first = || {
            let since = sample.at.saturating_sub(self.began).as_secs_f64();
            let refaulted = sample.refaulted.since(self.refaulted).all;
            Slice::new(change_of(self.usage), refaulted as f64 / since.max(1.0))
        };
        let slice = self.slice.unwrap_or_else(first);
        let pause = |until: Duration, refaulted| Some(Pause { until, refaulted });
        let next = match slice.pause {
            None if slice.left >= NOISE_BYTES as u64 => slice,
            None => Slice { pause: pause(sample.at + SETTLING, None), ..slice },
            Some(Pause { until, .. }) if sample.at < until => slice,
            Some(Pause { refaulted: None, .. }) => {
                Slice { pause: pause(sample.at + MEASURING, Some(sample.refaulted.all)), ..slice }
            }
            Some(Pause { until, refaulted: Some(before) }) => {
                let measured = sample.at.saturating_sub(until) + MEASURING;
                let usual = slice.usual * measured.as_secs_f64();
                let came = sample.refaulted.all.saturating_sub(before) as f64 - usual;
                if would_come_back(came, measured, time, slice.size as f64) {
                    self.accepted = self.arrived(sample);
                    (self.slice, self.is_pressing) = (None, false);
                    return Checked::Waiting(self.until);
                }
                Slice::new(2 * slice.size, slice.usual)
            }
        };
        self.slice = Some(next);
        match next.pause {
            Some(pause) => Checked::Waiting(pause.until.min(self.until)),
            None => Checked::New(new.min(next.left)),
        }
    }

    pub(super) fn is_pause(&self) -> bool {
        matches!(self.stage, Stage::Settling | Stage::Measuring)
    }
}

/// Returns whether much of what was pressed out would come back within the reuse `time`, if so many
/// bytes did within `measured`.
pub(super) fn would_come_back(came: f64, measured: Duration, time: Duration, pressed: f64) -> bool {
    came * time.as_secs_f64() / measured.as_secs_f64() > (BACK_SHARE * pressed).max(NOISE_BYTES)
}

pub(super) fn change_of(usage: u64) -> u64 {
    (usage / CHANGE_DIVISOR).max(MIN_CHANGE)
}
