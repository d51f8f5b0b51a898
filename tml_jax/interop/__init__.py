"""Formats of other projects, read and written; one file each."""
