"""The arms: how each decoder is wired to the memory."""
