# Memory of both agents with ten mirrors of 1 TiB, all of them written to at a time.
# shellcheck shell=bash

MEMORY_SIDES="1:active 2:standby"

memory_cases() {
    local side
    for side in $MEMORY_SIDES; do
        printf '%s\n' "${side#*:}, highest VmRSS" "${side#*:}, PSS at the end" "${side#*:}, locked" "${side#*:}, idle"
    done
    echo "writes of all mirrors"
}

memory_part() {
    local count=10 side
    [ -z "$QUICK" ] || count=3
    whole_lab "$TIB_MB" "$count"
    for ROUND in $(rounds); do
        as_whole
        load_all "$count"
        for side in $MEMORY_SIDES; do memory_of "${side%%:*}" "${side#*:}"; done
        figure "writes of all mirrors" "$(jq -n --slurpfile all <(cat "$WORK"/all.*.fio) '[$all[].jobs[0].write.iops] | add')" IOPS
    done
}

agent_file() { lab_enter "$1" sh -c "cat /proc/\$(cat /run/agent.pid)/$2"; }
kib_of() { agent_file "$1" "$2" | awk -v key="$3:" '$1 == key { print $2 }'; } # kib_of SERVER FILE KEY

# Large and small writes at random places: all buffers are in use, and marks everywhere. Not for long: what is
# written takes room on the disk, twice.
load_all() {
    local m pids=() pid
    for ((m = 1; m <= $1; m++)); do active "md$m"; done
    IDLE=("" "$(kib_of 1 status VmRSS)" "$(kib_of 2 status VmRSS)")
    for ((m = 1; m <= $1; m++)); do
        lab_run 1 fio --name=x --ioengine=nbd --uri="$(mirror_uri "md$m")" --rw=randwrite --bssplit=4k/90:1m/10 --iodepth=32 \
            --size="${TIB_MB}m" --io_size=256m --randrepeat=0 --norandommap --runtime=$((4 * LENGTH)) --output-format=json \
            </dev/null >"$WORK/all.$m.out" 2>&1 &
        pids+=("$!")
    done
    for pid in "${pids[@]}"; do wait "$pid" || die "fio on one of the mirrors"; done
    for ((m = 1; m <= $1; m++)); do sed -n '/^{/,$p' "$WORK/all.$m.out" >"$WORK/all.$m.fio"; done
}

memory_of() { # memory_of SERVER NAME
    local locked
    locked=$(kib_of "$1" status VmLck)
    figure "$2, idle" $((IDLE[$1] / 1024)) MiB
    figure "$2, highest VmRSS" $(($(kib_of "$1" status VmHWM) / 1024)) MiB at-most 512
    figure "$2, PSS at the end" $(($(kib_of "$1" smaps_rollup Pss) / 1024)) MiB
    figure "$2, locked" $((locked / 1024)) MiB
}
