"""Programs beside the study: speed, files of problems by difficulty, a Slurm job."""
