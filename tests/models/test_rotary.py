"""Rotary position against complex numbers; times of packed frames."""

import numpy as np

from tests.helpers import small_trunk
from tml_jax.config import Position
from tml_jax.models import embed, rotary
from tml_jax.streams import batch as batch_lib
from tml_jax.streams import clock


def test_turn_multiplies_by_a_phase():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 5, 3, 8)).astype(np.float32)
  times = rng.integers(0, 3000, (2, 5)).astype(np.int32)
  turned = np.asarray(rotary.turn(x, times))
  pairs = x[..., :4] + 1j * x[..., 4:]
  rates = 10_000.0 ** -(np.arange(4) / 4)
  pairs = pairs * np.exp(1j * times[..., None, None] * rates)
  want = np.concatenate([pairs.real, pairs.imag], axis=-1)
  np.testing.assert_allclose(turned, want, atol=1e-3)


def test_scores_depend_on_how_far_apart_in_time():
  rng = np.random.default_rng(1)
  q, k = rng.normal(size=(2, 1, 4, 1, 8)).astype(np.float32)

  def scores(q_times, k_times):
    turned = [
      np.asarray(rotary.turn(x, np.array([times], np.int32)))[0, :, 0]
      for x, times in ((q, q_times), (k, k_times))
    ]
    return (turned[0] * turned[1]).sum(axis=-1)

  base = scores([3, 9, 20, 40], [1, 9, 4, 0])
  moved = scores([103, 109, 120, 140], [101, 109, 104, 100])
  np.testing.assert_allclose(base, moved, atol=1e-4)
  assert np.abs(base - scores([4, 10, 21, 41], [1, 9, 4, 0])).max() > 0.1


def test_times_of_a_packed_frame():
  """Two windows: 5 with both sides, 6 with the user; text, a pause before."""
  inputs = batch_lib.empty_inputs((1, 18), audio=14, patches=0, pad=0)
  inputs.windows[:] = [5] * 11 + [6] * 7
  # <turn> own x4 user x4 say <speak> <turn> user x4 text <quiet>
  inputs.audio_positions[0, :12] = [*range(1, 9), *range(12, 16)]
  times = embed.times(inputs, position=Position.TIME_ROPE, grid=clock.TICKS)
  want = [23, 20, 21, 22, 23, 20, 21, 22, 23, 23, 23]
  want += [27, 24, 25, 26, 27, 27, 27]
  np.testing.assert_array_equal(times[0], want)
  assert (
    embed.times(inputs, position=Position.RELATIVE_BIAS, grid=clock.TICKS)
    is None
  )


def test_a_rotated_model_has_no_bias_to_learn():
  config = small_trunk.config(position=Position.TIME_ROPE, clock_features=0)
  params = small_trunk.variables(small_trunk.model(config))["params"]
  layer = params["trunk"]["layer_00"]["attention"]
  assert not {"relative", "profiles"} & set(layer)
  assert "clock" not in params["embed"]
