//! fish: passes the earlier words without their quotes and the last one with them, and quotes the
//! answer itself.

use super::shell::{Registration, Shell, tabulated};

/// The fish shell.
pub const FISH: Shell = Shell { name: "fish", registration, answer: tabulated };

fn registration(Registration { var, name, bin, completer }: &Registration<'_>) -> String {
    format!(
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
