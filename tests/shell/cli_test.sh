#!/bin/bash
# cli_test.sh: what the program says and does without a worker: usage, help, migrations, enqueueing, looking at jobs and
# changing them. Prints TAP. Needs build/bin/tidemill and TIDEMILL_TEST_DATABASE.
# shellcheck disable=SC2317 # tests are called by their names
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/shell/cli_lib.sh
. tests/shell/cli_lib.sh

name=cli_$$
bare=cli_bare_$$ # a second database, never migrated
trap 'drop_database "$name"; drop_database "$bare"; rm -rf "$scratch"' EXIT
url=$(own_database "$name") && bare_url=$(own_database "$bare") || exit 1

# every_help prints each command's words, by what each group's help lists.
every_help() {
    echo
    local group
    for group in '' migrate jobs dead; do
        # shellcheck disable=SC2086 # a group is one word or none
        "$tidemill" $group --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p' | sed "s/^/$group /"
    done
}

# shellcheck disable=SC2086 # a command is several words
helps() {
    local command count=0
    while read -r command; do
        count=$((count + 1))
        "$tidemill" $command --help >"$scratch/help"
        grep -q '^Usage: tidemill' "$scratch/help"
        grep -q '^Examples:' "$scratch/help"
        grep -q -- '--database URL' "$scratch/help"
        not grep '^.\{81\}' "$scratch/help"
        not grep -n ' $' "$scratch/help"
        "$tidemill" help $command >"$scratch/help2"
        diff "$scratch/help" "$scratch/help2"
    done < <(every_help)
    ((count >= 18)) || { echo "only $count commands" && return 1; }
}

alone() {
    fails 2 "$tidemill"
    says 'Usage: tidemill COMMAND'
    same '' "$(cat "$scratch/out")"
    fails 2 "$tidemill" jobs
    says 'Usage: tidemill jobs COMMAND'
}

suggestions() {
    fails 2 "$tidemill" enqeue
    says 'there is no command enqeue; did you mean enqueue?'
    fails 2 "$tidemill" jobs lits
    says 'did you mean list?'
    fails 2 "$tidemill" jobs list --sate dead
    says 'there is no option --sate; did you mean --state?'
    fails 2 "$tidemill" enqueue t --databse=x
    says 'did you mean --database?'
    fails 2 "$tidemill" jobs list --state complete
    says '--state: complete is not allowed; did you mean completed?'
    fails 2 "$tidemill" zebra
    says 'there is no command zebra'
    not grep -q 'did you mean' "$scratch/err"
}

# refused MESSAGE ARGUMENTS... is a usage error.
refused() {
    fails 2 "$tidemill" "${@:2}"
    says "$1"
    says '--help` shows how it is used'
}

usage() {
    refused 'too few arguments: tidemill enqueue TASK [ARGS]' enqueue
    refused 'too many arguments: c is not expected' enqueue a '{}' c
    refused '--queue needs a value' enqueue t --queue
    refused '--queue needs a value' enqueue t --queue --json
    refused '--json takes no value' enqueue t --json=1
    refused 'there is no option -x' enqueue t -x
    refused '--priority: 101 is not allowed; give a whole number from 0 to 100' enqueue t --priority 101
    refused '--priority: 1.5 is not allowed' enqueue t --priority 1.5
    refused '--max-attempts: 0 is not allowed' enqueue t --max-attempts 0
    refused '--in: -5m is not a duration' enqueue t --in=-5m
    refused '--in: 5x is not a duration' enqueue t --in 5x
    refused '--in: 1h30 is not a duration' enqueue t --in 1h30
    refused '--in: 9999999d is too long' enqueue t --in 9999999d
    refused '--at: 2030-02-30T00:00:00Z is not a time' enqueue t --at 2030-02-30T00:00:00Z
    refused '--at: 2030-01-01T00:00:00 is not a time; give one with its zone' enqueue t --at 2030-01-01T00:00:00
    refused '--in and --at exclude each other' enqueue t --in 5m --at 2030-01-01T00:00:00Z
    refused 'x is not a job' jobs show x
    refused '0 is not a job' jobs cancel 1 0
    refused '--all and ids exclude each other' dead requeue --all 1
    refused '--task and --queue need --all' dead requeue --task t
    refused 'give the ids of dead jobs, or --all' dead requeue
    refused '--queue: a=0 is not allowed; give NAME=N' work --queue a=0
    refused '--queue: a is given twice' work --queue a=1 --queue a
    refused '--log-format: xml is not allowed; give text or json' work --log-format xml
}

unreachable() {
    local hidden=postgresql://someone:geheim@127.0.0.1:1/none command
    for command in 'migrate status' 'migrate up' 'enqueue t' 'jobs list' 'jobs show 1' queues 'work --handlers handlers'; do
        # shellcheck disable=SC2086 # a command is several words
        fails 1 "$tidemill" $command --database "$hidden"
        says 'tidemill: the database cannot be reached'
        says 'Give its URL with --database or in DATABASE_URL'
        not grep -q geheim "$scratch/err" "$scratch/out"
    done
    fails 1 "$tidemill" queues --database 'postgresql:/someone:geheim@host/x'
    says 'database: '
    not grep -q geheim "$scratch/err"
}

not_migrated() {
    local command
    for command in 'enqueue t' 'jobs list' 'jobs show 1' 'jobs cancel 1' 'dead list' queues; do
        # shellcheck disable=SC2086 # a command is several words
        fails 1 "$tidemill" $command --database "$bare_url"
        says 'run tidemill migrate up'
    done
}

migrate_at_once() {
    "$tidemill" migrate status --json | holds 'v["current"] == 0 and v["needed"] >= 1 and v["state"] == "none"'
    local i
    for i in 1 2 3 4; do
        "$tidemill" migrate up --json >"$scratch/up$i" &
    done
    for i in 1 2 3 4; do wait -n; done
    cat "$scratch"/up[1-4]
    same "$("$tidemill" migrate status --json | json 'v["needed"]')" \
        "$(cat "$scratch"/up[1-4] | json_lines 'sum(r["applied"] for r in v)')"
    "$tidemill" migrate status --json | holds 'v["current"] == v["needed"] and v["state"] == "current"'
    same 1 "$("$tidemill" migrate up | grep -c 'nothing to do')"
}

# json_lines EXPRESSION reads several JSON values, one a line, as the list v.
json_lines() { python3 -c 'import json, sys; v = [json.loads(l) for l in sys.stdin]; print(eval(sys.argv[1]))' "$1"; }

migrate_down() {
    fails 2 "$tidemill" migrate down --to 0 </dev/null
    says 'deletes every job; give --yes'
    "$tidemill" migrate status | grep -q 'up to date'
    TYPED=$'no\n' fails 1 on_terminal "$tidemill" migrate down --to 0
    grep -q 'Type yes to go on' "$scratch/out"
    "$tidemill" migrate status | grep -q 'up to date'
    "$tidemill" enqueue gone
    "$tidemill" migrate down --to 0 --yes --json | holds 'v["version"] == 0 and v["reverted"] >= 1'
    "$tidemill" migrate status --json | holds 'v["state"] == "none"'
    "$tidemill" migrate up
    "$tidemill" jobs list --json | holds 'v == []'
}

enqueue_prints() {
    local id
    id=$("$tidemill" enqueue greet '{"name": "Ada"}' --unique-key k --unique-for 1h | tee /dev/stderr |
        sed -n 's/^enqueued job \([0-9]*\) (greet)$/\1/p')
    [[ $id ]]
    same "duplicate of job $id" "$("$tidemill" enqueue greet --unique-key k --unique-for 1h)"
    same "{\"id\":$id,\"duplicate\":true}" "$("$tidemill" enqueue greet --unique-key k --unique-for 1h --json)"
    "$tidemill" enqueue --json greet | holds 'v["id"] > 0 and v["duplicate"] is False and len(v) == 2'
}

enqueue_options() {
    local id before
    before=$(date +%s)
    id=$(enqueue greet --priority 7 --max-attempts=3 --queue mail --tag a --tag 'b c' --in 1h30m \
        --unique-key once '{"n": 9007199254740993, "e": ""}')
    "$tidemill" jobs show "$id" --json | holds 'v["task"] == "greet" and v["queue"] == "mail" and v["priority"] == 7
        and v["max_attempts"] == 3 and v["tags"] == ["a", "b c"] and v["unique_key"] == "once"
        and v["state"] == "scheduled" and v["attempt"] == 0 and v["args"] == {"n": 9007199254740993, "e": ""}
        and v["attempts"] == [] and v["result"] is None'
    "$tidemill" jobs show "$id" --json | holds "-60 < __import__('datetime').datetime.fromisoformat(
        v['scheduled_at'].replace('Z', '+00:00')).timestamp() - $before - 5400 < 60"
    id=$(enqueue greet --at 2040-01-31T08:00:00+02:00)
    same 2040-01-31T06:00:00Z "$(job "$id" 'v["scheduled_at"]')"
    id=$(printf '{"from": "stdin"}' | "$tidemill" enqueue greet - --json | json 'v["id"]')
    same "{'from': 'stdin'}" "$(job "$id" 'v["args"]')"
}

enqueue_refused() {
    fails 1 "$tidemill" enqueue greet '[1]'
    says args
    fails 1 "$tidemill" enqueue greet '{'
    fails 1 "$tidemill" enqueue '' '{}'
    says task
}

precedence() {
    PGHOST=/nowhere "$tidemill" jobs list >/dev/null
    fails 1 env DATABASE_URL="$bare_url" "$tidemill" jobs list
    says 'migrate up'
    DATABASE_URL=$bare_url "$tidemill" jobs list --database "$url" >/dev/null
    DATABASE_URL=$bare_url "$tidemill" --database "$url" jobs list >/dev/null
    fails 1 env -u DATABASE_URL PGHOST=/nowhere "$tidemill" jobs list
    says /nowhere
}

list() {
    local first second
    first=$(enqueue one --queue list)
    second=$(enqueue two --queue list --in 1h)
    "$tidemill" jobs list --queue list --json | holds "[j['id'] for j in v] == [$second, $first]"
    "$tidemill" jobs list --queue list --state scheduled --json | holds "[j['task'] for j in v] == ['two']"
    "$tidemill" jobs list --queue list --task one --json | holds "[j['state'] for j in v] == ['available']"
    "$tidemill" jobs list --queue list --limit 1 --json | holds "[j['id'] for j in v] == [$second]"
    "$tidemill" jobs list --queue none --json | holds 'v == []'
    same '' "$("$tidemill" jobs list --queue none)"
    "$tidemill" jobs list --queue list | head -n 1 | grep -q '^ *ID  TASK'
    "$tidemill" jobs list --queue list | grep -q "^ *$first  one .* available "
}

cancel_and_retry() {
    local a b
    a=$(enqueue one) b=$(enqueue two --in 1h)
    same "cancelled job $a" "$("$tidemill" jobs cancel "$a" --reason 'not wanted')"
    same cancelled "$(job "$a" 'v["state"]')"
    same "job $b is due now" "$("$tidemill" jobs retry "$b")"
    same available "$(job "$b" 'v["state"]')"
    fails 1 "$tidemill" jobs cancel 999999999999 "$b" --json
    holds "v[0]['id'] == 999999999999 and v[0]['code'] == 'not_found' and v[1] == {'id': $b, 'state': 'cancelled'}" \
        <"$scratch/out"
    says 'tidemill: '
    fails 1 "$tidemill" jobs retry "$b"
    fails 1 "$tidemill" jobs show 999999999999
    says 'job 999999999999: there is no such job'
}

dead() {
    local a b
    a=$(enqueue dies --queue morgue) b=$(enqueue dies --queue other)
    psql -qX "$url" -c "select tidemill.discard(id, 'no use') from tidemill.jobs where id in ($a, $b)"
    "$tidemill" dead list --json | holds "[(j['id'], j['reason']) for j in v] == [($b, 'no use'), ($a, 'no use')]"
    "$tidemill" dead list --queue morgue | grep -q "^ *$a  dies .*no use$"
    "$tidemill" dead show "$a" | grep -q 'reason  *no use'
    same "requeued job $a" "$("$tidemill" dead requeue "$a")"
    same available "$(job "$a" 'v["state"]')"
    fails 1 "$tidemill" dead requeue "$a"
    fails 1 "$tidemill" dead show "$a"
    says 'it is not among the dead'
    "$tidemill" dead requeue --all --task nothing --json | holds 'v == {"requeued": 0}'
    "$tidemill" dead requeue --all --queue other --json | holds 'v == {"requeued": 1}'
    "$tidemill" dead list --json | holds 'v == []'
}

queues() {
    enqueue one --queue rows >/dev/null
    "$tidemill" queues --json | holds '[(q["available"], q["workers"]) for q in v if q["queue"] == "rows"] == [(1, 0)]'
    "$tidemill" queues | grep -q '^rows  *0  *1 '
}

hostile() {
    local id escape=$'\033' text
    text=$(printf 'a\\u001b[31mb\\u009b2Jc\\u202ed\\ne')
    id=$(enqueue "ta${escape}]0;title" "{\"x\": \"$text\"}" --queue hostile --tag "$(printf 't\302\2332J')")
    {
        "$tidemill" jobs show "$id"
        "$tidemill" jobs list --queue hostile
        "$tidemill" jobs show "$id" --json
        NO_COLOR=1 on_terminal "$tidemill" jobs list --queue hostile
        "$tidemill" jobs cancel "$id" --reason "${escape}[2J"
    } >"$scratch/shown"
    not env LC_ALL=C grep -n "$escape\|$(printf '\302\233')\|$(printf '\342\200\256')" "$scratch/shown"
    "$tidemill" jobs show "$id" --json | holds 'v["args"]["x"] == "a\x1b[31mb\x9b2Jc\u202ed\ne"'
}

terminal() {
    local task
    task=$(printf '漢%.0s' {1..30})
    enqueue "$task" --queue "$(printf 'q%.0s' {1..60})" >/dev/null
    on_terminal "$tidemill" jobs list >"$scratch/coloured"
    grep -q $'\033\\[' "$scratch/coloured"
    grep -q … "$scratch/coloured"
    NO_COLOR=1 on_terminal "$tidemill" jobs list >"$scratch/plain"
    not grep -q $'\033' "$scratch/plain"
    # Each of these characters takes two columns.
    python3 -c '
import sys, unicodedata
for line in open(sys.argv[1], encoding="utf-8"):
    width = sum(2 if unicodedata.east_asian_width(c) == "W" else 1 for c in line.rstrip("\n"))
    if width > 80: sys.exit(f"{width} columns: {line}")' "$scratch/plain"
    "$tidemill" jobs list | grep -q "$task"
    "$tidemill" jobs list | not grep -q $'\033\|…'
}

full_disk() {
    local status=0
    "$tidemill" jobs list --json >/dev/full || status=$?
    same 1 "$status"
    status=0
    "$tidemill" --help >/dev/full || status=$?
    same 1 "$status"
}

check 'every command has help of at most 80 columns, with examples' helps
check 'without a command it prints help on stderr and exits 2' alone
check 'a mistyped command, option or value suggests the nearest' suggestions
check 'wrong usage exits 2 and says what is allowed' usage
check 'an unreachable or malformed database exits 1, and no password is shown' unreachable
export DATABASE_URL=$url
check 'a database that is not migrated is told so' not_migrated
check 'migrations that run at once are each applied once' migrate_at_once
check 'migrate down asks on a terminal, refuses elsewhere, and obeys --yes' migrate_down
check 'enqueue prints the id, or that of the job that stands' enqueue_prints
check 'each option of enqueue arrives in the job' enqueue_options
check 'enqueue says what is wrong with a job' enqueue_refused
check '--database goes before DATABASE_URL, and that before PGHOST' precedence
check 'jobs list shows the newest first, filtered' list
check 'jobs are cancelled and retried one by one, also past a failure' cancel_and_retry
check 'dead jobs are listed, shown and requeued' dead
check 'queues shows the counts, and that nobody serves a queue' queues
check 'control characters in jobs are never printed raw' hostile
check 'on a terminal tables fit 80 columns and are coloured, unless NO_COLOR' terminal
check 'output that cannot be written is an error' full_disk
finish
