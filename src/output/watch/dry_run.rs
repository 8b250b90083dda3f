//! Results of a dry run of a watch: amounts that would have been reclaimed, by cgroup and by rule,
//! and guards that would have blocked.

use std::collections::BTreeMap;

use memctl::cgroup::Name;
use memctl::watch::event::{Ended, Summary};

use super::super::format::{called, compact, time};
use super::super::table::{DIM, cgroup, figures, named, plain_table};
use super::event::guarded;

/// Returns the tables of a dry run.
pub fn foretold(ended: &Ended, width: Option<u16>) -> String {
    let ruled = ended.each.iter().any(|one| one.rule.is_some());
    let mut table = plain_table();
    table.set_header(["CGROUP", "WOULD RECLAIM", "HELD"].into_iter().chain(ruled.then_some("RULE")));
    for one in &ended.each {
        let cells = [cgroup(&one.cgroup, width, 44), compact(one.would), one.held.to_string()];
        table.add_row(cells.into_iter().chain(ruled.then(|| named(rule(one), width, 56))));
    }
    let (header, lines) = figures(&mut table);
    let body: String = lines.map(|line| line + "\n").collect();
    let sums = if ruled { by_rule(&ended.each, width) } else { String::new() };
    format!(
        "{DIM}{header}{DIM:#}\n{body}{sums}{}watched for {}; dry run: nothing was written\n",
        held(&ended.each),
        time(ended.watched)
    )
}

fn rule(one: &Summary) -> &str {
    one.rule.as_deref().unwrap_or("-")
}

fn by_rule(each: &[Summary], width: Option<u16>) -> String {
    let mut rules: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for one in each {
        let (count, would) = rules.entry(rule(one)).or_default();
        (*count, *would) = (*count + 1, *would + one.would);
    }
    let mut table = plain_table();
    table.set_header(["RULE", "CGROUPS", "WOULD RECLAIM"]);
    for (name, (count, would)) in rules {
        table.add_row([named(name, width, 30), count.to_string(), compact(would)]);
    }
    let (header, lines) = figures(&mut table);
    let body: String = lines.map(|line| line + "\n").collect();
    format!("{DIM}{header}{DIM:#}\n{body}")
}

/// Returns a line for each last guard and the cgroups that it blocked.
fn held(each: &[Summary]) -> String {
    let mut guards: BTreeMap<String, Vec<&Name>> = BTreeMap::new();
    for one in each {
        if let Some(guard) = one.last_held {
            guards.entry(guarded(guard)).or_default().push(&one.cgroup);
        }
    }
    let line = |(why, who): (String, Vec<&Name>)| {
        let more = if who.len() > 1 { format!(" (and {} more)", who.len() - 1) } else { String::new() };
        format!("{}{more}  held, last: {why}\n", called(who[0]))
    };
    guards.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use memctl::watch::policy::guard::Guard;

    use super::*;

    #[test]
    fn by_cgroup_and_by_rule() {
        let one = |name: &str, rule: &str, would, held: bool| Summary {
            cgroup: name.into(),
            rule: Some(rule.into()),
            would,
            held: u32::from(held),
            last_held: held.then_some(Guard::Floor),
            ..Summary::default()
        };
        let each =
            vec![one("/a", "web", 3 << 20, false), one("/b", "db", 0, true), one("/c", "web", 1 << 20, true)];
        let ended = Ended { each, watched: Duration::from_secs(3), dry_run: true, ..Ended::default() };
        let plain = anstream::adapter::strip_str(&foretold(&ended, Some(80))).to_string();
        let lines = [
            "CGROUP  WOULD RECLAIM  HELD  RULE",
            "/a                 3M     0   web",
            "/b                  0     1    db",
            "/c                 1M     1   web",
            "RULE  CGROUPS  WOULD RECLAIM",
            "db          1              0",
            "web         2             4M",
            "/b (and 1 more)  held, last: down to the floor or the cgroup's protection",
            "watched for 3.0 s; dry run: nothing was written",
        ];
        assert_eq!(plain.lines().collect::<Vec<_>>(), lines);
    }
}
