#!/usr/bin/env bash
# dist_train.sh CONFIG GPUS [train.py flags]
# NNODES, NODE_RANK, MASTER_ADDR and PORT choose a multi-node run.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [train.py flags]" >&2
    exit 2
fi
config=$1 gpus=$2
shift 2
PYTHONPATH="$here/..:${PYTHONPATH:-}" exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --nproc_per_node="$gpus" --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    "$here/train.py" "$config" --launcher pytorch "$@"
