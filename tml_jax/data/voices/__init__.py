"""Voices that say prompts, of which scenarios compose conversations.

A voice is one file here with `@source.register`, which finds it.
"""
