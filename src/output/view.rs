//! What the output is given to show.

use std::path::PathBuf;
use std::rc::Rc;

use memctl::cgroup::mount::Hidden;
use memctl::cgroup::stat::Rates;
use memctl::cgroup::{Details, Name, Reading};
use memctl::reclaim::{Plan, Reclaimable};
use memctl::watch::config::HostRule;

/// A request that was only foretold.
pub struct DryRun {
    pub name: Name,
    pub path: PathBuf,
    pub plan: Plan,
    /// Whether somebody else holds the lock.
    pub locked: bool,
}

/// A cgroup as it is shown.
pub struct Row {
    pub reading: Box<Reading>,
    pub reclaimable: Reclaimable,
    /// What happened since the look before, if there was one.
    pub rates: Option<Rates>,
    /// Why limits of ancestors can't be seen, if they can't.
    pub hidden: Option<Hidden>,
    /// What only one cgroup alone tells.
    pub details: Option<Box<Details>>,
}

/// What is shown.
pub enum StatView {
    /// One cgroup in full.
    Page(Box<Row>),
    /// A row each.
    Rows(Vec<Row>),
}

impl StatView {
    /// Whatever is shown.
    pub fn rows(&self) -> &[Row] {
        match self {
            Self::Page(shown) => std::slice::from_ref(shown),
            Self::Rows(rows) => rows,
        }
    }

    /// Returns the same, to be changed.
    pub fn rows_mut(&mut self) -> &mut [Row] {
        match self {
            Self::Page(shown) => std::slice::from_mut(shown),
            Self::Rows(rows) => rows,
        }
    }
}

/// What may be watched later.
pub struct Waiting {
    /// Words that name nothing yet.
    pub unmatched: Vec<String>,
    /// What globs match and can't be watched yet, and why.
    pub unlimited: Vec<(Name, String)>,
}

/// What a rule takes.
pub struct Takes {
    /// The rule.
    pub rule: HostRule,
    /// Each cgroup, and why it isn't watched now.
    pub cgroups: Vec<(Name, Option<String>)>,
    /// Where it takes none: what it matches, and which more specific rule has that.
    pub lost: Vec<(Name, Rc<str>)>,
}
