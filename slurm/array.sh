#!/bin/bash
# A job of the queue for each run, submitted from the login node; options of the queue are Hydra's launcher's.
exec spectra-exp run "ablations=${1:-baselines}" seed=0..4 model=exp10 launch=slurm "${@:2}"
