"""Attention: scores, windows, and the module that joins them."""
