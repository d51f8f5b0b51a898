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


def _abstract(state):
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
  )


def test_another_model_is_told_from_a_disk_that_fails(tmp_path):
  state = {
    "params": {"x": jnp.ones((3, 2)), "y": jnp.ones(4)},
    "opt_state": ({"x": jnp.ones((3, 2))}, ()),
  }
  trainer = checkpoint.Checkpointer(str(tmp_path), keep=1)
  trainer.save(1, state=state, loader_state={"at": 3})
  trainer.wait()
  assert trainer.restore(_abstract(state), step=1)[1] == {"at": 3}
  weights = checkpoint.Weights(str(tmp_path))
  wider = state | {"params": {"x": jnp.ones((3, 5)), "z": jnp.ones(4)}}
  with pytest.raises(errors.UserError) as error:
    trainer.restore(_abstract(wider), step=1)
  assert error.value.status is errors.Status.BAD_INPUT
  words = "params/x: (3, 2) in the checkpoint, (3, 5) in the config"
  assert "does not fit this config" in str(error.value)
  assert words in str(error.value) and "params/z: absent" in str(error.value)
  with pytest.raises(errors.UserError, match="of another model") as error:
    weights.restore({"params": _abstract(wider["params"])})
  assert words in str(error.value)

  for path in (tmp_path / workdir.CHECKPOINTS).glob("1/state/**/d/*"):
    path.unlink()  # after it was found whole
  with pytest.raises(errors.TransientError, match="1 cannot be read"):
    trainer.restore(_abstract(state), step=1)
  some = {"params": {"y": _abstract(state["params"]["y"])}}
  with pytest.raises(errors.TransientError, match="1 cannot be read"):
    weights.restore(some)
  weights.close()
  trainer.close()
