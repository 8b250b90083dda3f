//! The control loop: samples each cgroup when it is due, hands actions to workers, and reports
//! their results.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::ancestors::Ancestors;
use super::context::Context;
use super::dispatcher::{Dispatcher, Ticket};
use super::event::{Ended, EventKind, ReclaimTally, Summary};
use super::host::HostState;
use super::hurry::Hurry;
use super::kernel::MAX_WORKERS;
use super::member::{Activity, Member, Step};
use super::meter::{Ledger, Meter};
use super::muted::Muted;
use super::notes::{Note, Noted};
use super::options::{Reload, RuledCgroup, Select, Show, Turned, WatchOptions};
use super::policy::cpu_budget::CpuBudget;
use super::policy::guard::{Allowed, Guard};
use super::policy::sampling_interval::SampleCost;
use super::rejected::Rejected;
use super::schedule::Schedule;
use super::swap_monitor::SwapMonitor;
use super::system::{ANCESTOR, DONE, System};
use super::worker::{Done, WriteJob};
use crate::cgroup::join::Joined;
use crate::kind::Kind;

mod end;
mod intervals;
mod limit_events;
mod membership;
mod metering;
mod news;
mod trigger;

/// Minimum time between two rounds: limit events and short actions may come more often.
const MIN_ROUND: Duration = Duration::from_millis(1);

/// Interval between searches for new cgroups.
const RENEW_INTERVAL: Duration = Duration::from_secs(2);

/// Interval between checks for signals while the CPU budget is used up.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(250);

/// Time for which actions don't pause, since a member waited for a worker for a slice or a limit above
/// was met.
const HURRY_TIME: Duration = Duration::from_millis(250);

/// Age of a decision from which it is made anew, when a worker is there for it.
const STALE: Duration = Duration::from_millis(100);

/// Settings of a watch that don't change.
#[allow(clippy::struct_excessive_bools)] // Each is a choice of its own.
#[derive(Clone, Copy, Debug)]
struct Settings {
    duration: Option<Duration>,
    dry_run: bool,
    each_action: bool,
    samples: bool,
    follows: bool,
}

/// Watches until a stop is requested. `members` are the cgroups that exist at the beginning.
pub(super) fn run<S: System>(
    system: S,
    members: Vec<Member<S>>,
    ancestors: Ancestors<S::Sampler>,
    rejected: Rejected,
    options: WatchOptions<'_>,
) -> Ended {
    let (began, cpu, expected) = (system.now(), system.cpu(), members.len());
    let WatchOptions { swap_writes, duration, dry_run, each_action, samples, follows, .. } = options;
    let mut ledger = Ledger::default();
    ledger.keep(&options.rules);
    let mut control = Control {
        // Collected in place: the members of a large host are most of the memory of a watch.
        members: members.into_iter().map(Some).collect(),
        ancestors,
        ancestors_changed: false,
        cx: Context {
            system,
            host: HostState { swap: SwapMonitor::new(swap_writes), ..HostState::default() },
            text: String::with_capacity(8192),
            now: began,
            began,
            has_meter: options.meter.is_some(),
            emit: options.emit,
        },
        schedule: Schedule::default(),
        dispatcher: Dispatcher::new(options.workers.max(1), MAX_WORKERS),
        hurry: Hurry::default(),
        hurries_until: Duration::ZERO,
        muted: Muted::default(),
        ready: Vec::with_capacity(64),
        pending: VecDeque::new(),
        rejected,
        ended: VecDeque::new(),
        others: Others::default(),
        is_blocked: false,
        has_workers: true,
        budget: CpuBudget::new(options.cpu, began, cpu),
        cost: SampleCost::new(began, cpu),
        lost: false,
        no_triggers: dry_run,
        noted: Noted::default(),
        expected,
        settings: Settings { duration, dry_run, each_action, samples, follows },
        joined: options.joined,
        stop: options.stop,
        select: options.select,
        reload: options.reload,
        turned: options.turned,
        show: options.show,
        ledger,
        meter: options.meter,
        note: options.note,
    };
    for slot in 0..expected {
        control.begin(slot);
    }
    control.run();
    control.end()
}

/// Cgroups that ended before the watch, and whose summaries aren't kept.
#[derive(Clone, Copy, Debug, Default)]
struct Others {
    count: u64,
    total: ReclaimTally,
}

#[allow(clippy::struct_excessive_bools)] // Each is a state of its own.
struct Control<'a, S: System> {
    settings: Settings,
    /// Members by slot; a slot stays empty after its cgroup is gone, until a new one is added.
    members: Vec<Option<Member<S>>>,
    ancestors: Ancestors<S::Sampler>,
    /// True if ancestors may want less since they were last updated.
    ancestors_changed: bool,
    cx: Context<'a, S>,
    schedule: Schedule,
    dispatcher: Dispatcher,
    /// Set while members wait for workers, or below a limit that is met, and until then.
    hurry: Hurry,
    hurries_until: Duration,
    muted: Muted,
    /// Ids of the events of the last wait.
    ready: Vec<u64>,
    /// Cgroups that were found and not added yet, and those that can't be watched for now.
    pending: VecDeque<RuledCgroup>,
    rejected: Rejected,
    ended: VecDeque<Summary>,
    others: Others,
    /// Number of cgroups at the beginning.
    expected: usize,
    is_blocked: bool,
    /// False once no worker could be started, which was reported.
    has_workers: bool,
    cost: SampleCost,
    budget: CpuBudget,
    /// True if a cgroup was lost since the last search for new ones.
    lost: bool,
    /// True if this process may not create triggers.
    no_triggers: bool,
    /// Notes on killers that were emitted already.
    noted: Noted,
    joined: Option<Joined>,
    stop: &'a dyn Fn() -> bool,
    select: Option<&'a mut Select<'a>>,
    reload: Option<&'a mut dyn FnMut() -> Option<Reload>>,
    turned: Option<&'a mut Turned<'a>>,
    show: Option<(Duration, &'a mut Show<'a>)>,
    /// Counters of the rules, for `meter`.
    ledger: Ledger,
    meter: Option<&'a dyn Meter>,
    note: Option<&'a mut dyn FnMut(&Note)>,
}

impl<S: System> Control<'_, S> {
    fn run(&mut self) {
        let (mut renewed_at, mut shown_at) = (self.cx.began, Duration::ZERO);
        let first = self.cx.host.killers.ask_first(self.cx.began, &mut self.cx.system);
        self.learn_killers(first);
        let mut last_round: Option<Duration> = None;
        loop {
            let mut now = self.cx.refresh();
            if let Some(early) = last_round.and_then(|last| (last + MIN_ROUND).checked_sub(now)) {
                self.cx.system.pause(early);
                now = self.cx.refresh();
            }
            last_round = Some(now);
            if (self.stop)() || self.settings.duration.is_some_and(|most| self.cx.elapsed() >= most) {
                return;
            }
            if let Some(reload) = self.reload.as_mut().and_then(|reload| reload()) {
                self.reload(reload);
            }
            let turn = self.turned();
            if now.saturating_sub(renewed_at) >= RENEW_INTERVAL {
                renewed_at = now;
                self.update_ancestors();
                self.renew();
                self.leave_if_alone();
            }
            self.add_pending();
            let answer = self.cx.host.killers.renew(now, &mut self.cx.system);
            self.learn_killers(answer);
            self.adjust_intervals();
            let system = &self.cx.system;
            if let Some(until) = self.budget.over(now, || system.cpu()) {
                // Limit events are not sampled then either: samples alone could use up the whole
                // budget.
                self.take_done();
                self.hold_due(until);
                self.meter();
                self.cx.system.pause(until.saturating_sub(now).min(SIGNAL_INTERVAL));
                continue;
            }
            self.rearm();
            self.sample_due();
            self.dispatch();
            self.report_if_blocked();
            if let Some((interval, show)) = &mut self.show
                && now.saturating_sub(shown_at) >= *interval
            {
                shown_at = now;
                let text = &mut self.cx.text;
                show(&mut self.members.iter().flatten().map(|member| member.view(now, text)));
            }
            self.meter();
            let show = self.show.as_ref().map(|(interval, _)| shown_at + *interval);
            let others = [show, self.meter.map(Meter::due)];
            let next = others.into_iter().flatten().fold(renewed_at + RENEW_INTERVAL, Duration::min);
            self.wait(next.min(turn));
        }
    }

    /// Reports a turn, and returns the time at which the next one is due.
    fn turned(&mut self) -> Duration {
        let (members, now) = (&self.members, self.cx.now);
        let watched = || members.iter().flatten().filter(|member| member.closing.is_none()).count();
        self.turned.as_mut().map_or(Duration::MAX, |turned| now.saturating_add(turned(&watched)))
    }

    /// Waits until something is due, and handles events.
    fn wait(&mut self, renew: Duration) {
        let now = self.cx.refresh();
        if self.dispatcher.is_overdue(now) {
            self.hurries_until = now + HURRY_TIME;
        }
        self.hurry.set(now < self.hurries_until);
        let end = self.settings.duration.map(|most| self.cx.began + most);
        let hurries = Some(self.hurries_until).filter(|&until| until > now);
        let others = [end, self.muted.due(), self.dispatcher.due(now), hurries];
        let next = others.into_iter().flatten().fold(renew.min(self.schedule.earliest()), Duration::min);
        // An action that ended in this round, and goes on, was left for the next one.
        let goes_on = !self.pending.is_empty() || self.dispatcher.is_ready(now);
        let next = if goes_on { now } else { next };
        // A signal ends the wait early, and is handled next.
        self.cx.system.wait(next.saturating_sub(now), &mut self.ready);
        self.cx.refresh();
        for index in 0..self.ready.len() {
            match self.ready[index] {
                DONE => self.take_done(),
                id if id & ANCESTOR != 0 => self.ancestor_hit(id & !ANCESTOR),
                slot => self.member_hit(slot),
            }
        }
    }

    /// Sets the time at which a slot is due, after its member may have changed.
    fn plan(&mut self, slot: usize) {
        let due = self.members[slot].as_ref().map_or(Duration::MAX, |member| {
            let sample = if member.is_idle() { member.due } else { Duration::MAX };
            sample.min(member.report_due().unwrap_or(Duration::MAX))
        });
        self.schedule.set(slot, due);
    }

    fn sample_due(&mut self) {
        let (mut from, round) = (0, self.cx.now);
        while let Some(slot) = self.schedule.next_slot(from, round) {
            from = slot + 1;
            self.cx.refresh();
            self.sample(slot);
            self.plan(slot);
        }
    }

    /// Samples a member if it is due, or else reports its work.
    fn sample(&mut self, slot: usize) {
        let Some(member) = &mut self.members[slot] else { return };
        if !member.is_idle() || member.due > self.cx.now {
            if member.report_due().is_some_and(|due| due <= self.cx.now) {
                member.flush(false, &mut self.cx);
            }
            return;
        }
        let step = member.sample(&mut self.cx);
        if self.settings.samples && step != Step::Gone {
            member.emit_sample(false, &mut self.cx);
        }
        self.follow(slot, step);
        self.keep_trigger(slot);
    }

    fn hold_due(&mut self, until: Duration) {
        // What waits for a worker, as an action that goes on does, is due as well.
        while let Some(ticket) = self.dispatcher.pop_any() {
            let Some(Some(member)) = self.members.get_mut(ticket.slot) else { continue };
            if member.id() == ticket.id && member.activity == Activity::Queued {
                member.unqueue();
                member.hold(Guard::Cpu, Some(until), &mut self.cx);
                self.plan(ticket.slot);
            }
        }
        let (mut from, round) = (0, self.cx.now);
        while let Some(slot) = self.schedule.next_slot(from, round) {
            from = slot + 1;
            if let Some(member) = &mut self.members[slot] {
                if member.is_idle() {
                    member.hold(Guard::Cpu, Some(until), &mut self.cx);
                } else {
                    member.flush(false, &mut self.cx);
                }
            }
            self.plan(slot);
        }
    }

    fn follow(&mut self, slot: usize, step: Step) {
        let Some(member) = &mut self.members[slot] else { return };
        match step {
            Step::Rest => {}
            Step::Gone => self.gone(slot),
            Step::Act(allowed) if self.settings.dry_run => member.emit_would(allowed.down_to, &mut self.cx),
            Step::Act(allowed) => {
                member.queue();
                let (id, located, queued_at) = (member.id(), Arc::clone(&member.located), self.cx.now);
                self.dispatcher.push(member.owner, Ticket { slot, id, located, queued_at, allowed });
            }
        }
    }

    /// Hands actions to workers, as many as there are. An action that ends here and goes on has to
    /// wait for the next round, since signals and others have to be looked at in between.
    fn dispatch(&mut self) {
        for _ in 0..self.dispatcher.waiting() {
            let Some((owner, ticket)) = self.dispatcher.pop(self.cx.now) else { return };
            let Some(Some(member)) = self.members.get_mut(ticket.slot) else { continue };
            if member.id() != ticket.id || member.activity != Activity::Queued {
                continue;
            }
            member.unqueue();
            let now = self.cx.refresh();
            let step = if now.saturating_sub(ticket.queued_at) < STALE {
                Step::Act(ticket.allowed)
            } else {
                member.sample(&mut self.cx)
            };
            match step {
                Step::Act(allowed) => self.start(owner, &ticket, &allowed),
                step => self.follow(ticket.slot, step),
            }
            self.plan(ticket.slot);
        }
    }

    /// Begins an action: in a worker, or in this thread where no other member would have to wait
    /// for it, or where there are no workers.
    fn start(&mut self, owner: u64, ticket: &Ticket, allowed: &Allowed) {
        let (slot, id, now) = (ticket.slot, ticket.id, self.cx.now);
        let Some(member) = &mut self.members[slot] else { return };
        let (lock, located) = (member.locks(now), Arc::clone(&member.located));
        let (handle, hurry) = (member.handle.take(), self.hurry.clone());
        let mut job = WriteJob { slot, id, located, handle, allowed: *allowed, lock, hurry };
        member.begin(allowed, &mut self.cx);
        if allowed.kind != Kind::File && self.cx.host.swap.is_news_that_writes_are_unknown() {
            self.emit_note(&Note::WritesUnknown);
        }
        if self.members.len() > 1 {
            self.dispatcher.started(owner, ticket, now);
            match self.cx.system.start(job) {
                Ok(()) => return,
                Err(rejected) => job = rejected,
            }
            self.dispatcher.ended(slot, id);
            // All others wait while this thread writes.
            self.hurry.set(true);
            if std::mem::take(&mut self.has_workers) {
                self.emit_note(&Note::NoWorkers);
            }
        }
        let done = self.cx.system.run_here(job, self.stop);
        self.done(done);
    }

    fn take_done(&mut self) {
        while let Some(done) = self.cx.system.finished() {
            self.dispatcher.ended(done.slot, done.id);
            self.is_blocked = false;
            self.done(done);
        }
    }

    fn done(&mut self, done: Done<S::Target>) {
        self.cx.refresh();
        self.cost.wrote += done.result.cpu;
        let slot = done.slot;
        let Some(Some(member)) = self.members.get_mut(slot) else { return };
        if member.id() != done.id {
            return;
        }
        member.handle = done.handle;
        if self.settings.each_action && done.result.writes > 0 {
            self.cx.emit(&member.located.name, EventKind::Acted(done.result));
        }
        let step = member.acted(&done.result, &mut self.cx);
        match member.closing {
            Some(gone) => self.close(slot, gone),
            None => self.follow(slot, step),
        }
        self.plan(slot);
    }
}
