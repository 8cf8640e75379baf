#!/bin/bash
# accelerate launch with the options given: on this machine, or on every node of a job of Slurm, one process for each
# card that Slurm gave. `make grid SLURM=1` sets MASTER_ADDR and MASTER_PORT. Outside Slurm it is plain `accelerate launch`.
if [[ -z ${SLURM_JOB_ID-} ]]; then
  exec accelerate launch "$@"
fi
export MASTER_ADDR=${MASTER_ADDR:-$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)}
export MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 10000))}
nodes=${SLURM_JOB_NUM_NODES:-1} cards=${SLURM_GPUS_ON_NODE:-1}
common=(--num_machines "$nodes" --num_processes $((nodes * cards)) --main_process_port "$MASTER_PORT")
if ((nodes == 1)); then
  exec accelerate launch "${common[@]}" "$@"
fi
# the process that the training works for lives on the first node; Slurm ends the others with the job
exec srun --input=none --kill-on-bad-exit=1 --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 \
  --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" bash -c '
    ((SLURM_NODEID == 0)) || unset TRAINING_PARENT
    exec accelerate launch --machine_rank "$SLURM_NODEID" --main_process_ip "$MASTER_ADDR" "$@"' \
  accelerate "${common[@]}" "$@"
