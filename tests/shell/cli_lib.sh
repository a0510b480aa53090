# shellcheck shell=bash
# cli_lib.sh: what the program's shell tests share. A test is a function run in a subshell of its own under `set -e`: it
# fails with the first command that fails, and what it printed is then shown. Sourced, in the project's root.
tidemill=$PWD/build/bin/tidemill
: "${TIDEMILL_TEST_DATABASE:?these tests need a database: run make test}"
unset DATABASE_URL NO_COLOR "${!PG@}"
scratch=$(mktemp -d)
number=0
failures=0

# own_database NAME makes an empty database and prints its URL.
own_database() {
    psql -qX -v ON_ERROR_STOP=1 "$TIDEMILL_TEST_DATABASE" -c "create database $1" >&2
    sed -E "s#^(postgres(ql)?://[^/]*/)[^?]*#\1$1#" <<<"$TIDEMILL_TEST_DATABASE"
}

# drop_database NAME drops it, and whoever is still connected.
drop_database() { psql -qX "$TIDEMILL_TEST_DATABASE" -c "drop database if exists $1 with (force)" >&2; }

# check DESCRIPTION FUNCTION runs a test and prints its line of TAP.
check() {
    number=$((number + 1))
    (
        # shellcheck disable=SC2046 # process ids, one word each
        trap 'kill -KILL $(jobs -rp) 2>/dev/null || true' EXIT
        set -e
        "$2"
    ) >"$scratch/log" 2>&1
    # shellcheck disable=SC2181 # in a condition, set -e would not hold
    if [[ $? == 0 ]]; then
        echo "ok $number - $1"
    else
        failures=$((failures + 1))
        echo "not ok $number - $1"
        sed 's/^/# /' "$scratch/log"
    fi
}

# finish ends the suite.
finish() {
    echo "1..$number"
    exit $((failures > 0))
}

# fails CODE COMMAND... succeeds if the command exits with that code; its output goes to the files out and err.
fails() {
    local code=$1 status=0
    shift
    "$@" >"$scratch/out" 2>"$scratch/err" || status=$?
    cat "$scratch/err"
    [[ $status == "$code" ]] || { echo "exit code $status, not $code: $*" && return 1; }
}

# says TEXT succeeds if the last command that `fails` ran printed that on stderr.
says() { grep -qF -- "$1" "$scratch/err" || { echo "does not say: $1" && return 1; }; }

# not COMMAND... fails if the command succeeds (`! command` would not end a test under `set -e`).
not() {
    if "$@"; then
        echo "unexpected: $*"
        return 1
    fi
}

# same EXPECTED ACTUAL compares two texts.
same() { [[ $1 == "$2" ]] || { printf 'expected: %s\nactual:   %s\n' "$1" "$2" && return 1; }; }

# json EXPRESSION reads JSON on stdin as v and prints a Python expression's value.
json() { python3 -c 'import json, sys; v = json.load(sys.stdin); print(eval(f"({sys.argv[1]})"))' "$1"; }

# holds EXPRESSION reads JSON on stdin as v and succeeds if a Python expression is true.
holds() {
    python3 -c '
import json, sys
v = json.load(sys.stdin)
if not eval(f"({sys.argv[1]})"):
    sys.exit(f"not so: {sys.argv[1]}\nof: {v}")' "$1"
}

# enqueue prints the id of a new job.
enqueue() { "$tidemill" enqueue --json "$@" | json 'v["id"]'; }

# job ID EXPRESSION prints a value of a job as `jobs show --json` tells it.
job() { "$tidemill" jobs show --json "$1" | json "$2"; }

# eventually COMMAND... repeats a command until it succeeds, for 60 s at most: a busy machine takes its time.
eventually() {
    local end=$((SECONDS + 60))
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || { echo "not within 60 s: $*" && return 1; }
        read -rt 0.05 <> <(:) || true
    done
}

# on_terminal COMMAND... runs a command on a terminal of 80 columns and prints what it wrote there.
on_terminal() { python3 tests/shell/on_terminal.py "$@"; }
