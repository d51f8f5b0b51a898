"""Directories of checkpoints: what killed saves leave there."""

import jax.numpy as jnp

from tml_jax.training import checkpoint


def test_only_training_removes_what_killed_saves_left(tmp_path):
  directory = tmp_path / checkpoint.DIRECTORY
  left = directory / "7.orbax-checkpoint-tmp" / "state"
  left.mkdir(parents=True)
  reader = checkpoint.Checkpointer.to_read(str(tmp_path))
  assert reader.latest_step() is None
  reader.close()
  assert left.exists()  # perhaps of a save that is running
  trainer = checkpoint.Checkpointer.to_train(str(tmp_path), keep=1)
  trainer.save(8, state={"x": jnp.zeros(2)}, loader_state={})
  trainer.close()
  assert [path.name for path in directory.iterdir()] == ["8"]
