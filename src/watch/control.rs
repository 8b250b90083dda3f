//! The control loop: samples each cgroup when it is due, hands actions to workers, and reports
//! their results.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::time::Timespec;

use super::event::{Ended, Event, EventKind, Summary};
use super::host::HostState;
use super::level::Outrun;
use super::member::{Member, Step};
use super::notes::{Note, Noted, notes};
use super::options::WatchOptions;
use super::policy::cpu_budget::CpuBudget;
use super::policy::guard::Guard;
use super::policy::sampling_interval::SamplingInterval;
use super::poller::Poller;
use super::swap_monitor::SwapMonitor;
use super::worker::{Done, STACK, Worker, WriteJob, serve};
use crate::cgroup::trigger::Trigger;
use crate::cgroup::{CgroupPath, Name};
use crate::clock::{now, pause, process_cpu, timespec};
use crate::reclaim::pool::{Message, Pool};

mod fleet;

/// Grid to which distant samples are aligned, so that a thousand cgroups at rest don't cause a
/// thousand wake-ups; and distance from which a sample is aligned.
const GRID: Duration = Duration::from_millis(100);
const FAR: Duration = Duration::from_millis(500);

/// Interval between searches for new cgroups.
const RENEWED: Duration = Duration::from_secs(2);

/// Time for which a limit event is muted after it arrived: a cgroup that stays at its limit causes
/// a hundred a second, a bound set by the kernel. The longer time applies while a guard holds.
const HUSHED: Duration = Duration::from_millis(50);
const HUSHED_LONG: Duration = Duration::from_millis(250);

/// Interval between checks for signals while the CPU budget is used up.
const SPENT: Duration = Duration::from_millis(250);

/// Time for which a trigger is kept after the limit was near.
const TRIGGERED: Duration = Duration::from_secs(10);

/// Time without a finished worker after which the watch is reported as blocked.
const BLOCKED: Duration = Duration::from_secs(5);

/// Time limit at the end for writes in flight.
const STOP_TIMEOUT: Duration = Duration::from_millis(500);

/// Poller id of the workers' event; members have their slot as id, and ancestors their cgroup id
/// with the bit `ANCESTOR` set.
const BELL: u64 = u64::MAX;
const ANCESTOR: u64 = 1 << 63;

/// Watches until a stop is requested. `members` are the cgroups that exist at the beginning.
///
/// # Errors
/// The system's error, if threads or an epoll can't be created.
pub fn run(members: Vec<Member>, options: WatchOptions<'_>) -> std::io::Result<Ended> {
    let worker = Worker { alarm: options.alarm };
    let pool = Pool::new(worker, options.workers, members.len().max(64))?.with_stack(STACK);
    let wakeups = Poller::new(members.len().max(64))?;
    wakeups.while_readable(pool.arrived().as_fd(), BELL)?;
    let began = now();
    let expected = members.len();
    let mut control = Control {
        // Collected in place: the members of a large host are most of the memory of a watch.
        fleet: members.into_iter().map(Some).collect(),
        pool,
        wakeups,
        host: HostState { swap: SwapMonitor::new(options.swap_writes), ..HostState::default() },
        text: String::with_capacity(8192),
        ended: Vec::new(),
        heard: began,
        blocked: false,
        budget: CpuBudget::new(options.cpu, began, process_cpu()),
        price: SamplingInterval::new(began, process_cpu()),
        lost: false,
        no_triggers: options.dry_run,
        noted: Noted::default(),
        expected,
        began,
        options,
    };
    for place in 0..expected {
        control.begin(place);
    }
    control.run();
    Ok(control.end())
}

struct Control<'a> {
    options: WatchOptions<'a>,
    /// Members by slot; a slot stays empty after its cgroup is gone, until a new one is added.
    fleet: Vec<Option<Member>>,
    pool: Pool<Worker>,
    wakeups: Poller,
    host: HostState,
    text: String,
    ended: Vec<Summary>,
    /// Number of cgroups at the beginning.
    expected: usize,
    /// Time of the last message of a worker.
    heard: Duration,
    blocked: bool,
    price: SamplingInterval,
    budget: CpuBudget,
    /// True if a cgroup was lost since the last search for new ones.
    lost: bool,
    /// True if this process may not create triggers, or PSI is missing.
    no_triggers: bool,
    /// Notes on killers that were emitted already.
    noted: Noted,
    began: Duration,
}

impl Control<'_> {
    fn run(&mut self) {
        let (mut renewed, mut shown) = (self.began, Duration::ZERO);
        let first = self.host.killers.ask_first(self.began);
        self.learn_killers(first);
        loop {
            let now = now();
            if (self.options.stop)()
                || self.options.duration.is_some_and(|most| now.saturating_sub(self.began) >= most)
            {
                return;
            }
            if let Some(reload) = self.options.reload.as_mut().and_then(|reload| reload()) {
                self.reload(reload);
            }
            if now.saturating_sub(renewed) >= RENEWED {
                renewed = now;
                self.renew(now);
                self.leave_if_alone(now);
            }
            let answer = self.host.killers.renew(now);
            self.learn_killers(answer);
            if self.price.is_due(now) {
                let near = self.price.weigh(now, process_cpu());
                self.fleet.iter_mut().flatten().for_each(|member| member.look_each(near));
                self.options.ancestors.iter().for_each(|level| level.borrow_mut().look_each(near));
            }
            if let Some(until) = self.budget.over(now, process_cpu) {
                // Limit events are not sampled then either: samples alone could use up the whole
                // budget.
                self.hold_what_is_due(now, until);
                pause(until.saturating_sub(now).min(SPENT));
                continue;
            }
            self.hear_again(now);
            self.look_at_all(now);
            self.say_if_blocked(now);
            if let Some((each, show)) = &mut self.options.show
                && now.saturating_sub(shown) >= *each
            {
                shown = now;
                let text = &mut self.text;
                show(&mut self.fleet.iter_mut().flatten().map(|member| member.view(now, text)));
            }
            let show = self.options.show.as_ref().map(|(each, _)| shown + *each);
            let timeout = self.wait((renewed + RENEWED).min(show.unwrap_or(Duration::MAX)));
            // A signal ends the wait early, and is handled next.
            for id in self.wakeups.wait(&timeout) {
                match id {
                    BELL => self.take_done(),
                    id if id & ANCESTOR != 0 => self.ancestor_hit(id & !ANCESTOR, now),
                    place => self.member_hit(place, now),
                }
            }
        }
    }

    /// Returns the time until something is due.
    fn wait(&self, renew: Duration) -> Timespec {
        let now = now();
        let dues = self.fleet.iter().flatten().flat_map(|member| {
            let look =
                (!member.busy).then(|| if member.due >= now + FAR { grid(member.due) } else { member.due });
            [look, member.to_tell()]
        });
        let end = self.options.duration.map(|most| self.began + most);
        let next = dues.flatten().chain(end).chain(self.wakeups.dues()).fold(renew, Duration::min);
        timespec(next.saturating_sub(now))
    }

    fn look_at_all(&mut self, now: Duration) {
        for place in 0..self.fleet.len() {
            let Some(member) = &mut self.fleet[place] else { continue };
            if member.busy {
                continue;
            }
            if member.due > now {
                if member.to_tell().is_some_and(|due| due <= now) {
                    member.flush(
                        now,
                        false,
                        &mut teller(self.options.tell, &member.located, now, self.began),
                    );
                }
                continue;
            }
            let step = member.look(
                now,
                &mut self.host,
                &mut self.text,
                &mut teller(self.options.tell, &member.located, now, self.began),
            );
            if self.options.samples {
                let mut say = teller(self.options.tell, &member.located, now, self.began);
                member.sample(now, false, &mut self.text, &mut say);
            }
            self.follow(place, &step, now);
            self.keep_trigger(place, now);
        }
    }

    fn hold_what_is_due(&mut self, now: Duration, until: Duration) {
        for member in self.fleet.iter_mut().flatten().filter(|member| !member.busy && member.due <= now) {
            let mut say = teller(self.options.tell, &member.located, now, self.began);
            member.hold(now, Guard::Cpu, Some(until), &mut say);
        }
    }

    /// Sets a trigger where a limit is near, and removes it once that was long ago: each costs a
    /// kernel thread.
    fn keep_trigger(&mut self, place: usize, now: Duration) {
        let Some(member) = self.fleet[place].as_mut().filter(|_| !self.no_triggers) else { return };
        if member.is_near() {
            member.trigger_until = now + TRIGGERED;
        }
        let wanted = now < member.trigger_until;
        if wanted && member.trigger.is_none() {
            let Ok(trigger) = Trigger::set(member.limits.own.gauge.cgroup()) else {
                self.no_triggers = true;
                return;
            };
            self.wakeups.each_time(trigger.as_fd(), place as u64);
            if let Some(member) = &mut self.fleet[place] {
                member.trigger = Some(trigger);
            }
        } else if !wanted {
            member.trigger = None;
        }
    }

    fn follow(&mut self, place: usize, step: &Step, at: Duration) {
        let Some(member) = &mut self.fleet[place] else { return };
        match step {
            Step::Rest => {}
            Step::Gone => self.gone(place, at),
            Step::Act(allowed) if self.options.dry_run => {
                member.would(
                    at,
                    allowed.down_to,
                    &mut teller(self.options.tell, &member.located, at, self.began),
                );
            }
            &Step::Act(allowed) => {
                let (id, located) = (member.id(), Arc::clone(&member.located));
                let (hands, lock) = (member.hands.take(), member.locks(at));
                member.begins(at, &allowed);
                self.hand_out(WriteJob { place, id, located, hands, allowed, lock }, at);
            }
        }
    }

    /// Runs a job: in a worker, or in this thread where no other job would have to wait for it.
    fn hand_out(&mut self, mut job: WriteJob, at: Duration) {
        if self.pool.under_way() == 0 {
            self.heard = at;
        }
        if self.fleet.len() > 1 {
            let place = job.place;
            if self.pool.give(job).is_err() {
                // The cgroup will be due again.
                if let Some(member) = &mut self.fleet[place] {
                    member.done();
                    member.due = at + FAR;
                }
            }
            return;
        }
        let acted = serve(&mut job, self.options.stop, self.options.alarm);
        let WriteJob { place, id, hands, .. } = job;
        self.done(Done { place, id, hands, acted });
    }

    fn take_done(&mut self) {
        let mut rung = [0; 8];
        let _ = rustix::io::read(self.pool.arrived(), &mut rung);
        while let Some(Message::Done(done)) = self.pool.take() {
            self.done(done);
        }
    }

    fn done(&mut self, done: Done) {
        let now = now();
        (self.heard, self.blocked) = (now, false);
        self.price.wrote += done.acted.cpu;
        let Some(Some(member)) = self.fleet.get_mut(done.place) else { return };
        if member.id() != done.id {
            return;
        }
        member.hands = done.hands;
        if self.options.each_action && done.acted.writes > 0 {
            (self.options.tell)(event(&member.located.name, now, self.began, EventKind::Acted(done.acted)));
        }
        let step = member.acted(
            now,
            &done.acted,
            &mut self.host,
            &mut self.text,
            &mut teller(self.options.tell, &member.located, now, self.began),
        );
        match step {
            // Another round, but only after a sample of everything else.
            Step::Act(_) => member.due = now,
            step => self.follow(done.place, &step, now),
        }
    }

    /// Handles an answer to the query for monitored cgroups, if one has arrived: emits the
    /// resulting notes.
    fn learn_killers(&mut self, answer: Option<bool>) {
        let Some(is_news) = answer else { return };
        let mut emit = |note: &Note| {
            if let Some(receive) = &mut self.options.note {
                receive(note);
            }
        };
        emit(&Note::Asked);
        if !is_news {
            return;
        }
        let Some(killers) = self.host.killers.killers() else { return };
        for note in notes(killers, self.fleet.iter().flatten(), &mut self.noted) {
            emit(&note);
        }
    }

    fn leave_if_alone(&mut self, now: Duration) {
        if let Some(joined) = self.options.joined.take_if(|joined| joined.leave_if_alone()) {
            (self.options.tell)(event(joined.name(), now, self.began, EventKind::Left));
        }
    }

    fn hear_again(&mut self, now: Duration) {
        let (fleet, ancestors) = (&self.fleet, &self.options.ancestors);
        self.wakeups.hear_again(now, |id, hear| {
            if id & ANCESTOR == 0 {
                let member = fleet.get(id as usize).and_then(Option::as_ref);
                member.and_then(|member| member.limits.own.gauge.events()).into_iter().for_each(hear);
            } else if let Some(level) = ancestors.get(id & !ANCESTOR) {
                level.borrow().gauge.events().into_iter().for_each(hear);
            }
        });
    }

    /// Handles a limit event or a stall of a member.
    fn member_hit(&mut self, place: u64, now: Duration) {
        let Some(Some(member)) = self.fleet.get_mut(place as usize) else { return };
        (member.hit, member.due) = (true, Duration::ZERO);
        let hush = if member.is_held() { HUSHED_LONG } else { HUSHED };
        self.wakeups.hush(place, now + hush);
    }

    /// Handles a limit event of an ancestor: all members below it are sampled.
    fn ancestor_hit(&mut self, id: u64, now: Duration) {
        self.wakeups.hush(ANCESTOR | id, now + HUSHED);
        let Some(level) = self.options.ancestors.get(id) else { return };
        let outrun = level.borrow_mut().outrun(now, &mut self.text).ok().flatten();
        let was_met = outrun.is_some();
        if let Some(Outrun { what, is_news: true }) = outrun {
            let name = level.borrow().gauge.cgroup().name().to_owned();
            (self.options.tell)(event(&name, now, self.began, what));
        }
        for member in self.fleet.iter_mut().flatten() {
            if member.limits.above.iter().any(|level| level.borrow().gauge.id() == id) {
                member.due = Duration::ZERO;
                if was_met {
                    member.outrun();
                }
            }
        }
    }

    fn say_if_blocked(&mut self, now: Duration) {
        let waiting = self.pool.under_way() > self.pool.size();
        if !self.blocked && waiting && now.saturating_sub(self.heard) >= BLOCKED {
            self.blocked = true;
            if let Some(member) = self.fleet.iter().flatten().find(|member| member.busy) {
                (self.options.tell)(event(&member.located.name, now, self.began, EventKind::Blocked));
            }
        }
    }

    fn end(mut self) -> Ended {
        self.pool.stop();
        self.pool.nudge(self.options.nudge, |_| true);
        let until = now() + STOP_TIMEOUT;
        while !self.pool.has_ended() && now() < until {
            std::thread::sleep(Duration::from_millis(2));
            // Repeated: an interrupt just before the write would be lost.
            self.pool.nudge(self.options.nudge, |_| true);
        }
        // Actions in progress count.
        self.take_done();
        let now = now();
        for member in self.fleet.iter_mut().flatten() {
            let mut say = teller(self.options.tell, &member.located, now, self.began);
            member.flush(now, true, &mut say);
            if self.options.samples {
                member.sample(now, true, &mut self.text, &mut say);
            }
            drop(say);
            let at = now.saturating_sub(self.began);
            self.ended.push(Summary { at, ..member.summary(now, false, &mut self.text) });
        }
        Ended {
            each: self.ended,
            watched: now.saturating_sub(self.began),
            dry_run: self.options.dry_run,
            cpu: process_cpu(),
        }
    }
}

fn event(name: &Name, now: Duration, began: Duration, what: EventKind) -> Event<'_> {
    Event { cgroup: name, at: now.saturating_sub(began), what }
}

/// Returns an emitter for the events of one cgroup.
fn teller<'a>(
    tell: &'a mut dyn FnMut(Event<'_>),
    located: &Arc<CgroupPath>,
    now: Duration,
    began: Duration,
) -> impl FnMut(EventKind) + use<'a> {
    let located = Arc::clone(located);
    move |what| tell(event(&located.name, now, began, what))
}

fn grid(time: Duration) -> Duration {
    let steps = time.as_millis().div_ceil(GRID.as_millis());
    GRID * u32::try_from(steps).unwrap_or(u32::MAX)
}
