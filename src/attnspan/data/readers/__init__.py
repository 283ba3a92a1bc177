"""Readers of the user's files, strict and a little at a time."""
