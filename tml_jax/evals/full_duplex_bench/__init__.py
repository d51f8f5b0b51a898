"""Full-Duplex-Bench: its folders, its scores, and a suite of both."""
