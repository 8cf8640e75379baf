"""Many runs at once: a grid file's cells, one after another here or as one job array of Slurm."""
