#!/usr/bin/env bash
# Makes the environment (once), then runs:
#   ./launch.sh RECIPE.yaml [section.key=value ...] [--dry-run]   a new run: train, export, evaluate, report
#   ./launch.sh RUN-FOLDER                                        resume that run
#   ./launch.sh test [pytest arguments]                           the quick tests; -m slow: the others
#   ./launch.sh VERB ...                                          any other verb; ./launch.sh --help lists them
# Several processes: NPROC (default: one per GPU, one without), and over machines NNODES,
# RDZV_ENDPOINT=host:port and, for a fixed order of machines, NODE_RANK. PYTHON chooses the interpreter.
set -euo pipefail

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)"
venv="$root/.venv"
python="$venv/bin/python"
lock="$root/requirements.lock"
project="$root/pyproject.toml"
lock_stamp="$venv/made-from-lock" # what the environment was made from: hashes
package_stamp="$venv/made-from-project"
unfinished="$root/.venv.unfinished" # exists while packages are being installed

fail() { # what, where, fix: the form of all our errors
    printf '%s\n  where: %s\n  fix:   %s\n' "$1" "$2" "$3" >&2
    exit 1
}

fingerprint() { # FILE: its hash and its place, so that a moved folder installs anew
    sha256sum -- "$1" 2>/dev/null || shasum -a 256 -- "$1"
}

holds() { # STAMP FILE: whether the environment was made from FILE as it is now
    [[ -f "$1" && "$(<"$1")" == "$(fingerprint "$2")" ]]
}

is_usable() { # a Python of at least 3.11 that can make environments
    "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    local candidate
    # 3.11 first: the lock's versions were resolved and tested with it.
    for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3 python3.12 python3.13 python; do
        if is_usable "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    fail "no Python 3.11 or newer that can make a virtual environment" \
        "PATH (tried ${PYTHON:+$PYTHON, }python3.11, python3, python3.12, python3.13, python)" \
        "install it (Debian, Ubuntu: python3 python3-venv), or set PYTHON=/path/to/python3.11"
}

install_lock() {
    local base quiet=()
    # A package that was half-copied when an installation was killed looks installed to pip, so
    # what an unfinished one has left is not trusted.
    if [[ -e "$unfinished" ]] || ! is_usable "$python" || ! "$python" -m pip --version >/dev/null 2>&1; then
        base="$(find_python)" || exit 1
        echo "making the environment $venv (once; takes some minutes)" >&2
        : >"$unfinished"
        "$base" -m venv --clear "$venv" >&2
    else
        echo "bringing the environment $venv up to requirements.lock" >&2
        : >"$unfinished"
        quiet=(--quiet)
    fi
    rm -f -- "$lock_stamp" "$package_stamp"
    if ! "$python" -m pip install "${quiet[@]}" --requirement "$lock" >&2; then
        # pip downloads first and rolls back what it could not install: an older environment stays.
        [[ ${#quiet[@]} == 0 ]] || rm -f -- "$unfinished"
        fail "installing the locked packages failed" "$lock" \
            "check the network and the free disk space (pip names the cause above), then start the same command again"
    fi
    fingerprint "$lock" >"$lock_stamp"
    rm -f -- "$unfinished"
}

install_package() { # distillspec itself: in place, with what the lock has brought
    "$python" -m pip install --quiet --no-deps --no-build-isolation --editable "$root" >&2 ||
        fail "installing the package failed" "$root" "repair what pip names above, then start the same command again"
    fingerprint "$project" >"$package_stamp"
}

is_installed() {
    [[ ! -e "$unfinished" && -x "$python" ]] && holds "$lock_stamp" "$lock" &&
        holds "$package_stamp" "$project"
}

install() {
    [[ ! -e "$unfinished" && -x "$python" ]] && holds "$lock_stamp" "$lock" || install_lock
    holds "$package_stamp" "$project" || install_package
}

ensure_environment() {
    is_installed && return
    [[ -w "$root" ]] || fail "cannot write here" "$root" "copy the project to a folder that you may write to"
    if command -v flock >/dev/null; then # machines that share this folder install one after the other
        exec 9>"$root/.venv.lock"
        flock 9
        is_installed || install
        exec 9>&-
    else
        install
    fi
}

count_gpus() {
    if [[ -n "${CUDA_VISIBLE_DEVICES+set}" ]]; then
        local ids=()
        IFS=, read -ra ids <<<"$CUDA_VISIBLE_DEVICES"
        if [[ "${ids[0]:-}" == -1 ]]; then ids=(); fi
        echo "${#ids[@]}"
    elif command -v nvidia-smi >/dev/null; then
        nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU' || true
    else
        echo 0
    fi
}

count_cores() { command nproc 2>/dev/null || getconf _NPROCESSORS_ONLN; }

prepare_machine() { # sets gpus and nproc; exports what torch reads at its start
    gpus="$(count_gpus)"
    nproc="${NPROC:-$((gpus > 0 ? gpus : 1))}"
    [[ "$nproc" =~ ^[1-9][0-9]*$ ]] || fail "NPROC must be an integer >= 1, not '$nproc'" "environment" "NPROC=2 ./launch.sh ..."
    if ((nproc > 1)); then # torchrun would leave each process one thread
        local cores
        cores="$(count_cores)"
        export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((cores > nproc ? cores / nproc : 1))}"
    fi
    if ((gpus == 0)); then
        export DS_ACCELERATOR="${DS_ACCELERATOR:-cpu}" # else deepspeed looks for one, and says so
    fi
    if ((gpus == 0)) && getconf GNU_LIBC_VERSION >/dev/null 2>&1; then
        # glibc gives large temporaries back to the system after each use, and every page faults in
        # again at the next: a 4096 x 256 x 4096 bfloat16 product took 81 ms, and 11.7 ms with these.
        export MALLOC_MMAP_THRESHOLD_="${MALLOC_MMAP_THRESHOLD_:-17179869184}"
        export MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_:-17179869184}"
        export MALLOC_TOP_PAD_="${MALLOC_TOP_PAD_:-268435456}"
    fi
}

only_looks() { # whether the arguments ask for words only: no processes are started for those
    local argument
    for argument in "$@"; do
        case "$argument" in --dry-run | --dump-config | --help | -h) return 0 ;; esac
    done
    return 1
}

distribute() { # VERB, arguments: under torchrun
    local nnodes="${NNODES:-1}" where=(--standalone)
    if [[ "$nnodes" != 1 ]]; then
        [[ -n "${RDZV_ENDPOINT:-}" ]] || fail "NNODES=$nnodes needs a meeting point" "environment" \
            "set RDZV_ENDPOINT=host:port, the same on every machine"
        where=(--nnodes "$nnodes" --rdzv-endpoint "$RDZV_ENDPOINT")
        if [[ -n "${NODE_RANK:-}" ]]; then
            where+=(--rdzv-backend static --node-rank "$NODE_RANK")
        else
            where+=(--rdzv-backend c10d --rdzv-id "${RDZV_ID:-distillspec}")
        fi
    fi
    exec "$python" -m distillspec.runtime.torchrun "${where[@]}" --nproc-per-node "$nproc" -m distillspec "$@"
}

ensure_environment
prepare_machine
export DISTILLSPEC_STARTED_AS="$0" # messages name the next command as it can be typed
case "${1:-}" in
    test)
        shift
        cd -- "$root"
        cores="$(count_cores)"
        export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # a process for each core
        exec "$python" -m pytest -n "$((cores < 8 ? cores : 8))" --dist worksteal -m "not slow" "$@"
        ;;
    run | train | generate) verb=("$1") && shift ;;
    */* | *.yaml | *.yml | .) verb=(run) ;;
    *) if [[ -e "${1:-}" ]]; then verb=(run); else exec "$python" -m distillspec "$@"; fi ;;
esac
if only_looks "$@"; then
    exec "$python" -m distillspec "${verb[@]}" "$@"
fi
distribute "${verb[@]}" "$@"
