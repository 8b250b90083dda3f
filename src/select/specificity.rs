//! Precision of words, which decides between several that find a cgroup.

use super::pods::pattern::{PartRank, ranks};

/// Precision of a selector: a name is more specific than any glob; then a glob over the names of
/// pods, since paths tell less of these, by its namespace, pod and container in turn; then the glob
/// with more literal characters, and then the glob that stays within a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Specificity {
    is_name: bool,
    by_pod: bool,
    parts: [PartRank; 3],
    literal: usize,
    within_a_level: bool,
}

impl Specificity {
    /// Returns the precision of a name, or of a glob.
    pub(super) fn of(pattern: &str, is_name: bool) -> Self {
        let (mut literal, mut depth) = (0, 0usize);
        for character in pattern.chars() {
            match character {
                '[' | '{' => depth += 1,
                ']' | '}' => depth = depth.saturating_sub(1),
                '*' | '?' => {}
                _ if depth == 0 => literal += 1,
                _ => {}
            }
        }
        let parts = ranks(pattern);
        let by_pod = parts.iter().any(|part| *part != PartRank::default());
        Self { is_name, by_pod, parts, literal, within_a_level: !pattern.contains("**") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_is_said_the_more_specific_it_is() {
        let words = ["**", "**/*.service", "*/*.service", "web-[0-9]*", "web-1*", "{web-1,web-2}-{a,b}*"];
        let of = |word: &str| Specificity::of(word, false);
        for (less, more) in [
            ("**", "*"),
            ("**", "**/*.service"),
            ("**/*.service", "*/*.service"),
            ("web-[0-9]*", "web-1*"),
            ("{web-1,web-2}-{a,b}*", "web-1*"),
            ("system.slice/*", "system.slice/a*"),
        ] {
            assert!(of(less) < of(more), "{less} < {more}");
        }
        assert!(words.iter().all(|word| of(word) < Specificity::of("a", true)), "a name says most");
        for (less, more) in [
            ("pod:*/*/*", "pod:{kube-system,monitoring}/*"),
            ("pod:*/*/*", "pod:[kd]*/*"),
            ("pod:*/*/*", "pod:a/*"),
            ("pod:*/*", "pod:*/*/app"),
            ("pod:*/web-0", "pod:batch/*"),
            ("pod:batch/*", "pod:batch/web-*"),
            ("pod:{batch,web}/*", "pod:batch/*"),
            ("pod:b*/*", "pod:{batch,web}/*"),
            ("kubepods.slice/kubepods-burstable.slice/*/*.scope", "pod:b*/*"),
            // All pods are no more specific than a path to some.
            ("pod:*/*/*", "kubepods/pod2222*/*"),
        ] {
            assert!(of(less) < of(more), "{less} < {more}");
        }
    }
}
