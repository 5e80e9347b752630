#!/bin/bash
# One run of fer.train as a job of SLURM, which goes on until it is finished: sbatch docs/slurm.sh model=cnn seed=0
#SBATCH --job-name=fer
#SBATCH --output=slurm-%j.out
#SBATCH --open-mode=append
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1   # several: trainer.devices= as many, for each node
#SBATCH --gpus-per-node=1     # as many as tasks
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=USR1@120     # 120 s before that end the run saves itself, and ends with exit code 143
#SBATCH --requeue             # also after preemption and the failure of a node

export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"  # srun does not take it from sbatch
out="outputs/slurm/$SLURM_JOB_ID"  # the number stays when the job is queued again
if compgen -G "$out/checkpoints/*.ckpt" > /dev/null; then
    set -- "$@" resume="$out"
else
    set -- "$@" --out "$out"
fi
srun python -m fer.train "$@"
code=$?
if [ "$code" -eq 143 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
