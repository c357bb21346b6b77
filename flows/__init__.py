"""Promises: one flow each, named as its user would name it."""

import gc

# A run's process imports Prefect first; while it imports ours, looks for garbage would look at all of that: 0.4 s.
gc.freeze()
