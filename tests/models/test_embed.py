"""Inputs: the dMel bag, patches, the clock, writing over placeholders."""

import math

import flax
import jax
import jax.numpy as jnp
import numpy as np

from tests.helpers import small_trunk
from tml_jax.models import embed, norm


def parameters(module, *arguments, **keywords):
  made = jax.jit(lambda key: module.init(key, *arguments, **keywords))(
    jax.random.key(0)
  )
  return flax.linen.unbox(made)["params"]


def test_bag_is_the_normed_sum_of_table_rows():
  rng = np.random.default_rng(0)
  dmel = rng.integers(0, 16, (2, 3, 80), np.uint8)
  streams = np.array([[0, 1, 1], [1, 0, 0]])
  bag = embed.DmelBag(small_trunk.CONFIG, small_trunk.EXECUTION)
  params = parameters(bag, dmel, streams_BA=streams)
  np.testing.assert_array_equal(params["streams"], 0)
  params["streams"] = rng.standard_normal((2, 32)).astype(np.float32)
  rows = params["table"][np.arange(80) * 16 + dmel]
  expected = norm.rms_norm(
    rows.sum(-2), scale=params["norm"]["scale"], eps=1e-6
  )
  expected += params["streams"][streams]
  actual = bag.apply({"params": params}, dmel, streams_BA=streams)
  np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_patch_layers_fold_pixels_in_order():
  """Against one loop over places for the first fold."""
  rng = np.random.default_rng(0)
  patches = rng.integers(0, 256, (2, 40, 40, 3), np.uint8)
  hmlp = embed.HMLP(small_trunk.CONFIG, small_trunk.EXECUTION)
  params = parameters(hmlp, patches[None])
  pixels = (patches / 255 - np.array(embed.CLIP_MEAN)) / embed.CLIP_STD
  x = pixels.astype(np.float32)
  for i, (frames, side) in enumerate(embed.HMLP_FOLDS):
    t, h, w = (
      n // f for n, f in zip(x.shape, (frames, side, side), strict=False)
    )
    y = np.zeros((t, h, w, params[f"kernel_{i}"].shape[1]), np.float32)
    for a in range(t):
      for b in range(h):
        for c in range(w):
          block = x[
            a * frames : (a + 1) * frames,
            b * side : (b + 1) * side,
            c * side : (c + 1) * side,
          ]
          y[a, b, c] = block.reshape(-1) @ params[f"kernel_{i}"]
    x = norm.rms_norm(y, scale=params[f"norm_{i}"]["scale"], eps=1e-6)
    if i < 3:
      x = x * 0.5 * (1 + jax.scipy.special.erf(x / math.sqrt(2)))
    x = np.asarray(x)
  apply = jax.jit(lambda patches: hmlp.apply({"params": params}, patches))
  actual = apply(patches[None])
  np.testing.assert_allclose(actual[0], x[0, 0, 0], atol=1e-4)
  floats = apply(pixels[None].astype(np.float32))
  np.testing.assert_allclose(floats, actual, atol=1e-5)


def test_place_drops_unused_slots():
  x = jnp.zeros((2, 4, 3))
  values = jnp.arange(18.0).reshape(2, 3, 3) + 1
  positions = jnp.array([[2, 4, 0], [4, 4, 3]])
  placed = embed.place(x, values_BAD=values, positions_BA=positions)
  np.testing.assert_array_equal(placed[0, 2], values[0, 0])
  np.testing.assert_array_equal(placed[0, 0], values[0, 2])
  np.testing.assert_array_equal(placed[1, 3], values[1, 2])
  assert not placed[0, 1].any() and not placed[1, :3].any()


def test_clock_tells_neighbouring_windows_apart_after_an_hour():
  clock = embed.Clock(
    small_trunk.config(clock_features=64), small_trunk.EXECUTION
  )
  windows = np.array([[0, 1, 2, 18000, 18001]])
  params = parameters(clock, windows)
  params["kernel"] = np.eye(64, 32, dtype=np.float32)
  features = clock.apply({"params": params}, windows)[0]
  periods = np.exp(np.linspace(math.log(0.4), math.log(3600), 32))
  expected = np.sin(2 * math.pi * windows[0][:, None] * 0.2 / periods)
  np.testing.assert_allclose(features, expected, atol=5e-3)


def test_only_turn_tokens_carry_the_clock():
  model = small_trunk.model(small_trunk.CONFIG)
  variables = small_trunk.variables(model)
  inputs = small_trunk.batch([[20]], length=20).inputs
  inputs.tokens[:] = 5
  inputs.tokens[0, [2, 9]] = small_trunk.TURN
  inputs.audio_positions[:] = 20
  inputs.patch_positions[:] = 20
  embedder = embed.Embedder(small_trunk.CONFIG, small_trunk.EXECUTION)
  params = {"params": variables["params"]["embed"]}
  apply = jax.jit(lambda inputs: embedder.apply(params, inputs))
  a = apply(inputs)
  b = apply(inputs._replace(windows=inputs.windows + 1))
  moved = np.abs(a - b).max(-1)[0] > 1e-6
  np.testing.assert_array_equal(np.flatnonzero(moved), [2, 9])
