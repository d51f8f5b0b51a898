"""Tokens sent to their experts on a mesh against every expert everywhere."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import experts as plain
from tml_jax.config import PLAIN, MoeDispatch
from tml_jax.kernels.experts import exchange, grouped, tiled

SENT = dataclasses.replace(PLAIN, moe_dispatch=MoeDispatch.PADDED_ALL_TO_ALL)
ONES = dict(data=1, fsdp=1, expert=1, tensor=1, seq=1)


def close(actual, expected):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5),
    actual,
    expected,
  )


@pytest.mark.parametrize(
  "axes, buffer, skew",
  [
    # One round; several; everything on one device, more rounds than mean.
    (dict(data=2, fsdp=2, expert=2), 4.0, 1.0),
    (dict(expert=8), 0.7, 0.0),
    (dict(expert=4, tensor=2), 0.3, 9.0),
    pytest.param(
      dict(expert=2, seq=2, fsdp=2), 0.3, 1.0, marks=pytest.mark.slow
    ),
    pytest.param(dict(fsdp=4, tensor=2), 0.5, 1.0, marks=pytest.mark.slow),
  ],
  ids=lambda each: (
    "-".join(f"{k}{v}" for k, v in each.items())
    if isinstance(each, dict)
    else None
  ),
)
def test_tokens_sent_to_their_experts_change_nothing(axes, buffer, skew):
  x, weights, shares = plain.draw(7, tokens=256, num_experts=16)
  chosen = plain.choices(7, tokens=256, num_experts=16, skew=skew)
  form = functools.partial(
    tiled.apply,
    tile=8,
    execution=dataclasses.replace(SENT, moe_buffer=buffer),
  )
  close(
    plain.on_a_mesh(form, x, weights, shares, chosen=chosen, axes=axes),
    plain.value_and_gradients(tiled.reference, x, weights, shares, chosen),
  )


@pytest.mark.slow
def test_with_the_kernels_of_a_grouped_matmul():
  x, weights, shares = plain.draw(3, tokens=256, num_experts=16)
  chosen = plain.choices(3, tokens=256, num_experts=16, skew=1.0)

  def local(x_ND, *, equal_share, **keywords):
    return grouped.grouped(x_ND, rows=equal_share, interpret=True, **keywords)

  form = functools.partial(
    exchange.all_to_all,
    names=tiled.NAMES,
    local=local,
    buffer=0.7,
    swap=exchange.padded,
  )
  close(
    plain.on_a_mesh(
      form, x, weights, shares, chosen=chosen, axes=dict(expert=8)
    ),
    plain.value_and_gradients(tiled.reference, x, weights, shares, chosen),
  )


def emulated(
  operand,
  output,
  input_offsets,
  send_sizes,
  output_offsets,
  recv_sizes,
  *,
  axis_name,
):
  """What jax's documentation says of `ragged_all_to_all`, by all-gathers."""
  rows, sizes, starts, places = (
    jax.lax.all_gather(array, axis_name)
    for array in (operand, send_sizes, input_offsets, output_offsets)
  )
  me = jax.lax.axis_index(axis_name)
  for source in range(rows.shape[0]):
    size = sizes[source, me]
    place = jnp.arange(output.shape[0]) - places[source, me]
    taken = rows[source, starts[source, me] + place]
    here = (place >= 0) & (place < size)
    output = jnp.where(here[:, None], taken, output)
    # The receiver must know how much comes.
    output = jnp.where(size == recv_sizes[source], output, jnp.nan)
  return output


def test_the_emulation_gives_the_example_of_the_documentation():
  operand = jnp.array([[1, 2, 2], [3, 4, 0]], jnp.float32)[..., None]
  arguments = (
    jnp.array([[0, 1], [0, 1]]),
    jnp.array([[1, 2], [1, 1]]),
    jnp.array([[0, 0], [1, 2]]),
    jnp.array([[1, 1], [2, 1]]),
  )

  def device(operand, *arguments):
    return emulated(operand, jnp.zeros((4, 1)), *arguments, axis_name="x")

  result = jax.vmap(device, axis_name="x")(operand, *arguments)
  np.testing.assert_array_equal(result[..., 0], [[1, 3, 0, 0], [2, 2, 4, 0]])


def test_a_ragged_swap_sends_what_a_padded_one_sends(monkeypatch):
  monkeypatch.setattr(jax.lax, "ragged_all_to_all", emulated)
  random = np.random.default_rng(0)
  sent = jnp.asarray(random.integers(0, 4, (5, 5)), jnp.int32)
  rows = random.standard_normal((5, 5, 3, 2))
  rows *= np.arange(3)[:, None] < np.asarray(sent)[..., None, None]
  rows = jnp.asarray(rows.reshape(5, 15, 2), jnp.float32)

  def both(rows, sent_G, received_G):
    sizes = dict(sent_G=sent_G, received_G=received_G, axes=("x",))
    return exchange.padded(rows, **sizes), exchange.ragged(rows, **sizes)

  padded, ragged = jax.vmap(both, axis_name="x")(rows, sent, sent.T)
  np.testing.assert_array_equal(padded, ragged)


def test_slots_are_what_an_even_load_needs():
  slots = exchange.slots_of(
    16384, per_token=6, experts=256, devices=8, buffer=1.0
  )
  random = np.random.default_rng(0)
  chosen = np.argsort(random.random((16384, 256)), axis=1)[:, :6] // 32
  assert abs((chosen == 3).any(axis=1).sum() / slots - 1) < 0.02
  # Never more than there are tokens.
  keywords = dict(per_token=6, experts=256, devices=8)
  assert exchange.slots_of(16384, buffer=9.0, **keywords) == 16384
