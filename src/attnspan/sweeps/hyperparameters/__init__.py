"""Hyper-parameter search over runs."""
