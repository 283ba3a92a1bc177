"""Weights & Biases: of a run, of a study."""
