# Sourced by the other scripts: messages, clean-up, waiting, the build.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "$*" >&2; }
die() { say "$(basename "$0"): $*"; exit 1; }

need_root() {
    [ "$(id -u)" = 0 ] || die "must be run as root (namespaces, mounts and loop devices need it)"
}

# The exit code of a test that this machine gives no ground to run on.
LEFT_OUT=77

# What servers made of namespaces need. A test that finds it missing is left out, not failed.
need_namespaces() {
    local missing=
    [ "$(id -u)" = 0 ] || missing=root
    [ -e /dev/fuse ] || missing=/dev/fuse
    [ -e /dev/loop-control ] || missing=/dev/loop-control
    unshare --net --mount --pid --uts --fork true 2>/dev/null || missing=namespaces
    [ -z "$missing" ] || { say "$(basename "$0"): left out, there is no $missing here"; exit "$LEFT_OUT"; }
}

# Clean-up, in the reverse order of registration, on any exit.
CLEANUPS=()
on_exit() { CLEANUPS+=("$1"); }
run_cleanups() {
    local code=$? i
    trap '' INT TERM
    set +e
    for ((i = ${#CLEANUPS[@]} - 1; i >= 0; i--)); do eval "${CLEANUPS[i]}"; done
    exit "$code"
}
trap run_cleanups EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# wait_for SECONDS WHAT COMMAND...: until the command succeeds; says what did not come.
wait_for() {
    local limit=$1 what=$2 end
    shift 2
    end=$((SECONDS + limit))
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS >= end)); then
            say "not within $limit seconds: $what"
            return 1
        fi
        sleep 0.1
    done
}

# Where the programs are: CLPMD_BIN if set, else a build of the profile CLPMD_PROFILE.
build() {
    if [ -n "${CLPMD_BIN:-}" ]; then
        [ -x "$CLPMD_BIN/clpmdagent" ] || die "CLPMD_BIN: no clpmdagent in $CLPMD_BIN"
        return
    fi
    local profile=${CLPMD_PROFILE:-release} target=${CARGO_TARGET_DIR:-$ROOT/target}
    (cd "$ROOT" && cargo build --quiet --locked --workspace --bins --profile "$profile") ||
        die "the build failed"
    [ "$profile" = dev ] && profile=debug
    CLPMD_BIN=$target/$profile
    [ -x "$CLPMD_BIN/clpmdagent" ] || die "the build made no clpmdagent in $CLPMD_BIN"
    export CLPMD_BIN
}

# The programs that are installed, by the lists from which cargo builds them.
programs() {
    sed -n 's/^name = "\(clpmd[a-z]*\)"$/\1/p' "$ROOT/mirror-agent/Cargo.toml"
    basename -a -s .rs "$ROOT"/tools/src/bin/clpmd*.rs
}
