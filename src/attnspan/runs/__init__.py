"""What lies in a run's directory: layout, records, attention maps, summary, status, checkpoints."""
