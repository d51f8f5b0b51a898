"""The interaction model in Flax linen; start reading at `interaction.py`."""
