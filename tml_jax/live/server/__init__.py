"""People who talk to a model over a socket. Start at `app`."""
