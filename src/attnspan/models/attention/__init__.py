"""Attention: scores, windows, normalisers, and the module that joins them."""
