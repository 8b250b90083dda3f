//! Checks for OOM killers that monitor a cgroup and choose their victims by pages scanned or by
//! swap usage.

use std::path::Path;

use super::finding::{Finding, State};
use crate::cgroup::CgroupPath;
use crate::cgroup::killers::{Killer, Killers};
use crate::watch::policy::above::Limit;

/// Returns the findings on the OOM killers of that cgroup.
pub(super) fn killers(located: &CgroupPath, killers: &Killers) -> Vec<Finding> {
    let (mut findings, dir) = (Vec::new(), &*located.path);
    let name = |dir: &Path| located.mount.name_of(dir).unwrap_or_else(|| dir.display().to_string().into());
    if let Some(why) = &killers.unknown {
        let words = format!(
            "{why}: watch holds --pressure and --keep while any cgroup above is stalled for more than {} (memory full \
             avg10)",
            percent(Limit::Unknown.threshold())
        );
        findings.push(Finding::new("oomd", State::Unknown, words));
    }
    for monitored in killers.pressure_monitors(dir) {
        let words = format!(
            "systemd-oomd monitors {}: while its memory full avg10 is over {}, it kills the most scanned cgroup \
             below, whether memctl or the kernel scans; watch holds --pressure and --keep above {}",
            name(&monitored.dir),
            percent(monitored.limit),
            percent(Limit::Known(monitored.limit).threshold())
        );
        let finding = Finding::new("oomd", State::Note, words);
        findings.push(finding.todo("set ManagedOOMPreference=avoid in units to be killed last"));
    }
    if let Some(monitored) = killers.swap_monitor(dir) {
        let words = format!(
            "systemd-oomd monitors {} for swap: while more than {} of swap and of memory are in use, it kills the largest \
             user of swap below",
            name(monitored),
            percent(killers.swap_used_limit)
        );
        let free = percent(10_000_u16.saturating_sub(killers.swap_used_limit));
        let finding = Finding::new("oomd", State::Note, words);
        findings.push(finding.todo(format!("keep --swap-free of a watch above {free}")));
    }
    if findings.is_empty() {
        let neither = || format!("neither {} nor {} runs", Killer::SystemdOomd.name(), Killer::Oomd.name());
        let runs = |killer: Killer| format!("{} runs, but monitors no cgroup above or below", killer.name());
        let words = killers.killer.map_or_else(neither, runs);
        findings.push(Finding::new("oomd", State::Good, words));
    }
    findings
}

/// Formats hundredths of a percent.
fn percent(share: u16) -> String {
    format!("{}.{:02}%", share / 100, share % 100)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Fact;
    use super::*;
    use crate::cgroup::Mount;
    use crate::cgroup::killers::{Monitored, Unknown};

    fn found(of: &Killers) -> Vec<(State, String, Option<String>)> {
        let mount = Arc::new(Mount::whole("/sys/fs/cgroup".into(), false));
        let path = Path::new("/sys/fs/cgroup/t.slice/a.service").into();
        let located = CgroupPath { path, name: "/t.slice/a.service".into(), mount, id: 0 };
        let words = |finding: Finding| match finding.fact {
            Fact::Words(words) => (finding.state, words, finding.todo),
            Fact::Bytes(..) => panic!("no amounts"),
        };
        killers(&located, of).into_iter().map(words).collect()
    }

    #[test]
    fn each_killer_is_told() {
        let slice = || "/sys/fs/cgroup/t.slice".into();
        let all = Killers {
            killer: Some(Killer::SystemdOomd),
            by_pressure: vec![
                Monitored { dir: slice(), limit: 505 },
                Monitored { dir: "/sys/fs/cgroup/u.slice".into(), limit: 1 },
            ],
            by_swap: vec![slice()],
            swap_used_limit: 9000,
            unknown: None,
        };
        let told = found(&all);
        assert_eq!(told.len(), 2);
        assert!(
            told[0].1.contains("monitors /t.slice: while its memory full avg10 is over 5.05%"),
            "{told:?}"
        );
        assert!(told[0].1.ends_with("above 2.52%"), "{told:?}");
        assert!(told[1].1.contains("more than 90.00% of swap"), "{told:?}");
        assert_eq!(told[1].2.as_deref(), Some("keep --swap-free of a watch above 10.00%"));
        let none = Killers { by_pressure: Vec::new(), by_swap: Vec::new(), ..all };
        assert!(
            matches!(&found(&none)[..], [(State::Good, words, None)] if words.contains("monitors no cgroup"))
        );
        assert_eq!(
            found(&Killers::default()),
            [(State::Good, "neither systemd-oomd nor oomd runs".to_owned(), None)]
        );
        let unknown = Killers { unknown: Some(Unknown::Oomd), ..Killers::default() };
        assert!(matches!(&found(&unknown)[..], [(State::Unknown, words, None)] if words.contains("2.50%")));
    }
}
