"""The four steps of a run: prepare, fit, test, write. Each hands one value to the next."""
