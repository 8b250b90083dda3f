//! bash: passes the line as typed, and inserts the answer literally, including quotes.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use clap::Command;
use clap_complete::engine::complete;

use super::shell::{Registration, Shell, shown};

/// The bash shell.
pub const BASH: Shell = Shell { name: "bash", registration, answer };

/// The line up to the cursor, the part of its last word that bash replaces, and the type of
/// completion.
const LINE: &str = "MEMCTL_COMP_LINE";
const PART: &str = "MEMCTL_COMP_PART";
const TYPE: &str = "MEMCTL_COMP_TYPE";

fn registration(Registration { var, name, bin, completer }: &Registration<'_>) -> String {
    // No blank after a word that continues: another level, or the value of an option.
    format!(
        r#"_{name}() {{
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        COMPREPLY+=("$line")
    done < <({LINE}="${{COMP_LINE:0:COMP_POINT}}" {PART}="$2" {TYPE}="$COMP_TYPE" \
        {var}=bash {completer} -- {name} 2>/dev/null)
    if [[ ${{#COMPREPLY[@]}} == 1 && ${{COMPREPLY[0]}} == *[/=:] ]]; then
        compopt -o nospace
    fi
}}
complete -F _{name} {bin}
"#
    )
}

fn answer(
    command: &mut Command,
    _: Vec<OsString>,
    directory: Option<&Path>,
    buf: &mut dyn Write,
) -> io::Result<()> {
    let env = |name| std::env::var_os(name).unwrap_or_default().into_vec();
    let (line, part) = (env(LINE), env(PART));
    let Some(typed) = Typed::parse(&line, &part) else { return Ok(()) };
    let last = typed.words.len().saturating_sub(1);
    let words = typed.words.iter().cloned().map(OsString::from_vec).collect();
    let found = complete(command, words, last, directory)?;
    let found: Vec<_> = found.iter().map(shown).collect();
    // A list of several candidates inserts nothing into the line, so there is room for a help text
    // on each.
    let listing = env(TYPE) == b"63" && found.len() > 1;
    for (word, help) in &found {
        let Some(rest) = typed.rest_of(word) else { continue };
        buf.write_all(&rest)?;
        if listing && !help.is_empty() { writeln!(buf, "  ({help})") } else { writeln!(buf) }?;
    }
    Ok(())
}

/// The words typed, as the shell would parse them.
#[derive(Debug, PartialEq, Eq)]
struct Typed {
    words: Vec<Vec<u8>>,
    /// The beginning of the last word that bash keeps, since it treats `:` and `=` as word breaks.
    kept: Vec<u8>,
    /// The open quote.
    open: Quote,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quote {
    None,
    Single,
    Double,
}

impl Typed {
    fn parse(line: &[u8], part: &[u8]) -> Option<Self> {
        // A byte that no word contains. It marks the end of the last word, even if that is empty or
        // a quote is open.
        const END: u8 = 1;
        let quotes = [(Quote::None, &b""[..]), (Quote::Single, b"'"), (Quote::Double, b"\"")];
        let read = |text: &[u8]| {
            quotes.iter().find_map(|&(quote, close)| {
                let closed = [text, &[END], close].concat();
                let mut words = shlex::bytes::Shlex::new(&closed);
                let read: Vec<_> = words.by_ref().collect();
                (!words.had_error).then_some((quote, read))
            })
        };
        let trim = |words: &mut Vec<Vec<u8>>| {
            let last = words.last_mut()?;
            last.truncate(last.iter().position(|&byte| byte == END)?);
            Some(last.clone())
        };
        let (open, mut words) = read(line)?;
        let last = trim(&mut words)?;
        let part = read(part).and_then(|(_, mut words)| trim(&mut words)).unwrap_or_default();
        let kept = last.strip_suffix(&*part).unwrap_or_default().to_vec();
        Some(Self { words, kept, open })
    }

    /// Returns the rest of a candidate: the text for the part that bash replaces.
    fn rest_of(&self, word: &[u8]) -> Option<Vec<u8>> {
        let rest = word.strip_prefix(&*self.kept)?;
        let mut text = Vec::with_capacity(rest.len());
        for chunk in rest.utf8_chunks() {
            for c in chunk.valid().chars() {
                let mut bytes = [0; 4];
                let plain = c.encode_utf8(&mut bytes);
                match (self.open, c) {
                    (Quote::None, c) if !c.is_alphanumeric() && !"_./:=@%+,-".contains(c) => {
                        text.extend([b"\\", plain.as_bytes()].concat());
                    }
                    (Quote::Double, '\\' | '$' | '"' | '`') => {
                        text.extend([b"\\", plain.as_bytes()].concat());
                    }
                    // History: within double quotes a backslash before it would stay in the word.
                    (Quote::Double, '!') => text.extend(b"\"'!'\""),
                    // Within single quotes nothing can be escaped.
                    (Quote::Single, '\'') => text.extend(b"'\\''"),
                    _ => text.extend(plain.as_bytes()),
                }
            }
            // No shell treats a byte of these specially.
            text.extend_from_slice(chunk.invalid());
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    fn parse(line: &str, part: &str) -> Typed {
        Typed::parse(line.as_bytes(), part.as_bytes()).unwrap()
    }

    fn typed(line: &str, part: &str) -> (Vec<String>, String, Quote) {
        let Typed { words, kept, open } = parse(line, part);
        (words.into_iter().map(text).collect(), text(kept), open)
    }

    #[test]
    fn a_line_is_read_as_the_shell_would() {
        let words = |line: &str| typed(line, "").0;
        assert_eq!(words("memctl reclaim "), ["memctl", "reclaim", ""]);
        assert_eq!(words("memctl reclaim a\\\\x2d"), ["memctl", "reclaim", "a\\x2d"]);
        assert_eq!(words("memctl reclaim 'a\\x2d"), ["memctl", "reclaim", "a\\x2d"]);
        assert_eq!(words("memctl reclaim \"a b"), ["memctl", "reclaim", "a b"]);
        assert_eq!(typed("memctl reclaim 'a", "a").2, Quote::Single);
    }

    #[test]
    fn bash_keeps_what_stands_before_a_colon() {
        let (_, kept, open) = typed("memctl reclaim cri:o", "o");
        assert_eq!((kept.as_str(), open), ("cri:", Quote::None));
        let typed = parse("memctl reclaim cri:o", "o");
        assert_eq!(typed.rest_of(b"cri:one/").as_deref(), Some(b"one/".as_slice()));
        assert_eq!(typed.rest_of(b"docker").as_deref(), None);
        let odd = Typed::parse(b"memctl reclaim j\xe9", b"j\xe9").unwrap();
        assert_eq!(odd.rest_of(b"j\xe9 b").as_deref(), Some(b"j\xe9\\ b".as_slice()));
    }

    #[test]
    fn what_the_shell_would_take_away_is_escaped() {
        let rest = |line: &str, word: &str| text(parse(line, "a").rest_of(word.as_bytes()).unwrap());
        assert_eq!(rest("memctl reclaim a", "a\\x2db c"), "a\\\\x2db\\ c");
        assert_eq!(rest("memctl reclaim 'a", "a\\x2db"), "a\\x2db");
        assert_eq!(rest("memctl reclaim \"a", "a\\x2d$"), "a\\\\x2d\\$");
    }

    #[test]
    fn no_name_leaves_the_quotes_it_is_put_into() {
        let rest = |line: &str, word: &str| text(parse(line, "a").rest_of(word.as_bytes()).unwrap());
        assert_eq!(rest("memctl reclaim 'a", "a';touch x;'"), "a'\\'';touch x;'\\''");
        assert_eq!(rest("memctl reclaim \"a", "a!b"), "a\"'!'\"b");
        assert_eq!(rest("memctl reclaim a", "a!b;'c"), "a\\!b\\;\\'c");
    }

    /// Returns the arguments that bash makes of a line.
    fn by_bash(line: &str) -> Option<Vec<u8>> {
        let script = format!("printf '%s\\0' {line}");
        // A mistake may run a part of the name.
        let folder = tempfile::tempdir().unwrap();
        let mut bash = std::process::Command::new("bash");
        let ran = bash.args(["--norc", "-c", &script]).current_dir(folder.path()).output().ok()?;
        assert!(ran.status.success(), "{line}");
        Some(ran.stdout)
    }

    #[test]
    fn bash_itself_reads_the_name_back() {
        for word in
            ["a';touch x;'", "a$(touch x)`id`", r#"a"b\x2d' !"#, "a!b", "a b*?[c]{d,e}~#&|<>(;", "aé\u{e000}"]
        {
            for open in ["", "'", "\""] {
                let rest = parse(&format!("memctl reclaim {open}a"), "a").rest_of(word.as_bytes()).unwrap();
                let line = format!("{open}{}{open}", text(rest));
                // Without bash there is nothing to compare with.
                let Some(read) = by_bash(&line) else { return };
                assert_eq!(text(read), format!("{word}\0"), "{line}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_name_is_read_back(word in "a[ -~é]{0,20}") {
            for open in ["", "'", "\""] {
                let rest = parse(&format!("memctl reclaim {open}a"), "a").rest_of(word.as_bytes()).unwrap();
                let line = format!("{open}{}{open}", text(rest));
                prop_assert_eq!(shlex::split(&line), Some(vec![word.clone()]), "{}", line);
            }
        }
    }
}
