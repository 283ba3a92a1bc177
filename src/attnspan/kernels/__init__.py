"""Fast forms of computations in :mod:`attnspan.models`: the same numbers in less time, each held equal by a test."""
