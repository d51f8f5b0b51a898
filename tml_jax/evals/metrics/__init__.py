"""Definitions of the metrics, with their sources."""
