# A full recovery while nothing else happens, beside what its disks and its line allow.
# shellcheck shell=bash

recovery_cases() {
    cat <<'CASES'
sequential read
sequential write
wire
copy from disk to disk
full recovery
full recovery / the slowest of read, wire, write
full recovery / copy from disk to disk
CASES
}

recovery_part() {
    local size
    size=$(recovery_size)
    whole_lab "$size"
    [ -n "$QUICK" ] || fill_data "$size"
    answers_of_server_2
    for ROUND in $(rounds); do
        recovery_limits "$size"
        as_new
        recovery_speed "${QUICK:+1}"
        figure "full recovery" "$SPEED" MB/s
        figure "full recovery / the slowest of read, wire, write" "$(quotient "$SPEED" "$SLOWEST")" x at-least 0.9
        figure "full recovery / copy from disk to disk" "$(quotient "$SPEED" "$COPY_SPEED")" x
    done
}

recovery_size() { if [ -n "$QUICK" ]; then echo 2048; else echo "${PART_SIZE:-4096}"; fi; }

answers_of_server_2() {
    lab_run 2 limits serve "$REMOTE:9999" </dev/null >"$WORK/serve.out" 2>&1 &
    disown $!
    wait_for 10 "the answers of server 2" grep -q ready "$WORK/serve.out"
}

# Sets SLOWEST and COPY_SPEED, MB/s.
recovery_limits() {
    local size=$1 stride=1 read write wire
    [ -z "$QUICK" ] || size=128 stride=16
    end_agents
    read=$(disk_speed 1 read "$size") write=$(disk_speed 2 write "$size")
    wire=$(lab_run 1 limits round-trip "$REMOTE:9999" --size $MIB --depth 8 --seconds 1 | jq .mbps)
    COPY_SPEED=$("$CLPMD_BIN/limits" copy-file "$(data_of 1 1)" "$(data_of 2 1)" --stride $((stride * MIB)) | jq .mbps)
    SLOWEST=$(smallest "$read" "$write" "$wire")
    figure "sequential read" "$read" MB/s
    figure "sequential write" "$write" MB/s
    figure "wire" "$wire" MB/s
    figure "copy from disk to disk" "$COPY_SPEED" MB/s
}

disk_speed() { # disk_speed SERVER read|write MB
    fio --name=x --ioengine=libaio --direct=1 --filename="$(data_of "$1" 1)" --rw="$2" --bs=1m --iodepth=8 \
        --size="${3}m" --output-format=json 2>/dev/null | sed -n '/^{/,$p' | jq ".jobs[0].$2.bw_bytes / 1e6"
}

# The speed of the recovery that runs, from the first look at it until its end or for SECONDS; sets SPEED, MB/s.
recovery_speed() { # recovery_speed [SECONDS]
    lab_run 1 bash -c '
        copied() { read -r total done < <(clpmdstat --mirror md1 --json | jq -r ".status.recovery | \"\(.total_bytes // 0) \(.copied_bytes // 0)\""); now=$EPOCHREALTIME; }
        tries=0
        until copied; ((total > 0 && done > 0)); do ((++tries < 1000)) || exit 1; done
        first=$done begin=$now last=$done end=$now
        while copied; ((total > 0)); do
            last=$done end=$now
            awk -v a="$begin" -v b="$end" -v s="$1" "BEGIN { exit !(b - a > s) }" && break
            read -rt 0.03 <> <(:)
        done
        awk -v a="$first" -v b="$last" -v c="$begin" -v d="$end" "BEGIN { s = (d > c ? (b - a) / (d - c) / 1e6 : 0); print s }"
    ' bash "${1:-600}" </dev/null >"$WORK/speed" || die "no recovery to look at"
    SPEED=$(cat "$WORK/speed")
    [ "$SPEED" != 0 ] || die "the recovery is over before it can be looked at"
}
