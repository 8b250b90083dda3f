//! Guards that lack information, and so can't hold.

use super::policy::guard::Guard;

/// Guards of a cgroup that can't see what they guard against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a set of guards")]
pub struct BlindGuards {
    /// The pressure above the cgroup is invisible.
    pub above: bool,
    /// The work of kswapd is invisible.
    pub kswapd: bool,
    /// The cgroup's stalls are invisible, and `max_pressure` is set.
    pub pressure: bool,
    /// The host's writes to swap are invisible, and limited. Those of the watch itself count.
    pub swap_writes: bool,
}

impl BlindGuards {
    /// Returns the names of the guards in JSON.
    #[must_use]
    pub fn words(self) -> Vec<&'static str> {
        let all = [
            (self.above, Guard::Above(0)),
            (self.kswapd, Guard::Kswapd),
            (self.pressure, Guard::Pressure),
            (self.swap_writes, Guard::SwapWrites),
        ];
        all.into_iter().filter(|(is_blind, _)| *is_blind).map(|(_, guard)| guard.word()).collect()
    }

    /// Adds the guards that are blind in another sample.
    pub(crate) fn add(&mut self, other: Self) {
        self.above |= other.above;
        self.kswapd |= other.kswapd;
        self.pressure |= other.pressure;
        self.swap_writes |= other.swap_writes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blind_guards_are_named_and_remembered() {
        let mut all = BlindGuards::default();
        assert!(all.words().is_empty());
        all.add(BlindGuards { pressure: true, ..BlindGuards::default() });
        all.add(BlindGuards { above: true, kswapd: true, ..BlindGuards::default() });
        all.add(BlindGuards { swap_writes: true, ..BlindGuards::default() });
        assert_eq!(all.words(), ["above", "kswapd", "pressure", "swap_writes"]);
    }
}
