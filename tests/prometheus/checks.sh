# shellcheck shell=bash
# The checks of `run`, each a function. Sourced, never run.
# shellcheck disable=SC2154  # the variables of run

checks=0
failures=0
# fail WORDS: reports a failure. The checks go on.
fail() { say "$@"; failures=$((failures + 1)); }
# check WORDS COMMAND...: runs a command, and reports a failure with its output.
check() {
    local output
    checks=$((checks + 1))
    output=$("${@:2}" 2>&1) || fail "$1"$'\n'"$output"
}

# types TEXT: prints name and type of each metric in a text.
types() { sed -n 's/^# TYPE //p' "$1" | sort; }

# grow_counters N: replaces the text that node exporter reads by one with counters larger by N.
grow_counters() {
    awk -v n="$1" '
        /^# TYPE / { is_counter[$3] = $4 == "counter" }
        /^[^#]/ {
            name = $0
            sub(/[{ ].*/, "", name)
            if (is_counter[name]) {
                value = $NF + n
                sub(/[^ ]*$/, "")
                $0 = $0 sprintf("%.17g", value)
            }
        }
        { print }' "$text" >"$folder/textfile/memctl.prom.new"
    mv "$folder/textfile/memctl.prom.new" "$folder/textfile/memctl.prom"
}

# check_rules: the rules are valid, and each has a case, whose results are right.
check_rules() {
    local kind name rules=$contrib/memctl.rules.yml cases=$contrib/memctl.rules.test.yml
    check "check rules" "$tools/promtool" check rules --lint=all --lint-fatal "$rules"
    check "test rules" "$tools/promtool" test rules "$cases"
    while read -r kind name; do
        case $kind in
            alert) check "$name: no case" grep -qx " *- alertname: $name" "$cases" ;;
            record) check "$name: no case" grep -qx " *- expr: $name" "$cases" ;;
        esac
    done < <(sed -n 's/^ *- \(alert\|record\): /\1 /p' "$rules")
}

# check_names: what contrib/ names exists: metrics in sample.prom, recorded series in the rules.
check_names() {
    local file name rules=$contrib/memctl.rules.yml
    for file in dashboard.json memctl.rules.yml memctl.rules.test.yml README.md; do
        while read -r name; do
            case $name in
                *:*) check "$file: $name: not recorded" grep -qx " *- record: $name" "$rules" ;;
                *) check "$file: $name: not in sample.prom" grep -q "^# TYPE $name " "$sample" ;;
            esac
        done < <(grep -oE '([a-z_]+:)?memctl_[a-z0-9_:]*[a-z0-9]' "$contrib/$file" | sort -u)
    done
}

# check_guards: docs/metrics.md explains each word of the label guard.
check_guards() {
    local word count=0
    while read -r word; do
        count=$((count + 1))
        check "docs/metrics.md: guard $word: not explained" grep -q "^| \`$word\` | " "$root/docs/metrics.md"
    done < <(sed -n 's/^ *Self::.* => "\([a-z_]*\)",$/\1/p' "$root/src/watch/policy/guard.rs")
    [ $count -gt 10 ] || fail "guard.rs has only $count words"
}

# check_text: the text is valid, without a remark, and has no metric that sample.prom lacks.
check_text() {
    check "check metrics" silent "$tools/promtool" check metrics
    check "metrics that sample.prom lacks" lacks_none
}

# lacks_none: prints metrics, with their types, that sample.prom lacks, and fails if there are any.
lacks_none() { comm -23 <(types "$text") <(types "$sample") | fails_if_any; }

# silent COMMAND...: succeeds if the command does, given the text, and prints nothing.
silent() {
    local output
    if output=$("$@" <"$text" 2>&1) && [ -z "$output" ]; then return; fi
    echo "$output"
    return 1
}

# sampled EXPRESSION: succeeds if the expression has series.
sampled() {
    local result
    if result=$(query "$1") && [ "$result" != '[]' ]; then return; fi
    echo "$1: ${result:-no answer}"
    return 1
}

# check_scrapes: each scrape succeeded, and node exporter had no error.
check_scrapes() {
    check "scrapes" sampled 'min_over_time(up[1m]) == 1 and count_over_time(up[1m]) >= 3'
    case $live in
        http://*) ;;
        *) check "node exporter" sampled 'max_over_time(node_textfile_scrape_error[1m]) == 0' ;;
    esac
}

# check_labels: each label of the text, such as the cgroup, comes back whole.
check_labels() {
    local label
    check "the cgroup with an escape" \
        sampled 'last_over_time(memctl_cgroup_usage_bytes{cgroup="/system.slice/a\\x2db.service"}[1m])'
    # A quote in a value is escaped, so this finds names of labels only.
    for label in $(grep -v '^#' "$text" | grep -oE '[{,][a-z_]+="' | tr -d '{,="' | sort -u); do
        check "label $label" labels_return "$label"
    done
}

# labels_return LABEL: succeeds if Prometheus has the label's values in the text, of which there is
# one or more. Escapes of the text format are escapes of JSON as well.
labels_return() {
    local want got
    want=$(grep -oE "[{,]$1=\"(\\\\.|[^\"\\\\])*\"" "$text" | sed 's/^[^=]*=//' | jq -cs unique)
    got=$(ask "label/$1/values")
    jq -ne --argjson want "$want" --argjson got "$got" \
        '$want - $got | if length == 0 and ($want | length) > 0 then true else . , false end'
}

# check_metadata: each metric keeps its type and its help.
check_metadata() { check "metadata" metadata_returns; }

# metadata_returns: succeeds if Prometheus knows each type and each help of the text, of which there
# is one or more, as the text has them. Prints the others.
metadata_returns() {
    local metadata
    metadata=$(ask metadata)
    grep -E '^# (TYPE|HELP) ' "$text" | jq -Rn --argjson metadata "$metadata" '
        [inputs | capture("^# (?<kind>TYPE|HELP) (?<name>\\S+) (?<value>.*)$")] |
        map(.kind |= ascii_downcase | .value |= gsub("\\\\(?<c>.)"; if .c == "n" then "\n" else .c end)) |
        if . == [] then "no types" else .[] | .kind as $kind | .value as $value |
            ($metadata[.name] // [] | map(.[$kind]) | unique) as $got |
            select($got != [$value]) | "\(.name): \($kind): \($got) instead of \($value)"
        end' | fails_if_any
}

# fails_if_any: prints its input, and fails if there is any.
fails_if_any() { ! grep .; }

# check_rule_expressions: Prometheus evaluates each rule without an error, and the series that are
# recorded exist.
check_rule_expressions() {
    local rules name query
    rules=$(ask rules)
    check "evaluation of rules" jq -e '
        [.groups[].rules[]] | if length == 0 then false else map(select(.health != "ok")) end |
        if . == [] then true else . , false end' <<<"$rules"
    while IFS=$'\t' read -r name query; do check_series "$name" "$query"; done < <(
        jq -r '.groups[].rules[] | select(.type == "recording") |
            [.name, (.query | gsub("\\s+"; " "))] | @tsv' <<<"$rules")
}

# check_dashboard: ids are unique, each data source is the variable, and each expression answers.
check_dashboard() {
    local expression count=0
    check "dashboard" jq -e -f "$here/dashboard.jq" "$contrib/dashboard.json"
    while IFS= read -r expression; do
        count=$((count + 1))
        # shellcheck disable=SC2016  # the dashboard's variables
        case $expression in
            *'$'*) fail "$expression: has a variable that this check doesn't know" ;;
            *) check_series "$expression" ;;
        esac
    done < <(jq -r '
        [(.panels[].targets[]?.expr),
         (.templating.list[] | select(.type == "query").definition |
            capture("^label_values\\((?<e>.*), \\w+\\)$").e)] |
        unique[] | gsub("\\$__rate_interval"; "1m") | gsub("\\$(instance|rule)"; ".*") |
            gsub("\\$top"; "10")' "$contrib/dashboard.json")
    [ $count -gt 10 ] || fail "the dashboard has only $count expressions"
}

# check_series EXPRESSION [DEFINITION]: the expression answers without an error, and has series unless
# the text lacks one of the metrics in it, or in the definition of a recorded series, or its label
# namespace, which only cgroups of pods have.
check_series() {
    local result name lacks=
    checks=$((checks + 1))
    result=$(query "$1") || { fail "$1: no answer"; return; }
    [ "$result" = '[]' ] || return 0
    for name in $(grep -oE 'memctl_[a-z0-9_]+' <<<"${2:-$1}" | sort -u); do
        grep -q "^# TYPE $name " "$text" || lacks+=" $name"
    done
    case ${2:-$1} in
        *namespace*) grep -q ',namespace="' "$text" || lacks+=" namespace" ;;
    esac
    if [ -z "$live$lacks" ]; then
        fail "$1: no series"
    else
        say "$1: no series${lacks:+: the text lacks$lacks}"
    fi
}
