"""From recordings to packed batches: sources, shards, scenarios, loader.

Start reading at `source.Source`, then `mixture.build` and `loader.Loader`.
Nothing here imports jax.
"""
