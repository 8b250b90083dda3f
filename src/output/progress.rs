//! Progress bars on standard error, on terminals only: one for each cgroup in progress and one for
//! all.

use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use memctl::reclaim::RequestEvent;

use super::format::{escaped, shortened};

/// Progress bars, or nothing.
pub struct ProgressBars {
    all: MultiProgress,
    bars: Vec<ProgressBar>,
    /// Number of cgroups that are done; only with several.
    total: Option<ProgressBar>,
    /// Bytes from each cgroup, in finished requests and in the current one; only with one amount
    /// for all.
    shared: Option<Vec<(u64, u64)>>,
    began: Instant,
}

/// Minimum age before a bar is shown: a shorter one would only flash.
const WORTHWHILE: Duration = Duration::from_millis(200);

impl ProgressBars {
    /// Creates the bars; `visible` is true if standard error is a terminal and bars are wanted.
    pub fn new(cgroups: &[String], visible: bool) -> Self {
        let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let all = MultiProgress::with_draw_target(target);
        let bars = cgroups.iter().map(|cgroup| bar(cgroup)).collect();
        let total = (cgroups.len() > 1).then(|| {
            let total = ProgressBar::new(cgroups.len() as u64).with_style(style(TOTAL));
            all.add(total)
        });
        Self { all, bars, total, shared: None, began: Instant::now() }
    }

    /// Creates the bars for one amount (bytes) from all cgroups together; `None` for all there is.
    pub fn of_total(cgroups: &[String], amount: Option<u64>, visible: bool) -> Self {
        let mut progress = Self::new(cgroups, visible);
        progress.shared = Some(vec![(0, 0); cgroups.len()]);
        if let Some(total) = &progress.total {
            total.set_style(style(if amount.is_some() { BAR } else { SPINNER }));
            total.set_message("total");
            total.set_length(amount.unwrap_or(0));
        }
        progress
    }

    /// Shows the progress of a request.
    pub fn show(&mut self, index: usize, event: &RequestEvent) {
        let mut so_far = 0;
        if let (Some(shared), RequestEvent::Asked { reclaimed, .. }) = (&mut self.shared, event) {
            shared[index].1 = *reclaimed;
            so_far = shared[index].0;
        }
        if self.began.elapsed() < WORTHWHILE {
            return;
        }
        let bar = &self.bars[index];
        if bar.is_hidden() && !self.all.is_hidden() {
            // Only cgroups in progress take a line.
            self.bars[index] = self.all.insert(0, bar.clone());
        }
        let bar = &self.bars[index];
        match *event {
            RequestEvent::Asked { reclaimed, requested, .. } => {
                if let Some(shared) = &self.shared {
                    let sum = shared.iter().map(|(before, now)| before + now).sum();
                    self.total.iter().for_each(|total| total.set_position(sum));
                } else if let Some(requested) = requested.filter(|_| bar.length().is_none()) {
                    bar.set_style(style(BAR));
                    bar.set_length(requested);
                }
                bar.set_position(so_far + reclaimed);
            }
            RequestEvent::AwaitingWriteback { .. } => bar.set_prefix("waiting for swap "),
            RequestEvent::AwaitingCounters => bar.set_prefix("counting "),
            RequestEvent::Asking { .. } => bar.set_prefix(""),
        }
    }

    /// Records the end of a request, and with `done` the end of the cgroup.
    pub fn served(&mut self, index: usize, done: bool) {
        if done {
            self.bars[index].finish_and_clear();
        }
        match (&mut self.shared, &self.total) {
            (Some(shared), _) => {
                let (before, now) = &mut shared[index];
                *before += std::mem::take(now);
            }
            (None, Some(total)) => total.inc(1),
            (None, None) => {}
        }
    }

    /// Updates the elapsed time while there are no events.
    pub fn tick(&self) {
        if self.began.elapsed() < WORTHWHILE {
            return;
        }
        self.total
            .iter()
            .chain(&self.bars)
            .filter(|bar| !bar.is_hidden() && !bar.is_finished())
            .for_each(ProgressBar::tick);
    }

    /// Runs `print` with the bars out of the way.
    pub fn suspend(&self, print: impl FnOnce()) {
        self.all.suspend(print);
    }

    /// Clears the lines: the report replaces them.
    pub fn finish(&self) {
        self.total.iter().chain(&self.bars).for_each(ProgressBar::finish_and_clear);
    }
}

/// A progress bar for a wait, or nothing.
pub struct WaitBar {
    bar: ProgressBar,
    began: Instant,
}

impl WaitBar {
    /// Creates the bar; `visible` is true if standard error is a terminal and bars are wanted.
    pub fn new(what: &'static str, time: Duration, visible: bool) -> Self {
        let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(time.as_millis() as u64), target);
        Self { bar: bar.with_style(style(WATCHING)).with_message(what), began: Instant::now() }
    }

    /// Shows the time elapsed so far.
    pub fn tick(&self) {
        self.bar.set_position(self.began.elapsed().as_millis() as u64);
    }

    /// Clears the line.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

const WATCHING: &str = "{msg} {wide_bar} {eta} left";
const BAR: &str =
    "{prefix}{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}, {eta} left";
const SPINNER: &str = "{prefix}{msg} {binary_bytes} {binary_bytes_per_sec}, {elapsed}";
const TOTAL: &str = "{pos} of {len} cgroups {wide_bar} {elapsed}";

/// Creates a bar, hidden until there is something to show.
fn bar(cgroup: &str) -> ProgressBar {
    const NAME: usize = 24;
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    bar.with_style(style(SPINNER)).with_message(shortened(&escaped(cgroup), NAME))
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_sound() {
        for template in [BAR, SPINNER, TOTAL, WATCHING] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
