//! Globs over names that need not be UTF-8.
//!
//! A glob is text to the library that compiles it, and what it matches are bytes. A glob that was typed with other bytes is
//! compiled from a text in which each of those stands as a character of its own, and is matched against names in the same
//! spelling.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use globset::{Glob, GlobBuilder, GlobMatcher, GlobSet, GlobSetBuilder};

/// A glob over paths from the mount point, without a leading `/`.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    glob: Glob,
    spelt: bool,
}

impl Pattern {
    /// Compiles a glob. It has `*`, `?`, `[…]`, `{a,b}`, which stay within a level, and `**`, which crosses levels.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn new(glob: &OsStr) -> Result<Self, String> {
        let text = spelt(glob);
        // A backslash is a character of systemd's unit names (`\x2d`) before it is anything else.
        let built = GlobBuilder::new(&text).literal_separator(true).backslash_escape(false).build();
        let glob = built.map_err(|e| e.kind().to_string())?;
        Ok(Self { glob, spelt: matches!(text, Cow::Owned(_)) })
    }

    /// Makes it ready to match one.
    pub(super) fn matcher(&self) -> Matcher {
        Matcher { glob: self.glob.compile_matcher(), spelt: self.spelt }
    }
}

/// A glob that was made ready.
#[derive(Debug)]
pub(super) struct Matcher {
    glob: GlobMatcher,
    spelt: bool,
}

impl Matcher {
    /// Whether a path from the mount point matches.
    pub(super) fn is_match(&self, path: &Path) -> bool {
        if self.spelt { self.glob.is_match(&*spelt(path.as_os_str())) } else { self.glob.is_match(path) }
    }
}

/// Several globs, matched at once.
#[derive(Debug, Default)]
pub(super) struct PatternSet {
    plain: GlobSet,
    /// Those that were typed with bytes that aren't UTF-8: hardly ever any.
    spelt: Vec<Matcher>,
}

impl PatternSet {
    /// Of those globs.
    ///
    /// # Errors
    /// What is wrong with all of them together: they are too large.
    pub(super) fn new(patterns: &[Pattern]) -> Result<Self, String> {
        let mut plain = GlobSetBuilder::new();
        let (odd, even): (Vec<_>, Vec<_>) = patterns.iter().partition(|pattern| pattern.spelt);
        for pattern in even {
            plain.add(pattern.glob.clone());
        }
        let plain = plain.build().map_err(|e| e.kind().to_string())?;
        Ok(Self { plain, spelt: odd.into_iter().map(Pattern::matcher).collect() })
    }

    /// Whether one of them matches a path from the mount point.
    pub(super) fn is_match(&self, path: &Path) -> bool {
        !self.plain.is_empty() && self.plain.is_match(path)
            || self.spelt.iter().any(|glob| glob.is_match(path))
    }
}

/// A path in which nothing is special.
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

/// Where the bytes that aren't UTF-8 go: so many characters of the Private Use Area from here.
const FIRST: u32 = 0xF700;

/// A name in which each byte that isn't UTF-8 stands as a character. No two names are spelt alike: what has such a
/// character already has its bytes spelt, too.
fn spelt(name: &OsStr) -> Cow<'_, str> {
    let is_ours = |c: char| (FIRST..FIRST + 0x100).contains(&u32::from(c));
    if let Some(text) = name.to_str().filter(|text| !text.contains(is_ours)) {
        return Cow::Borrowed(text);
    }
    let mut whole = String::new();
    for chunk in name.as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_ours(c) {
                let mut bytes = [0; 4];
                whole.extend(c.encode_utf8(&mut bytes).bytes().filter_map(character));
            } else {
                whole.push(c);
            }
        }
        whole.extend(chunk.invalid().iter().copied().filter_map(character));
    }
    Cow::Owned(whole)
}

fn character(byte: u8) -> Option<char> {
    char::from_u32(FIRST + u32::from(byte))
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
        assert!(!matches(b"j\xe9*", "j\u{f7e9}b".as_bytes()), "nobody can spell another's name");
        assert!(matches(b"j\xe9/**", b"j\xe9/a/b") && !matches(b"j\xe9/*", b"j\xe9/a/b"));
    }

    #[test]
    fn a_literal_is_only_itself() {
        for name in [b"a*b".as_slice(), b"[x]", b"{a,b}?", b"j\xe9b"] {
            assert!(matches(&literal(Path::new(os(name))), name), "{name:?}");
        }
        assert!(!matches(&literal(Path::new("a*b")), b"aab"));
    }

    proptest! {
        #[test]
        fn no_two_names_are_spelt_alike(
            one in proptest::collection::vec(any::<u8>(), 0..9), other in proptest::collection::vec(any::<u8>(), 0..9),
        ) {
            prop_assert_eq!(one == other, spelt(os(&one)) == spelt(os(&other)));
        }
    }
}
