"""Many runs: planned, launched on this machine or by SLURM, and watched."""
