//! Data that the output shows.

use std::path::PathBuf;
use std::rc::Rc;

use memctl::cgroup::mount::Hidden;
use memctl::cgroup::stat::Rates;
use memctl::cgroup::{Details, Name, Reading};
use memctl::reclaim::{Plan, Reclaimable};
use memctl::watch::config::HostRule;

/// The forecast of a request.
pub struct DryRun {
    pub name: Name,
    pub path: PathBuf,
    pub plan: Plan,
    /// True if another process holds the lock.
    pub locked: bool,
}

/// A cgroup to show.
pub struct Row {
    pub reading: Box<Reading>,
    pub reclaimable: Reclaimable,
    /// Rates since the sample before, if there was one.
    pub rates: Option<Rates>,
    /// Reason why limits of ancestors aren't visible, if they aren't.
    pub hidden: Option<Hidden>,
    /// Details that only the view of a single cgroup has.
    pub details: Option<Box<Details>>,
}

/// The view of `memctl stat`.
pub enum StatView {
    /// One cgroup in full.
    Page(Box<Row>),
    /// A row for each cgroup.
    Rows(Vec<Row>),
}

impl StatView {
    /// Returns the rows, or the page as the only one.
    pub fn rows(&self) -> &[Row] {
        match self {
            Self::Page(shown) => std::slice::from_ref(shown),
            Self::Rows(rows) => rows,
        }
    }

    /// Returns the rows for changing them.
    pub fn rows_mut(&mut self) -> &mut [Row] {
        match self {
            Self::Page(shown) => std::slice::from_mut(shown),
            Self::Rows(rows) => rows,
        }
    }
}

/// Cgroups that may be watched later.
pub struct Waiting {
    /// Words that match nothing yet.
    pub unmatched: Vec<String>,
    /// Cgroups that match a glob and can't be watched yet, and the reason.
    pub unlimited: Vec<(Name, String)>,
}

/// The cgroups assigned to a rule.
pub struct Takes {
    /// The rule.
    pub rule: HostRule,
    /// The cgroups, each with the reason why it isn't watched now, if it isn't.
    pub cgroups: Vec<(Name, Option<String>)>,
    /// The cgroups that a rule without any matches, each with the more specific rule that has it.
    pub lost: Vec<(Name, Rc<str>)>,
}
