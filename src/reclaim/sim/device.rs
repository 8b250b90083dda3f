//! The simulated swap device, and what the application does with memory on its way there.

use std::time::Duration;

use super::Sim;

/// A swap device. Amounts are pages.
#[derive(Debug)]
pub(crate) struct Device {
    /// Pages that it writes as one: none of them is written before all are.
    pub step: u64,
    /// Thousandths of pages that it can have written since its latest write.
    ready: u64,
}

impl Default for Device {
    fn default() -> Self {
        Self { step: 1, ready: 0 }
    }
}

impl Device {
    /// Works for some time, at this many pages per second.
    pub(super) fn elapse(&mut self, millis: u64, speed: Option<u64>) {
        self.ready += speed.unwrap_or(0) * millis;
    }
}

impl Sim {
    /// Takes what the device has written by now.
    pub(super) fn write_out(&mut self) {
        let step = self.device.step.min(self.writeback).max(1);
        let written = (self.device.ready / 1000 / step * step).min(self.writeback);
        self.writeback -= written;
        self.device.ready = if self.writeback == 0 { 0 } else { self.device.ready - 1000 * written };
        self.swap_cache += written;
    }

    /// The application takes back what is on its way to swap.
    pub(super) fn app_takes_back(&mut self, millis: u64) {
        let touched = (self.touch_speed * millis / 1000).min(self.swap_cache);
        self.swap_cache -= touched;
        self.swap_room += touched;
        self.taken_back += touched;
        self.anon += touched;
    }

    /// Submits anonymous memory to a device, ever more of it the less the batch has `freed`, and
    /// takes what the device has written meanwhile (`do_try_to_free_pages`: a part of the lists at
    /// each priority, from 12 to 0). Returns the pages freed.
    pub(super) fn sweep(&mut self, mut freed: u64, most: u64) -> u64 {
        let lists = self.anon;
        for priority in (0..=12).rev() {
            if freed >= most.min(32) || self.has_alarm() {
                break;
            }
            let out = (lists >> priority).min(self.anon).min(self.swap_room.saturating_sub(self.writeback));
            self.anon -= out;
            self.swap_room -= out;
            self.swapped += out;
            self.writeback += out;
            self.elapse(Duration::from_micros(out * 1000 / self.submit_speed));
            if !self.stuck {
                let written = (most - freed).min(self.swap_cache);
                self.swap_cache -= written;
                freed += written;
            }
        }
        freed
    }
}
