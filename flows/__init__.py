"""Promises: one flow each, named as its user would name it."""

import gc

# A run's process begins with Prefect's imports, and would look at them for garbage all through its own: 0.4 s.
gc.freeze()
