"""Live sessions: one compiled call per micro-turn."""
