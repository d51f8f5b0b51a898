"""Separators, one a file; each registers itself."""
