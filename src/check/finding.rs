//! What was found of one thing.

/// How it stands with one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Good,
    /// Reclaim works without it, but less of it, or less well.
    Note,
    /// Whether reclaim is well there can't be told.
    Unknown,
    /// Reclaim won't work.
    Bad,
}

impl State {
    /// The word for it.
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

/// What was found of one thing. Amounts are written by whoever shows them: they come as bytes in [`Fact`].
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What was looked at: one word.
    pub about: &'static str,
    /// How it stands.
    pub state: State,
    /// What was found.
    pub fact: Fact,
    /// What to do about it, where something can be done.
    pub todo: Option<String>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// In words.
    Words(String),
    /// In words that begin with an amount of bytes.
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
