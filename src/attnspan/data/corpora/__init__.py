"""Corpora: where the examples of the three splits come from, one file a task."""
