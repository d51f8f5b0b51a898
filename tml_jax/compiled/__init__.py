"""What a compiled program costs: memory, time, bytes that are exchanged."""
