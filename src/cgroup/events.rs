//! `memory.events`: counters of events at limits, protection and the OOM killer.

/// Counters of one read of `memory.events`: every counter that the kernel has, in its order.
///
/// Unlike `memory.stat` nothing is selected: counters added by later kernels are included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Events(Vec<(String, u64)>);

impl Events {
    /// Parses the text of a `memory.events`, or of a `memory.events.local`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let counters = text.lines().filter_map(|line| {
            let (name, count) = line.split_once(' ')?;
            Some((name.to_owned(), count.parse().ok()?))
        });
        Self(counters.collect())
    }

    /// Returns the counters with their names, in the kernel's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, count)| (name.as_str(), *count))
    }

    /// Returns the counter of this name, if the kernel has one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u64> {
        self.iter().find_map(|(other, count)| (other == name).then_some(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_kept() {
        let events = Events::parse("low 0\nhigh 12\nnew_in_9_0 3\nbroken\nmax x\n");
        assert_eq!(events.iter().collect::<Vec<_>>(), [("low", 0), ("high", 12), ("new_in_9_0", 3)]);
        assert_eq!((events.get("high"), events.get("max")), (Some(12), None));
        assert_eq!(Events::parse(""), Events::default());
    }
}
