"""Recurrent cells behind one interface."""
