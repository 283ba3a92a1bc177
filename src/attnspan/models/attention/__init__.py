"""Attention: scores, windows, normalisers, heads, and the module that joins them."""
