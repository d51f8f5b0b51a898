"""Sound from mel, with a trained network or without."""
