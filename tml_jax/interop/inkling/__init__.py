"""Inkling weights in and out; start at `__main__` or at `model`."""
