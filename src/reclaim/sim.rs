//! A simulated kernel, for behaviour that a real one won't show on command.
//!
//! It follows the loop of `memory_reclaim` (mm/memcontrol.c, 5.19): batches until the request is
//! met, `EAGAIN` after seventeen batches without progress, checks for signals between batches only.
//! It has its own clock, and it can free slab along without counting it, over-reclaim, lag in its
//! counters, swap slowly, demote, lie, lose the cgroup, and be interrupted.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;

use self::device::Device;
use super::Target;
use crate::cgroup::Conditions;
use crate::cgroup::stat::MemoryStat;
use crate::cgroup::swap_room::{SwapBound, SwapRoom};
use crate::host::PsiState;
use crate::host::zram::Zram;
use crate::kind::Swappiness;

mod device;

pub(crate) const PAGE: u64 = 4096;

/// Result that the kernel returns at the end of its loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manners {
    /// `EAGAIN` when less than the request was freed.
    Honest,
    /// Always success, however much was freed: the patch of September 2020, as it appears to a
    /// caller that checks nothing else.
    Always,
    /// Success, and nothing done: 6.17 and 6.18 without `CONFIG_NUMA`.
    Idle,
}

/// Counters in the simulated `memory.stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counters {
    Proactive,
    Direct,
    Total,
    Missing,
}

/// Accounting of swap to cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SwapAccounting {
    On,
    /// Neither counters nor `memory.swap.current`: `swapaccount=0`, before 6.1.
    Off,
}

/// The simulated kernel with its one cgroup. Amounts are pages.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "settings that are independent of each other")]
pub(crate) struct Sim {
    // Settings.
    pub file: u64,
    pub anon: u64,
    /// Pages on their way to swap, still in memory.
    pub writeback: u64,
    /// Pages written to swap and still in memory, until reclaim visits them again.
    pub swap_cache: u64,
    pub swap_room: u64,
    /// Pages in the swap cache that are in use, and pages of files that the application writes all
    /// the time.
    pub in_use: u64,
    pub app_writes: u64,
    /// State of PSI; stalls are counted only where it is on.
    pub psi: PsiState,
    /// Speed of the swap in pages per second; `None` for at once, like zram.
    pub swap_speed: Option<u64>,
    pub device: Device,
    /// Pages per second that the application takes back from those on their way to swap.
    pub touch_speed: u64,
    /// Pages per millisecond that a batch submits to swap.
    pub submit_speed: u64,
    /// Whether the alarm ends a batch while it submits: since 7.2.
    pub is_interruptible: bool,
    /// Size of a copy in zram, in percent of the page; `None` if swap is no zram.
    pub zram_percent: Option<u64>,
    pub swap_accounting: SwapAccounting,
    pub manners: Manners,
    pub counters: Counters,
    /// Maximum ratio of the pages that a batch frees to those requested.
    pub overshoot: u64,
    /// Lag of the counters, in pages: the most recent pages don't show yet.
    pub lag: u64,
    /// True if pages that are written to swap stay in memory all the same.
    pub stuck: bool,
    /// Pages that can be demoted instead of freed.
    pub lower_tier: u64,
    /// Dentries and inodes, and the number that a batch frees along without counting them: more
    /// where it finds nothing else.
    pub slab: u64,
    pub slab_along: u64,
    /// Delay between the batch and the moment when the slab is gone.
    pub grace: Duration,
    /// True if the kernel's loop counts slab, though its counters don't: before 6.4.
    pub loop_counts_slab: bool,
    /// Memory that a batch frees along and that no key of `memory.stat` shows.
    pub hidden: u64,
    pub hidden_along: u64,
    /// Anonymous memory that the application frees, and the moment when it does.
    pub frees: Option<(Duration, u64)>,
    /// True if there is no `memory.current`.
    pub root: bool,
    /// Pages per second that the application adds to its cache, or frees.
    pub growth: i64,
    /// Duration of one batch.
    pub batch_time: Duration,
    /// Share of the time in which the application is stalled, in percent.
    pub stall_percent: u32,
    /// Moment from which it is stalled all the time.
    pub stalled_from: Option<Duration>,
    pub signal_at: Option<Duration>,
    pub removed_at: Option<Duration>,
    /// Moment until which another writer reclaims from the same node.
    pub busy_until: Duration,
    // Results.
    pub clock: Rc<Cell<Duration>>,
    pub stolen: u64,
    pub demoted: u64,
    pub swapped: u64,
    /// Pages whose copies in swap the application made obsolete.
    pub taken_back: u64,
    pub asked: Vec<u64>,
    pub asked_at: Duration,
    /// State before each request: pages in use, and pages that the application had freed.
    pub at_ask: Vec<(u64, u64)>,
    pub slab_freed: u64,
    pub hidden_freed: u64,
    pub freed_by_app: u64,
    /// Slab within a grace period, and the moment when it ends.
    pub pending: Vec<(Duration, u64)>,
    pub grown_until: Duration,
}

impl Sim {
    /// Creates a quiet, honest, exact kernel, with this much page cache.
    pub(crate) fn new(file_bytes: u64) -> Self {
        Self {
            file: file_bytes / PAGE,
            anon: 0,
            writeback: 0,
            swap_cache: 0,
            swap_room: 0,
            in_use: 0,
            app_writes: 0,
            psi: PsiState::On,
            swap_speed: None,
            device: Device::default(),
            touch_speed: 0,
            submit_speed: 1 << 30,
            is_interruptible: false,
            zram_percent: None,
            swap_accounting: SwapAccounting::On,
            manners: Manners::Honest,
            counters: Counters::Proactive,
            overshoot: 1,
            lag: 0,
            stuck: false,
            lower_tier: 0,
            slab: 0,
            slab_along: 0,
            grace: Duration::ZERO,
            loop_counts_slab: false,
            hidden: 0,
            hidden_along: 0,
            frees: None,
            root: false,
            growth: 0,
            batch_time: Duration::from_micros(50),
            stall_percent: 0,
            stalled_from: None,
            signal_at: None,
            removed_at: None,
            busy_until: Duration::ZERO,
            clock: Rc::default(),
            stolen: 0,
            demoted: 0,
            swapped: 0,
            taken_back: 0,
            asked: Vec::new(),
            asked_at: Duration::ZERO,
            at_ask: Vec::new(),
            slab_freed: 0,
            hidden_freed: 0,
            freed_by_app: 0,
            pending: Vec::new(),
            grown_until: Duration::ZERO,
        }
    }

    /// Returns the bytes really reclaimed, demotions apart.
    pub(crate) fn truth(&self) -> u64 {
        (self.stolen - self.demoted + self.slab_freed) * PAGE
    }

    /// Returns the bytes really reclaimed, as far as the counters on offer can show: `pgsteal`
    /// alone doesn't separate demotions.
    pub(crate) fn visible_truth(&self) -> u64 {
        if self.counters == Counters::Total { (self.stolen + self.slab_freed) * PAGE } else { self.truth() }
    }

    /// Returns the pages on their way to swap, written ones included.
    fn on_its_way(&self) -> u64 {
        self.writeback + self.swap_cache
    }

    pub(crate) fn usage_bytes(&self) -> u64 {
        let lists = self.file + self.anon + self.on_its_way() + self.in_use + self.demoted;
        let beside = if self.root { 0 } else { self.slab + self.slab_pending() + self.hidden };
        (lists + beside) * PAGE
    }

    fn slab_pending(&self) -> u64 {
        self.pending.iter().map(|&(_, pages)| pages).sum()
    }

    /// Returns a function that reports whether the signal has arrived, independent of `self`.
    pub(crate) fn signal(&self) -> impl Fn() -> bool + use<> {
        let (clock, at) = (Rc::clone(&self.clock), self.signal_at);
        move || at.is_some_and(|at| clock.get() >= at)
    }

    fn passed(&self, moment: Option<Duration>) -> bool {
        moment.is_some_and(|at| self.clock.get() >= at)
    }

    fn live(&self) -> Result<(), Errno> {
        if self.passed(self.removed_at) { Err(Errno::NODEV) } else { Ok(()) }
    }

    /// Advances the clock: the application grows or shrinks, the swap takes what is on its way.
    fn elapse(&mut self, time: Duration) {
        self.clock.set(self.clock.get() + time);
        let now = self.clock.get();
        self.pending.retain(|&(at, _)| at > now);
        if let Some((_, pages)) = self.frees.take_if(|&mut (at, _)| at <= now) {
            let freed = pages.min(self.anon);
            self.anon -= freed;
            self.freed_by_app += freed;
        }
        // Whole milliseconds, so that nothing is lost to rounding.
        let since = self.clock.get().checked_sub(self.grown_until).unwrap().as_millis();
        if since > 0 {
            self.grown_until += Duration::from_millis(since as u64);
            let pages = i128::from(self.growth) * since as i128 / 1000;
            let file = (i128::from(self.file) + pages).max(0) as u64;
            self.freed_by_app += self.file.saturating_sub(file);
            self.file = file;
            self.device.elapse(since as u64, self.swap_speed);
            self.write_out();
            self.app_takes_back(since as u64);
        }
    }

    /// Does one batch, as `try_to_free_mem_cgroup_pages`. Returns the pages that the kernel counts
    /// as reclaimed.
    fn batch(&mut self, wanted: u64, anon: bool, file: bool) -> u64 {
        self.elapse(self.batch_time);
        let most = wanted * self.overshoot;
        let mut freed = 0;
        let take = |from: &mut u64, most: u64| {
            let taken = most.min(*from);
            *from -= taken;
            taken
        };
        if anon && !self.stuck {
            freed += take(&mut self.swap_cache, most);
        }
        if file {
            let taken = take(&mut self.file, most - freed);
            let down = taken.min(self.lower_tier);
            // Demoted: still charged, but counted as reclaimed and out of reach from here.
            self.lower_tier -= down;
            self.demoted += down;

            freed += taken;
        }
        if anon && self.swap_speed.is_none() {
            let room = self.swap_room.saturating_sub(self.writeback);
            let out = take(&mut self.anon, (most - freed).min(room));
            self.swap_room -= out;
            self.swapped += out;
            freed += out;
        } else if anon {
            freed = self.sweep(freed, most);
        }
        self.stolen += freed;
        // The harder the kernel has to search, the harder it shrinks slab.
        let times = if freed == 0 { 8 } else { 1 };
        let slab = take(&mut self.slab, self.slab_along * times);
        self.slab_freed += slab;
        if slab > 0 && !self.grace.is_zero() {
            self.pending.push((self.clock.get() + self.grace, slab));
        }
        self.hidden_freed += take(&mut self.hidden, self.hidden_along);
        freed + if self.loop_counts_slab { slab } else { 0 }
    }

    /// Returns whether the alarm has gone off during the write.
    fn has_alarm(&self) -> bool {
        let armed = ALARM.get().map(|after| self.asked_at + after);
        self.is_interruptible && self.passed(armed)
    }
}

thread_local! {
    /// Alarm of the simulated kernel.
    static ALARM: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// Sets the alarm of the simulated kernels of this thread.
pub(crate) fn alarm(after: Option<Duration>) {
    ALARM.set(after);
}

impl Target for Sim {
    fn usage(&mut self) -> Result<u64, Errno> {
        self.live()?;
        Ok(self.usage_bytes())
    }

    fn has_current(&self) -> bool {
        !self.root
    }

    fn stat(&mut self, flush: bool) -> Result<MemoryStat, Errno> {
        self.live()?;
        let lag = if flush { 0 } else { self.lag };
        let stolen = Some(self.stolen.saturating_sub(lag));
        let demoted = Some(self.demoted.saturating_sub(lag));
        let mut stat = MemoryStat {
            anon: Some(self.anon * PAGE),
            file: Some((self.file + self.demoted + self.on_its_way()) * PAGE),
            inactive_anon: Some((self.anon + self.on_its_way()) * PAGE),
            active_anon: Some(0),
            inactive_file: Some(self.file * PAGE),
            active_file: Some(0),
            slab_reclaimable: Some((self.slab + self.slab_pending() + self.slab_freed.min(lag)) * PAGE),
            file_writeback: Some((self.writeback + self.app_writes) * PAGE),
            swapcached: Some((self.on_its_way() + self.in_use) * PAGE),
            pswpout: (self.swap_accounting == SwapAccounting::On).then_some(self.swapped),
            ..MemoryStat::default()
        };
        match self.counters {
            Counters::Proactive => (stat.pgsteal_proactive, stat.pgdemote_proactive) = (stolen, demoted),
            Counters::Direct => (stat.pgsteal_direct, stat.pgdemote_direct) = (stolen, demoted),
            Counters::Total => stat.pgsteal = stolen,
            Counters::Missing => {}
        }
        Ok(stat)
    }

    fn blind_spot(&self) -> u64 {
        self.lag * PAGE
    }

    fn stalled(&mut self) -> Option<Duration> {
        if self.psi != PsiState::On {
            return None;
        }
        let now = self.clock.get();
        let standstill = self.stalled_from.map_or(Duration::ZERO, |from| now.saturating_sub(from));
        Some(now.saturating_sub(standstill) * self.stall_percent / 100 + standstill)
    }

    fn swap_usage(&mut self) -> Option<u64> {
        (self.swap_accounting == SwapAccounting::On).then_some((self.swapped - self.taken_back) * PAGE)
    }

    fn zram(&mut self) -> Option<Zram> {
        let original = self.swapped * PAGE;
        self.zram_percent.map(|percent| Zram { original, used: original * percent / 100 })
    }

    fn psi(&self) -> PsiState {
        self.psi
    }

    fn sees_zram(&self) -> bool {
        true
    }

    fn conditions(&mut self) -> Conditions {
        let bound = if self.swap_room == 0 { SwapBound::NoSwap } else { SwapBound::Free };
        Conditions { swap: Some(SwapRoom { bytes: self.swap_room * PAGE, bound }), ..Conditions::default() }
    }

    fn reclaim(&mut self, bytes: u64, swappiness: Option<Swappiness>) -> Result<(), Errno> {
        const RETRIES: u32 = 16;
        assert!(bytes > 0 && bytes.is_multiple_of(PAGE), "the kernel would round {bytes} down");
        self.asked.push(bytes);
        self.asked_at = self.clock.get();
        self.at_ask.push((self.usage_bytes() / PAGE, self.freed_by_app));
        self.live()?;
        if self.clock.get() < self.busy_until {
            return Err(Errno::BUSY);
        }
        if self.manners == Manners::Idle {
            self.elapse(self.batch_time);
            return Ok(());
        }
        let wanted = bytes / PAGE;
        let (mut reclaimed, mut retries) = (0, RETRIES);
        while reclaimed < wanted {
            let armed = ALARM.get().map(|after| self.asked_at + after);
            if self.passed(self.signal_at) || self.passed(armed) {
                return Err(Errno::INTR);
            }
            self.live()?;
            let batch = ((wanted - reclaimed) / 4).max(32).min(wanted - reclaimed);
            let anon = swappiness != Some(Swappiness::Value(0));
            let file = swappiness != Some(Swappiness::Max);
            let freed = self.batch(batch, anon, file);
            if freed == 0 {
                if retries == 0 {
                    return if self.manners == Manners::Always { Ok(()) } else { Err(Errno::AGAIN) };
                }
                retries -= 1;
            }
            reclaimed += freed;
        }
        Ok(())
    }

    fn accepts(&mut self, _: Swappiness) -> Result<bool, Errno> {
        // Kernels that overshoot are older than the key.
        Ok(self.overshoot == 1)
    }

    fn now(&self) -> Duration {
        self.clock.get()
    }

    fn cpu(&self) -> Duration {
        self.clock.get()
    }

    fn pause(&mut self, time: Duration) {
        self.elapse(time);
    }
}

#[test]
fn the_simulated_kernel_keeps_its_pages() {
    let mut sim = Sim::new(100 * PAGE);
    assert_eq!(sim.reclaim(40 * PAGE, None), Ok(()));
    assert_eq!((sim.file, sim.truth()), (60, 40 * PAGE));
    assert_eq!(sim.reclaim(100 * PAGE, None), Err(Errno::AGAIN));
    assert_eq!((sim.file, sim.truth()), (0, 100 * PAGE));
}
