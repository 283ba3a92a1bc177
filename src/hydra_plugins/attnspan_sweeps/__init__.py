"""Launchers and sweepers, in a package where Hydra finds them."""
