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
    [ -n "$missing" ] || [ "$(readlink /proc/self/ns/net)" = "$(readlink /proc/1/ns/net)" ] || missing="network namespace of the machine"
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
        (cd "$ROOT" && cargo build --quiet --locked -p mirror-agent --bin clpmdagent --bin clpmdwatch --profile dev \
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
    trap - ERR
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
    [ -z "${FIO:-}" ] || kill "$FIO" 2>/dev/null
    touch "$DIR/enough"
    for n in 1 2; do
        if [ -n "${AGENT[$n]:-}" ]; then
            kill "${AGENT[$n]}"
            wait_for 30 "the agent of server$n ends" gone "${AGENT[$n]}" || kill -KILL "${AGENT[$n]}"
        fi
        run "$n" clpmdctrl --abandon md1 --yes >/dev/null 2>&1
        ! mountpoint -q "$DIR/mnt$n" || umount "$DIR/mnt$n" || umount -l "$DIR/mnt$n"
    done
    # The watchdogs end with the last device.
    rm -rf "$DIR"
}

# The watchdog that the agent has started.
watchdog() { pgrep -f "clpmdwatch --run-dir $DIR/run$1 "; }
logged() { grep -q -- "$2" "$DIR/log$1" "$DIR/run$1/alert.log" 2>/dev/null; }
run() { local n=$1; shift; CLPMD_CONFIG=$DIR/$n.toml "$CLPMD_BIN/$1" "${@:2}"; }
ctrl() { local n=$1; shift; run "$n" clpmdctrl "$@" >&2; }
# refused N CODE TEXT ARGUMENTS...: the command ends with the code and says the text.
refused() {
    local n=$1 code=$2 text=$3 got=0 said
    shift 3
    said=$(run "$n" clpmdctrl "$@" 2>&1) || got=$?
    [ "$got" = "$code" ] || fail "clpmdctrl $* on server$n: code $got instead of $code: $said"
    [[ $said == *"$text"* ]] || fail "clpmdctrl $* on server$n says: $said"
}
state() { run "$1" clpmdstat --mirror md1 --json | jq -r "$2"; }
state_is() { [ "$(state "$1" "$2" 2>/dev/null)" = "$3" ]; }
is_active() { state_is "$1" ".status.sides[$(($1 - 1))].active" true; }
is_normal() { state_is "$1" '.status | [.phase, .link] | join(" ")' 'normal session'; }
both_normal() { is_normal 1 && is_normal 2; }

# ---- devices

device() { readlink "$DIR/dev$1/NMP1"; }
# The connected devices of these servers: "nbd3 ...".
ours() {
    local dev names=
    for dev in /sys/block/nbd*; do
        [ "$(cat "$dev/pid" 2>/dev/null || echo 0)" != 0 ] || continue
        if grep -q "^clpmd:$DIR/" "$dev/backend" 2>/dev/null; then names+="${dev##*/} "; fi
    done
    echo "$names"
}
queue() { cat "/sys/block/$(basename "$(device "$1")")/queue/$2"; }
kernel_log() { dmesg | tail -n "+$((KERNEL_LOG + 1))" | grep nbd || true; }
mark_kernel_log() { KERNEL_LOG=$(dmesg | wc -l); }
mark_kernel_log

# ---- applications

# start_fio NAME FILE SECONDS: random writes with checksums, looked at afterwards.
start_fio() {
    fio --name="$1" --filename="$2" --size="${FIO_SIZE:-32m}" --rw=randwrite --bsrange=4k-256k \
        --ioengine=libaio --iodepth=16 --direct=1 --verify=crc32c --verify_state_save=0 \
        --time_based --runtime="$3" --rate="${FIO_RATE:-20m}" --output-format=json --output="$DIR/$1.json" \
        </dev/null >"$DIR/$1.out" 2>&1 &
    FIO=$!
}
fio_is_good() {
    wait "$FIO" || fail "fio: $(cat "$DIR/$1.out") $(grep -v '^ \|^[{}]' "$DIR/$1.json" | head -n 5)"
    grep -q '"error" : 0' "$DIR/$1.json" || fail "fio saw an error"
}

# One small durable write after the other, each with its time, until $DIR/enough appears.
start_beat() {
    rm -f "$DIR/enough" "$DIR/beat"
    perl -MTime::HiRes=time -MIO::Handle -e '
        my ($file, $times, $enough) = @ARGV;
        open(my $f, ">", $file) or die "$file: $!";
        open(my $t, ">", $times) or die "$times: $!";
        $t->autoflush(1);
        for (my $n = 1; !-e $enough; $n++) {
            sysseek($f, 0, 0);
            syswrite($f, sprintf("%-4096d", $n)) == 4096 or die "write: $!";
            $f->sync or die "fsync: $!";
            printf $t "%d %.3f\n", $n, time;
            select(undef, undef, undef, 0.02);
        }' "$1" "$DIR/beat" "$DIR/enough" </dev/null 2>"$DIR/beat.error" &
    BEAT=$!
    wait_for 20 "the application runs" test -s "$DIR/beat" || fail "the application runs: $(cat "$DIR/beat.error")"
}
stop_beat() {
    touch "$DIR/enough"
    wait "$BEAT" || fail "the application saw an error: $(cat "$DIR/beat.error")"
}
beats() { wc -l <"$DIR/beat"; }
beats_go_on() {
    local now
    now=$(beats)
    wait_for "${1:-60}" "the application goes on" more_beats "$((now + 10))" || fail "the application goes on"
}
more_beats() { [ "$(beats)" -gt "$1" ]; }
# Seconds between two writes, at the most, from write $1 on.
longest_pause() {
    awk -v from="${1:-0}" 'NR >= from { if (last && $2 - last > max) max = $2 - last; last = $2 }
        END { printf "%.1f", max }' "$DIR/beat"
}
at_most() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a <= b) }'; }

# Both agents end in good order; no device is left, and the disks are equal.
equal_in_the_end() {
    local n
    for n in 1 2; do
        if is_active "$n"; then ctrl "$n" --deactive md1; fi
    done
    [ -z "$(ours)" ] || fail "a device is left: $(ours)"
    for n in 1 2; do stop "$n"; done
    cmp "$DIR/data1" "$DIR/data2" || fail "the disks differ"
    STOPPED=1
}
