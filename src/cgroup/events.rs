//! `memory.events`: how often limits, protection and the OOM killer had their say.

/// What one read of a `memory.events` gave: every counter that the kernel has, in its order.
///
/// Unlike `memory.stat` nothing is picked: what a later kernel adds is told as well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Events(Vec<(String, u64)>);

impl Events {
    /// Reads the text of a `memory.events`, or of a `memory.events.local`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let counters = text.lines().filter_map(|line| {
            let (name, count) = line.split_once(' ')?;
            Some((name.to_owned(), count.parse().ok()?))
        });
        Self(counters.collect())
    }

    /// The counters by name, in the kernel's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, count)| (name.as_str(), *count))
    }

    /// The counter of this name, if the kernel has it.
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
