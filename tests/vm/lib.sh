# shellcheck shell=bash
# What the scripts beside this file share. Sourced, never run.

vm="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck disable=SC2034  # for the scripts that source this one
root="$(cd "$vm/../.." && pwd)"
cache="${MEMCTL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/memctl}"
# mkfs.ext4 and mkswap are not in an ordinary user's PATH.
PATH="$PATH:/usr/sbin:/sbin"

say() { echo "${0##*/}: $*" >&2; }
die() { say "$@"; exit 1; }

# kernel_names: prints the names in the table, one per line.
kernel_names() { awk '!/^#/ && NF { print $1 }' "$vm/kernels.tsv"; }

# kernel_row NAME: sets `suite`, `metapackage`, `features` and `words` from the table.
kernel_row() {
    local row
    row=$(awk -v name="$1" '!/^#/ && $1 == name { print $2, $3, $4, $5 }' "$vm/kernels.tsv")
    [ -n "$row" ] || die "$1: no such kernel: the table has $(kernel_names | paste -sd' ')"
    # shellcheck disable=SC2034
    read -r suite metapackage features words <<<"$row"
}

# executable LOG SOURCE: prints the executable that cargo built of SOURCE, by what it said.
executable() {
    local path
    path=$(sed -n "s|^ *Executable $2 (\(.*\))\$|\1|p" "$1")
    [ -n "$path" ] || die "$2: cargo named no executable for it"
    echo "$path"
}

# record_to FILE: passes its input on, except the lines of a record, which go to FILE.
record_to() {
    local line
    while IFS= read -r line; do
        case $line in
            "record "*) printf '%s\n' "${line#record }" >&3 ;;
            *) printf '%s\n' "$line" ;;
        esac
    done 3>"$1"
}

# lock: takes the lock on the cache, so that one script at a time changes it. Held until `unlock`,
# or the end of the script.
lock() { mkdir -p "$cache"; exec 9>"$cache/lock"; flock 9; }
unlock() { exec 9>&-; }

# cargo_tool NAME VERSION: builds that version of a cargo subcommand into the cache, unless it is
# there, and prints the folder of the program. Without optimisation: it runs for seconds. To be called
# under the lock.
cargo_tool() {
    local folder="$cache/tools/$1-$2"
    if [ ! -x "$folder/bin/$1" ]; then
        say "building $1 $2: this takes a minute or two"
        # A build script can't be static: neither these flags nor the machine's.
        env -u RUSTFLAGS CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=false \
            CARGO_PROFILE_RELEASE_CODEGEN_UNITS=64 nice cargo install --quiet --locked --version "$2" --root "$folder" "$1" >&2 || {
            say "$1 $2: could not be built"
            return 1
        }
    fi
    echo "$folder/bin"
}

# apt_state NAME: sets `apt`, options for an apt with lists and downloads in a folder of its own, so
# that the machine's stay as they are. Root needs no sandbox user, who can't read the cache.
apt_state() {
    local state="$cache/apt/$1"
    mkdir -p "$state/lists/partial" "$state/archives/partial"
    apt=(-q -o Dir::State::Lists="$state/lists" -o Dir::Cache="$state" -o APT::Sandbox::User=root
        -o Acquire::Languages=none -o Acquire::Retries=3
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false)
}

# suite_apt: sets `apt` for Debian's newest packages of `suite`, with its lists fetched. This apt
# knows no installed packages: the machine's packages don't matter.
suite_apt() {
    local uri empty="$cache/apt/empty"
    uri=$(mirror) || return
    apt_state "$suite"
    : >"$empty"
    echo "deb $uri $suite main" >"$cache/apt/$suite/sources.list"
    apt+=(-o Dir::Etc::SourceList="$cache/apt/$suite/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null -o Dir::State::status="$empty")
    apt-get "${apt[@]}" -o APT::Update::Error-Mode=any update >&2
}

# fetch_debs FOLDER PACKAGE...: fetches Debian's packages of `suite`, and what they depend on, into
# FOLDER.
fetch_debs() {
    local folder=$1
    shift
    suite_apt
    mkdir -p "$folder/partial"
    apt-get "${apt[@]}" -o Dir::Cache::archives="$folder" \
        -qq --yes --download-only --no-install-recommends install "$@" >&2
}

# cached NAME SUFFIX FUNCTION: prints the path of NAME in the cache, a file or a folder. Unless this
# version of the script has made it before, calls FUNCTION, which makes it as `$new/result`. `$new` is
# a folder in the cache that is removed when the script ends. To be called outside of conditions and
# substitutions, in which a failure wouldn't end the script.
cached() {
    local path
    path=$cache/$1-$(cksum <"$0" | cut -d' ' -f1)$2
    if [ ! -e "$path" ]; then
        lock
        # Another script may have made it while this one waited for the lock.
        if [ ! -e "$path" ]; then
            new=$(mktemp -d "$cache/.$1.XXXXXX")
            trap 'rm -rf "$new"' EXIT
            "$3"
            rm -rf "$cache/$1"-[0-9]*
            mv "$new/result" "$path"
        fi
    fi
    echo "$path"
}

# lru_switch LRU: prints a command that makes a guest's kernel use that LRU, or nothing for its own
# choice.
lru_switch() {
    case $1 in
        '') ;;
        classic) echo 'echo 0 >/sys/kernel/mm/lru_gen/enabled || exit' ;;
        generations) echo 'echo 7 >/sys/kernel/mm/lru_gen/enabled || exit' ;;
        *) die "--lru $1: must be classic or generations" ;;
    esac
}

# mirror: prints the address of the Debian archive, as this machine is configured: no address is
# named here. apt knows which of its sources is Debian's only after an update, so this runs one if
# needed.
mirror() {
    local apt uri
    uri=$(mirror_in)
    if [ -z "$uri" ]; then
        apt_state machine
        apt-get "${apt[@]}" update >&2 || true
        uri=$(mirror_in "${apt[@]}")
    fi
    [ -n "$uri" ] || die "no debian archive in this machine's apt sources"
    echo "$uri"
}

# Security and backports have labels of their own: this is the main archive only.
mirror_in() {
    # shellcheck disable=SC2016  # apt expands it
    apt-get "$@" indextargets --format '$(REPO_URI)' \
        'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 2>/dev/null | sed -n 1p
}
