# Sourced by the integration tests: two servers, the states they show, and a strict application.
# shellcheck shell=bash

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
need_namespaces
export CLPMD_PROFILE=${CLPMD_PROFILE:-dev}
LAB_DATA_MB=${LAB_DATA_MB:-64}
LAB_CLUSTER_MB=${LAB_CLUSTER_MB:-16}
. "$ROOT/scripts/lab-ns"

RECORDS=$ROOT/tests/records.pl
SOCKET=/run/clpmd/md1.nbd
WORK=

set -E
trap 'say "$(basename "$0"): line $LINENO: $BASH_COMMAND"' ERR

fail() { say "$(basename "$0"): FAILED: $*"; exit 1; }
shown() { say "  $*"; }

# ---- servers

# The mirror as an NBD socket and nothing on it: the quickest, and every byte is the test's own.
raw_mirror() {
    LAB_FS=none
    LAB_MIRROR_EXTRA="front_end = \"nbd-socket\"
$*"
}

# An agent whose disks fail on demand: `fault N data|cluster KIND FAULT`, `no_faults`.
with_faults() {
    build
    local own=$CLPMD_BIN with
    if [ -z "${CLPMD_FAULT_BIN:-}" ]; then
        with=${CARGO_TARGET_DIR:-$ROOT/target}/faults
        (cd "$ROOT" && cargo build --quiet --locked -p mirror-agent --bin clpmdagent --profile dev \
            --features fault-injection --target-dir "$with") || die "the build failed"
        CLPMD_FAULT_BIN=$with/debug
    fi
    FAULTY=$(mktemp -d)
    on_exit "rm -rf '$FAULTY'"
    ln -s "$own"/clpmd{stat,ctrl,init,chng,mon,msg,secret} "$CLPMD_FAULT_BIN/clpmdagent" "$FAULTY/"
    export CLPMD_BIN=$FAULTY MIRROR_FAULTS=$FAULTY/faults
}

fault() {
    local n=$1 part=$2
    shift 2
    [ ! -e "$MIRROR_FAULTS" ] || cp "$MIRROR_FAULTS" "$MIRROR_FAULTS.new"
    echo "${LAB_PATH[$n.$part]} $*" >>"$MIRROR_FAULTS.new"
    mv "$MIRROR_FAULTS.new" "$MIRROR_FAULTS"
}
no_faults() { rm -f "$MIRROR_FAULTS"; }

# Two servers with a constructed mirror.
two_servers() {
    build
    lab_up
    WORK=$LAB/work
    mkdir "$WORK"
    on_exit show_logs_of_failure
    lab_start 1
    lab_start 2
    wait_for 60 "the mirror is constructed" both_normal
}

show_logs_of_failure() {
    # shellcheck disable=SC2154 # `code` is that of run_cleanups
    [ "$code" != 0 ] && [ -n "$LAB" ] || return 0
    local n
    for n in 1 2; do
        say "--- server$n:"
        [ -z "${LAB_INIT[$n]:-}" ] || status "$n" >&2
        tail -n "${LOG_LINES:-25}" "$LAB/server$n/agent.log" >&2
    done
}

ctrl() { local n=$1; shift; lab_run "$n" clpmdctrl "$@" >&2; }

# refused N CODE TEXT ARGUMENTS...: the command ends with the code and says the text.
refused() {
    local n=$1 code=$2 text=$3 got=0 said
    shift 3
    said=$(lab_run "$n" clpmdctrl "$@" 2>&1) || got=$?
    [ "$got" = "$code" ] || fail "clpmdctrl $* on server$n: code $got instead of $code: $said"
    [[ $said == *"$text"* ]] || fail "clpmdctrl $* on server$n says: $said"
    shown "refused as it must be: $* on server$n ($got)"
}

# ---- states

status() { lab_run "$1" clpmdstat --mirror md1 2>&1 || true; }
state() { lab_run "$1" clpmdstat --mirror md1 --json | jq -r "$2"; }
state_is() { [ "$(state "$1" "$2" 2>/dev/null)" = "$3" ]; }
colors_are() { state_is "$1" '[.status.sides[].color] | join(" ")' "$2"; }
is_normal() { state_is "$1" '.status | [.phase, .link] | join(" ")' 'normal session'; }
both_normal() { is_normal 1 && is_normal 2; }
is_active() { state_is "$1" ".status.sides[$(($1 - 1))].active" true; }
wait_colors() { wait_for "${3:-20}" "server$1 shows $2" colors_are "$1" "$2" || fail "server$1 shows $2"; }
wait_normal() { wait_for "${1:-60}" "both servers are equal" both_normal || fail "both servers are equal"; }
session() { state "$1" .status.session; }
session_is_new() { [ "$(session "$1")" -gt "$2" ]; }

is_recovering() { state_is "$1" .status.phase recovering; }
has_copied() { [ "$(state "$1" '.status.recovery.copied_bytes // 0')" -ge "$2" ]; }
recovery_total() { state "$1" '.status.recovery.total_bytes // 0'; }

# What the agent of server N has said since it was last asked.
declare -A HEARD=()
logged() { tail -n "+$((${HEARD[$1]:-0} + 1))" "$LAB/server$1/agent.log" | grep -q -- "$2"; }
forget_log() { HEARD[$1]=$(wc -l <"$LAB/server$1/agent.log"); }

# ---- the application

perl_in() { local n=$1; shift; lab_run "$n" perl "$RECORDS" "$@"; }
fill() { perl_in "$1" fill "$SOCKET" "$2" "$3"; }

start_records() {
    rm -f "$WORK/stop" "$WORK/records.pid"
    lab_run "$1" bash -c "echo \$\$ >$WORK/records.pid; exec perl $RECORDS write $SOCKET $WORK" \
        </dev/null >>"$WORK/records.log" 2>&1 &
    disown $!
    RECORDS_ON=$1
    wait_for 10 "the application runs" more_than "$(acked)" || { cat "$WORK/records.log" >&2; return 1; }
}
records_run() { lab_enter "$RECORDS_ON" sh -c "kill -0 \$(cat $WORK/records.pid)" 2>/dev/null; }
records_ended() { ! records_run; }
stop_records() {
    touch "$WORK/stop"
    wait_for 20 "the application ends" records_ended
}
acked() { tail -n 1 "$WORK/acked" 2>/dev/null | cut -d ' ' -f 1 || true; }
more_than() { [ "$(acked)" != "" ] && [ "$(acked)" -gt "${1:-0}" ]; }
records_go_on() {
    local now
    now=$(acked)
    wait_for "${1:-15}" "further records" more_than "$((now + 20))" || fail "the application goes on"
}
no_error() { [ ! -e "$WORK/failed" ] || fail "the application saw an error: $(cat "$WORK/failed")"; }

# The longest time between two records after the given number, in seconds.
longest_pause() {
    awk -v from="${1:-0}" '$1 > from { if (last && $2 - last > max) max = $2 - last; last = $2 }
        END { printf "%.2f", max }' "$WORK/acked"
}
at_most() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a <= b) }'; }

# ---- the end

# The mirror is deactivated and both agents end in good order; the disks must be equal and hold
# every acknowledged record.
equal_in_the_end() {
    local n
    for n in 1 2; do
        if is_active "$n"; then ctrl "$n" --deactive md1; fi
    done
    for n in 1 2; do lab_stop "$n"; done
    cmp "${LAB_PATH[1.data]}" "${LAB_PATH[2.data]}" || fail "the disks differ"
    [ ! -s "$WORK/acked" ] || perl "$RECORDS" check "${LAB_PATH[2.data]}" "$WORK" || fail "records are lost"
}

# Bytes that server N has received on the mirror connect since its links were made.
received() { lab_run "$1" awk '$1 == "mirror:" { print $2 }' /proc/net/dev; }

# Both servers active with data of their own, and in contact again.
split_brain() {
    local n
    lab_cut all
    for n in 1 2; do
        wait_for 20 "server$n misses the other" state_is "$n" .status.link down
        is_active "$n" || ctrl "$n" --active md1
    done
    fill 1 50 52
    fill 2 51 53
    lab_heal all
    for n in 1 2; do wait_colors "$n" "RED RED" 30; done
}

# A device that has failed answers EIO, and NBD's ESHUTDOWN to what came before and after; a block
# device over it shows both as EIO.
is_io_error() { [ "$1" = 5 ] || [ "$1" = 108 ]; }
