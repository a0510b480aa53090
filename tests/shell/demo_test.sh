#!/bin/bash
# demo_test.sh: the demo sees what it shows. It exits 0 as it is, and with each step broken in turn it exits 1 and names
# that step, having seen those before it. Prints TAP. Needs what `make demo` builds.
#
# The runs are mostly waiting, so a few go on at the same time, which also shows that copies do not disturb each other.
set -u
cd "$(dirname "$0")/../.." || exit 1

steps=(start mail picture duplicate rollback delayed running reload retry dead requeue end)
at_once=4

export TIDEMILL_DEMO_BROKEN_SECONDS=6 # more than the longest wait (3 s, for the attempts) of a step that is not broken
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
# shellcheck disable=SC2046 # process ids, one word each
trap 'kill $(jobs -rp) 2>/dev/null; wait; exit 130' INT TERM HUP

# Each run breaks the step of its name ("none": no step), and leaves its output in files of that name.
declare -A process status
for name in none "${steps[@]}"; do
    while (($(jobs -rp | wc -l) >= at_once)); do wait -n; done
    TIDEMILL_DEMO_BREAK=${name/none/} tests/demo/demo >"$out/$name.out" 2>"$out/$name.err" &
    process[$name]=$!
done
for name in none "${steps[@]}"; do
    wait "${process[$name]}"
    status[$name]=$?
done

# result STATUS NUMBER DESCRIPTION NAME prints a line of TAP, and on failure the end of that run's output.
failed=0
result() {
    if (($1 == 0)); then
        echo "ok $2 - $3"
    else
        failed=1
        echo "not ok $2 - $3"
        tail -n 15 "$out/$4.out" "$out/$4.err" | sed 's/^/# /'
    fi
}

echo "1..$((${#steps[@]} + 3))"

[[ ${status[none]} == 0 && ! -s $out/none.err && $(tail -n 1 "$out/none.out") == 'Everything was seen'* ]]
result $? 1 'the demo sees everything and exits 0' none

# A line that is longer than a terminal is wide; the characters are counted, not the bytes.
! LC_ALL=C.UTF-8 grep -q '^.\{81\}' "$out/none.out"
result $? 2 'the demo is readable at 80 columns' none

number=2
left=0
for name in "${steps[@]}"; do
    number=$((number + 1))
    [[ ${status[$name]} == 1 ]] && grep -q "^demo: step \"$name\" was not seen: expected " "$out/$name.err"
    result $? "$number" "with step $name broken the demo exits 1 and names it" "$name"
    # A failed run keeps its logs and says where; nothing else is left of it.
    logs=$(sed -n 's/^demo: .* \(\/[^ ]*\/build\/demo-[A-Za-z0-9]*\).*/\1/p' "$out/$name.err" | head -n 1)
    if [[ -n $logs ]]; then
        [[ -e $logs/cluster || -e $logs/storage ]] && left=1
        rm -rf "$logs"
    fi
done

result "$left" $((number + 1)) 'a demo that fails leaves nothing but its logs' none
exit "$failed"
