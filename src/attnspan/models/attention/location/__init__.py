"""Scores that depend on where earlier steps have looked, one file a family."""
