# What all parts of `scripts/bench --parts` share. Sourced by scripts/bench, after scripts/lab-ns and
# targets.sh.
# shellcheck shell=bash
#
# A part is a file part-NAME.sh beside this one with two functions:
#   NAME_cases     prints the names of its cases
#   NAME_part      measures one round of them, with `figure`
# A case that has a goal names it, and is a ratio or a value of the same round.

PARTS_DIR=$ROOT/tests/bench
ALL_PARTS=marks,recovery,load,difference,memory,times,database
for part in ${ALL_PARTS//,/ }; do . "$PARTS_DIR/part-$part.sh"; done
FRONT='front_end = "nbd-socket"'
MIB=1048576
TIB_MB=$MIB

# figure CASE VALUE UNIT [at-least|at-most GOAL]
figure() {
    jq -cn --arg part "$PART" --arg case "$1" --argjson value "$2" --arg unit "$3" --argjson round "$ROUND" \
        --arg relation "${4:-}" --arg goal "${5:-}" '{$part, $case, $round, $value, $unit, error: 0}
        + if $goal == "" then {} else {goal: {($relation): ($goal | tonumber)}} end' >>"$RESULTS"
}

quotient() { awk -v a="$1" -v b="$2" 'BEGIN { if (b + 0 == 0) exit 1; print a / b }' || die "nothing to divide by: $1 / $2"; }
difference() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.6f", a - b }'; }
smallest() { printf '%s\n' "$@" | sort -g | head -n 1; }

# ---- two servers whose mirrors are whole because it says so (see src/whole.rs)

# whole_lab MB [MIRRORS]: mirrors of that size on both servers, agents not running. The data partitions are
# sparse files. `as_whole` brings the cluster partitions back to this.
whole_lab() {
    local size=$1 count=${2:-1} n m
    if [ -z "$LAB" ] || [ "$count" != "$MIRRORS" ]; then first_lab "$count"; fi
    end_agents
    cp "$LAB/first.toml" "$LAB/clpmd.toml"
    forget_data "$size"
    for n in 1 2; do
        for ((m = 1; m <= MIRRORS; m++)); do
            cp "$(cluster_of "$n" "$m").first" "$(cluster_of "$n" "$m")"
            "$CLPMD_BIN/unsafe-whole" "$(cluster_of "$n" "$m")" $((size * MIB)) || die "the cluster partition of md$m"
            cp "$(cluster_of "$n" "$m")" "$(cluster_of "$n" "$m").whole"
        done
    done
}

MIRRORS=0
# Small mirrors, constructed: what `unsafe-whole` is told of, later.
first_lab() { # first_lab MIRRORS
    local n m
    MIRRORS=$1
    lab_down
    LAB_FS=none LAB_DATA_MB=16 LAB_CLUSTER_MB=4 LAB_MIRROR_EXTRA="$FRONT"$'\n'$SET
    lab_up
    for ((m = 2; m <= MIRRORS; m++)); do further_mirror "$m"; done
    cp "$LAB/clpmd.toml" "$LAB/first.toml"
    for n in 1 2; do lab_start "$n"; done
    for ((m = 1; m <= MIRRORS; m++)); do
        wait_for 60 "construction of md$m" is_in "md$m" normal || die "md$m does not come up"
    done
    stop_agents
    for n in 1 2; do
        for ((m = 1; m <= MIRRORS; m++)); do cp "$(cluster_of "$n" "$m")" "$(cluster_of "$n" "$m").first"; done
    done
}

data_of() { echo "$LAB/server$1/data${2#1}.img"; }
cluster_of() { echo "$LAB/server$1/cluster${2#1}.img"; }

further_mirror() {
    local n
    printf '[[mirror]]\nname = "md%s"\nfs = "none"\n%s\n' "$1" "$LAB_MIRROR_EXTRA" >>"$LAB/clpmd.toml"
    for n in 1 2; do
        truncate -s "${LAB_DATA_MB}M" "$(data_of "$n" "$1")"
        truncate -s "${LAB_CLUSTER_MB}M" "$(cluster_of "$n" "$1")"
        printf '[mirror.on.server%s]\ndata_partition = "%s"\ncluster_partition = "%s"\n' \
            "$n" "$(data_of "$n" "$1")" "$(cluster_of "$n" "$1")" >>"$LAB/clpmd.toml"
    done
}

# Both agents anew, on mirrors that are whole and have nothing marked.
as_whole() {
    local n m
    end_agents
    for n in 1 2; do
        for ((m = 1; m <= MIRRORS; m++)); do cp "$(cluster_of "$n" "$m").whole" "$(cluster_of "$n" "$m")"; done
        lab_start "$n"
    done
    for ((m = 1; m <= MIRRORS; m++)); do wait_for 20 "md$m is normal" is_in "md$m" normal || die "md$m is not normal"; done
}

# Both agents anew, on cluster partitions that were never used: everything is copied from server 1.
as_new() {
    local n
    end_agents
    for n in 1 2; do
        truncate -s 0 "$(cluster_of "$n" 1)"
        truncate -s "${LAB_CLUSTER_MB}M" "$(cluster_of "$n" 1)"
        lab_start "$n"
    done
    wait_for 20 "everything is copied" is_in md1 recovering || die "no recovery begins"
}

stop_agents() {
    local n
    for n in 1 2; do
        ! lab_agent_runs "$n" || lab_stop "$n"
    done
}

# Where nothing of what they have recorded is used again.
end_agents() {
    local n
    for n in 1 2; do
        ! lab_agent_runs "$n" || lab_kill "$n"
    done
}

# A first write costs more than the next ones.
fill_from() { # fill_from SERVER FIRST-MB MB
    dd if=/dev/zero of="$(data_of "$1" 1)" bs=1M seek="$2" count="$3" oflag=direct conv=notrunc status=none
}
fill_data() { fill_from 1 0 "$1" && fill_from 2 0 "$1"; }

# forget_data MB: sparse files again, of this size
forget_data() {
    local n m
    for n in 1 2; do
        for ((m = 1; m <= MIRRORS; m++)); do
            truncate -s 0 "$(data_of "$n" "$m")"
            truncate -s "${1}M" "$(data_of "$n" "$m")"
        done
    done
}

of_status() { lab_run 1 clpmdstat --mirror "$1" --json 2>/dev/null | jq -r "$2"; }
is_in() { [ "$(of_status "$1" '.status | [.phase, .link] | join(" ")')" = "$2 session" ]; }
active() { lab_run 1 clpmdctrl --active "$1" >&2 || die "$1 cannot be activated"; }

# ---- load

mirror_uri() { # mirror_uri MIRROR
    echo "nbd+unix:///?socket=/run/clpmd/$1.nbd"
}

# load NAME ARGUMENT...: fio on the active mirror md1, or what --uri says; its own JSON in $WORK/NAME.fio
load() {
    local name=$1
    shift
    lab_run 1 fio --name=x --ioengine=nbd --uri="$(mirror_uri md1)" --randrepeat=0 --norandommap "$@" --output-format=json \
        2>"$WORK/fio.err" >"$WORK/fio.out" || { cat "$WORK/fio.err" >&2; die "fio: $PART, $name"; }
    sed -n '/^{/,$p' "$WORK/fio.out" >"$WORK/$name.fio"
    [ "$(of_fio "$name" .error)" = 0 ] || die "I/O errors: $PART, $name"
}
of_fio() { jq ".jobs[0] | $2" "$WORK/$1.fio"; } # of_fio NAME EXPRESSION
iops_of() { of_fio "$1" .write.iops; }
p50_of() { of_fio "$1" '.write.clat_ns.percentile["50.000000"] / 1000'; }
p99_of() { of_fio "$1" '.write.clat_ns.percentile["99.000000"] / 1000'; }

now() { echo "$EPOCHREALTIME"; }

run_parts() {
    local part
    WORK=${WORK:?}
    for part in ${PARTS//,/ }; do
        declare -F "${part}_part" >/dev/null || die "no part $part; there are: ${ALL_PARTS//,/ }"
    done
    for part in ${PARTS//,/ }; do
        PART=$part
        say "part $part"
        "${part}_part"
    done
}

list_parts() {
    local part case
    for part in ${ALL_PARTS//,/ }; do
        while read -r case; do printf '%s: %s\n' "$part" "$case"; done < <("${part}_cases")
    done
}

rounds() { seq "$ROUNDS"; }
