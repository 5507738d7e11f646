# What the durable marks cost: the mirror as it is, beside one in which every region is marked already, so
# that no write has to wait for a mark and none is written. That is a mirror whose full recovery was
# stopped: writes go to both disks there as ever.
# shellcheck shell=bash

marks_cases() {
    cat <<'CASES'
hot, depth 32
hot, depth 32, everything marked before
hot, depth 32, ratio
sparse, depth 32
sparse, depth 32, everything marked before
sparse, depth 32, ratio
cold, depth 1, p50
cold, depth 1, everything marked before, p50
cold, depth 1, cost of a mark
CASES
}

# Both kinds of places are in mirrors of 1 TiB. The hot ones are in its middle, where the recovery does not
# come before it is stopped.
marks_part() {
    local hot=4096
    [ -z "$QUICK" ] || hot=64
    whole_lab "$TIB_MB"
    marks_hot "$hot"
    marks_sparse
}

# The clean-up of marks has nothing to take away there: it is not to go over them all the time.
set_hot_regions() {
    sed -i '/^hot_regions/d' "$LAB/clpmd.toml"
    [ -z "$1" ] || sed -i "s/^front_end.*/&\nhot_regions = $1/" "$LAB/clpmd.toml"
}

with_marks() {
    set_hot_regions ''
    as_whole
    active md1
}

all_marked_before() {
    set_hot_regions 1048576
    as_new
    # Not before it copies.
    wait_for 20 "the recovery can be stopped" lab_run 1 clpmdctrl --cancel md1 || die "the recovery cannot be stopped"
    wait_for 20 "the recovery has stopped" is_not_recovering || die "the recovery does not stop"
    check_marks
    active md1
}
is_not_recovering() { ! is_in md1 recovering; }

# Or else this compares the mirror with itself.
check_marks() {
    local all=$((TIB_MB * 16)) marked
    marked=$(of_status md1 '.status.sides[0].marked_regions')
    ((marked > all - all / 16)) || die "only $marked of $all regions are marked"
}

marks_hot() { # marks_hot MB
    local how middle=$((TIB_MB / 2)) n
    for n in 1 2; do fill_from "$n" "$middle" "$1"; done
    for ROUND in $(rounds); do
        for how in with_marks all_marked_before; do
            "$how"
            # One write in each region: from here on they are hot.
            load warm --rw=write:60k --bs=4k --iodepth=32 --offset="${middle}m" --size="${1}m"
            load "$how" --rw=randwrite --bs=4k --iodepth=32 --offset="${middle}m" --size="${1}m" --time_based --runtime="$LENGTH"
        done
        figure "hot, depth 32" "$(iops_of with_marks)" IOPS
        figure "hot, depth 32, everything marked before" "$(iops_of all_marked_before)" IOPS
        figure "hot, depth 32, ratio" "$(quotient "$(iops_of with_marks)" "$(iops_of all_marked_before)")" x at-least 0.95
    done
}

marks_sparse() {
    local how depth
    for ROUND in $(rounds); do
        for how in with_marks all_marked_before; do
            for depth in 32 1; do
                end_agents
                forget_data "$TIB_MB"
                "$how"
                load "$how.$depth" --rw=randwrite --bs=4k --iodepth="$depth" --size="${TIB_MB}m" --time_based --runtime="$LENGTH"
            done
        done
        figure "sparse, depth 32" "$(iops_of with_marks.32)" IOPS
        figure "sparse, depth 32, everything marked before" "$(iops_of all_marked_before.32)" IOPS
        figure "sparse, depth 32, ratio" "$(quotient "$(iops_of with_marks.32)" "$(iops_of all_marked_before.32)")" x at-least 0.75
        figure "cold, depth 1, p50" "$(p50_of with_marks.1)" us
        figure "cold, depth 1, everything marked before, p50" "$(p50_of all_marked_before.1)" us
        figure "cold, depth 1, cost of a mark" "$(difference "$(p50_of with_marks.1)" "$(p50_of all_marked_before.1)")" us
    done
}
