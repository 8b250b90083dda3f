//! zsh: it gives the words with their quotes, which it can take off itself, and quotes what it is given.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use clap::Command;
use clap_complete::engine::complete;
use clap_complete::env::EnvCompleter;

use super::shown;

pub struct Zsh;

impl EnvCompleter for Zsh {
    fn name(&self) -> &'static str {
        "zsh"
    }

    fn is(&self, name: &str) -> bool {
        name == "zsh"
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
        // Another level goes on without a blank. `compadd` would sort, but what memctl gives is in order.
        write!(
            buf,
            r#"_{name}() {{
    local line word last=$IPREFIX$PREFIX
    # Without its quotes; the one that is open stands apart already.
    case $compstate[quote] in
        (\') ;;
        (\") last=${{(Q)${{:-\"$last\"}}}} ;;
        (*) last=${{(Q)last}} ;;
    esac
    local -a words_on texts_on words_off texts_off
    while IFS= read -r line; do
        word=${{line%%$'\t'*}}
        if [[ $word == *[/:] ]]; then
            words_on+=("$word")
            texts_on+=("${{line/$'\t'/  -- }}")
        else
            words_off+=("$word")
            texts_off+=("${{line/$'\t'/  -- }}")
        fi
    done < <({var}=zsh {completer} -- "${{(@Q)words[1,CURRENT-1]}}" "$last" 2>/dev/null)
    (( $#words_on )) && compadd -V on -l -S '' -d texts_on -a words_on
    (( $#words_off )) && compadd -V off -l -d texts_off -a words_off
    (( $#words_on + $#words_off ))
}}
compdef _{name} {bin}
"#
        )
    }

    fn write_complete(
        &self,
        command: &mut Command,
        words: Vec<OsString>,
        directory: Option<&Path>,
        buf: &mut dyn Write,
    ) -> io::Result<()> {
        tabulated(command, words, directory, buf)
    }
}

/// A candidate a line, then a tab and a word on it.
pub fn tabulated(
    command: &mut Command,
    words: Vec<OsString>,
    directory: Option<&Path>,
    buf: &mut dyn Write,
) -> io::Result<()> {
    let last = words.len().saturating_sub(1);
    for (word, help) in complete(command, words, last, directory)?.iter().map(shown) {
        buf.write_all(&word)?;
        if help.is_empty() { writeln!(buf) } else { writeln!(buf, "\t{help}") }?;
    }
    Ok(())
}
