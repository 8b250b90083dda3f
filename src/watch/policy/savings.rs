//! What pressing has saved: a pure function of usage and of what is in swap.

/// What was saved. Amounts are bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// How much less is used than at most since the watch began, as far as that was reclaimed. What zswap keeps is
    /// charged, and so left out.
    pub gross: u64,
    /// What compressed copies of it take in zram, charged to nobody: an estimate, by what all of zram takes.
    pub zram: u64,
    /// What went to slower memory instead, and stays charged.
    pub demoted: u64,
}

impl Saved {
    /// What the host has more of. Copies can take more than was saved.
    #[must_use]
    pub fn net(&self) -> i64 {
        self.gross as i64 - self.zram as i64
    }
}

/// What a cgroup looks like. Amounts are bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SavingsSample {
    /// What it uses.
    pub current: u64,
    /// What it has in swap, uncompressed and outside zswap.
    pub swapped: u64,
    /// What a byte of that takes in memory: in zram, as a share of it.
    pub copied: f64,
    /// What was demoted since it was made.
    pub demoted: u64,
}

/// The account of one cgroup.
#[derive(Clone, Debug, Default)]
pub struct Saving {
    first: Option<SavingsSample>,
    largest: u64,
    reclaimed: u64,
    saved: Saved,
}

impl Saving {
    /// Enters what was reclaimed.
    pub fn reclaimed(&mut self, bytes: u64) {
        self.reclaimed = self.reclaimed.saturating_add(bytes);
    }

    /// Enters a look.
    pub fn look(&mut self, look: SavingsSample) {
        let first = *self.first.get_or_insert(look);
        self.largest = self.largest.max(look.current);
        let swapped = look.swapped.saturating_sub(first.swapped);
        self.saved = Saved {
            gross: (self.largest - look.current).min(self.reclaimed),
            zram: (swapped as f64 * look.copied) as u64,
            demoted: look.demoted.saturating_sub(first.demoted),
        };
    }

    /// What was saved by the last look.
    #[must_use]
    pub fn saved(&self) -> Saved {
        self.saved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: u64 = 1 << 20;

    #[test]
    fn what_copies_take_is_left_out() {
        let mut saving = Saving::default();
        let look = SavingsSample { current: 500 * M, swapped: 10 * M, copied: 0.25, demoted: 3 * M };
        saving.look(look);
        assert_eq!(saving.saved(), Saved::default());
        saving.reclaimed(400 * M);
        saving.look(SavingsSample { current: 100 * M, swapped: 250 * M, demoted: 5 * M, ..look });
        let saved = saving.saved();
        assert_eq!(saved, Saved { gross: 400 * M, zram: 60 * M, demoted: 2 * M });
        assert_eq!(saved.net(), 340 * M as i64);
        assert_eq!(Saved { gross: 0, zram: M, demoted: 0 }.net(), -(M as i64));
    }

    #[test]
    fn what_it_gave_back_by_itself_was_not_saved() {
        let mut saving = Saving::default();
        saving.look(SavingsSample { current: 500 * M, ..SavingsSample::default() });
        saving.reclaimed(50 * M);
        saving.look(SavingsSample { current: 100 * M, ..SavingsSample::default() });
        assert_eq!(saving.saved().gross, 50 * M);
        // It grows, beyond what it was.
        saving.look(SavingsSample { current: 600 * M, ..SavingsSample::default() });
        assert_eq!(saving.saved().gross, 0);
    }
}
