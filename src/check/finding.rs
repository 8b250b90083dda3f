//! The result of checking one property of a place or of the host.

/// State of the checked property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As required.
    Good,
    /// Reclaim works, but for less memory, or less well.
    Note,
    /// Unknown: the kernel doesn't show whether reclaim works here.
    Unknown,
    /// Reclaim won't work.
    Bad,
}

impl State {
    /// Returns the word for the state.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Note => "note",
            Self::Unknown => "unknown",
            Self::Bad => "missing",
        }
    }
}

/// Result of checking one property. Amounts are bytes in [`Fact`]; the output formats them.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Checked property: one word.
    pub about: &'static str,
    /// State of the property.
    pub state: State,
    /// Observation.
    pub fact: Fact,
    /// Remedy, where there is one.
    pub todo: Option<String>,
}

/// An observation.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// Text.
    Words(String),
    /// An amount in bytes and the text that follows the amount.
    Bytes(u64, String),
}

impl Finding {
    pub(super) fn new(about: &'static str, state: State, words: impl Into<String>) -> Self {
        Self { about, state, fact: Fact::Words(words.into()), todo: None }
    }

    pub(super) fn bytes(about: &'static str, state: State, bytes: u64, words: impl Into<String>) -> Self {
        Self { about, state, fact: Fact::Bytes(bytes, words.into()), todo: None }
    }

    pub(super) fn todo(self, todo: impl Into<String>) -> Self {
        Self { todo: Some(todo.into()), ..self }
    }
}
