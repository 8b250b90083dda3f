//! Notes on standard error while memctl works.

use memctl::reclaim::Event;

use super::words::{size, time};
use super::{Loudness, error, remark};

/// What `-v` tells of a step.
pub fn event(event: &Event, loudness: Loudness) {
    if loudness != Loudness::Verbose {
        return;
    }
    match event {
        Event::Asked { bytes, answer, took, reclaimed, .. } => {
            let said = answer.map_or_else(error::plain, |()| "done".into());
            remark(&format!(
                "asked {}: {said} after {}; {} so far",
                size(*bytes),
                time(*took),
                size(*reclaimed)
            ));
        }
        Event::AwaitingWriteback { bytes } => {
            remark(&format!("waiting for {} on their way to swap", size(*bytes)));
        }
        Event::AwaitingCounters => remark("waiting for the kernel's counters to catch up"),
        Event::Asking { .. } => {}
    }
}

/// After a signal, when the kernel doesn't return.
pub fn waiting_for_write(bytes: u64, loudness: Loudness) {
    if loudness != Loudness::Quiet {
        remark(&format!(
            "memctl: stopping: the kernel has yet to return from a write of {} (a second signal kills)",
            size(bytes)
        ));
    }
}
