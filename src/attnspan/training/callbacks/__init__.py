"""Lightning callbacks: checkpoints, progress, cost, records."""
