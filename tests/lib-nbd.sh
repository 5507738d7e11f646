# Sourced by the tests of the kernel's NBD client: two servers in two folders of this machine, on
# 127.0.0.1 and 127.0.0.2. Not in namespaces: the nbd driver answers in the machine's own network
# namespace only.
# shellcheck shell=bash

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
export CLPMD_PROFILE=${CLPMD_PROFILE:-dev}

set -E
trap 'say "$(basename "$0"): line $LINENO: $BASH_COMMAND"' ERR

fail() { say "$(basename "$0"): FAILED: $*"; exit 1; }
shown() { say "  $*"; }
check() { local what=$1; shift; "$@" || fail "$what"; }

need_nbd() {
    local missing=
    [ "$(id -u)" = 0 ] || missing=root
    [ -d /sys/module/nbd ] || modprobe nbd 2>/dev/null || missing="nbd driver"
    [ "$(readlink /proc/self/ns/net)" = "$(readlink /proc/1/ns/net)" ] || missing="network namespace of the machine"
    [ -n "$missing" ] || command -v fio >/dev/null || missing=fio
    [ -z "$missing" ] || { say "$(basename "$0"): left out, there is no $missing here"; exit "$LEFT_OUT"; }
}

DIR=
declare -A AGENT=()

# Agents whose disks fail on demand: `fault N data|cluster KIND FAULT`, `no_faults`.
with_faults() {
    build
    if [ -z "${CLPMD_FAULT_BIN:-}" ]; then
        local with=${CARGO_TARGET_DIR:-$ROOT/target}/faults
        (cd "$ROOT" && cargo build --quiet --locked -p mirror-agent --bin clpmdagent --profile dev \
            --features fault-injection --target-dir "$with") || die "the build failed"
        CLPMD_FAULT_BIN=$with/debug
    fi
    AGENT_PROGRAM=$CLPMD_FAULT_BIN/clpmdagent
}
fault() {
    local n=$1 part=$2
    shift 2
    echo "$DIR/$part$n $*" >>"$DIR/faults"
}
no_faults() { rm -f "$DIR/faults"; }

# servers FS [MIRROR LINES]: both servers, with a constructed mirror. NBD_DIR is where: a folder on
# a file system with O_DIRECT.
servers() {
    build
    AGENT_PROGRAM=${AGENT_PROGRAM:-$CLPMD_BIN/clpmdagent}
    DIR=$(mktemp -d "${NBD_DIR:-${TMPDIR:-/tmp}}/clpmd-nbd.XXXXXX")
    on_exit tear_down
    local n
    (umask 077; head -c 32 /dev/urandom | base64 >"$DIR/secret")
    for n in 1 2; do
        mkdir "$DIR/run$n" "$DIR/dev$n" "$DIR/mnt$n"
        truncate -s "${DATA_MB:-128}M" "$DIR/data$n"
        truncate -s 8M "$DIR/cluster$n"
        configuration "$n" "$@" >"$DIR/$n.toml"
    done
    export MIRROR_FAULTS=$DIR/faults
    start 1
    start 2
    wait_for 60 "the mirror is constructed" both_normal || fail "the mirror is constructed"
}

configuration() {
    local n=$1 fs=$2 m
    shift 2
    for m in 1 2; do
        printf '[[server]]\nname = "server%s"\nagent_address = "127.0.0.%s"\nmirror_connect = ["127.0.0.%s"]\n' "$m" "$m" "$m"
    done
    printf '[agent]\nsecret_file = "%s/secret"\nlog_dir = "%s/run%s"\nrun_dir = "%s/run%s"\ndevice_dir = "%s/dev%s"\nsocket = "%s/run%s/ctl.sock"\n' \
        "$DIR" "$DIR" "$n" "$DIR" "$n" "$DIR" "$n" "$DIR" "$n"
    printf '[[mirror]]\nname = "md1"\nfs = "%s"\nfront_end = "nbd"\n' "$fs"
    [ "$fs" = none ] || printf 'mount_point = "%s/mnt%s"\ninitial_mkfs = true\n' "$DIR" "$n"
    printf '%s\n' "$@"
    for m in 1 2; do
        printf '[mirror.on.server%s]\ndata_partition = "%s/data%s"\ncluster_partition = "%s/cluster%s"\n' "$m" "$DIR" "$m" "$DIR" "$m"
    done
}

start() {
    CLPMD_CONFIG=$DIR/$1.toml "$AGENT_PROGRAM" --server "server$1" </dev/null >>"$DIR/log$1" 2>&1 &
    AGENT[$1]=$!
    disown "$!"
    wait_for 60 "the agent of server$1 answers" run "$1" clpmdstat --mirror md1 || fail "the agent of server$1 answers"
}
gone() { ! kill -0 "$1" 2>/dev/null; }
stop() {
    kill "${AGENT[$1]}"
    wait_for 60 "the agent of server$1 ends" gone "${AGENT[$1]}" || fail "the agent of server$1 ends"
    AGENT[$1]=
}
kill_agent() {
    kill -KILL "${AGENT[$1]}"
    wait_for 60 "the agent of server$1 is dead" gone "${AGENT[$1]}" || fail "the agent of server$1 is dead"
    AGENT[$1]=
}

tear_down() {
    local n
    # shellcheck disable=SC2154 # `code` is that of run_cleanups
    if [ "$code" != 0 ]; then
        for n in 1 2; do
            say "--- server$n:"
            run "$n" clpmdstat --mirror md1 >&2
            tail -n 25 "$DIR/log$n" >&2
        done
        say "--- kernel:"
        dmesg 2>/dev/null | grep nbd | tail -n 20 >&2
    fi
    no_faults
    # In good order if possible; a new agent takes down what a killed one has left.
    for n in 1 2; do
        [ -n "${AGENT[$n]:-}" ] && ! gone "${AGENT[$n]}" || start "$n"
        kill "${AGENT[$n]}"
    done
    for n in 1 2; do wait_for 30 "the agent of server$n ends" gone "${AGENT[$n]}" || kill -KILL "${AGENT[$n]}"; done
    [ -z "$(ours)" ] || say "left behind: $(ours)"
    rm -rf "$DIR"
}

run() {
    local n=$1
    shift
    CLPMD_CONFIG=$DIR/$n.toml "$CLPMD_BIN/$1" --server "server$n" "${@:2}"
}
ctrl() { local n=$1; shift; CLPMD_CONFIG=$DIR/$n.toml "$CLPMD_BIN/clpmdctrl" "$@" >&2; }
