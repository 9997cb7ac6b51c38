#!/usr/bin/env bash
# build_mmcv.sh VENV DISTRIBUTION VERSION
# Compiles mmcv with its operators into VENV, showing that it moves.
set -euo pipefail
venv=$1 name=$2 version=$3
python="$venv/bin/python"
log="$venv/mmcv-build.log"

installed() {
    "$python" - "$name" "$version" <<'CHECK' 2>>"$log"
import sys
from importlib import metadata
found = metadata.version(sys.argv[1])
assert found == sys.argv[2], f'expected {sys.argv[2]}, found {found}'
import mmcv.ops
CHECK
}

# build [pip flags]: 0 if pip could install it.
build() {
    MMCV_WITH_OPS=1 MAX_JOBS="${MAX_JOBS:-$(nproc)}" \
        "$python" -m pip install -v --no-build-isolation --no-deps "$@" \
        "$name==$version" >"$log" 2>&1 &
    pid=$!
    local start=$SECONDS step
    trap 'kill "$pid" 2>/dev/null || true' EXIT
    while kill -0 "$pid" 2>/dev/null; do
        if [ $((SECONDS - start)) -ge 15 ]; then
            step=$(grep -oE '\[[0-9]+/[0-9]+\]' "$log" | tail -n 1 || true)
            echo "  $((SECONDS - start)) s ${step:-preparing}"
            sleep 13
        fi
        sleep 2
    done
    trap - EXIT
    wait "$pid"
}

help() {
    echo "$1; the end of $log:" >&2
    tail -n 25 "$log" >&2
    cat >&2 <<'HELP'
What usually helps:
  no compiler        apt-get install g++ python3-dev (or your system's)
  killed, no memory  MAX_JOBS=1 make env
  CUDA_HOME, nvcc    the CUDA toolkit of torch's version, or a CPU torch
  no network         set your pip index (pip config set global.index-url ...)
then run the same command again: what was done is kept.
HELP
    exit 1
}

: >"$log"
if installed; then
    echo "$name $version with operators: there"
    exit 0
fi
echo "Building $name $version with operators; about 6 minutes on 2 cores."
echo "Log: $log"
build || help 'The build failed'
if ! installed; then
    # A cached wheel of another torch, or one without operators.
    echo 'What pip had at hand does not import; building it anew.'
    build --no-cache-dir --force-reinstall || help 'The build failed'
    installed || help 'Built, but mmcv.ops does not import'
fi
echo "$name $version: done in $SECONDS s"
