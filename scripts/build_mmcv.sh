#!/usr/bin/env bash
# build_mmcv.sh VENV DISTRIBUTION VERSION
# Compiles mmcv with its operators into VENV, showing that it moves.
set -euo pipefail
venv=$1 name=$2 version=$3
python="$venv/bin/python"
log="$venv/mmcv-build.log"

installed() {
    "$python" - "$name" "$version" <<'CHECK' 2>/dev/null
import sys
from importlib import metadata
assert metadata.version(sys.argv[1]) == sys.argv[2]
import mmcv.ops
CHECK
}

if installed; then
    echo "$name $version with operators: there"
    exit 0
fi
echo "Building $name $version with operators; about 6 minutes on 2 cores."
echo "Log: $log"
MMCV_WITH_OPS=1 FORCE_CUDA=0 MAX_JOBS="${MAX_JOBS:-$(nproc)}" \
    "$python" -m pip install -v --no-build-isolation --no-deps \
    "$name==$version" >"$log" 2>&1 &
build=$!
start=$SECONDS
while kill -0 "$build" 2>/dev/null; do
    sleep 15
    step=$(grep -oE '\[[0-9]+/[0-9]+\]' "$log" | tail -n 1 || true)
    echo "  $((SECONDS - start)) s ${step:-preparing}"
done
if ! wait "$build" || ! installed; then
    echo "The build failed; the end of $log:" >&2
    tail -n 25 "$log" >&2
    cat >&2 <<'HELP'
What usually helps:
  no compiler       apt-get install g++ python3-dev (or your system's)
  killed, no memory MAX_JOBS=1 make env
  no network        set your pip index (pip config set global.index-url ...)
then run the same command again: what was done is kept.
HELP
    exit 1
fi
echo "$name $version: done in $((SECONDS - start)) s"
