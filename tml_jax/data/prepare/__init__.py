"""From a source to a corpus; start reading at `job`."""
