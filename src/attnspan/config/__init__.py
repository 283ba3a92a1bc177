"""From Hydra's composed config to a checked one, to the objects that it names, and to the run's id."""
