"""The explorer: curve, examples and attention of a study in one HTML file that asks for nothing else."""
