"""From records to curves, differences, spans and ranks, with intervals. Imports neither torch nor Lightning."""
