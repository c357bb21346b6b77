"""Promises: one flow each, named as its user would name it."""
