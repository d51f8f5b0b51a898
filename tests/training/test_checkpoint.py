"""Directories of checkpoints: what killed saves leave there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import commands, small
from tml_jax import errors, workdir
from tml_jax.config import text as config_text
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


def _layers(count: int) -> dict:
  return {f"layer_{i:02}": {"x": jnp.zeros(2)} for i in range(count)}


def test_weights_of_another_depth_say_so_in_one_line(tmp_path):
  trainer = checkpoint.Checkpointer(str(tmp_path), keep=1)
  trainer.save(1, state={"params": _layers(9)}, loader_state={})
  trainer.close()
  weights = checkpoint.Weights(str(tmp_path))
  config = small.config({"model.num_layers": 2})
  wanted = {"params": jax.eval_shape(lambda: _layers(2))}
  with pytest.raises(errors.UserError) as error:  # no config.txt there
    weights.check(wanted, config=config)
  message = str(error.value)
  assert "params/layer_02/x: (2,) in the checkpoint, absent in" in message
  assert "layer_07" in message and "; and 1 more)" in message
  old = small.config({"model.num_layers": 9, "train.seed": 3})
  (tmp_path / workdir.CONFIG).write_text(config_text.to_text(old))
  with pytest.raises(errors.UserError) as error:
    weights.check(wanted, config=config)
  weights.close()
  assert "of another model (model.num_layers 9 -> 2): give" in str(error.value)
