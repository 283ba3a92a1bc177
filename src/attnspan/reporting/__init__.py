"""From a study to tables, plots and pages. Imports neither torch nor Lightning."""
