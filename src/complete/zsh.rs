//! zsh: passes the words with their quotes, which it can remove itself, and quotes the answer.

use super::shell::{Registration, Shell, tabulated};

/// The zsh shell.
pub const ZSH: Shell = Shell { name: "zsh", registration, answer: tabulated };

fn registration(Registration { var, name, bin, completer }: &Registration<'_>) -> String {
    // No blank after a word that continues with another level. `compadd` would sort, but memctl's
    // candidates are already in order.
    format!(
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
