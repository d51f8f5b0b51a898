"""The checkpoints that a process keeps on its host."""

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import interaction
from tests.helpers import commands
from tml_jax import errors
from tml_jax.training import local_checkpoint, local_directory

LOADER = {"identity": {"seed": 0}, "shards": {"0": {"group": 1, "offset": 2}}}


def shardings(*axes: int):
  mesh = jax.make_mesh(axes, ("x", "y"), devices=jax.devices()[:8])
  spec = jax.sharding.PartitionSpec
  return {
    "matrix": jax.sharding.NamedSharding(mesh, spec("x", "y")),
    "copied": jax.sharding.NamedSharding(mesh, spec(None, "y")),
    "small": jax.sharding.NamedSharding(mesh, spec("x")),
    "scalar": jax.sharding.NamedSharding(mesh, spec()),
  }


def state_on(where):
  key = jax.random.key(0)
  values = {
    "matrix": jax.random.normal(key, (16, 8)),
    "copied": jax.random.normal(key, (3, 8)),
    "small": jax.random.normal(key, (8,)).astype(jnp.bfloat16),
    "scalar": jnp.int32(7),
  }
  return jax.device_put(values, where)


def abstract(state):
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
  )


def opened(root, *, start: str = "first", index: int = 0, count: int = 1):
  return local_checkpoint.LocalCheckpointer(
    root, start=start, index=index, count=count
  )


def test_saved_on_a_mesh_is_restored_on_it_bit_for_bit(tmp_path):
  state = state_on(shardings(4, 2))
  saver = opened(tmp_path)
  for step in (3, 5, 7):
    saver.save(step, state=state, loader_state=LOADER)
  saver.wait()
  again = opened(tmp_path, start="second")
  assert again.usable(abstract(state)) == {5: "first", 7: "first"}
  restored, loader_state = again.restore(abstract(state), step=7)
  assert loader_state == LOADER
  for name, value in state.items():
    assert restored[name].sharding == value.sharding
    assert restored[name].dtype == value.dtype
    assert np.asarray(restored[name]).tobytes() == np.asarray(value).tobytes()
  # One copy of what lies on several devices.
  size = sum(value.nbytes for value in state.values())
  assert (tmp_path / "0_of_1" / "7" / "state.bin").stat().st_size == size


def test_what_a_mesh_cannot_use_is_not_offered(tmp_path):
  state = state_on(shardings(4, 2))
  saver = opened(tmp_path)
  saver.save(1, state=state, loader_state=LOADER)
  saver.save(2, state=state, loader_state=LOADER)
  saver.wait()
  assert not saver.usable(abstract(state_on(shardings(2, 4))))
  assert not saver.usable(abstract(state | {"new": state["small"]}))
  assert saver.usable(abstract({"small": state["small"]})).keys() == {1, 2}
  os.truncate(saver.path / "2" / "state.bin", 100)
  assert saver.usable(abstract(state)).keys() == {1}
  assert "state.bin has 100 bytes instead of" in saver.damaged[2]
  saver.discard_after(0)
  assert not saver.usable(abstract(state))


def test_killed_saves_and_other_process_counts_leave_nothing(tmp_path):
  state = state_on(shardings(4, 2))
  saver = opened(tmp_path)
  saver.save(1, state=state, loader_state=LOADER)
  saver.wait()
  (saver.path / "2.partial").mkdir()
  assert opened(tmp_path).usable(abstract(state)).keys() == {1}
  assert not (saver.path / "2.partial").exists()
  again = opened(tmp_path, start="second", count=2)
  assert not again.usable(abstract(state))
  again.remove_others()
  assert not saver.path.exists()


def test_a_host_with_another_index_keeps_shares_of_this_start_alone(tmp_path):
  state = state_on(shardings(4, 2))
  for index in (3, 7):
    saver = opened(tmp_path, index=index, count=8)
    saver.save(1, state=state, loader_state=LOADER)
    saver.wait()
  (tmp_path / "2_of_8" / "5").mkdir(parents=True)  # of an older version
  here = opened(tmp_path, start="second", index=5, count=8)
  other = opened(tmp_path, start="second", index=7, count=8)
  for each in (here, other):
    each.remove_others()
  assert sorted(os.listdir(tmp_path)) == ["5_of_8", "7_of_8"]
  assert other.usable(abstract(state)) == {1: "first"}


def test_a_changed_byte_and_a_full_disk_are_said(tmp_path):
  state = state_on(shardings(4, 2))
  saver = opened(tmp_path)
  saver.save(1, state=state, loader_state=LOADER)
  saver.wait()
  with open(saver.path / "1" / "state.bin", "r+b") as file:
    file.seek(17)
    file.write(b"\xff\x01")
  assert "state.bin has other bytes than were written" in saver.damage(1)
  with commands.files_of_at_most(100):
    saver.save(2, state=state, loader_state=LOADER)
    with pytest.raises(errors.TransientError, match="make room there"):
      saver.wait()
  assert saver.usable(abstract(state)).keys() == {1}


def test_the_directory_is_checked_before_a_run(tmp_path):
  train = interaction.tiny().train
  often = dataclasses.replace(train, local_checkpoint_every=2)
  local_directory.check(train, directory="")
  local_directory.check(often, directory=str(tmp_path / "new"))
  (tmp_path / "file").write_text("")
  for config, directory, message in (
    (train, str(tmp_path), "say how often"),
    (often, "", "needs --local_checkpoint_dir"),
    (often, str(tmp_path / "file" / "x"), "cannot be written"),
  ):
    with pytest.raises(errors.UserError, match=message):
      local_directory.check(config, directory=directory)
  with pytest.raises(errors.UserError, match="must be below"):
    dataclasses.replace(train, local_checkpoint_every=train.checkpoint_every)
