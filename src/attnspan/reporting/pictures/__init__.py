"""How plots are formed, and tokens and images in figures and terminals: fonts of any script, attention over images."""
