//! A simulated cgroup, and the application in it.

use std::time::Duration;

use rustix::io::Errno;

use super::plan::{KernelPlan, Spares};

pub(super) const PAGE: u64 = 4096;

/// Time within which a page in use that was reclaimed comes back.
const RETURNS: f64 = 0.5;

/// Counters of a cgroup, bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub ours: u64,
    pub direct: u64,
    pub scanned: u64,
    pub refaulted: u64,
}

/// A time until which something fails, and the error.
pub(super) type Failing = Option<(Duration, Errno)>;

/// A simulated cgroup: a leaf with memory, or the top-level cgroup of a tenant. Amounts are bytes.
#[derive(Debug)]
pub(super) struct Sim {
    pub parent: Option<u64>,
    pub alive: bool,
    pub limit: u64,
    pub closed_until: Duration,
    pub low: u64,
    /// Memory in use, memory not in use, and memory in use that was reclaimed.
    pub hot: f64,
    pub cold: f64,
    pub outside: f64,
    pub anon: u64,
    /// Bytes per second.
    pub growth: f64,
    pub counters: Counters,
    /// Counters as they were folded last.
    pub folded: (Duration, Counters),
    pub hits: u64,
    /// Number of writes.
    pub writes: u64,
    /// Usage as the writer read it last.
    pub told: u64,
    /// Limit that the watch was told last, and since when.
    pub told_limit: (u64, Duration),
    pub stalled: f64,
    pub advanced: Duration,
    pub hangs: Option<(Duration, Duration)>,
    /// End of the last write that hung.
    pub hangs_until: Duration,
    pub unreadable: Failing,
    pub unwritable: Failing,
    pub no_pressure: Duration,
    pub lies: Duration,
    pub locked: Option<(Duration, bool)>,
    /// Listener to its limit events: its id, and whether it is armed.
    pub listener: Option<(u64, bool)>,
    pub missed: bool,
    /// End of the last hang.
    pub hung: Duration,
    /// Times of the last trouble, and of the last change of limit or protection.
    pub troubled: Duration,
    pub changed: Duration,
}

impl Sim {
    pub(super) fn new(parent: Option<u64>, limit: u64, now: Duration) -> Self {
        Self {
            parent,
            alive: true,
            limit,
            closed_until: Duration::ZERO,
            low: 0,
            hot: 0.0,
            cold: 0.0,
            outside: 0.0,
            anon: 0,
            growth: 0.0,
            counters: Counters::default(),
            folded: (now, Counters::default()),
            hits: 0,
            writes: 0,
            told: 0,
            told_limit: (u64::MAX, now),
            stalled: 0.0,
            advanced: now,
            hangs: None,
            hangs_until: Duration::ZERO,
            unreadable: None,
            unwritable: None,
            no_pressure: Duration::ZERO,
            lies: Duration::ZERO,
            locked: None,
            listener: None,
            missed: false,
            hung: Duration::ZERO,
            troubled: now,
            changed: now,
        }
    }

    pub(super) fn usage(&self) -> u64 {
        (self.hot + self.cold) as u64 / PAGE * PAGE
    }

    /// Lets time pass for the application. Returns true if it met its own limit.
    pub(super) fn advance(&mut self, now: Duration, kernel: KernelPlan) -> bool {
        let time = now.saturating_sub(self.advanced).as_secs_f64();
        self.advanced = self.advanced.max(now);
        self.cold += self.growth * time;
        let back = self.outside * (time / RETURNS).min(1.0);
        self.outside -= back;
        self.hot += back;
        self.counters.refaulted += back as u64;
        if kernel.stalls() {
            self.stalled += back / PAGE as f64 * 1e-4 * 1e6;
        }
        self.enforce(self.limit, kernel.spares != Spares::Nothing)
    }

    /// Makes the application reclaim down to a limit. Returns true if that was needed.
    fn enforce(&mut self, limit: u64, spares: bool) -> bool {
        let over = self.usage().saturating_sub(limit);
        if over == 0 {
            return false;
        }
        let freed = self.take(over as f64 + (32 * PAGE) as f64, spares);
        self.counters.direct += freed as u64;
        self.hits += 1;
        true
    }

    /// Reclaims, the memory that isn't in use first if that `spares` what is, and in proportion
    /// otherwise. Returns the bytes freed.
    pub(super) fn take(&mut self, bytes: f64, spares: bool) -> f64 {
        let share = if spares { 1.0 } else { self.cold / (self.cold + self.hot).max(1.0) };
        let cold = (bytes * share).min(self.cold);
        let hot = (bytes - cold).min(self.hot);
        self.cold -= cold;
        self.hot -= hot;
        self.outside += hot;
        self.counters.scanned += (cold + hot + if hot > 0.0 { self.hot } else { 0.0 }) as u64;
        cold + hot
    }
}
