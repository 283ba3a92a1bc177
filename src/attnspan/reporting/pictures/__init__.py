"""Attention over images, as figures and in terminals."""
