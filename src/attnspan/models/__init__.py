"""Encoder, attention, decoders and search, in torch and nothing else."""
