"""Strict readers of the user's files and of hub datasets; they hold a few rows in memory at a time."""
