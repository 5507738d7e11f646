# Recovery of a difference of 1 % of 1 TiB, scattered over all of it, beside a plain copy of the same
# bytes from disk to disk.
# shellcheck shell=bash

difference_cases() {
    cat <<'CASES'
bytes of the difference
plain copy of those bytes
recovery of the difference
recovery of the difference / plain copy
CASES
}

difference_part() {
    local stride=100 runs
    [ -z "$QUICK" ] || stride=16384
    runs=$((TIB_MB / stride))
    until room_for $((runs * 2 + 2048)); do
        stride=$((stride * 2)) runs=$((runs / 2))
        say "note: there is no room in $DIR for 1 %: the difference is 1 MiB in each $stride"
    done
    whole_lab "$TIB_MB"
    for ROUND in $(rounds); do
        end_agents
        forget_data "$TIB_MB"
        as_whole
        active md1
        lab_cut mirror
        # The first MiB of each stride, on server 1 alone.
        load alone --rw="write:$((stride - 1))m" --bs=1m --iodepth=8 --size="${TIB_MB}m" --io_size="${runs}m"
        plain_copy $((stride * MIB)) $((runs * MIB))
        lab_heal mirror
        recovery_time
        figure "bytes of the difference" "$BYTES" B
        figure "plain copy of those bytes" "$COPY_TIME" s
        figure "recovery of the difference" "$RECOVERY_TIME" s
        figure "recovery of the difference / plain copy" "$(quotient "$RECOVERY_TIME" "$COPY_TIME")" x at-most 1.2
    done
}

room_for() { # room_for MB
    local free
    free=$(df --output=avail -BM "$WORK" | tail -n 1)
    ((${free//[!0-9]/} > $1))
}

# Sets COPY_TIME, s. The copy goes to a file as sparse as that of server 2, which is gone afterwards.
plain_copy() {
    local begin copy=$LAB/copy.img
    truncate -s "${TIB_MB}M" "$copy"
    begin=$(now)
    "$CLPMD_BIN/limits" copy-file "$(data_of 1 1)" "$copy" --stride "$1" >/dev/null || die "the plain copy"
    COPY_TIME=$(difference "$(now)" "$begin")
    rm "$copy"
}

# Sets RECOVERY_TIME, s, from the first sight of the recovery to the mirror being normal, and BYTES.
recovery_time() {
    lab_run 1 bash -c '
        look() { clpmdstat --mirror md1 --json | jq -r ".status | \"\(.phase) \(.recovery.total_bytes // 0)\""; }
        pause() { read -rt 0.02 <> <(:); }
        tries=0
        until read -r phase total < <(look); [ "$phase" = recovering ]; do ((++tries < 1500)) || exit 1; pause; done
        begin=$EPOCHREALTIME bytes=$total
        while read -r phase total < <(look); [ "$phase" != normal ]; do ((total == 0)) || bytes=$total; pause; done
        echo "$bytes $begin $EPOCHREALTIME"
    ' </dev/null >"$WORK/recovery" || die "no recovery of the difference"
    local begin end
    read -r BYTES begin end <"$WORK/recovery"
    RECOVERY_TIME=$(difference "$end" "$begin")
}
