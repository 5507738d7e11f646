# Sourced by the integration tests: two servers with small disks and short time limits, what an
# operator sees of them, and checks that say what did not hold.
# shellcheck shell=bash

. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
. "$ROOT/scripts/lab-ns"
need_namespaces
export CLPMD_PROFILE=${CLPMD_PROFILE:-dev} TZ=UTC

LAB_DATA_MB=32 LAB_CLUSTER_MB=1
# Short limits: a test that cuts or kills must not wait for the usual five seconds.
QUICK='heartbeat_interval = 200
peer_timeout = 1500
connect_timeout = 1000'
RAW="$QUICK"
MOUNTED="$QUICK
initial_mkfs = true"
MNT=/mnt/nmp1

# Files of the test that are seen in both servers; gone with the laboratory.
WORK=
prepare() {
    build
    lab_up
    WORK=$LAB/work
    mkdir "$WORK"
}

# The configuration as it would be with what is set now.
configure() { lab_config >"$LAB/clpmd.toml"; }

not_held() {
    local n
    printf 'DID NOT HOLD: %s\n' "$*"
    for n in 1 2; do
        [ -z "${LAB:-}" ] || [ ! -s "$LAB/server$n/agent.log" ] || {
            printf 'the last words of the agent of server%s:\n' "$n"
            tail -n 12 "$LAB/server$n/agent.log"
        }
    done
    exit 1
} >&2

# check WHAT COMMAND...
check() {
    local what=$1
    shift
    "$@" || not_held "$what"
    printf 'held: %s\n' "$what"
}

# soon WHAT COMMAND...: within 20 seconds.
soon() {
    local what=$1
    shift
    wait_for "${LIMIT:-20}" "$what" "$@" || { status 1; status 2; not_held "$what"; }
    printf 'held: %s\n' "$what"
}

# run N COMMAND...: what it says goes to OUT, its exit code to CODE.
run() {
    local n=$1
    shift
    CODE=0
    OUT=$(lab_run "$n" timeout "${LIMIT:-20}" "$@" 2>&1 </dev/null) || CODE=$?
}

# done_on N COMMAND...: it must succeed.
done_on() {
    run "$@"
    [ "$CODE" = 0 ] || not_held "on server$1: ${*:2}: code $CODE: $OUT"
}

# refused WHAT CODE PATTERN N COMMAND...: it must end with this code and say so.
refused() {
    local what=$1 code=$2 pattern=$3
    shift 3
    run "$@"
    [ "$CODE" = "$code" ] || not_held "$what: code $CODE instead of $code: $OUT"
    [[ $OUT =~ $pattern ]] || not_held "$what: does not say '$pattern': $OUT"
    printf 'held: %s\n' "$what"
}

status() { lab_run "$1" clpmdstat --mirror md1 2>&1 || true; }
sees() { [[ $(status "$1") =~ $2 ]]; } # sees N PATTERN
json() { lab_run "$1" clpmdstat --mirror md1 --json 2>/dev/null | jq -r "$2"; }
verdict_is() { [ "$(json "$1" .status.verdict)" = "$2" ]; }
is_normal() { sees "$1" 'Mirror Status: Normal' && sees "$1" 'Mirror Color +GREEN +GREEN'; }
both_normal() { is_normal 1 && is_normal 2; }
colors() { sees "$1" "Mirror Color +$2 +$3"; }

# Each start begins a new log, so that what is found in it was said since.
logged() { grep -qE "$2" "$LAB/server$1/agent.log"; }
start() {
    local n
    for n in "$@"; do
        cat "$LAB/server$n/agent.log" >>"$LAB/server$n/agent.old" 2>/dev/null || true
        : >"$LAB/server$n/agent.log"
        lab_start "$n" || not_held "the agent of server$n starts"
    done
}
# An agent that is not expected to serve the mirror: only its control socket is waited for.
start_broken() {
    lab_run "$1" bash -c 'echo $$ >/run/agent.pid; exec clpmdagent' \
        </dev/null >"$LAB/server$1/agent.log" 2>&1 &
    disown $!
    soon "the agent of server$1 answers" lab_run "$1" clpmdstat -l
}
stop() {
    local n
    for n in "$@"; do lab_stop "$n" || not_held "the agent of server$n stops"; done
}
construct() {
    start 1 2
    soon "the mirror is constructed" both_normal
}

# The number that the machine knows the agent of server N by; the server has its own.
agent_pid() {
    local inner pid
    inner=$(lab_enter "$1" cat /run/agent.pid)
    for pid in $(pgrep -x clpmdagent); do
        if [ "/proc/$pid/ns/pid" -ef "/proc/${LAB_INIT[$1]}/ns/pid" ] &&
            [ "$(awk '/^NSpid:/ { print $NF }' "/proc/$pid/status")" = "$inner" ]; then
            echo "$pid"
            return
        fi
    done
    not_held "the agent of server$1 runs"
}
memory_kib() { awk '/^VmRSS:/ { print $2 }' "/proc/$(agent_pid "$1")/status"; }

# write_at N MIB TEXT: one MiB filled with TEXT on the device of server N, durably.
write_at() {
    lab_run "$1" bash -c 'yes "$0" | head -c 1M |
        dd of=/dev/NMP1 bs=1M seek="$1" oflag=direct iflag=fullblock conv=fsync,notrunc status=none' "$3" "$2"
}
# holds N MIB TEXT: whether the data partition of server N has it.
holds() {
    cmp -s <(yes "$3" | head -c 1M) <(dd if="${LAB_PATH[$1.data]}" bs=1M skip="$2" count=1 status=none)
}
equal_data() { cmp "${LAB_PATH[1.data]}" "${LAB_PATH[2.data]}"; }
blank_cluster() { dd if=/dev/zero of="${LAB_PATH[$1.cluster]}" bs=1M count=1 conv=notrunc,fsync status=none; }
# spoil FILE OFFSET: a few bytes that no checksum allows.
spoil() { printf 'spoilt' | dd of="$1" bs=1 seek="$2" conv=notrunc,fsync status=none; }
