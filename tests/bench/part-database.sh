# SQLite inserts, each a transaction that is durable when it ends, on ext4 on a block device. Where the kernel
# has neither ublk nor nbd: nbdfuse and a loop device, the same for all but the raw one.
# shellcheck shell=bash

DATABASE_TARGETS="raw nbd quorum mirror"

database_cases() {
    local target
    for target in $DATABASE_TARGETS; do printf '%s\n' "$target, inserts" "$target, p99"; done
    printf '%s\n' "mirror / quorum" "mirror / nbd" "mirror / raw"
}

database_part() {
    local target
    SIZE=1024
    [ -z "$QUICK" ] || SIZE=64
    lab_down
    LAB_FS=none LAB_DATA_MB=$SIZE LAB_CLUSTER_MB=4 LAB_MIRROR_EXTRA="$FRONT"$'\n'$SET
    lab_up
    FILES=$LAB/files
    mkdir "$FILES"
    declare -gA DB_DEVICE=() INSERTS=()
    for target in $DATABASE_TARGETS; do
        "database_$target"
        lab_run 1 mkfs.ext4 -q -F "${DB_DEVICE[$target]}"
        lab_run 1 mkdir -p "/mnt/$target"
        lab_run 1 mount "${DB_DEVICE[$target]}" "/mnt/$target"
        # Before anything that serves it ends.
        on_exit "lab_run 1 umount /mnt/$target 2>/dev/null || true"
    done
    for ROUND in $(rounds); do
        for target in $DATABASE_TARGETS; do
            lab_run 1 "$PARTS_DIR/sqlite-inserts" "/mnt/$target/db" "$LENGTH" >"$WORK/inserts" || die "inserts on $target"
            INSERTS[$target]=$(jq .per_second "$WORK/inserts")
            figure "$target, inserts" "${INSERTS[$target]}" 1/s
            figure "$target, p99" "$(jq .p99_us "$WORK/inserts")" us
        done
        for target in quorum nbd raw; do figure "mirror / $target" "$(quotient "${INSERTS[mirror]}" "${INSERTS[$target]}")" x; done
    done
    for target in $DATABASE_TARGETS; do lab_run 1 umount "/mnt/$target"; done
}

database_raw() {
    new_file 1 raw
    loop_on raw "$FILE"
}
database_nbd() {
    target_nbd
    device_over nbd "nbd+unix:///d?socket=$(socket_of nbd)"
}
database_quorum() {
    target_quorum
    device_over quorum "nbd+unix:///d?socket=$(socket_of quorum)"
}
database_mirror() {
    target_mirror
    device_over mirror "$URI"
}

device_over() { # device_over NAME URI
    local folder=/run/$1.nbdfuse
    lab_run 1 mkdir "$folder"
    lab_run 1 nbdfuse "$folder" "$2" </dev/null >"$FILES/$1.nbdfuse.log" 2>&1 &
    disown $!
    wait_for 10 "nbdfuse on $1" lab_run 1 test -e "$folder/nbd" || { cat "$FILES/$1.nbdfuse.log" >&2; die "no nbdfuse on $1"; }
    loop_on "$1" "$folder/nbd"
}

# It belongs to the whole machine: the laboratory removes it at its end.
loop_on() { # loop_on NAME FILE
    local device
    device=$(lab_run 1 losetup -b 4096 --direct-io=on --show -f "$2") || die "no loop device on $1"
    LAB_LOOPS+=("${device#/dev/loop} $(cat "/sys/block/${device#/dev/}/diskseq")")
    DB_DEVICE[$1]=$device
}
