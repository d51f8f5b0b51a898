"""Live sessions: one compiled call per 200 ms."""
