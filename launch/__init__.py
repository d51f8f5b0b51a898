"""Starting the project: scripts, the check before a run, XLA flags."""
