"""Measurements; each module says what it prints."""
