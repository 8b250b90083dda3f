//! The configuration of a watch: rules for the cgroups of a host, parsed from the text of a file.
//!
//! The text is untrusted: anything too large, unknown or invalid is rejected with its position.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::rc::Rc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use crate::select::malformed;
use crate::select::watchlist::Words;
use crate::size::Percent;
use address::Address;
use rule::{Rule, RuleSpec, swap_writes};

pub mod address;
mod mistake;
pub mod rule;
mod values;

pub use mistake::Mistake;

use crate::kind::Kind;
use values::{Bound, Headroom, Names, Percentage, Share, Size, Swappiness, Time, Type};

/// Supported version of the format.
pub(crate) const VERSION: u64 = 1;

/// Limits: bytes of the text, rules in it, and names and globs in a rule.
pub const MAX_BYTES: usize = 1 << 20;
const MAX_RULES: usize = 1000;
const MAX_WORDS: usize = 1000;

/// Rules for a host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// Share of a CPU that may be used.
    pub cpu: Option<Percent>,
    /// Maximum bytes per second written to the host's swap; `None` for no limit.
    pub swap_writes: Option<u64>,
    /// Metrics.
    pub metrics: MetricsSpec,
    /// The rules, in the order of the file.
    pub each: Vec<HostRule>,
}

/// Where the metrics of a watch go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsSpec {
    /// File that is replaced again and again.
    pub file: Option<PathBuf>,
    /// Address at which they are served.
    pub listen: Option<Address>,
    /// Maximum number of cgroups with series of their own; 500 by default.
    pub cgroups: Option<u32>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct HostRule {
    /// Name of the rule: its own, or the first name or glob that it applies to.
    pub name: Rc<str>,
    /// Line on which it begins, from 1.
    pub line: usize,
    /// Names and globs that it applies to.
    pub words: Words,
    /// Settings; `None` where matching cgroups are left alone.
    pub rule: Option<Rc<Rule>>,
}

/// Error in the text of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {mistake}")]
pub struct ConfigError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The mistake there.
    pub mistake: Mistake,
}

/// The file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    version: Option<Spanned<u64>>,
    cpu: Option<Share>,
    swap_writes: Option<Bound>,
    #[serde(default, deserialize_with = "file_path")]
    metrics: Option<PathBuf>,
    metrics_listen: Option<Address>,
    metrics_cgroups: Option<u32>,
    #[serde(default)]
    rule: Vec<Spanned<Table>>,
}

/// Reads a path that names a file.
fn file_path<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(from)?;
    let is_file = path.file_name().is_some() && !path.as_os_str().as_bytes().ends_with(b"/");
    if is_file { Ok(Some(path)) } else { Err(D::Error::custom("must name a file, not a folder")) }
}

/// A rule in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Table {
    name: Option<String>,
    #[serde(rename = "match")]
    wanted: Names,
    #[serde(default)]
    exclude: Names,
    #[serde(default)]
    leave_alone: bool,
    headroom: Option<Headroom>,
    keep: Option<Size>,
    pressure: Option<Share>,
    reuse: Option<Time>,
    floor: Option<Size>,
    swap_free: Option<Percentage>,
    max_pressure: Option<Percentage>,
    #[serde(rename = "type")]
    kind: Option<Type>,
    swappiness: Option<Swappiness>,
    ancestors: Option<bool>,
    lock: Option<bool>,
}

impl Table {
    /// Returns the settings of the rule.
    fn spec(&self) -> Result<RuleSpec, Mistake> {
        let kind = match (self.kind, self.swappiness) {
            (Some(_), Some(_)) => return Err(Mistake::TypeAndSwappiness),
            (kind, swappiness) => Kind::of(kind.map(|kind| kind.0), swappiness.map(|weight| weight.0)),
        };
        Ok(RuleSpec {
            headroom: self.headroom.map(|headroom| headroom.0),
            keep: self.keep.map(|keep| keep.0),
            pressure: self.pressure.map(|pressure| pressure.0),
            reuse: self.reuse.map(|time| time.0),
            floor: self.floor.map_or(0, |floor| floor.0),
            swap_free: self.swap_free.map(|share| share.0),
            max_pressure: self.max_pressure.map(|share| share.0),
            kind,
            ancestors: self.ancestors.unwrap_or(false),
            no_lock: self.lock == Some(false),
        })
    }

    fn rule(self, line: usize) -> Result<HostRule, Mistake> {
        let words = |names: &Names| names.0.iter().map(OsString::from).collect::<Vec<_>>();
        let (wanted, excluded) = (words(&self.wanted), words(&self.exclude));
        let words = Words { wanted, excluded, whole_pods: self.leave_alone };
        let Some(first) = self.wanted.0.first() else {
            return Err(Mistake::EmptyMatch);
        };
        if words.wanted.len() + words.excluded.len() > MAX_WORDS {
            return Err(Mistake::TooManyWords);
        }
        for word in words.wanted.iter().chain(&words.excluded) {
            if word.is_empty() {
                return Err(Mistake::EmptyName);
            }
            if let Some(why) = malformed(word) {
                return Err(Mistake::of_word(word, why));
            }
        }
        let name: Rc<str> = self.name.as_ref().unwrap_or(first).as_str().into();
        let rule = if self.leave_alone {
            // An error, so that nobody expects the other settings to apply.
            if self.spec()? != RuleSpec::default() {
                return Err(Mistake::LeaveAloneAndMore);
            }
            None
        } else {
            let rule = self.spec()?.rule()?;
            Some(Rc::new(Rule { name: Some(Rc::clone(&name)), ..rule }))
        };
        Ok(HostRule { name, line, words, rule })
    }
}

impl Rules {
    /// Parses the text of a file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        if text.len() > MAX_BYTES {
            return Err(bad(text, 0, Mistake::TooLarge));
        }
        let file: File = toml::from_str(text).map_err(|why| {
            bad(text, why.span().map_or(0, |span| span.start), Mistake::of_toml(why.message()))
        })?;
        if let Some(version) = file.version.as_ref().filter(|version| *version.get_ref() != VERSION) {
            return Err(bad(text, version.span().start, Mistake::Version(*version.get_ref())));
        }
        if file.rule.is_empty() {
            return Err(bad(text, text.len(), Mistake::NoRules));
        }
        if let Some(rule) = file.rule.get(MAX_RULES) {
            return Err(bad(text, rule.span().start, Mistake::TooManyRules));
        }
        let mut each: Vec<HostRule> = Vec::with_capacity(file.rule.len());
        for table in file.rule {
            let at = table.span().start;
            let rule = table.into_inner().rule(line_and_column(text, at).0);
            let rule = rule.map_err(|mistake| bad(text, at, mistake))?;
            if let Some(twin) = each.iter().find(|other| other.name == rule.name) {
                return Err(bad(text, at, Mistake::Twin { name: rule.name.to_string(), line: twin.line }));
            }
            each.push(rule);
        }
        let has_pressure =
            each.iter().filter_map(|one| one.rule.as_ref()).any(|rule| rule.pressure.is_some());
        let swap_writes = swap_writes(file.swap_writes.map(|bound| bound.0), has_pressure);
        let metrics =
            MetricsSpec { file: file.metrics, listen: file.metrics_listen, cgroups: file.metrics_cgroups };
        Ok(Self { cpu: file.cpu.map(|share| share.0), swap_writes, metrics, each })
    }

    /// Returns the names and globs of each rule.
    #[must_use]
    pub fn words(&self) -> Vec<Words> {
        self.each.iter().map(|rule| rule.words.clone()).collect()
    }
}

fn bad(text: &str, at: usize, mistake: Mistake) -> ConfigError {
    let (line, column) = line_and_column(text, at);
    ConfigError { line, column, mistake }
}

/// Returns the line and column of a byte of a text, from 1, as editors count.
#[must_use]
pub fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at.min(text.len())).unwrap_or(text);
    let begin = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[begin..].chars().count() + 1)
}

#[cfg(test)]
mod tests;
