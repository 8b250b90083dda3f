//! What a request knows about the progress of its latest write.

/// Measures that moved since the latest write, and claims of the kernel that none has proved yet.
///
/// The samples may be taken by anybody: each marks here what it saw, so that whoever reads first
/// takes no progress away from whoever judges.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub has_fallen: bool,
    pub has_counted: bool,
    /// Bytes that the kernel claimed since its claims were last proved.
    pub unproven: u64,
    /// Bytes that the counters showed then, and whether they moved since.
    pub proven_at: u64,
    pub counted_since: bool,
}

impl Progress {
    /// Begins anew: what moves from now on is due to the write that was just issued.
    pub(crate) fn begin(&mut self) {
        (self.has_fallen, self.has_counted) = (false, false);
    }

    /// Records that the claims are proved, with the bytes that the counters show.
    pub(crate) fn prove(&mut self, moved: u64) {
        (self.unproven, self.proven_at, self.counted_since) = (0, moved, false);
    }
}
