"""Several trainings: sweeps and searches."""
