"""Encoders: from an embedded source to a memory."""
