"""Decoding with a trained run."""
