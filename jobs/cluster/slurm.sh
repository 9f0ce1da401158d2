#!/bin/bash
# A search on Slurm: a Ray on the nodes of one allocation, of nobody else.
#
#   sbatch jobs/cluster/slurm.sh --config patches --space rho --study my-rho --trials 12 --data.root DIR \
#       --search.studies_dir STUDIES --cluster.gpu true
#
# Paths must be absolute, in file systems that all nodes see. After a time limit the same command goes on.
#SBATCH --job-name=dbf-search
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --mem=48G
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@180
#SBATCH --requeue
#SBATCH --output=%x-%j.log
set -euo pipefail

# activate the environment that dbf is installed in, the same on all nodes
source "${DBF_VENV:-$SLURM_SUBMIT_DIR/.venv}/bin/activate"

# a token of this job alone; srun hands it on with the environment, no file holds it
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
export RAY_TRAIN_HEALTH_CHECK_INTERVAL_S=0.1 RAY_USAGE_STATS_ENABLED=0
export RAY_TMPDIR="/tmp/ray-$SLURM_JOB_ID" # short: Ray's sockets lie in it
srun --ntasks-per-node=1 mkdir -p "$RAY_TMPDIR"

head=$(hostname --ip-address | awk '{print $1}')
port=$((20000 + SLURM_JOB_ID % 10000))
each=(--num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --temp-dir="$RAY_TMPDIR/ray" --block)

steps=()
finish() {
    # Ray ends with its steps
    if ((${#steps[@]})); then kill "${steps[@]}" 2>/dev/null || true; fi
    wait || true
}
trap finish EXIT

srun --overlap --nodes=1 --ntasks=1 --nodelist="$SLURMD_NODENAME" \
    ray start --head --node-ip-address="$head" --port="$port" --include-dashboard=false "${each[@]}" &
steps+=($!)
for _ in $(seq 60); do
    ray health-check --address "$head:$port" 2>/dev/null && break
    sleep 2
done
if ((SLURM_JOB_NUM_NODES > 1)); then
    srun --overlap --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) \
        --exclude="$SLURMD_NODENAME" ray start --address="$head:$port" "${each[@]}" &
    steps+=($!)
fi

dbf search --cluster.address "$head:$port" "$@" &
search=$!
# three minutes before the end of the allocation, and at scancel: the search ends after its running steps
trap 'kill -TERM "$search"' TERM
status=0
wait "$search" || status=$?
if kill -0 "$search" 2>/dev/null; then # the first wait was interrupted by the signal
    status=0
    wait "$search" || status=$?
fi
exit "$status"
