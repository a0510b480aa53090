# shellcheck shell=bash
# lib.sh: what the steps of the demo are made of: showing facts, waiting for them, and the world that they happen in
# (a database, a mail server, a worker), which is taken down however the demo ends. Sourced by tests/demo/demo.
#
# The demo sets $demo (the folder of this run), $mailbox (a Maildir in it), $STORAGE_ROOT, and $broken (the name of the
# step to break, or empty).
# shellcheck disable=SC2154

bold='' dim='' green='' red='' plain=''
if [[ -t 1 && -z ${NO_COLOR-} ]]; then
    bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
fi

step=start  # the step being shown, by the name that messages use
number=0    # how many steps were begun
last=''     # what was read last while waiting
worker='' mail_server='' # process ids

# ---- Showing ----

# begin NAME HEADING starts a step.
begin() {
    step=$1
    number=$((number + 1))
    printf '\n%s%d. %s%s\n' "$bold" "$number" "$2" "$plain"
}

# call LANGUAGE TEXT shows what is about to be called.
call() {
    printf '   %s%-8s%s %s\n' "$dim" "$1" "$plain" "${2:0:68}"
}

# fact SOURCE shows the lines of its input as read from SOURCE, cut to 80 columns.
fact() {
    local line
    while IFS= read -r line || [[ -n $line ]]; do
        printf '   %s%-8s%s %s\n' "$green" "$1" "$plain" "${line:0:68}"
    done
}

# fail EXPECTED ends the demo: says which step was not seen, what was expected and found, and where to look.
fail() {
    {
        printf '\n%sdemo: step "%s" was not seen: expected %s.%s\n' "$red" "$step" "$1" "$plain"
        [[ -z $last ]] || printf 'demo: what was there instead: %s\n' "$last"
        if [[ -s $demo/worker.log ]]; then
            printf 'demo: the worker'\''s log is %s; its last lines:\n' "$demo/worker.log"
            tail -n 5 "$demo/worker.log" | cut -c 1-200 | sed 's/^/    /'
        else
            printf 'demo: the logs are in %s\n' "$demo"
        fi
    } >&2
    exit 1
}

# ---- Waiting ----

# breaks NAME is true when that step is to be broken; each step then spoils the one thing it is about.
breaks() {
    [[ $broken == "$1" ]]
}

# attempt COMMAND... runs it with what it prints in $seen; when it fails, what it printed or complained of is in $last.
attempt() {
    if seen=$("$@" 2>"$demo/complaint"); then
        last=''
    else
        last=${seen:-$(<"$demo/complaint")}
        return 1
    fi
}

# wait_for EXPECTED COMMAND... runs the command until it succeeds, and leaves what it printed in $seen. A worker that has
# ended, or a deadline that has passed, is the end of the demo.
wait_for() {
    local expected=$1 seconds=30 deadline
    shift
    ! breaks "$step" || seconds=${TIDEMILL_DEMO_BROKEN_SECONDS:-10}
    deadline=$((SECONDS + seconds))
    while ! attempt "$@"; do
        [[ -z $worker ]] || kill -0 "$worker" 2>/dev/null || fail "$expected, but the worker has ended"
        ((SECONDS < deadline)) || fail "$expected within $seconds s"
        sleep 0.05
    done
}

# expect EXPECTED COMMAND... runs the command once: what it is about must be so already.
expect() {
    local expected=$1
    shift
    attempt "$@" || fail "$expected"
}

# sql TEXT [NAME=VALUE...] runs statements and prints rows as "a | b"; :'NAME' stands for a value.
sql() {
    local text=$1 variables=() variable
    shift
    for variable in "$@"; do variables+=(-v "$variable"); done
    psql -X -q -A -t -F ' | ' -v ON_ERROR_STOP=1 "${variables[@]}" "$DATABASE_URL" <<<"$text"
}

# job ID COLUMNS prints these columns of a job; some_row passes what a query printed on, and fails when that is nothing.
job() { sql "select $2 from tidemill.jobs where id = :'id'" id="$1"; }
some_row() {
    local rows
    rows=$(sql "$@") && printf '%s\n' "$rows" && [[ -n $rows ]]
}

# job_is ID STATE [COLUMNS] prints the job (id, task, state and the columns) and fails unless it is in that state.
job_is() {
    local row
    row=$(job "$1" "id, task, state${3:+, $3}") && printf '%s\n' "$row" && [[ $row == *" | $2"* ]]
}

# mail_to RECIPIENT prints that recipient's mails as they are in the mailbox; fails when there is none.
mail_to() { /usr/bin/python3 tests/demo/read_mail.py "$mailbox" "$1"; }
no_mail_to() { ! mail_to "$1"; }

# ---- The world ----

# start_database starts a private cluster, migrates it and makes the application's table.
start_database() {
    local line
    line=$(setsid --wait tests/support/cluster start "$demo/cluster" 2>"$demo/cluster.log") ||
        fail "a private PostgreSQL cluster; see $demo/cluster.log"
    export DATABASE_URL=${line#DATABASE_URL=}
    expect 'an answer from it' sql "select 'PostgreSQL ' || current_setting('server_version')"
    fact database <<<"$seen"
    build/bin/tidemill migrate up >"$demo/migrate.log" 2>&1 ||
        { last=$(<"$demo/migrate.log") && fail 'a migrated database'; }
    fact migrate <"$demo/migrate.log"
    expect "the application's table" sql "$(<tests/demo/shop.sql)"
}

# start_mail_server starts the SMTP server on a free port.
start_mail_server() {
    # It ends with this shell, also when that is killed.
    setsid setpriv --pdeathsig TERM /usr/bin/python3 tests/demo/smtp_server.py "$demo/port" "$mailbox" "$demo/hold" \
        >"$demo/smtp.log" 2>&1 &
    mail_server=$!
    wait_for "a mail server (see $demo/smtp.log)" cat "$demo/port"
    export SMTP_URL=smtp://127.0.0.1:$seen
    echo "$SMTP_URL" | fact mail
}

# start_worker starts `tidemill work` on a copy of the shipped handlers.
start_worker() {
    local handlers=$demo/handlers
    cp -rL handlers "$handlers" # the files also where the folder is a link: they are edited
    ! breaks start || handlers=$demo/no-such-folder
    export MAIL_FROM='Tidemill demo <hello@shop.example>' USERS_TABLE=shop.users
    setsid build/bin/tidemill work --handlers "$handlers" --log-format text >"$demo/worker.log" 2>&1 &
    worker=$!
    echo "tidemill work --handlers handlers, process $worker" | fact worker
}

# end_process PID stops a process of ours: politely first, then not.
end_process() {
    local deadline=$((SECONDS + 5))
    kill -TERM "$1" 2>/dev/null || return 0
    kill -CONT "$1" 2>/dev/null # one that a broken step has stopped cannot hear otherwise
    while kill -0 "$1" 2>/dev/null; do
        if ((SECONDS >= deadline)); then kill -KILL "$1" 2>/dev/null; fi
        sleep 0.02
    done
    wait "$1" 2>/dev/null
}

# take_down ends everything that was started, and removes the folder; after a failure the logs stay.
take_down() {
    local status=$1
    trap '' INT TERM HUP PIPE
    rm -f "$demo/hold"
    [[ -z $worker ]] || end_process "$worker"
    [[ -z $mail_server ]] || end_process "$mail_server"
    [[ ! -e $demo/cluster ]] || tests/support/cluster stop "$demo/cluster" >>"$demo/cluster.log" 2>&1
    case $status in
        0 | 130 | 141 | 143) rm -rf "$demo" ;;
        *) rm -rf "$demo/cluster" "$demo/storage" "$demo/handlers" "$demo/port" "$demo/complaint" ;;
    esac
}
