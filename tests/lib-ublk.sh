# Sourced by the tests of the kernel's ublk driver: two agents on one kernel, on loopback addresses,
# each with folders of its own. Nothing but the driver is needed, no namespaces and no links.
# Where there is no driver, the test is left out.
# shellcheck shell=bash

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
export CLPMD_PROFILE=${CLPMD_PROFILE:-dev} TZ=UTC

left_out() { say "$(basename "$0"): left out, $*"; exit "$LEFT_OUT"; }
[ "$(id -u)" = 0 ] || left_out "there is no root here"
[ -e /dev/ublk-control ] || modprobe -q ublk_drv 2>/dev/null || true
[ -e /dev/ublk-control ] || left_out "there is no /dev/ublk-control here"
for program in fio jq mkfs.ext4; do
    command -v "$program" >/dev/null || left_out "there is no $program here"
done

fail() { say "$(basename "$0"): FAILED: $*"; exit 1; }
shown() { say "  $*"; }
check() { local what=$1; shift; "$@" || fail "$what"; shown "held: $what"; }
soon() { local what=$1; shift; wait_for "${LIMIT:-30}" "$what" "$@" || fail "$what"; shown "held: $what"; }

MIRROR_EXTRA='heartbeat_interval = 200
peer_timeout = 4000
connect_timeout = 1000'
AGENT_EXTRA=
FS=ext4
MNT=
W=
declare -A AGENT=()

# Two servers whose mirror is constructed. UBLK_DIR: a folder on a disk that takes O_DIRECT.
pair() {
    build
    W=$(mktemp -d "${UBLK_DIR:-/var/tmp}/clpmd-ublk.$$.XXXXXX")
    MNT=$W/mnt
    on_exit tear_down
    local n
    for n in 1 2; do
        truncate -s "${DATA_MB:-64}M" "$W/data$n.img"
        truncate -s 4M "$W/cluster$n.img"
        mkdir "$W/run$n" "$W/dev$n" "$W/log$n"
    done
    dd if=/dev/zero of="$W/data1.img" bs=4k count=1 oflag=direct conv=notrunc status=none 2>/dev/null ||
        left_out "$W does not take direct I/O; UBLK_DIR=... names another folder"
    (umask 077; head -c 32 /dev/urandom | base64 >"$W/secret")
    for n in 1 2; do configure "$n"; done
    start 1
    start 2
    LIMIT=60 soon "the mirror is constructed" both_normal
    [ "$FS" != none ] || return 0
    on 1 clpmdctrl --active -nomount md1 >&2
    "mkfs.$FS" -q "$W/dev1/NMP1"
    inactive 1
}

configure() {
    local n=$1 m
    {
        for m in 1 2; do
            printf '[[server]]\nname = "server%s"\nagent_address = "127.0.0.%s"\n' "$m" "$m"
            printf 'mirror_connect = ["127.0.0.%s"]\n' "$m"
        done
        printf '[agent]\nsecret_file = "%s/secret"\nlog_dir = "%s/log%s"\nrun_dir = "%s/run%s"\n' "$W" "$W" "$n" "$W" "$n"
        printf 'device_dir = "%s/dev%s"\nsyslog = "%s/nobody"\n%s\n' "$W" "$n" "$W" "$AGENT_EXTRA"
        printf '[[mirror]]\nname = "md1"\nfront_end = "ublk"\nfs = "%s"\n%s\n' "$FS" "$MIRROR_EXTRA"
        [ "$FS" = none ] || printf 'mount_point = "%s"\numount_retry = 0\n' "$MNT"
        for m in 1 2; do
            printf '[mirror.on.server%s]\ndata_partition = "%s/data%s.img"\n' "$m" "$W" "$m"
            printf 'cluster_partition = "%s/cluster%s.img"\n' "$W" "$m"
        done
    } >"$W/server$n.toml"
}

on() { # on N COMMAND...: as an operator of server N
    local n=$1
    shift
    env PATH="$CLPMD_BIN:$PATH" CLPMD_CONFIG="$W/server$n.toml" "$@"
}

# The agent's own words go to agent<N>.log.
launch() {
    # Not through a function: the process must be the agent itself.
    env CLPMD_CONFIG="$W/server$1.toml" "$CLPMD_BIN/clpmdagent" --server "server$1" </dev/null \
        >>"$W/agent$1.log" 2>&1 &
    AGENT[$1]=$!
    disown $!
}
start() {
    launch "$1"
    wait_for 60 "the agent of server$1 answers" answers "$1" || fail "server$1: $(tail -n 20 "$W/agent$1.log")"
}
answers() { [[ $(on "$1" clpmdstat --mirror md1) == *"Mirror Status"* ]]; }
is_gone() { [ ! -e "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null; }
ended() { wait_for "${2:-60}" "the agent of server$1 ends" is_gone "${AGENT[$1]}" || fail "it ends"; }
killed() { kill -KILL "${AGENT[$1]}"; ended "$1"; }
stopped() { kill -TERM "${AGENT[$1]}"; ended "$1"; }
suspended() { kill -USR2 "${AGENT[$1]}"; ended "$1"; }

state() { on "$1" clpmdstat --mirror md1 --json 2>/dev/null | jq -r "$2"; }
state_is() { [ "$(state "$1" "$2" 2>/dev/null)" = "$3" ]; }
is_normal() { state_is "$1" '.status | [.phase, .link] | join(" ")' 'normal session'; }
both_normal() { is_normal 1 && is_normal 2; }
is_active() { state_is "$1" ".status.sides[$(($1 - 1))].active" true; }
is_inactive() { state_is "$1" ".status.sides[$(($1 - 1))].active" false; }
colors_are() { state_is "$1" '[.status.sides[].color] | join(" ")' "$2"; }
active() { on "$1" clpmdctrl --active md1 >&2; }
inactive() { on "$1" clpmdctrl --deactive md1 >&2; }
device() { readlink "$W/dev$1/NMP1"; }
number() { jq -r .number "$W/run$1/md1.ublk"; }
# Before kernel 6.4 the driver cannot remove what is in use: the dead device's server end stays.
removes_used() { [ "$(printf '%s\n' 6.4 "$(uname -r)" | sort -V | head -n 1)" = 6.4 ]; }
dead_device() { if removes_used; then no_device "$1"; else [ ! -e "/dev/ublkb$1" ]; fi; }
no_device() { [ ! -e "/dev/ublkb$1" ] && [ ! -e "/dev/ublkc$1" ]; }
is_mounted() { grep -q " $MNT " /proc/self/mounts; }
is_unmounted() { ! is_mounted; }
logged() { grep -q -- "$2" "$W/agent$1.log" "$W/log$1/alert.log" 2>/dev/null; }
works_on() { # works_on SECONDS PID: a process ends by itself
    wait_for "$1" "process $2 ends" is_gone "$2"
}

# fio writes at random all over a file or device and verifies what it wrote.
fio_verify() { # fio_verify WHERE MiB SECONDS OUT [OPTIONS...]
    local where=$1 size=$2 seconds=$3 out=$4
    shift 4
    fio --name=verify --filename="$where" --size="${size}m" --rw=randwrite --bsrange=4k-64k \
        --blockalign=4k --ioengine=libaio --iodepth=8 --direct=1 --verify=crc32c --verify_fatal=1 \
        --do_verify=1 --verify_state_save=0 --time_based --runtime="$seconds" --fsync=64 --output-format=json "$@" >"$out" 2>"$out.err"
}
longest_ms() { sed -n '/^{/,$p' "$1" | jq '[.jobs[] | .write.clat_ns.max, .read.clat_ns.max, (.sync.lat_ns.max // 0)] | max / 1e6 | floor'; }

equal_in_the_end() {
    local n
    for n in 1 2; do if is_active "$n"; then inactive "$n"; fi; done
    for n in 1 2; do stopped "$n"; done
    cmp "$W/data1.img" "$W/data2.img" || fail "the disks differ"
    [ -z "$(find "$W"/run[12] -name '*.ublk')" ] || fail "a record of a device is left"
    shown "held: the disks are equal"
}

tear_down() {
    # shellcheck disable=SC2154 # `code` is that of run_cleanups
    local n pid
    for n in 1 2; do
        [ "$code" = 0 ] || { say "--- server$n:"; tail -n "${LOG_LINES:-25}" "$W/agent$n.log" >&2; }
        pid=${AGENT[$n]:-}
        if [ -n "$pid" ] && ! is_gone "$pid"; then
            kill -KILL "$pid"
            wait_for 30 "the agent of server$n ends" is_gone "$pid"
        fi
        on "$n" clpmdctrl --abandon md1 --yes >/dev/null 2>&1
    done
    ! is_mounted || umount "$MNT" 2>/dev/null || umount -l "$MNT"
    if [ -n "${LAB_KEEP:-}" ]; then say "kept: $W"; else rm -rf --one-file-system "$W"; fi
    # The watchdogs end with the last record.
}
