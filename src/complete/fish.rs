//! fish: it gives the words before without their quotes, the last one with them, and quotes what it is given.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use clap::Command;
use clap_complete::env::EnvCompleter;

use super::zsh::tabulated;

pub struct Fish;

impl EnvCompleter for Fish {
    fn name(&self) -> &'static str {
        "fish"
    }

    fn is(&self, name: &str) -> bool {
        name == "fish"
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
        write!(
            buf,
            r#"function __{name}_complete
    set -l last (commandline --current-token)
    # What isn't closed yet is read as if it were.
    for close in '' "'" '"'
        set -l read (string unescape -- "$last$close" 2>/dev/null)
        and set last $read
        and break
    end
    {var}=fish {completer} -- (commandline --current-process --tokenize --cut-at-cursor) "$last" 2>/dev/null
end
complete --keep-order --no-files --command {bin} --arguments '(__{name}_complete)'
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
