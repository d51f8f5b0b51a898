"""Recordings of conversations that others have made, by their layout on disk.

An importer is one file here with `@source.register_importer`, which
finds it.
"""
