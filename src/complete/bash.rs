//! bash: it gives the line as it was typed, and takes text to put in its place as it is, quotes and all.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use clap::Command;
use clap_complete::engine::complete;
use clap_complete::env::EnvCompleter;

use super::shown;

pub struct Bash;

/// The line up to the cursor, the part of its last word that bash will replace, and what kind of completion it is.
const LINE: &str = "MEMCTL_COMP_LINE";
const PART: &str = "MEMCTL_COMP_PART";
const TYPE: &str = "MEMCTL_COMP_TYPE";

impl EnvCompleter for Bash {
    fn name(&self) -> &'static str {
        "bash"
    }

    fn is(&self, name: &str) -> bool {
        name == "bash"
    }

    fn write_registration(
        &self,
        var: &str,
        name: &str,
        bin: &str,
        completer: &str,
        buf: &mut dyn Write,
    ) -> io::Result<()> {
        let completer = shlex::try_quote(completer).map_err(io::Error::other)?;
        // Without a blank after what goes on: another level, the value of an option.
        write!(
            buf,
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

    fn write_complete(
        &self,
        command: &mut Command,
        _: Vec<OsString>,
        directory: Option<&Path>,
        buf: &mut dyn Write,
    ) -> io::Result<()> {
        let env = |name| std::env::var(name).unwrap_or_default();
        let (line, part) = (env(LINE), env(PART));
        let Some(typed) = Typed::parse(&line, &part) else { return Ok(()) };
        let last = typed.words.len().saturating_sub(1);
        let words = typed.words.iter().map(OsString::from).collect();
        let found = complete(command, words, last, directory)?;
        let found: Vec<_> = found.iter().map(shown).collect();
        // In a mere list of several, which puts nothing into the line, there is room for a word on each.
        let listing = matches!(env(TYPE).as_str(), "63") && found.len() > 1;
        for (word, help) in &found {
            let Some(rest) = typed.rest_of(word) else { continue };
            if listing && !help.is_empty() {
                writeln!(buf, "{rest}  ({help})")?;
            } else {
                writeln!(buf, "{rest}")?;
            }
        }
        Ok(())
    }
}

/// What was typed, as the shell would read it.
#[derive(Debug, PartialEq, Eq)]
struct Typed {
    words: Vec<String>,
    /// The beginning of the last word that bash keeps, since it takes `:` and `=` for the ends of words.
    kept: String,
    /// The quote that is open.
    open: Quote,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quote {
    None,
    Single,
    Double,
}

impl Typed {
    fn parse(line: &str, part: &str) -> Option<Self> {
        // No word has it, so it tells where the last one ends even if that is empty, or a quote is open.
        const END: char = '\u{1}';
        let quotes = [(Quote::None, ""), (Quote::Single, "'"), (Quote::Double, "\"")];
        let read = |text: &str| {
            quotes
                .iter()
                .find_map(|&(quote, close)| Some((quote, shlex::split(&format!("{text}{END}{close}"))?)))
        };
        let trim = |words: &mut Vec<String>| {
            let last = words.last_mut()?;
            last.truncate(last.find(END)?);
            Some(last.clone())
        };
        let (open, mut words) = read(line)?;
        let last = trim(&mut words)?;
        let part = read(part).and_then(|(_, mut words)| trim(&mut words)).unwrap_or_default();
        let kept = last.strip_suffix(&part).unwrap_or_default().to_owned();
        Some(Self { words, kept, open })
    }

    /// What of a candidate is to be put in place of the part that bash replaces.
    fn rest_of(&self, word: &str) -> Option<String> {
        let rest = word.strip_prefix(&self.kept)?;
        let special = |c: char| match self.open {
            Quote::None => !c.is_alphanumeric() && !"_./:=@%+,-".contains(c),
            Quote::Double => "\\$\"`".contains(c),
            Quote::Single => false,
        };
        let mut text = String::new();
        for c in rest.chars() {
            if special(c) {
                text.push('\\');
            }
            text.push(c);
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &str, part: &str) -> (Vec<String>, String, Quote) {
        let Typed { words, kept, open } = Typed::parse(line, part).unwrap();
        (words, kept, open)
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
        let typed = Typed::parse("memctl reclaim cri:o", "o").unwrap();
        assert_eq!(typed.rest_of("cri:one/").as_deref(), Some("one/"));
        assert_eq!(typed.rest_of("docker").as_deref(), None);
    }

    #[test]
    fn what_the_shell_would_take_away_is_escaped() {
        let rest = |line: &str, word: &str| Typed::parse(line, "a").unwrap().rest_of(word).unwrap();
        assert_eq!(rest("memctl reclaim a", "a\\x2db c"), "a\\\\x2db\\ c");
        assert_eq!(rest("memctl reclaim 'a", "a\\x2db"), "a\\x2db");
        assert_eq!(rest("memctl reclaim \"a", "a\\x2d$"), "a\\\\x2d\\$");
    }
}
