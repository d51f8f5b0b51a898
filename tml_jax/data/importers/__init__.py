"""Recordings of conversations that others have made, by their layout on disk.

An importer is one file here with `@source.register`, which finds it.
"""
