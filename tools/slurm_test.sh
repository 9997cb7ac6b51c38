#!/usr/bin/env bash
# slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [test.py flags]
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS as in mmdet.
set -euxo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [ $# -lt 4 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG CHECKPOINT [flags]" >&2
    exit 2
fi
partition=$1 job=$2 config=$3 checkpoint=$4
shift 4
per_node=${GPUS_PER_NODE:-8}
# shellcheck disable=SC2086
PYTHONPATH="$here/..:${PYTHONPATH:-}" exec srun -p "$partition" \
    --job-name="$job" --gres=gpu:"$per_node" --ntasks="${GPUS:-8}" \
    --ntasks-per-node="$per_node" --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    python -u "$here/test.py" "$config" "$checkpoint" \
    --launcher=slurm "$@"
