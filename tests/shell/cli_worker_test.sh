#!/bin/bash
# cli_worker_test.sh: `tidemill work` and `tidemill dev`: their start, what they say, and their end. Prints TAP. Needs
# build/bin/tidemill and TIDEMILL_TEST_DATABASE.
# shellcheck disable=SC2317 # tests are called by their names
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/shell/cli_lib.sh
. tests/shell/cli_lib.sh

name=cli_worker_$$
trap 'drop_database "$name"; rm -rf "$scratch"' EXIT
chmod 755 "$scratch" # the cluster of dev runs as another user, for root
url=$(own_database "$name") && export DATABASE_URL=$url && "$tidemill" migrate up >/dev/null || exit 1

handlers=$scratch/handlers
mkdir "$handlers" "$scratch/broken"
cat >"$handlers/fine.lua" <<'LUA'
return {
    name = function() return "fine" end,
    handle = function(ctx, args)
        ctx.log:info("at work", { text = "a\n2030-01-01 forged\27[31m" })
        return { got = args.n }
    end,
}
LUA
cat >"$handlers/fails.lua" <<'LUA'
return {
    name = function() return "fails" end,
    max_attempts = 1,
    handle = function() error("no luck\27[31m today") end,
}
LUA
cat >"$handlers/waits.lua" <<'LUA'
return { name = function() return "waits" end, handle = function(ctx) ctx:sleep(600) end }
LUA
printf 'return {\n    name = function() return "broken" end,\n    handle = 42 +\n}\n' >"$scratch/broken/broken.lua"

# start_work ARGUMENTS... starts a worker, whose process id is $worker.
start_work() {
    "$tidemill" work --handlers "$handlers" "$@" 2>"$scratch/work.log" &
    worker=$!
}

# stop_work SIGNAL stops it, and succeeds if it exits 0.
stop_work() {
    kill -s "$1" "$worker"
    wait "$worker" || { cat "$scratch/work.log" && return 1; }
}

# is ID STATE succeeds if a job is in a state.
is() { [[ $(job "$1" 'v["state"]') == "$2" ]]; }

no_handlers() {
    fails 1 "$tidemill" work --handlers "$scratch/none"
    says "the handlers' folder $scratch/none cannot be read: No such file or directory"
    fails 1 "$tidemill" work --handlers "$handlers/fine.lua"
    says 'it is not a folder'
    (cd "$scratch/broken" && fails 1 "$tidemill" work && says 'there is no folder handlers here; make it')
    fails 1 "$tidemill" dev --handlers "$scratch/none" --dir "$scratch/never"
    [[ ! -e $scratch/never ]]
}

broken_handler() {
    fails 1 "$tidemill" work --handlers "$scratch/broken"
    says broken.lua:
    grep -q '^tidemill: ' "$scratch/err"
}

works() {
    local id
    id=$(enqueue fine '{"n": 7}')
    start_work --queue default=3 --queue other --name tester --grace 5
    eventually is "$id" completed
    "$tidemill" jobs show "$id" --json | holds 'v["result"] == {"got": 7} and v["attempted_by"] == "tester"
        and [(a["run"], a["attempt"], a["outcome"], a["worker"]) for a in v["attempts"]] == [(1, 1, "completed", "tester")]'
    "$tidemill" jobs show "$id" | grep -q 'run 1, attempt 1: completed'
    "$tidemill" queues --json |
        holds '{q["queue"]: q["workers"] for q in v if q["workers"]} == {"default": 3, "other": 10}'
    kill -HUP "$worker"
    eventually grep -q 'nothing to reload' "$scratch/work.log"
    stop_work TERM
    # Not on a terminal, so each line is JSON.
    python3 -c '
import json, sys
lines = [json.loads(l) for l in open(sys.argv[1])]
assert all({"ts", "level", "message"} <= set(l) for l in lines), lines
assert any(l["message"] == "at work" and l["text"] == "a\n2030-01-01 forged\\x1B[31m" for l in lines), lines
assert lines[-1]["message"] == "stopped" and lines[-1]["returned"] == 0, lines[-1]' "$scratch/work.log"
}

text_log() {
    local id
    id=$(enqueue fine)
    start_work --log-format text
    eventually is "$id" completed
    stop_work INT
    cat "$scratch/work.log"
    grep -q 'info  at work .*text="a\\n2030-01-01 forged' "$scratch/work.log"
    not grep -q $'\033\|^2030' "$scratch/work.log"
}

gives_back() {
    local id
    id=$(enqueue waits)
    start_work --grace 0
    eventually is "$id" running
    stop_work TERM
    same available "$(job "$id" 'v["state"]')"
    same 0 "$(job "$id" 'v["attempt"]')"
    grep -q '"message":"stopped".*"returned":1' "$scratch/work.log"
    # A second signal does not wait for the grace period, but one that is only an echo of the first does not count.
    start_work --grace 600
    eventually is "$id" running
    kill -INT "$worker"
    kill -TERM "$worker"
    eventually grep -q stopping "$scratch/work.log"
    kill -0 "$worker"
    eventually sh -c "kill -INT $worker; grep -q 'ended at once' '$scratch/work.log'"
    fails 1 wait "$worker"
    "$tidemill" jobs cancel "$id" || true
}

dies() {
    local id
    id=$(enqueue fails)
    start_work
    eventually is "$id" dead
    stop_work TERM
    "$tidemill" dead show "$id" --json | holds 'v["attempts"][0]["outcome"] == "failed"
        and "no luck" in v["attempts"][0]["error"] and "fails.lua:" in v["attempts"][0]["traceback"]'
    "$tidemill" dead show "$id" >"$scratch/shown"
    cat "$scratch/shown"
    grep -q 'run 1, attempt 1: failed' "$scratch/shown"
    grep -q '^    .*fails.lua:4: no luck' "$scratch/shown"
    not grep -q $'\033' "$scratch/shown"
}

# start_dev starts `tidemill dev`, whose process id is $dev and whose URL is $dev_url.
start_dev() {
    : >"$scratch/dev.out"
    "$tidemill" dev --json --handlers "$handlers" --dir "$scratch/dev" >"$scratch/dev.out" 2>"$scratch/dev.err" &
    dev=$!
    eventually grep -q database_url "$scratch/dev.out" || { cat "$scratch/dev.err" && return 1; }
    dev_url=$(json 'v["database_url"]' <"$scratch/dev.out")
}

# stop_dev SIGNAL stops it; nothing of it is left.
stop_dev() {
    local socket=${dev_url##*host=}
    [[ -d $socket ]]
    kill -s "$1" "$dev"
    wait "$dev" || { cat "$scratch/dev.err" && return 1; }
    [[ ! -e $socket && ! -e $scratch/dev/postgres/data/postmaster.pid ]]
}

dev() {
    local id
    start_dev
    [[ $dev_url != "$url" ]]
    grep -q 'DATABASE_URL is not used' "$scratch/dev.err"
    id=$("$tidemill" enqueue fine '{"n": 1}' --database "$dev_url" --json | json 'v["id"]')
    export DATABASE_URL=$dev_url
    eventually is "$id" completed
    same 700 "$(stat -c %a "${dev_url##*host=}")"
    fails 1 "$tidemill" dev --handlers "$handlers" --dir "$scratch/dev"
    says "is in use by another \`tidemill dev\` (process $dev)"
    stop_dev INT
    # The jobs are kept, and the URL.
    local first=$dev_url
    start_dev
    same "$first" "$dev_url"
    same completed "$(job "$id" 'v["state"]')"
    # PostgreSQL does not outlive a dev that is killed, and the next one starts.
    kill -KILL "$dev"
    wait "$dev" || true
    start_dev
    same completed "$(job "$id" 'v["state"]')"
    stop_dev TERM
}

dev_ends_with_postgres() {
    start_dev
    kill -QUIT "$(head -n 1 "$scratch/dev/postgres/data/postmaster.pid")"
    fails 1 wait "$dev"
    grep -q 'PostgreSQL ended by itself' "$scratch/dev.err"
}

dev_given() {
    "$tidemill" dev --json --handlers "$handlers" --dir "$scratch/given" --database "$url" \
        >"$scratch/dev.out" 2>"$scratch/dev.err" &
    dev=$!
    eventually grep -q '"database_url":null' "$scratch/dev.out"
    [[ ! -e $scratch/given ]]
    kill -TERM "$dev"
    wait "$dev"
}

check 'a missing folder of handlers is told, and nothing is started' no_handlers
check 'a broken handler is told with its file, and work exits 1' broken_handler
check 'work runs jobs, logs JSON, and exits 0 on SIGTERM' works
check 'a text log has one line a record, which handlers cannot forge' text_log
check 'what still runs after the grace period is given back; a second signal ends at once' gives_back
check 'what a dead job failed with is shown' dies
check 'dev starts, is alone in its folder, stops, and keeps its jobs' dev
check 'dev ends when PostgreSQL does' dev_ends_with_postgres
check 'dev uses a database that is given' dev_given
finish
