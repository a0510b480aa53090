#!/bin/bash
# readme_test.sh: everything that README.md shows is so. Its fenced blocks are run in their order, as its reader would run
# them, and what it says is there (commands, views, error codes, declarations) is compared with what is. Prints TAP. Needs
# what `make demo` builds, and TIDEMILL_TEST_DATABASE.
#
# A block is run by its language. An HTML comment on the line before it may say how:
#     sh                     in one shell after the other, each with the folder and the variables of the one before
#     sql                    by psql
#     lua, c                 <!-- file: NAME --> saved under that name; that it is used is checked in the end
#     text                   is what the block before it printed. Spaces do not count, and "..." stands for anything: in a
#                            line for a part of it, in a line of its own for the rest
#     <!-- fails -->         the block fails, and what it prints on stderr counts
#     <!-- background -->    one command, which goes on until the next one of these; it ends well by SIGTERM
#     <!-- until: TEXT -->   one command that runs until it has printed this, and then ends well by SIGTERM
# Any other block fails the test, as does one without a language, or one that is only indented.
# shellcheck disable=SC2317 # tests are called by their names
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/shell/cli_lib.sh
. tests/shell/cli_lib.sh
export LC_ALL=C.UTF-8
unset MAKEFLAGS MFLAGS MAKELEVEL

readme=${README:-$PWD/README.md} # another page, to try the test itself
name=readme_$$
worker='' mail_server=''
trap 'end_all; drop_database "$name"; rm -rf "$scratch"' EXIT
chmod 755 "$scratch" # the cluster of dev runs as another user, for root
url=$(own_database "$name") || exit 1
mkdir "$scratch/home" "$scratch/tree" "$scratch/blocks"

end_all() {
    local pid
    for pid in $worker $mail_server; do kill -KILL "$pid" && wait "$pid"; done 2>/dev/null
}

# ---- The world of the reader ----

# The source tree by links, so that what the reader's commands leave in it is left here.
for each in "$PWD"/*; do ln -s "$each" "$scratch/tree/"; done
echo "$scratch/tree" >"$scratch/folder"

# It ends with this shell, also when that is killed.
setsid setpriv --pdeathsig TERM /usr/bin/python3 tests/demo/smtp_server.py "$scratch/port" "$scratch/mail" \
    "$scratch/hold" 2>"$scratch/smtp.log" &
mail_server=$!
eventually test -s "$scratch/port" || exit 1
# `make test` of the page runs one suite only: it is itself a part of all of them.
HOME=$scratch/home DATABASE_URL=$url SMTP_URL=smtp://127.0.0.1:$(<"$scratch/port") SUITES=build/san/base_test \
    bash -c 'export -p' >"$scratch/variables"

# in_world COMMAND... runs a command in the reader's folder, with the reader's variables.
in_world() {
    (
        # shellcheck source=/dev/null
        cd "$(<"$scratch/folder")" && . "$scratch/variables" && "$@"
    )
}

# shell FILE runs a script as the reader's shell would go on.
shell() {
    # shellcheck disable=SC2016 # the inner shell's
    in_world bash -c '
        trap "export -p >\"$1/variables\"; pwd >\"$1/folder\"" EXIT
        set -e -o pipefail
        . "$2"' shell "$scratch" "$1" </dev/null
}

# idle succeeds when no job is due any more.
idle() {
    same 0 "$(psql -XAt "$url" -c "select count(*) from tidemill.jobs where state in ('available', 'running')")"
}

# settle lets the worker finish what was enqueued, as the reader would who looks a moment later.
settle() { [[ ! $worker ]] || eventually idle; }

# start FILE TEXT starts a command in the background and waits until it has printed the text.
start() {
    (
        # shellcheck source=/dev/null
        cd "$(<"$scratch/folder")" && . "$scratch/variables" && eval "exec $(<"$1")"
    ) >"$scratch/log" 2>&1 &
    worker=$!
    eventually grep -qF -- "$2" "$scratch/log" || { cat "$scratch/log" && return 1; }
}

# stop ends what runs in the background, which must exit 0.
stop() {
    local pid=$worker
    worker=''
    [[ ! $pid ]] || { kill -TERM "$pid" && wait "$pid"; } || { echo "ended with exit code $?" && cat "$scratch/log" && return 1; }
}

# ---- The blocks ----

# Writes each block to blocks/N, and a line "N LINE LANGUAGE MARK..." about it.
awk -v dir="$scratch/blocks" '
    /^ *```/ && !inside { n++; lang = $0; sub(/^ *```/, "", lang); inside = 1; file = dir "/" n; printf "" >file
        print n, NR, (lang == "" ? "none" : lang), mark; next }
    /^ *```$/ && inside { inside = 0; close(file); mark = ""; next }
    inside { print >file; next }
    /^    / && blank { print n + 1, NR, "indented"; exit }
    { mark = ""; blank = $0 == "" }
    /^<!-- .* -->$/ { mark = $0; gsub(/^<!-- | -->$/, "", mark) }
    END { if (inside) print n, NR, "unclosed" }' "$readme" >"$scratch/list"

# save FILE NAME saves a block as a file of the reader.
save() {
    in_world mkdir -p "$(dirname "$2")" && in_world tee "$2" <"$1" >/dev/null
    echo "$2" >>"$scratch/saved"
}

# run CODE COMMAND... runs a block's command, which must succeed (CODE 0) or fail (1).
run() {
    local code=$1 status=0
    shift
    settle || return
    "$@" >"$scratch/out" 2>"$scratch/err" || status=1
    ((code == 0)) || cp "$scratch/err" "$scratch/out"
    [[ $status == "$code" ]] || { echo "exit code $status" && cat "$scratch/out" "$scratch/err" && return 1; }
}

# query FILE runs statements. From stdin, so that errors are not told with the file's name.
query() { psql -X -v ON_ERROR_STOP=1 "$url" <"$1"; }

# printed FILE compares a text block with what the block before it printed.
printed() {
    python3 - "$1" "$scratch/out" <<'PYTHON'
import re, sys

def lines(path):
    return [re.sub(r"-[-+]*-", "--", " ".join(line.split())) for line in open(path, encoding="utf-8")]

expected, actual = lines(sys.argv[1]), [line for line in lines(sys.argv[2])]
while actual and not actual[-1]:
    actual.pop()
if expected and expected[-1] == "...":
    expected.pop()
    actual = actual[:len(expected)]
pattern = [".*".join(map(re.escape, line.split("..."))) for line in expected]
if len(pattern) != len(actual) or not all(map(re.fullmatch, pattern, actual)):
    sys.exit("printed was:\n" + open(sys.argv[2], encoding="utf-8").read())
PYTHON
}

# block FILE LANGUAGE MARK runs a block in this shell, and prints what is wrong.
block() {
    local file=$1
    case $2:$3 in
        lua:file:\ * | c:file:\ *) save "$file" "${3#file: }" ;;
        sh:) cat "$file" >>"$scratch/ran" && run 0 shell "$file" ;;
        sh:fails) cat "$file" >>"$scratch/ran" && run 1 shell "$file" ;;
        sh:background) cat "$file" >>"$scratch/ran" && settle && stop && start "$file" started ;;
        sh:until:\ *) start "$file" "${3#until: }" && stop ;;
        sql:) run 0 query "$file" ;;
        sql:fails) run 1 query "$file" ;;
        text:) printed "$file" ;;
        *) echo "no way to run a block of language \"$2\" with the mark \"$3\"" && return 1 ;;
    esac
}

# good succeeds if the last block was as it should be.
good() { ((status == 0)) || { cat "$scratch/problem" && return 1; }; }

while read -r file line language mark; do
    # Not in a subshell: what is started stays.
    block "$scratch/blocks/$file" "$language" "$mark" >"$scratch/problem" 2>&1
    status=$?
    check "line $line: $language${mark:+, $mark}" good
    ((status == 0)) || finish # each builds on those before it
done <"$scratch/list"

# ---- What is left to check in the end ----

many_blocks() { (($(wc -l <"$scratch/list") >= 30)); }

handlers_ran() {
    local file tasks
    settle
    tasks=$(psql -XAt "$url" -c "select distinct j.task from tidemill.jobs j join tidemill.attempts a on a.job_id = j.id
        where a.outcome = 'completed'")
    while read -r file; do
        [[ $file != handlers/* ]] || { file=${file#handlers/} && grep -qx "${file%.lua}" <<<"$tasks"; } ||
            { echo "no job of $file has completed" && return 1; }
    done <"$scratch/saved"
}

files_used() {
    local file
    while read -r file; do
        [[ $file == handlers/* ]] || grep -qF -- "${file%/*}" "$scratch/ran" ||
            { echo "$file is used by no shell block" && return 1; }
    done <"$scratch/saved"
}

mail_came() { grep -rq 'Lines: 2' "$scratch/mail/new"; }

# column HEADING N prints the code spans in column N of the table whose first heading is this.
# shellcheck disable=SC2016 # backquotes
column() {
    awk -F'|' -v heading="$1" -v n="$2" '$2 ~ "^ " heading " $" { on = 1; next } on && !/^\|/ { exit } on { print $(n + 1) }' \
        "$readme" | grep -o '`[^`]*`' | tr -d '`'
}

view_columns() {
    local view
    for view in jobs attempts queues; do
        same "$(psql -XAt "$url" -c "select attname from pg_attribute where attrelid = 'tidemill.$view'::regclass
                and attnum > 0 order by attnum")" "$(sed -n "s/^| \`tidemill[.]$view\` | \(.*\) |$/\1/p" "$readme" |
            tr -d '`' | sed 's/, /\n/g')"
    done
    same 'reason died_at' "$(psql -XAt -R ' ' "$url" -c "select attname from pg_attribute
        where attrelid = 'tidemill.dead_letters'::regclass and attnum > 0 and attname not in (select attname
        from pg_attribute where attrelid = 'tidemill.jobs'::regclass) order by attnum")"
}

error_codes() {
    same "$(sed -n 's/^    X(\([A-Z_]*\), -[0-9]*, "\([a-z_]*\)".*/TIDEMILL_E\1 \2/p' runtime/tidemill.h)" \
        "$(paste -d ' ' <(column C 1) <(column C 2))"
}

declarations() {
    same "$(sed -n '/^} options\[\] = {/,/^};/p' runtime/vm/declare.c | grep -o '{ "[a-z_]*"' | tr -d '{ "' | sort)" \
        "$(column field 1 | sort)"
}

outcomes() {
    same "$(sed -n '/td_outcome_name(td_outcome/,/};/p' runtime/vm/call.c | grep -o '"[a-z]*"' | tr -d '"' | sort)" \
        "$(column 'the handler' 2 | sort -u)"
}

# Every command that the program's help lists is in the table: after its group's name, in one code span or one of the
# spans that follow it.
commands() {
    local group word listed
    listed=$(column command 1 | sed 's/^tidemill //')
    for group in '' migrate jobs dead; do
        # shellcheck disable=SC2086 # a group is one word or none
        for word in $("$tidemill" $group --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p'); do
            grep -qE "^${group:+$group }$word( |$)" <<<"$listed" || grep -A 2 "^$group " <<<"$listed" | grep -qw "$word" ||
                { echo "not there: $group $word" && return 1; }
        done
    done
}

settle && stop >"$scratch/problem"
status=$?
check 'what ran in the background to the end ended well' good
check 'the page has its examples' many_blocks
check 'a job of every handler has completed' handlers_ran
check 'every other file is used' files_used
check 'the mail of the report has come' mail_came
check 'the columns of the views are those of the database' view_columns
check 'the error codes are those of tidemill.h' error_codes
check 'the declarations are those that are read' declarations
check 'the outcomes are those that there are' outcomes
check 'every command of the program is named' commands
finish
