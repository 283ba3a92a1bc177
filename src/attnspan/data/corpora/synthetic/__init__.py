"""Synthetic tasks, one file a task: random examples whose gold alignment is known."""
