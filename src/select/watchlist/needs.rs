//! What a search needs to know of pods.

use super::excluded::Excluded;
use crate::select::Selector;
use crate::select::pods::PodState;
use crate::select::pods::pattern::PodPattern;

/// What a search needs to know of pods.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Needs {
    /// Names of pods.
    pub(super) pods: bool,
    /// Names of containers.
    pub(super) containers: bool,
}

impl Needs {
    /// Returns what words need to know: a pod without a name may be one that a rule leaves alone.
    pub(super) fn of(selectors: &[Selector], excluded: &[Excluded]) -> Self {
        let mut needs = Self::default();
        let mut add = |pattern: &PodPattern| {
            needs.pods = true;
            needs.containers |= pattern.has_container();
        };
        selectors.iter().filter_map(Selector::pod).for_each(|pattern| add(&pattern));
        excluded.iter().flat_map(|excluded| &excluded.pods).for_each(add);
        needs
    }

    /// Returns whether names of a cgroup's pod or container that are needed aren't known.
    pub(super) fn lack(self, pod: &PodState) -> bool {
        match pod {
            PodState::None => false,
            PodState::Unknown => self.pods,
            PodState::Known(pod) => self.containers && pod.names.lacks_container(),
        }
    }
}
