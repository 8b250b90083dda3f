//! The progress bar: on standard error, on terminals only.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use memctl::reclaim::Event;

use super::words::{escaped, shortened};

/// A progress bar, or nothing.
pub struct Progress(ProgressBar);

impl Progress {
    /// One factory for all bars. `visible` is whether standard error is a terminal that wants one.
    pub fn new(cgroup: &str, visible: bool) -> Self {
        const NAME: usize = 24;
        let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(style(SPINNER));
        bar.set_message(shortened(&escaped(cgroup), NAME));
        Self(bar)
    }

    /// Shows where the request stands.
    pub fn show(&self, event: &Event) {
        match *event {
            Event::Asked { reclaimed, requested, .. } => {
                if let Some(requested) = requested.filter(|_| self.0.length().is_none()) {
                    self.0.set_style(style(BAR));
                    self.0.set_length(requested);
                }
                self.0.set_position(reclaimed);
            }
            Event::AwaitingWriteback { .. } => self.0.set_prefix("waiting for swap "),
            Event::AwaitingCounters => self.0.set_prefix("counting "),
            Event::Asking { .. } => self.0.set_prefix(""),
        }
    }

    /// Keeps the clock running while nothing is told.
    pub fn tick(&self) {
        self.0.tick();
    }

    /// Prints something without the bar in the way.
    pub fn suspend(&self, print: impl FnOnce()) {
        self.0.suspend(print);
    }

    /// Clears the line: the report says it all.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}

const BAR: &str =
    "{prefix}{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}, {eta} left";
const SPINNER: &str = "{prefix}{msg} {binary_bytes} {binary_bytes_per_sec}, {elapsed}";

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_sound() {
        for template in [BAR, SPINNER] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
