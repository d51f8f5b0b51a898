"""Attention over whole sequences, one file a form."""
