//! A mistake in a file of rules.

use super::rule::InvalidRule;
use super::{MAX_BYTES, MAX_RULES, MAX_WORDS, VERSION};
use std::ffi::OsStr;

use crate::cgroup::error::{CgroupError, GlobError};

/// Keys that only a rule has, and that users write outside of one.
const RULE_KEYS: [&str; 10] = [
    "match",
    "exclude",
    "headroom",
    "keep",
    "pressure",
    "reuse",
    "floor",
    "swap-free",
    "max-pressure",
    "type",
];

/// Keys of the whole host, that users write at the end of a file.
const HOST_KEYS: [&str; 6] =
    ["cpu", "swap-writes", "version", "metrics", "metrics-listen", "metrics-cgroups"];

/// A mistake in a file of rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mistake {
    /// The file isn't UTF-8.
    #[error("not UTF-8 text")]
    NotText,
    /// The file is too large.
    #[error("the file is larger than {} MiB", MAX_BYTES >> 20)]
    TooLarge,
    /// The parser of TOML refuses it, or a value: its message.
    #[error("{0}")]
    Syntax(String),
    /// A key that doesn't exist there, and those that do.
    #[error("unknown key {key:?}")]
    UnknownKey {
        /// The key.
        key: String,
        /// Keys that exist.
        known: Vec<String>,
    },
    /// Text without quotes, such as a share or a name.
    #[error("the value must be in quotes")]
    Unquoted,
    /// A rule has no `match`.
    #[error("missing key `match`")]
    NoMatch,
    /// `[rule]` instead of `[[rule]]`.
    #[error("invalid type: map, expected a sequence")]
    SingleBrackets,
    /// The file is of another version.
    #[error("version {0} is not supported, only version {VERSION}")]
    Version(u64),
    /// The file has no rule.
    #[error("the file has no rules")]
    NoRules,
    /// The file has too many rules.
    #[error("the file has more than {MAX_RULES} rules")]
    TooManyRules,
    /// Two rules have the same name.
    #[error("duplicate rule name {name:?}, first used on line {line}")]
    Twin {
        /// The name.
        name: String,
        /// Line of the first, from 1.
        line: usize,
    },
    /// A `match` without a word.
    #[error("match must not be empty")]
    EmptyMatch,
    /// An empty word.
    #[error("a name can't be empty (the root is called /)")]
    EmptyName,
    /// A rule has too many words.
    #[error("the rule has more than {MAX_WORDS} names and globs")]
    TooManyWords,
    /// A malformed glob, and why.
    #[error("{word:?}: malformed glob: {why}")]
    Glob {
        /// The glob.
        word: String,
        /// The reason.
        why: GlobError,
    },
    /// A name of a pod that can't be one, and why.
    #[error("{word:?}: {why}")]
    PodName {
        /// The word.
        word: String,
        /// The reason.
        why: String,
    },
    /// `type` beside `swappiness`.
    #[error("type and swappiness can't be combined")]
    TypeAndSwappiness,
    /// `leave-alone` beside other settings.
    #[error("leave-alone can't be combined with other settings")]
    LeaveAloneAndMore,
    /// The settings of a rule make no sense together.
    #[error(transparent)]
    Rule(#[from] InvalidRule),
}

impl Mistake {
    /// Returns the mistake in a word that can't name anything.
    pub(super) fn of_word(word: &OsStr, why: CgroupError) -> Self {
        let word = word.to_string_lossy().into_owned();
        match why {
            CgroupError::BadGlob { why, .. } => Self::Glob { word, why },
            CgroupError::BadName { why, .. } => Self::PodName { word, why: why.to_owned() },
            why => Self::PodName { word, why: why.to_string() },
        }
    }

    /// Translates a message of the parser of TOML, which has no kinds of errors.
    pub(super) fn of_toml(message: &str) -> Self {
        let lines = message.lines().map(str::trim).filter(|line| !line.is_empty());
        let message = lines.collect::<Vec<_>>().join(", ");
        match message.strip_prefix("unknown field `") {
            Some(rest) => {
                let (key, known) = rest.split_once('`').unwrap_or((rest, ""));
                let known = known.split('`').skip(1).step_by(2).map(str::to_owned).collect();
                Self::UnknownKey { key: key.to_owned(), known }
            }
            None if message.starts_with("string values must be quoted") => Self::Unquoted,
            None if message == "missing field `match`" => Self::NoMatch,
            None if message == "invalid type: map, expected a sequence" => Self::SingleBrackets,
            None => Self::Syntax(message.replace("missing field `", "missing key `")),
        }
    }

    /// Returns what to do about it, where something can be done.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::UnknownKey { key, known } => return Some(hint_for_key(key, known)),
            Self::NoMatch => "select the cgroups of the rule: match = \"GLOB\"",
            Self::Unquoted => "write \"10%\", with the quotes",
            Self::SingleBrackets => "begin a rule with [[rule]], in two brackets",
            Self::NoRules => "add a rule: [[rule]], match = \"…\", headroom = \"10%\"",
            Self::Twin { .. } => "give one of the rules another name: name = \"…\"",
            Self::Rule(InvalidRule::NothingToDo) => "set headroom, keep, pressure, or leave-alone = true",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

fn hint_for_key(key: &str, known: &[String]) -> String {
    let is_known = |key: &str| known.iter().any(|known| known == key);
    // Where they are known, they don't come here.
    if HOST_KEYS.contains(&key) {
        return "move the key above the first [[rule]], since it applies to the whole host".to_owned();
    }
    if is_known("rule") && RULE_KEYS.contains(&key) {
        return "move the key into a [[rule]]".to_owned();
    }
    let distances = known.iter().map(|known| (strsim::damerau_levenshtein(key, known), known));
    let nearest = distances.filter(|(distance, known)| *distance <= known.len() / 3 + 1).min();
    match nearest {
        Some((_, known)) => format!("similar key: {known}"),
        None => format!("known keys: {}", known.join(", ")),
    }
}
