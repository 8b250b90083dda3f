//! The state of a watch in one line, as a service manager shows it.

use memctl::watch::config::rule::Rule;
use memctl::watch::policy::headroom::Headroom;

use super::format::{counted, size};

/// Purpose of a watch.
#[derive(Clone, Debug, PartialEq)]
pub enum Purpose {
    /// To keep this amount free below limits.
    Headroom(String),
    /// To keep usage below this size.
    Keep(String),
    /// To reclaim idle memory, within this share of stall.
    Pressure(String),
    /// To estimate working sets.
    Estimate,
    /// Several things, by this number of rules.
    Rules(usize),
}

impl Purpose {
    /// Returns the purpose of rules; `None` stands for a rule that leaves its cgroups alone.
    pub fn of<'a>(rules: impl Iterator<Item = Option<&'a Rule>> + Clone) -> Self {
        let mut active = rules.clone().flatten();
        let several = Self::Rules(rules.count());
        let (Some(rule), None) = (active.next(), active.next()) else { return several };
        let free = match rule.headroom {
            Headroom::Bytes(0) => None,
            Headroom::Bytes(bytes) => Some(size(bytes)),
            Headroom::Share(share) => Some(percent(share)),
        };
        match (free, rule.keep, rule.pressure) {
            (Some(free), None, None) => Self::Headroom(free),
            (None, Some(bytes), None) => Self::Keep(size(bytes)),
            (None, None, Some(share)) => Self::Pressure(percent(share)),
            _ => several,
        }
    }

    /// Formats the purpose for this number of cgroups.
    pub fn text(&self, cgroups: usize) -> String {
        let them = counted(cgroups, "cgroup");
        let plural = if cgroups == 1 { "" } else { "s" };
        match self {
            _ if cgroups == 0 => "waiting for a cgroup to watch".to_owned(),
            Self::Headroom(free) => format!("keeping {free} free below the limit{plural} of {them}"),
            Self::Keep(limit) => format!("keeping the usage of {them} below {limit}"),
            Self::Pressure(share) => {
                format!("reclaiming idle memory from {them}, within {share} of stall")
            }
            Self::Estimate => format!("estimating the working set{plural} of {them}"),
            Self::Rules(count) => format!("watching {them} by {}", counted(*count, "rule")),
        }
    }
}

/// Formats a share from 0 to 1, to six decimal places: `10%`, `0.1%`.
fn percent(share: f64) -> String {
    format!("{}%", (share * 1e8).round() / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use memctl::watch::config::Rules;

    #[track_caller]
    fn check(rules: &str, cgroups: usize, expected: &str) {
        let rules = Rules::parse(rules).unwrap();
        let purpose = Purpose::of(rules.each.iter().map(|rule| rule.rule.as_deref()));
        assert_eq!(purpose.text(cgroups), expected);
    }

    #[test]
    fn one_rule_is_told_in_full_and_several_in_sum() {
        const HEADROOM: &str = "[[rule]]\nmatch = 'a/*'\nheadroom = '10%'\n";
        const ALONE: &str = "[[rule]]\nmatch = 'b'\nleave-alone = true\n";
        let rule = |settings: &str| format!("[[rule]]\nmatch = 'c/*'\n{settings}\n");
        check(HEADROOM, 12, "keeping 10% free below the limits of 12 cgroups");
        check(HEADROOM, 1, "keeping 10% free below the limit of 1 cgroup");
        check(HEADROOM, 0, "waiting for a cgroup to watch");
        check(&[HEADROOM, ALONE].concat(), 2, "keeping 10% free below the limits of 2 cgroups");
        check(&rule("headroom = '64M'"), 2, "keeping 64 MiB free below the limits of 2 cgroups");
        check(&rule("keep = '1G'"), 2, "keeping the usage of 2 cgroups below 1 GiB");
        check(&rule("pressure = '0.1%'"), 2, "reclaiming idle memory from 2 cgroups, within 0.1% of stall");
        check(&rule("keep = '1G'\npressure = '0.1%'"), 2, "watching 2 cgroups by 1 rule");
        check(&[HEADROOM, ALONE, &rule("keep = '1G'")].concat(), 12, "watching 12 cgroups by 3 rules");
        assert_eq!(Purpose::Estimate.text(2), "estimating the working sets of 2 cgroups");
    }
}
