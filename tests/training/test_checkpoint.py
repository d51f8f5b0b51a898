"""Directories of checkpoints: what killed saves leave there."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import commands
from tml_jax import errors, workdir
from tml_jax.training import checkpoint


def test_only_training_removes_what_killed_saves_left(tmp_path):
  directory = tmp_path / workdir.CHECKPOINTS
  left = directory / "7.orbax-checkpoint-tmp" / "state"
  left.mkdir(parents=True)
  with pytest.raises(errors.UserError, match="no finished checkpoint"):
    checkpoint.Weights(str(tmp_path))
  assert left.exists()  # perhaps of a save that is running
  trainer = checkpoint.Checkpointer(str(tmp_path), keep=1)
  trainer.save(8, state={"x": jnp.zeros(2)}, loader_state={})
  trainer.close()
  assert [path.name for path in directory.iterdir()] == ["8"]


def test_a_full_disk_is_said_and_the_save_before_stays(tmp_path):
  trainer = checkpoint.Checkpointer(str(tmp_path), keep=2)
  state = {"params": {"x": jnp.zeros(2)}}
  trainer.save(1, state=state, loader_state={})
  trainer.wait()
  noise = np.random.default_rng(0).normal(size=1_000_000)
  with commands.files_of_at_most(100_000):
    with pytest.raises(
      errors.TransientError, match="the checkpoints before stay"
    ):
      trainer.save(2, state={"x": jnp.asarray(noise)}, loader_state={})
      trainer.wait()
  weights = checkpoint.Weights(str(tmp_path))
  assert weights.step == 1
  weights.close()
