"""The tick on a mesh gives the tokens of one device."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments import topologies
from tests.helpers import small_session
from tml_jax.config import Config, ExpertWeights
from tml_jax.kernels.experts import quantized
from tml_jax.live import pool as pool_lib
from tml_jax.live import program as program_lib
from tml_jax.parallel import mesh as mesh_lib
from tml_jax.training import state as state_lib

_WINDOWS, _SESSIONS = 20, 8


def _config(weights: ExpertWeights = ExpertWeights.MODEL) -> Config:
  return small_session.config(
    temperature=1.0, horizon=96, sinks=8, expert_weights=weights
  )


_CONFIG = _config()


def _on_mesh(config: Config) -> program_lib.Program:
  """Four parts of the experts, twice; a session on each of eight devices."""
  mesh = dataclasses.replace(
    config.mesh, data=2, expert=4, rules=topologies.RULES
  )
  config = dataclasses.replace(config, mesh=mesh)
  return program_lib.on_mesh(
    config,
    mesh=mesh_lib.create(mesh, devices=jax.devices()[:8]),
    sessions=_SESSIONS,
    model=state_lib.create_model(config),
    example=state_lib.example_batch(config, batch_size=1).packed,
    text_pieces=small_session.Letters.num_pieces,
  )


def _talk(program: program_lib.Program, *, variables=None):
  """Frames by seed of sessions that join and leave; a pool that is warm."""
  if variables is None:
    variables = small_session.variables(_CONFIG)
  pool = pool_lib.SessionPool(program, variables=variables)
  users, frames = {}, {}
  for window in range(_WINDOWS):
    if window in (0, 3, 11):
      for seed in range(6 if window == 0 else 2):
        live = pool.join(seed=10 * window + seed)
        users[live] = small_session.User(_CONFIG, seed=live.seed)
    if window == 8:  # two slots are taken by others at window 11
      for live in list(users)[1:3]:
        pool.leave(live)
        del users[live]
    ticked = pool.tick({s: each.speak_to(s) for s, each in users.items()})
    for live, frame in ticked.frames.items():
      frames.setdefault(live.seed, []).append(frame)
  return pool, frames


def _check_same(got, want) -> None:
  assert got.keys() == want.keys() and len(got) == 10
  assert sum(map(len, got.values())) > 7 * _WINDOWS
  spoken = 0
  for seed, frames in want.items():
    for one, other in zip(frames, got[seed], strict=True):
      assert (one.say, one.text_out) == (other.say, other.text_out)
      assert (one.text_in, one.speak) == (other.text_in, other.speak)
      if one.speak:
        spoken += 1
        np.testing.assert_allclose(one.target_mel, other.target_mel, atol=1e-4)
  assert spoken > _WINDOWS


def _experts(variables):
  return [
    leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(
      variables, is_leaf=quantized.is_quantized
    )
    if path[-1].key == "gate" and len(leaf.shape) == 3
  ]


@pytest.mark.slow
@pytest.mark.parametrize("weights", ExpertWeights)
def test_a_pool_on_a_mesh_gives_the_tokens_of_one_device(weights):
  config = _config(weights)
  pool, got = _talk(_on_mesh(config))
  keys = pool._cache.layers[0]["key"]
  assert len(keys.sharding.device_set) == 8
  assert keys.sharding.shard_shape(keys.shape)[0] == 1
  experts = jax.tree.leaves(_experts(pool._variables))
  assert experts
  for leaf in experts:
    assert leaf.sharding.shard_shape(leaf.shape)[0] == leaf.shape[0] // 4
  _, want = _talk(small_session.program(config, slots=_SESSIONS))
  _check_same(got, want)


@pytest.mark.slow
def test_experts_in_8_bits_are_the_weights_they_stand_for():
  config = _config(ExpertWeights.INT8)
  pool, got = _talk(small_session.program(config, slots=_SESSIONS))
  experts = _experts(pool._variables)
  assert len(experts) == config.model.num_layers
  assert {each.values_EIO.dtype for each in experts} == {np.dtype(np.int8)}
  whole = jax.tree.map(
    lambda leaf: (
      leaf[np.arange(leaf.shape[0])] if quantized.is_quantized(leaf) else leaf
    ),
    pool._variables,
    is_leaf=quantized.is_quantized,
  )
  program = small_session.program(_CONFIG, slots=_SESSIONS)
  _, want = _talk(program, variables=whole)
  _check_same(got, want)
