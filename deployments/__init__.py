"""Doors: the clock, the operators, the command line."""
