#!/bin/bash
# A run's folds as a SLURM array, a fold a task; each requeues itself until its fold is done.
#
#   mkdir -p slurm && sbatch scripts/slurm_fold.sh effnet_b1                  # all five folds
#   sbatch --array=0 scripts/slurm_fold.sh effnet_b1 --set train.epochs=3     # options of train.py
#
# From the repository's folder, which all nodes share, with the environment active.
#SBATCH --array=0-4
#SBATCH --gres=gpu:1 --cpus-per-task=8 --time=04:00:00
#SBATCH --signal=TERM@300 --requeue --open-mode=append --output=slurm/%x.%a.log
srun python scripts/train.py --config "$1" --fold "$SLURM_ARRAY_TASK_ID" --max-hours 3.8 "${@:2}"
code=$?
# 75: the hours are used up; 143: SLURM stops it. The state is saved, the same command resumes.
if [[ $code == 75 || $code == 143 ]]; then
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
fi
exit $code
