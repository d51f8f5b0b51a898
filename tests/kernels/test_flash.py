"""The TPU kernels of attention, interpreted, against the dense form."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import topologies
from tests.helpers import dense_attention as plain
from tml_jax.config import MeshConfig
from tml_jax.kernels.attention import flash, flash_gradient, flash_pairs
from tml_jax.parallel import mesh as mesh_lib

ONE = MeshConfig(
  data=1, fsdp=1, expert=1, tensor=1, seq=1, rules=topologies.RULES
)


def check(*, seed, length, extent, window, block, heads=4, kv_heads=2):
  arrays, segments = plain.draw(
    seed, length=length, extent=extent, heads=heads, kv_heads=kv_heads
  )
  form = functools.partial(
    flash.attend, window=window, block=block, interpret=True
  )
  plain.check(form, arrays=arrays, segments=segments, window=window)


def test_a_window_equals_dense():
  """Neither window, extent nor length is a whole number of blocks."""
  check(seed=0, length=45, extent=13, window=10, block=8)


def test_global_equals_dense():
  """Pairs of all kinds: a query block's own, with bias, beyond its extent."""
  check(seed=1, length=40, extent=12, window=40, block=8)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
  seed=st.integers(0, 99),
  length=st.integers(1, 70),
  extent=st.integers(1, 40),
  window=st.integers(1, 70),
  block=st.sampled_from([8, 16, 24]),
  heads=st.sampled_from([(1, 1), (2, 1), (4, 2), (3, 3)]),
)
def test_any_shape_equals_dense(seed, length, extent, window, block, heads):
  check(
    seed=seed,
    length=length,
    extent=extent,
    window=min(window, length),
    block=block,
    heads=heads[0],
    kv_heads=heads[1],
  )


@pytest.mark.slow
@pytest.mark.parametrize("extent, window", [(16, 64), (20, 35), (64, 64)])
def test_keys_in_several_calls_equal_dense(extent, window, monkeypatch):
  """As for sequences whose sums for keys do not fit VMEM."""
  monkeypatch.setattr(flash_gradient, "_RING", 24)
  check(seed=extent, length=64, extent=extent, window=window, block=8)


@pytest.mark.slow
@pytest.mark.parametrize("window", [10, 16, 64], ids="window {}".format)
@pytest.mark.parametrize(
  "axes",
  [dict(data=2, seq=4), dict(tensor=2, seq=4), dict(data=2, tensor=4)],
  ids=str,
)
def test_a_mesh_changes_nothing(axes, window):
  """Halos and exchanged heads; with seq=4, tensor=2 kv heads are repeated."""
  config = dataclasses.replace(ONE, **axes)
  mesh = mesh_lib.create(config, devices=jax.devices()[:8])
  with mesh_lib.use(mesh, rules=config.axis_rules):
    check(
      seed=2,
      length=64,
      extent=12,
      window=window,
      block=8,
      heads=8,
      kv_heads=4,
    )


def test_pieces_shorter_than_the_window_are_refused():
  config = dataclasses.replace(ONE, data=2, seq=4)
  mesh = mesh_lib.create(config, devices=jax.devices()[:8])
  with (
    mesh_lib.use(mesh, rules=config.axis_rules),
    pytest.raises(ValueError, match="pieces of 16 positions.*window of 20"),
  ):
    check(seed=0, length=64, extent=12, window=20, block=8)


def test_every_pair_once_and_every_key_written_in_order():
  query, key, written = flash_pairs.pairs(blocks=7, reach=2, keys=range(7))
  expected = [(q, k) for q in range(7) for k in range(max(0, q - 2), q + 1)]
  assert list(zip(query, key, strict=True)) == expected
  assert (np.diff(written) >= 0).all() and (np.diff(written) <= 1).all()
  last = {k: step for step, k in enumerate(key)}
  assert all(written[step] == k for k, step in last.items())
