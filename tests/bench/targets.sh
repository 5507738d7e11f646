# What is measured against what. Sourced by scripts/bench, after scripts/lab-ns and lab_up.
# shellcheck shell=bash
#
# Every target has files of its own, of one size, every block written before. Those with two copies
# have one in each server's folder, and their far half in server 2, across the veth pair.
#   target_NAME     starts it and sets TARGET_FIO (the arguments of fio) and TARGET_PIDS (whose
#                   processor time counts: all that serve it, on both servers)

declare -gA TARGET_FIO=() TARGET_PIDS=()
REMOTE=10.91.1.2
declare -g NEXT_PORT=10809

# A file whose every block has been written: a first write costs more than the next ones.
fill() {
    dd if=/dev/zero of="$1" bs=1M count="$SIZE" oflag=direct conv=notrunc status=none
}

new_file() { # new_file SERVER NAME: sets FILE
    FILE=$FILES/server$1/$2.img
    mkdir -p "$FILES/server$1"
    fill "$FILE"
}

file_node() { # file_node NAME PATH: direct, asynchronous I/O
    printf 'driver=file,filename=%s,node-name=%s,cache.direct=on,aio=native,discard=unmap' "$2" "$1"
}

# storage_daemon SERVER NAME ARGUMENT...: QEMU's storage daemon in that server; sets PID
storage_daemon() {
    local server=$1 name=$2 pidfile=$FILES/$2.pid
    shift 2
    lab_run "$server" qemu-storage-daemon --pidfile "$pidfile" "$@" \
        </dev/null >"$FILES/$name.log" 2>&1 &
    disown $!
    wait_for 10 "$name" test -s "$pidfile" || { cat "$FILES/$name.log" >&2; die "$name does not start"; }
    PID=$(outside "$server" "$(cat "$pidfile")")
}

# A server's process numbers are its own; this is the one outside.
outside() { # outside SERVER PID
    local init=${LAB_INIT[$1]} status
    for status in /proc/[0-9]*/status; do
        [ "$(awk '/^NSpid:/ { print $NF; exit }' "$status" 2>/dev/null)" = "$2" ] || continue
        status=${status%/status}
        [ "$status/ns/pid" -ef "/proc/$init/ns/pid" ] && echo "${status#/proc/}" && return
    done
    die "no process $2 in server $1"
}

# The far half: an export over TCP, in server 2. Sets PORT and PID.
far_half() { # far_half NAME
    new_file 2 "$1"
    PORT=$((NEXT_PORT++))
    storage_daemon 2 "$1-far" --blockdev "$(file_node file "$FILE")" \
        --nbd-server "addr.type=inet,addr.host=$REMOTE,addr.port=$PORT,max-connections=0" \
        --export type=nbd,id=e,node-name=file,name=d,writable=on
}

far_node() { printf 'driver=nbd,node-name=far,server.type=inet,server.host=%s,server.port=%s,export=d' "$REMOTE" "$PORT"; }
socket_of() { printf '%s/%s.sock' "$FILES" "$1"; }
near_server() { printf 'addr.type=unix,addr.path=%s' "$(socket_of "$1")"; }
over_nbd() { printf -- '--ioengine=nbd --uri=nbd+unix:///d?socket=%s' "$(socket_of "$1")"; }

target_local() {
    new_file 1 local
    TARGET_FIO[local]="--ioengine=libaio --direct=1 --filename=$FILE"
    TARGET_PIDS[local]=
}

target_nbd() {
    new_file 1 nbd
    storage_daemon 1 nbd --blockdev "$(file_node file "$FILE")" \
        --nbd-server "$(near_server nbd)" --export type=nbd,id=e,node-name=file,name=d,writable=on
    TARGET_FIO[nbd]=$(over_nbd nbd)
    TARGET_PIDS[nbd]=$PID
}

target_remote() {
    far_half remote
    TARGET_FIO[remote]="--ioengine=nbd --uri=nbd://$REMOTE:$PORT/d"
    TARGET_PIDS[remote]=$PID
}

target_quorum() {
    local far
    far_half quorum
    far=$PID
    new_file 1 quorum
    storage_daemon 1 quorum --blockdev "$(file_node file "$FILE")" --blockdev "$(far_node)" \
        --blockdev driver=quorum,node-name=q,vote-threshold=2,read-pattern=fifo,children.0=file,children.1=far \
        --nbd-server "$(near_server quorum)" --export type=nbd,id=e,node-name=q,name=d,writable=on
    TARGET_FIO[quorum]=$(over_nbd quorum)
    TARGET_PIDS[quorum]="$PID $far"
}

# Does not pass flushes on to the far half, and answers before they are durable there.
target_blockmirror() {
    local far monitor
    monitor=$(socket_of blockmirror-monitor)
    far_half blockmirror
    far=$PID
    new_file 1 blockmirror
    storage_daemon 1 blockmirror --blockdev "$(file_node file "$FILE")" --blockdev "$(far_node)" \
        --nbd-server "$(near_server blockmirror)" --export type=nbd,id=e,node-name=file,name=d,writable=on \
        --chardev "socket,path=$monitor,server=on,wait=off,id=c" --monitor chardev=c
    "$ROOT/tests/bench/qmp" "$monitor" blockdev-mirror \
        '{"job-id": "m", "device": "file", "target": "far", "sync": "none", "copy-mode": "write-blocking"}' \
        || die "blockdev-mirror does not start"
    TARGET_FIO[blockmirror]=$(over_nbd blockmirror)
    TARGET_PIDS[blockmirror]="$PID $far"
}

mirror_socket() { # sets URI
    local socket name
    for socket in $(lab_run 1 find /run/clpmd -type s ! -name ctl.sock); do
        for name in md1 ''; do
            URI="nbd+unix:///$name?socket=$socket"
            lab_run 1 timeout 5 nbdinfo --size "$URI" >/dev/null 2>&1 && return
        done
    done
    die "the mirror serves no NBD socket under /run/clpmd"
}

mirror_is_normal() { [[ $(lab_run 1 clpmdstat --mirror md1 2>&1) =~ 'Mirror Color'\ +GREEN\ +GREEN ]]; }

target_mirror() {
    local n
    for n in 1 2; do
        fill "$LAB/server$n/data.img"
        lab_start "$n"
    done
    wait_for 120 "initial construction" mirror_is_normal || die "the mirror does not come up"
    lab_run 1 clpmdctrl --active md1 >&2
    mirror_socket
    TARGET_FIO[mirror]="--ioengine=nbd --uri=$URI"
    TARGET_PIDS[mirror]="$(outside 1 "$(lab_run 1 cat /run/agent.pid)") $(outside 2 "$(lab_run 2 cat /run/agent.pid)")"
}
