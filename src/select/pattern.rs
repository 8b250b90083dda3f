//! Globs over names that need not be UTF-8.
//!
//! The library compiles globs from text, but matches bytes. A glob with bytes that aren't UTF-8 is
//! compiled from a text that has a mark and two digits for each such byte, and in the resulting
//! regular expression the bytes are put back.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use globset::{Glob, GlobBuilder, GlobMatcher, GlobSet, GlobSetBuilder};
use regex::bytes::Regex;

use crate::cgroup::error::GlobError;

/// Glob over paths from the mount point, without a leading `/`. `?` and `[…]` stand for a byte.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    glob: Glob,
    /// Regular expression in place of a glob with bytes that aren't UTF-8.
    regex: Option<Regex>,
}

impl Pattern {
    /// Compiles a glob with `*`, `?`, `[…]`, `{a,b}`, which stay within a level, and `**`, which
    /// crosses levels.
    ///
    /// # Errors
    /// Description of the mistake in the glob.
    pub(super) fn new(glob: &OsStr) -> Result<Self, GlobError> {
        let text = spelt(glob)?;
        // A backslash is first of all a character of systemd's unit names (`\x2d`).
        let built = GlobBuilder::new(&text).literal_separator(true).backslash_escape(false).build();
        let glob = built.map_err(|e| GlobError::Syntax(e.kind().clone()))?;
        let regex = matches!(text, Cow::Owned(_)).then(|| Regex::new(&respelt(glob.regex()))).transpose();
        Ok(Self { glob, regex: regex.map_err(|e| GlobError::Regex(e.to_string()))? })
    }

    /// Compiles a matcher of this glob alone.
    pub(super) fn matcher(&self) -> Matcher {
        match &self.regex {
            Some(regex) => Matcher::Bytes(regex.clone()),
            None => Matcher::Text(self.glob.compile_matcher()),
        }
    }
}

/// Compiled glob.
#[derive(Clone, Debug)]
pub(super) enum Matcher {
    /// Glob that is text.
    Text(GlobMatcher),
    /// Glob with bytes that aren't UTF-8.
    Bytes(Regex),
}

impl Matcher {
    /// Returns whether a path from the mount point matches.
    pub(super) fn is_match(&self, path: &Path) -> bool {
        match self {
            Self::Text(glob) => glob.is_match(path),
            Self::Bytes(regex) => regex.is_match(path.as_os_str().as_bytes()),
        }
    }
}

/// Set of globs, matched at once.
#[derive(Debug, Default)]
pub(super) struct PatternSet {
    plain: GlobSet,
    /// Globs with bytes that aren't UTF-8: hardly ever any.
    bytes: Vec<Matcher>,
}

impl PatternSet {
    /// Compiles a set of globs.
    ///
    /// # Errors
    /// Description of the mistake in the set as a whole: it is too large.
    pub(super) fn new(patterns: &[Pattern]) -> Result<Self, GlobError> {
        let mut plain = GlobSetBuilder::new();
        let (odd, even): (Vec<_>, Vec<_>) = patterns.iter().partition(|pattern| pattern.regex.is_some());
        for pattern in even {
            plain.add(pattern.glob.clone());
        }
        let plain = plain.build().map_err(|e| GlobError::Syntax(e.kind().clone()))?;
        Ok(Self { plain, bytes: odd.into_iter().map(Pattern::matcher).collect() })
    }

    /// Returns whether any of the globs matches a path from the mount point.
    pub(super) fn is_match(&self, path: &Path) -> bool {
        !self.plain.is_empty() && self.plain.is_match(path)
            || self.bytes.iter().any(|glob| glob.is_match(path))
    }
}

/// Returns whether a word has a character that only globs have.
pub(super) fn has_special(word: &OsStr) -> bool {
    word.as_bytes().iter().any(|byte| b"*?[{".contains(byte))
}

/// Converts a path to a glob that matches only this path.
pub(super) fn literal(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(path.as_os_str().len());
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'*' | b'?' | b'[' | b']' | b'{' | b'}' => bytes.extend([b'[', byte, b']']),
            other => bytes.push(other),
        }
    }
    bytes
}

/// Mark in front of two hexadecimal digits that stand for a byte. In a glob with bytes that aren't
/// UTF-8, the mark itself is spelt this way too.
const MARK: char = '\u{1}';

/// Replaces each byte of a glob that isn't UTF-8 by a mark and two digits.
fn spelt(glob: &OsStr) -> Result<Cow<'_, str>, GlobError> {
    if let Some(text) = glob.to_str() {
        return Ok(Cow::Borrowed(text));
    }
    let mut text = String::new();
    let push = |byte: u8, text: &mut String| {
        let in_class = text.rfind('[').is_some_and(|open| !text[open..].contains(']'));
        // For the library a class consists of characters, so the digits would become members.
        if in_class {
            return Err(GlobError::BytesInClass);
        }
        let _ = write!(text, "{MARK}{byte:02x}");
        Ok(())
    };
    for chunk in glob.as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == MARK { push(MARK as u8, &mut text)? } else { text.push(c) }
        }
        for &byte in chunk.invalid() {
            push(byte, &mut text)?;
        }
    }
    Ok(Cow::Owned(text))
}

/// Puts the bytes back into a regular expression.
fn respelt(regex: &str) -> String {
    let mut out = String::with_capacity(regex.len());
    let mut parts = regex.split(MARK);
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (digits, rest) = part.split_at(part.len().min(2));
        out.push_str("\\x");
        out.push_str(digits);
        out.push_str(rest);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn os(bytes: &[u8]) -> &OsStr {
        OsStr::from_bytes(bytes)
    }

    fn matches(glob: &[u8], name: &[u8]) -> bool {
        let pattern = Pattern::new(os(glob)).unwrap();
        let one = pattern.matcher().is_match(Path::new(os(name)));
        assert_eq!(PatternSet::new(&[pattern]).unwrap().is_match(Path::new(os(name))), one);
        one
    }

    #[test]
    fn stars_stay_within_a_level_but_for_two() {
        assert!(matches(b"batch/*", b"batch/a"));
        assert!(!matches(b"batch/*", b"batch/a/b"));
        assert!(matches(b"batch/**", b"batch/a/b"));
        assert!(matches(b"**/*.service", b"system.slice/nginx.service"));
        assert!(matches(b"**/*.service", b"nginx.service"));
        assert!(matches(b"job-[0-9]?", b"job-1a"));
        assert!(matches(br"system.slice/a\x2db*", br"system.slice/a\x2db.service"));
        assert!(Pattern::new(os(b"a[")).is_err());
    }

    #[test]
    fn bytes_that_are_no_text_match_themselves_and_wildcards() {
        assert!(matches(b"j*b", b"j\xe9b") && matches(b"j?b", b"j\xe9b") && matches(b"**/x", b"a\xff/x"));
        assert!(matches(b"j\xe9*", b"j\xe9b") && matches(b"j\xe9b", b"j\xe9b"));
        assert!(!matches(b"j\xe9*", b"j\xe8b") && !matches(b"j\xe9*", "j\u{fffd}b".as_bytes()));
        assert!(!matches(b"j\xe9*", b"j\x01e9b"), "nobody can spell another's name");
        assert!(matches(b"j\x01\xe9*", b"j\x01\xe9b") && !matches(b"j\x01\xe9*", b"j\xe9b"));
        assert!(matches(b"j\xe9/**", b"j\xe9/a/b") && !matches(b"j\xe9/*", b"j\xe9/a/b"));
        for glob in [&b"w\xe9?x"[..], b"w?\xe8x", b"*\xe9?x", b"w\xe9[!a]x", b"{w,v}\xe9\xe8x"] {
            assert!(matches(glob, b"w\xe9\xe8x") && !matches(glob, b"w\xe9\xe8/x"), "{glob:?}");
        }
        for glob in [&b"j[\xe9]b"[..], b"[a-\xe9]", b"x[!\xe9"] {
            assert!(Pattern::new(os(glob)).is_err(), "{glob:?}");
        }
    }

    #[test]
    fn a_literal_is_only_itself() {
        for name in [b"a*b".as_slice(), b"[x]", b"{a,b}?", b"j\xe9b", b"a.b+(c)|^$"] {
            assert!(matches(&literal(Path::new(os(name))), name), "{name:?}");
        }
        assert!(!matches(&literal(Path::new("a*b")), b"aab"));
    }

    proptest! {
        #[test]
        fn a_name_matches_what_is_literally_itself(
            one in proptest::collection::vec(any::<u8>(), 1..9), other in proptest::collection::vec(any::<u8>(), 1..9),
        ) {
            // No name of a cgroup contains these bytes.
            prop_assume!(!one.iter().chain(&other).any(|byte| matches!(byte, b'/' | b'\n' | 0)));
            let glob = literal(Path::new(os(&one)));
            prop_assert!(matches(&glob, &one));
            prop_assert_eq!(one == other, matches(&glob, &other));
        }
    }
}
