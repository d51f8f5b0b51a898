"""Faults of recordings and what they lack; docs/mend.md is the guide.

`stage.apply` is what `prepare` does to each recording.
"""
