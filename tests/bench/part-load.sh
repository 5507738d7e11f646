# The application beside a full recovery: its 99th percentile against that without one, and how fast
# the recovery is meanwhile against an idle one. Nothing is set for it.
# shellcheck shell=bash

# name: fio's arguments
LOADS="1,000 writes a second:--rw=randwrite --bs=4k --iodepth=16 --rate_iops=1000
writes, depth 1:--rw=randwrite --bs=4k --iodepth=1
writes, depth 32:--rw=randwrite --bs=4k --iodepth=32"

load_cases() {
    local name
    echo "idle recovery"
    while IFS=: read -r name _; do
        printf '%s\n' "$name, p99" "$name, p99 beside a recovery" "$name, p99 beside / without" \
            "$name, speed of the recovery" "$name, recovery beside / idle"
    done <<<"$LOADS"
}

load_part() {
    local size idle name arguments
    size=$(recovery_size)
    whole_lab "$size"
    [ -n "$QUICK" ] || fill_data "$size"
    for ROUND in $(rounds); do
        as_new
        recovery_speed "$LENGTH"
        idle=$SPEED
        figure "idle recovery" "$idle" MB/s
        while IFS=: read -r name arguments; do
            one_load "$size" "$idle" "$name" "$arguments"
        done <<<"$LOADS"
    done
}

one_load() { # one_load MB IDLE NAME ARGUMENTS
    local size=$1 idle=$2 name=$3 watch
    as_whole
    active md1
    # shellcheck disable=SC2086 # several arguments
    load without $4 --size="${size}m" --time_based --runtime="$LENGTH" --ramp_time=1
    as_new
    active md1
    recovery_speed "$LENGTH" </dev/null & # it ends with the recovery, at the latest
    watch=$!
    # shellcheck disable=SC2086
    load beside $4 --size="${size}m" --time_based --runtime="$LENGTH"
    wait "$watch" || die "no recovery beside: $name"
    SPEED=$(cat "$WORK/speed")
    figure "$name, p99" "$(p99_of without)" us
    figure "$name, p99 beside a recovery" "$(p99_of beside)" us
    figure "$name, p99 beside / without" "$(quotient "$(p99_of beside)" "$(p99_of without)")" x at-most 2
    figure "$name, speed of the recovery" "$SPEED" MB/s
    figure "$name, recovery beside / idle" "$(quotient "$SPEED" "$idle")" x at-least 0.33
    is_in md1 recovering || [ -n "$QUICK" ] || say "note: the recovery was over before the load; take a larger --size"
}
