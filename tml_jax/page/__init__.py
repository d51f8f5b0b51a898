"""Pages that show what is learned from: corpora, recordings, batches.

For: `python -m tml_jax.inspect --data=DATA/calls` and `--batch=2`. Not for:
sessions (`logs`) or runs (`training`). Start at `write`. A page is one file
that asks the network for nothing.
"""
