"""Decoding strategies: from a memory to hypotheses."""
