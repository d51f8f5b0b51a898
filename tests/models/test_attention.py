"""Attention in cells against the plain dense form, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.dense_attention import check, draw
from tml_jax.kernels.attention import cells
from tml_jax.models import attention


@settings(max_examples=6, deadline=None)
@given(
  seed=st.integers(0, 99),
  length=st.sampled_from([9, 21, 28, 40]),
  extent=st.sampled_from([3, 7]),
)
def test_local_equals_dense(seed, length, extent):
  arrays, segments = draw(seed, length=length, extent=extent)
  check(attention.local, arrays=arrays, segments=segments, window=extent)


@pytest.mark.parametrize("extent", [11, 21, 40])
def test_full_equals_dense(extent):
  arrays, segments = draw(extent, length=21, extent=extent)
  check(attention.full, arrays=arrays, segments=segments, window=21)


@pytest.mark.parametrize("length, extent", [(300, 150), (257, 300)])
def test_full_in_several_cells_equals_dense(length, extent):
  arrays, segments = draw(length, length=length, extent=extent)
  check(attention.full, arrays=arrays, segments=segments, window=length)


@pytest.mark.parametrize("length", [129, 200, 300])
def test_local_in_cut_windows_equals_dense(length):
  arrays, segments = draw(length, length=length, extent=128)
  check(attention.local, arrays=arrays, segments=segments, window=128)


@pytest.mark.parametrize("length, extent", [(21, 4), (40, 5), (13, 6), (12, 1)])
def test_full_in_blocks_equals_dense(length, extent):
  arrays, segments = draw(length, length=length, extent=extent)
  check(attention.full, arrays=arrays, segments=segments, window=length)


def test_one_head_per_kv_head_and_many():
  for heads, kv_heads in ((4, 4), (4, 1)):
    arrays, segments = draw(0, length=10, heads=heads, kv_heads=kv_heads)
    check(attention.full, arrays=arrays, segments=segments, window=10)


def test_block_by_block_equals_cells_in_turn(monkeypatch):
  """What other platforms compile gives what the CPU computes."""
  arrays, segments = draw(3, length=21)

  def run(arrays):
    q, k, v, r, profiles = arrays
    return attention.local(
      q,
      k_BTKH=k,
      v_BTKH=v,
      r_BTNR=r,
      profiles_RE=profiles,
      segment_ids_BT=segments,
    )

  def compute():
    def loss(arrays):
      out = run(arrays)
      return jnp.sum(jnp.sin(out)), out

    # A fresh jit each time, so that the second call traces again.
    return jax.jit(jax.grad(loss, has_aux=True))(arrays)

  in_turn = compute()

  def elsewhere(*arguments, cpu, default):
    del cpu
    return default(*arguments)

  monkeypatch.setattr(cells.jax.lax, "platform_dependent", elsewhere)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
    compute(),
    in_turn,
  )
