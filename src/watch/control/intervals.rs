//! Adjustment of the sampling intervals to what samples cost, and to the number of members.

use super::Control;
use crate::watch::level::Level;
use crate::watch::policy::headroom::crowd;
use crate::watch::system::System;

impl<S: System> Control<'_, S> {
    pub(super) fn adjust_intervals(&mut self) {
        if !self.cost.is_due(self.cx.now) {
            return;
        }
        let crowd = crowd(self.members.len());
        let mut samples = 0u32;
        self.each_level(|level| {
            level.set_crowd(crowd);
            samples = samples.saturating_add(level.interval().samples());
        });
        let cost = self.cost.measure(self.cx.now, self.cx.system.cpu(), samples);
        self.each_level(|level| level.interval().adjust(cost));
    }

    fn each_level(&mut self, mut act: impl FnMut(&mut Level<S::Sampler>)) {
        self.members.iter_mut().flatten().for_each(|member| act(&mut member.limits.own));
        self.ancestors.levels().for_each(|level| act(&mut level.borrow_mut()));
    }
}
