//! Savings of reclaim: a pure function of usage and of the contents of swap.

/// Memory saved. Amounts are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Peak usage since the watch began minus current usage, as far as it was reclaimed. Memory in
    /// zswap is charged, and therefore left out.
    pub gross: u64,
    /// Space that compressed copies of it take in zram, charged to no cgroup: an estimate from the
    /// size of all of zram. `None` if memory went to swap that may be zram, and can't be
    /// examined, or if the kernel doesn't count what went to zram.
    pub zram: Option<u64>,
    /// Bytes demoted to slower memory instead, which stay charged.
    pub demoted: u64,
}

impl Default for Saved {
    fn default() -> Self {
        Self { gross: 0, zram: Some(0), demoted: 0 }
    }
}

impl Saved {
    /// Returns the net gain of the host, as far as it is known. Copies can take more than was
    /// saved.
    #[must_use]
    pub fn net(&self) -> Option<i64> {
        self.zram.map(|zram| self.gross as i64 - zram as i64)
    }
}

/// One sample of a cgroup. Amounts are bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct SavingsSample {
    /// Usage.
    pub current: u64,
    /// Bytes in swap, uncompressed and outside zswap; `None` if the kernel doesn't count them.
    pub swapped: Option<u64>,
    /// Memory taken by a byte in swap, as a share of it: in zram. `None` if that is unknown.
    pub copied: Option<f64>,
    /// Bytes demoted since the cgroup was created.
    pub demoted: u64,
}

/// Savings account of one cgroup.
#[derive(Clone, Debug, Default)]
pub(crate) struct Saving {
    first: Option<SavingsSample>,
    largest: u64,
    reclaimed: u64,
    saved: Saved,
}

impl Saving {
    /// Records reclaimed bytes.
    pub(crate) fn reclaimed(&mut self, bytes: u64) {
        self.reclaimed = self.reclaimed.saturating_add(bytes);
    }

    /// Records a usage between samples.
    pub(crate) fn used(&mut self, current: u64) {
        self.largest = self.largest.max(current);
    }

    /// Records a sample.
    pub(crate) fn record(&mut self, sample: SavingsSample) {
        let first = *self.first.get_or_insert(sample);
        self.largest = self.largest.max(sample.current);
        let swapped = sample.swapped.zip(first.swapped).map(|(now, first)| now.saturating_sub(first));
        self.saved = Saved {
            gross: (self.largest - sample.current).min(self.reclaimed),
            zram: match (swapped, sample.copied) {
                (Some(0), _) | (_, Some(0.0)) => Some(0),
                (swapped, copied) => {
                    swapped.zip(copied).map(|(swapped, copied)| (swapped as f64 * copied) as u64)
                }
            },
            demoted: sample.demoted.saturating_sub(first.demoted),
        };
    }

    /// Returns the savings as of the last sample.
    #[must_use]
    pub(crate) fn saved(&self) -> Saved {
        self.saved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: u64 = 1 << 20;

    #[test]
    fn the_size_of_copies_is_subtracted() {
        let mut saving = Saving::default();
        let sample =
            SavingsSample { current: 500 * M, swapped: Some(10 * M), copied: Some(0.25), demoted: 3 * M };
        saving.record(sample);
        assert_eq!(saving.saved(), Saved::default());
        saving.reclaimed(400 * M);
        saving.record(SavingsSample { current: 100 * M, swapped: Some(250 * M), demoted: 5 * M, ..sample });
        let saved = saving.saved();
        assert_eq!(saved, Saved { gross: 400 * M, zram: Some(60 * M), demoted: 2 * M });
        assert_eq!(saved.net(), Some(340 * M as i64));
        assert_eq!(Saved { gross: 0, zram: Some(M), demoted: 0 }.net(), Some(-(M as i64)));
        let hidden = SavingsSample { copied: None, current: 90 * M, swapped: Some(10 * M), ..sample };
        saving.record(hidden);
        assert_eq!(saving.saved().net(), Some(400 * M as i64), "nothing more went to swap");
        saving.record(SavingsSample { swapped: Some(20 * M), ..hidden });
        assert_eq!(saving.saved().net(), None);
        saving.record(SavingsSample { swapped: None, ..sample });
        assert_eq!(saving.saved().zram, None, "an unknown amount is in zram");
        saving.record(SavingsSample { swapped: None, copied: Some(0.0), ..sample });
        assert_eq!(saving.saved().zram, Some(0), "no swap is zram");
    }

    #[test]
    fn memory_freed_by_the_application_was_not_saved() {
        let mut saving = Saving::default();
        saving.record(SavingsSample { current: 500 * M, ..SavingsSample::default() });
        saving.reclaimed(50 * M);
        saving.record(SavingsSample { current: 100 * M, ..SavingsSample::default() });
        assert_eq!(saving.saved().gross, 50 * M);
        // Usage grows above its first value.
        saving.record(SavingsSample { current: 600 * M, ..SavingsSample::default() });
        assert_eq!(saving.saved().gross, 0);
    }
}
