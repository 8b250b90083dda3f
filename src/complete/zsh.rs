//! zsh: it gives the words with their quotes, which it can take off itself, and quotes what it is
//! given.

use super::shell::{Registration, Shell, tabulated};

/// The shell.
pub const ZSH: Shell = Shell { name: "zsh", registration, answer: tabulated };

fn registration(Registration { var, name, bin, completer }: &Registration<'_>) -> String {
    // Another level goes on without a blank. `compadd` would sort, but what memctl gives is in
    // order.
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
