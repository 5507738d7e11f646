# How long an agent takes to start, to stop, to activate, and to go on alone after the line was cut: for a
# mirror of 1 GiB and for one of 1 TiB. None may grow with the size.
# shellcheck shell=bash

TIMES="start of the agent
both servers in contact
activation
the first write alone after a cut
deactivation
stop of the agent"
# What may lie between the two sizes: a half more, and what a look at a clock by a shell costs.
TIMES_FACTOR=1.5 TIMES_SLACK=0.05

times_cases() {
    local what
    while read -r what; do printf '%s\n' "$what, 1 GiB" "$what, 1 TiB" "$what, 1 TiB / 1 GiB"; done <<<"$TIMES"
}

times_part() {
    local what
    declare -gA TOOK=()
    for ROUND in $(rounds); do
        times_of "1 GiB" 1024
        times_of "1 TiB" "$TIB_MB"
        while read -r what; do
            figure "$what, 1 GiB" "${TOOK[$what, 1 GiB]}" s
            figure "$what, 1 TiB" "${TOOK[$what, 1 TiB]}" s
            figure "$what, 1 TiB / 1 GiB" "$(size_ratio "$what")" x at-most "$TIMES_FACTOR"
        done <<<"$TIMES"
    done
}

# Times of some milliseconds are those of the commands themselves: the slack is added to both.
size_ratio() {
    awk -v a="${TOOK[$1, 1 TiB]}" -v b="${TOOK[$1, 1 GiB]}" -v s="$TIMES_SLACK" 'BEGIN { print (a + s) / (b + s) }'
}

times_of() { # times_of NAME MB
    local begin
    whole_lab "$2"
    [ -z "$QUICK" ] || shorter_timeouts
    lab_start 2
    TOOK["start of the agent, $1"]=$(agent_starts)
    begin=$(now)
    wait_for 20 "contact" is_in md1 normal || die "no contact"
    TOOK["both servers in contact, $1"]=$(difference "$(now)" "$begin")
    TOOK["activation, $1"]=$(command_time clpmdctrl --active -nomount md1)
    TOOK["the first write alone after a cut, $1"]=$(break_time "$2")
    TOOK["deactivation, $1"]=$(command_time clpmdctrl --deactive md1)
    TOOK["stop of the agent, $1"]=$(agent_stops)
}

shorter_timeouts() { sed -i 's/^front_end.*/&\nheartbeat_interval = 200\npeer_timeout = 1000\nconnect_timeout = 500/' "$LAB/clpmd.toml"; }

# Until it answers for the mirror.
agent_starts() {
    lab_run 1 bash -c '
        begin=$EPOCHREALTIME
        (echo $BASHPID >/run/agent.pid; exec clpmdagent </dev/null >>"$1" 2>&1) &
        tries=0
        until clpmdstat --mirror md1 >/run/answer 2>/dev/null && grep -q "Mirror Status" /run/answer; do
            ((++tries < 2000)) || exit 1
            read -rt 0.005 <> <(:)
        done
        awk -v a="$begin" -v b="$EPOCHREALTIME" "BEGIN { print b - a }"' bash "$LAB/server1/agent.log" </dev/null ||
        die "the agent does not start"
}

agent_stops() {
    lab_run 1 bash -c '
        pid=$(cat /run/agent.pid) begin=$EPOCHREALTIME tries=0
        kill -TERM "$pid"
        while kill -0 "$pid" 2>/dev/null; do ((++tries < 12000)) || exit 1; read -rt 0.005 <> <(:); done
        awk -v a="$begin" -v b="$EPOCHREALTIME" "BEGIN { print b - a }"' </dev/null || die "the agent does not stop"
}

command_time() {
    lab_run 1 bash -c '
        begin=$EPOCHREALTIME
        "$@" >/dev/null || exit 1
        awk -v a="$begin" -v b="$EPOCHREALTIME" "BEGIN { print b - a }"' bash "$@" </dev/null || die "$*"
}

# The longest that a write of the application waits when the line is cut in silence, peer_timeout included.
break_time() { # break_time MB
    load cut --rw=randwrite --bs=4k --iodepth=1 --rate_iops=200 --size="$1m" --time_based --runtime="$((${QUICK:+-7} + 10))" &
    local fio=$!
    wait_for 10 "writes" is_written_to || die "nothing is written"
    lab_cut mirror 1
    lab_cut mirror 2
    wait "$fio" || die "the application failed at the cut"
    lab_heal mirror
    wait_for 60 "contact again" is_in md1 normal || die "no contact again"
    of_fio cut '.write.clat_ns.max / 1e9'
}
is_written_to() { [ "$(lab_run 1 clpmdstat --perf md1 --json | jq .since_start.device_write.count)" -gt 50 ]; }
