//! The law of `--pressure`: from looks at a cgroup to how much to press out of it, and when. A pure function of what it is
//! shown.
//!
//! Memory that was touched of late and memory that wasn't look the same to the kernel until it has gone over both once,
//! some time apart. So each approach begins with a press too small to matter, which makes the kernel sort its lists, and
//! steps double as long as nothing comes back. What comes back (restores and swap-ins) is the first sign that what is left
//! is in use; stall comes later, and has a budget: the target's share of the time. So is it when the kernel looks at much
//! for the little that it takes (scan efficiency), twice in a row: once may be that its lists weren't sorted. At such a
//! *knee* the law holds, and probes again after a while, at last every [`SELDOM`].

use std::time::Duration;

/// How often to press while nothing comes back.
pub const EACH: Duration = Duration::from_millis(250);

/// The least and the most that is pressed out in a second: bytes, and a share of the usage.
const MIN_RATE: u64 = 512 << 10;
const MAX_RATE_SHARE: f64 = 0.1;

/// Steps grow so much each second.
const GROWTH: f64 = 2.0;

/// After a knee the law holds for so long, then twice that, and so on.
const FIRST_HOLD: Duration = Duration::from_secs(2);
/// See `FIRST_HOLD`.
pub const SELDOM: Duration = Duration::from_secs(16);

/// What was pressed out is expected back, if at all, within about that time.
const WINDOW: Duration = Duration::from_secs(2);

/// When more of what was pressed out comes back than that, it was in use.
const KNEE: f64 = 0.1;

/// Of what was looked at for reclaim less than that could be taken, where only what is in use is left, or nothing was sorted
/// yet: 1 to 3%, and else all of it (Linux 7.3, MGLRU). Less than so many bytes tell nothing.
const POOR: f64 = 0.2;
const SCANNED: u64 = 1 << 20;

/// So many bytes come back by chance.
const CHANCE: u64 = 64 << 10;

/// The budget of stall is the target's share of so much time. The first approach, of which most is cold, has a budget of
/// its own: so much, and so many times the target's share of the time that it takes.
const BUDGET: Duration = Duration::from_secs(60);
const APPROACH: Duration = Duration::from_millis(200);
const APPROACHING: f64 = 4.0;

/// The stall that a byte costs when it comes back, until it is known: 25 us a page, about what zram takes. Microseconds.
const PRICE: f64 = 25.0 / 4096.0;

/// From so many bytes on the price can be told.
const PRICED: f64 = 128.0 * 1024.0;

/// What isn't written yet is no more than that before more is pressed out.
const UNWRITTEN: u64 = 256 << 10;

/// A write that waits for longer than that waits for a device.
const BEHIND: Duration = Duration::from_millis(20);

/// What a cgroup is like. Amounts are bytes, and counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PressureSample {
    /// When, on the monotonic clock.
    pub at: Duration,
    /// `memory.current`.
    pub current: u64,
    /// For how long its tasks were stalled for want of memory (PSI `some`); 0 where the kernel doesn't tell.
    pub stalled: Duration,
    /// For how long they waited for input or output (PSI `some` of IO); 0 where the kernel doesn't tell.
    pub waited: Duration,
    /// What came back and is in use: restores and swap-ins.
    pub returned: u64,
    /// Page cache that could be evicted now.
    pub file: u64,
    /// What went to swap.
    pub swapped_out: u64,
    /// What is on its way there, or to disk, now.
    pub writeback: u64,
    /// What was looked at for reclaim, and what of that was taken; 0 where the kernel doesn't tell.
    pub scanned: u64,
    /// See `scanned`.
    pub taken: u64,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PressureDecision {
    /// Nothing, until then.
    Rest(Duration),
    /// Press so many bytes out.
    Press(u64),
    /// What is left is in use: nothing, until then.
    Knee(Duration),
}

/// Whether anonymous memory was come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Swapping {
    /// So much had been swapped out at first.
    NotYet(u64),
    Begun,
}

/// What is known of one cgroup.
#[derive(Clone, Debug)]
pub struct PressurePolicy {
    target: f64,
    /// What is pressed out in a second.
    rate: f64,
    /// When to look next.
    due: Duration,
    last: Option<PressureSample>,
    /// What was pressed out, and what came back, of late: both fade over the window.
    pressed: f64,
    returned: f64,
    /// What comes back in a second without any of it, and the waiting for devices then, microseconds.
    usual: f64,
    usual_wait: f64,
    /// The stall that may still be caused, microseconds.
    budget: f64,
    /// The stall that a byte cost when it came back, microseconds.
    price: f64,
    /// Whether anonymous memory was come to: with how much swapped out it began.
    swap: Swapping,
    /// How long it held last; nothing as long as it approaches.
    hold: Duration,
    /// Whether there was a knee.
    found: bool,
    /// How often in a row much was looked at and little taken.
    poor: u32,
}

impl PressurePolicy {
    /// For a cgroup of which nothing is known yet, to be stalled for that share of the time.
    #[must_use]
    pub fn new(target: f64) -> Self {
        Self {
            target,
            rate: MIN_RATE as f64,
            due: Duration::ZERO,
            last: None,
            pressed: 0.0,
            returned: 0.0,
            usual: 0.0,
            usual_wait: 0.0,
            budget: APPROACH.as_micros() as f64,
            price: PRICE,
            swap: Swapping::Begun,
            hold: Duration::ZERO,
            found: false,
            poor: 0,
        }
    }

    /// Stalls it for that share of the time from now on; what was learned stays.
    pub fn adopt(&mut self, target: f64) {
        self.target = target;
    }

    /// When it wants to look next.
    #[must_use]
    pub fn due(&self) -> Duration {
        self.due
    }

    /// Enters what was reclaimed, and for how long whoever did had to wait: for a swap device that is behind, for one.
    pub fn reclaimed(&mut self, bytes: u64, waited: Duration) {
        self.pressed += bytes as f64;
        // Those who use the device wait as well.
        if waited > BEHIND {
            self.budget -= waited.as_micros() as f64;
        }
    }

    /// Enters a look, and decides.
    pub fn decide(&mut self, sample: PressureSample) -> PressureDecision {
        let Some(last) = self.last.replace(sample) else {
            // What is usual has to be known first.
            self.swap = Swapping::NotYet(sample.swapped_out);
            self.due = sample.at + 4 * EACH;
            return PressureDecision::Rest(self.due);
        };
        let time = sample.at.saturating_sub(last.at).as_secs_f64().max(1e-3);
        let came = sample.returned.saturating_sub(last.returned) as f64;
        let waited = sample.waited.saturating_sub(last.waited).as_micros() as f64;
        let fade = (-time / WINDOW.as_secs_f64()).exp();
        let excess = (came - self.usual * time).max(0.0);
        self.returned = self.returned * fade + excess;
        // What it reads and writes on its own account is no concern of ours: but if something comes back, it waits for that.
        let io = if excess > CHANCE as f64 { (waited - self.usual_wait * time).max(0.0) } else { 0.0 };
        let stalled = (sample.stalled.saturating_sub(last.stalled).as_micros() as f64).max(io);
        if came >= PRICED {
            self.price += 0.5 * (stalled / came - self.price);
        }
        if self.pressed < 1.0 {
            let weight = (time / 10.0).min(1.0);
            self.usual += weight * (came / time - self.usual);
            self.usual_wait += weight * (waited / time - self.usual_wait);
        }
        let settled = self.target * BUDGET.as_micros() as f64;
        let (most, refill) = if self.found {
            (settled, self.target)
        } else {
            (settled.max(APPROACH.as_micros() as f64), APPROACHING * self.target)
        };
        self.budget = (self.budget + refill * time * 1e6 - stalled).clamp(-settled, most);
        let share = self.returned / self.pressed.max(1.0);
        let hurts = self.returned > CHANCE as f64 && share > KNEE;
        self.pressed = if self.pressed * fade < 4096.0 { 0.0 } else { self.pressed * fade };
        let scanned = sample.scanned.saturating_sub(last.scanned);
        if scanned >= SCANNED {
            let taken = sample.taken.saturating_sub(last.taken);
            self.poor = if (taken as f64) < POOR * scanned as f64 { self.poor + 1 } else { 0 };
            if self.poor > 0 {
                self.rate = MIN_RATE as f64;
            }
        }
        if hurts || self.poor > 1 {
            return PressureDecision::Knee(self.hold(sample.at));
        }
        if self.budget < 0.0 {
            let paid_off = (-self.budget / (refill * 1e6)).clamp(EACH.as_secs_f64(), SELDOM.as_secs_f64());
            self.due = sample.at + Duration::from_secs_f64(paid_off);
            return PressureDecision::Rest(self.due);
        }
        let cache_ends = (sample.file as f64) < 2.0 * self.rate * EACH.as_secs_f64();
        if let Swapping::NotYet(before) = self.swap
            && (cache_ends || sample.swapped_out > before)
        {
            // Its lists aren't sorted yet, and its price isn't known.
            (self.swap, self.rate) = (Swapping::Begun, MIN_RATE as f64);
        }
        if sample.writeback > UNWRITTEN {
            // Whoever needs something back from there would wait behind it.
            self.rate = (self.rate / 2.0).max(MIN_RATE as f64);
            self.due = sample.at + EACH;
            return PressureDecision::Rest(self.due);
        }
        // No more than the budget could pay for, were all of it to come back.
        let affordable = self.budget / self.price.max(1e-9) / EACH.as_secs_f64();
        let most = (sample.current as f64 * MAX_RATE_SHARE).min(affordable).max(MIN_RATE as f64);
        let step = self.rate.clamp(MIN_RATE as f64, most);
        self.rate = (step * GROWTH.powf(EACH.as_secs_f64())).max(MIN_RATE as f64);
        self.due = sample.at + EACH;
        PressureDecision::Press((step * EACH.as_secs_f64()) as u64)
    }

    /// What is in use seems to have changed: it looks at once, and begins with short holds.
    pub fn changed(&mut self, now: Duration) {
        (self.hold, self.due) = (Duration::ZERO, now);
    }

    /// It is held back for some time: what came back and stalled meanwhile says nothing of what is pressed out later. It
    /// begins gently then, with what is usual and what a byte costs still known.
    pub fn interrupted(&mut self) {
        self.last = None;
        self.rate = MIN_RATE as f64;
        (self.pressed, self.returned, self.poor) = (0.0, 0.0, 0);
    }

    /// There was nothing more to be had.
    pub fn exhausted(&mut self, now: Duration) {
        self.hold(now);
    }

    fn hold(&mut self, now: Duration) -> Duration {
        self.hold = (self.hold * 2).clamp(FIRST_HOLD, SELDOM);
        (self.found, self.poor) = (true, 0);
        self.rate = MIN_RATE as f64;
        (self.pressed, self.returned) = (0.0, 0.0);
        self.due = now + self.hold;
        self.due
    }
}

#[cfg(test)]
mod tests;
