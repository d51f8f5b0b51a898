"""Recognisers, one a file; each registers itself."""
