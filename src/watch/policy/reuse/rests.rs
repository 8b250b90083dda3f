//! Rests before the next press, where presses find the same working set again and again.

use std::time::Duration;

use super::check::change_of;
use crate::watch::policy::backoff::Doubling;

/// Number of presses in a row that find the same working set, after which the next is put off; and
/// reuse times by which it is at most.
pub(super) const SAME_SETS: u32 = 3;
const MAX_REST: u32 = 8;

/// What the last presses confirmed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rests {
    /// The working set of the last press in bytes; `None` if that showed none, or only a bound.
    confirmed: Option<u64>,
    /// Number of presses in a row that found about as much, up to `SAME_SETS`.
    same: u32,
    last: Doubling,
}

impl Rests {
    /// Records the working set that a press confirmed, if it did. Returns the rest before the next
    /// press, if there is one: a reuse `time` at first, then twice the last one.
    pub(super) fn confirm(&mut self, set: Option<u64>, time: Duration) -> Option<Duration> {
        let is_same = set.zip(self.confirmed).is_some_and(|(now, set)| now.abs_diff(set) <= change_of(set));
        let same = if is_same { self.same + 1 } else { set.iter().count() as u32 };
        (self.confirmed, self.same) = (set, same.min(SAME_SETS));
        if self.same < SAME_SETS {
            self.last.reset();
            return None;
        }
        Some(self.last.next(time, MAX_REST * time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presses_that_find_the_same_are_put_off_ever_longer() {
        const M: u64 = 1 << 20;
        let (minute, mut rests) = (Duration::from_secs(60), Rests::default());
        let mut after =
            |mib: Option<u64>| Some(rests.confirm(mib.map(|mib| mib * M), minute)?.as_secs() / 60);
        let rested: Vec<_> = [100, 104, 96, 100, 110, 100, 100].map(|mib| after(Some(mib))).into();
        assert_eq!(rested, [None, None, Some(1), Some(2), Some(4), Some(8), Some(8)]);
        assert_eq!([130, 130, 130].map(|mib| after(Some(mib))), [None, None, Some(1)], "another");
        assert_eq!(
            [Some(130), None, Some(130), Some(130), Some(130)].map(after),
            [Some(2), None, None, None, Some(1)],
            "one that showed none, or only a bound"
        );
    }
}
