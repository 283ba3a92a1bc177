"""Encoders, attention, decoders and decoding strategies, in torch and nothing else."""
