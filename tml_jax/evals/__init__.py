"""Measures of a conversation: when the agent spoke, and what."""
