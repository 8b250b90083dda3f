//! Reports of figures for monitoring.

use super::Control;
use crate::watch::meter::{CgroupFigures, Figures};
use crate::watch::system::System;

impl<S: System> Control<'_, S> {
    /// Reports the figures, if that is due.
    pub(super) fn meter(&mut self) {
        let now = self.cx.now;
        let Some(meter) = self.meter.filter(|meter| meter.due() <= now) else { return };
        let most = meter.most_cgroups();
        self.ledger.begin();
        // Those that are in the reports stay there; others take the places that are left.
        let told = self.members.iter().flatten().filter(|member| member.is_told()).count();
        let (mut places, mut watched) = (most.saturating_sub(told), 0);
        for member in self.members.iter_mut().flatten() {
            member.count(&mut self.ledger);
            if member.closing.is_none() {
                watched += 1;
                places -= usize::from(member.follows(places > 0, &mut self.ledger, now));
            }
        }
        let members = &self.members;
        let each = |take: &mut dyn FnMut(&CgroupFigures<'_>)| {
            for figures in members.iter().flatten().filter_map(|member| member.figures(now)) {
                take(&figures);
            }
        };
        meter.report(&Figures {
            rules: self.ledger.rules(),
            watched,
            cgroups: &each,
            blocked: self.dispatcher.oldest(now),
            cpu: self.cx.system.cpu(),
            dry_run: self.settings.dry_run,
        });
    }
}
