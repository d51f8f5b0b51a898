"""Named experiments; see README.md for the table."""
