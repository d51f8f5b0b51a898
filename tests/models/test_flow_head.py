"""The flow head: its start, its loss, its sampler."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from tests.helpers import small_trunk
from tml_jax.models import flow_head

FLOW = small_trunk.CONFIG.flow


def head():
  module = flow_head.FlowHead(small_trunk.CONFIG, small_trunk.EXECUTION)
  x, t, cond = jnp.zeros((2, 16, 80)), jnp.zeros(2), jnp.zeros((2, 32))
  return module, jax.jit(module.init)(jax.random.key(0), x, t, cond)


def test_velocity_starts_towards_the_mean_and_broadcasts():
  module, variables = head()
  rng = np.random.default_rng(0)
  x = rng.standard_normal((3, 2, 16, 80)).astype(np.float32)
  t = jnp.full((3, 2), 0.75)
  v = jax.jit(module.apply)(variables, x, t, jnp.ones((2, 32)))
  assert v.shape == x.shape and v.dtype == jnp.float32
  # In the quarter of the way that is left it covers all of -x.
  np.testing.assert_allclose(x + 0.25 * v, 0, atol=1e-6)


def test_loss_is_zero_for_the_true_velocity_and_the_variance_for_the_mean():
  rng = np.random.default_rng(0)
  mel = rng.standard_normal((64, 16, 80)).astype(np.float32)
  config = dataclasses.replace(FLOW, mel_mean=0.0, mel_std=1.0, draws=4)
  target = jnp.asarray(mel)

  def exact(x, t, cond):
    # x = (1 - t) noise + t mel, hence mel - noise = (mel - x) / (1 - t).
    return (target - x) / (1 - t[..., None, None])

  keywords = dict(
    mel_FC=mel,
    cond_D=jnp.zeros((64, 32)),
    null_D=jnp.zeros(32),
    rng=jax.random.key(0),
    config=config,
  )
  loss = flow_head.flow_loss(exact, **keywords)
  assert loss.shape == (64,)
  np.testing.assert_allclose(loss, 0, atol=1e-6)

  def to_the_mean(x, t, cond):
    return -x / (1 - t[..., None, None])

  loss = flow_head.flow_loss(to_the_mean, **keywords)
  np.testing.assert_allclose(loss, (mel**2).mean(axis=(1, 2)), rtol=1e-4)


def test_conditions_are_dropped_at_the_stated_share():
  seen = []

  def velocity(x, t, cond):
    seen.append(np.asarray(cond[:, 0]))
    return jnp.zeros_like(x)

  flow_head.flow_loss(
    velocity,
    mel_FC=jnp.zeros((4000, 16, 80)),
    cond_D=jnp.ones((4000, 2)),
    null_D=jnp.full(2, 7.0),
    rng=jax.random.key(1),
    config=dataclasses.replace(FLOW, draws=1, condition_drop=0.25),
  )
  assert set(np.unique(seen[0])) == {1.0, 7.0}
  assert abs((seen[0] == 7.0).mean() - 0.25) < 0.03


def test_sampler_reaches_the_target_of_a_straight_flow():
  target = jnp.full((2, 16, 80), 0.5)

  def straight(x, t, cond):
    return (target - x) / (1 - t[..., None, None])

  noise = flow_head.noise(
    jax.random.split(jax.random.key(0), 2), shape=(16, 80), temperature=1.0
  )
  keywords = dict(
    cond_D=jnp.zeros((2, 32)), null_D=jnp.zeros(32), noise_FC=noise
  )
  mel = flow_head.sample(straight, config=FLOW, **keywords)
  np.testing.assert_allclose(mel, 0.5 * 1.5 - 2.0, atol=1e-5)


def test_guidance_moves_away_from_the_null_condition():
  def velocity(x, t, cond):
    return jnp.broadcast_to(cond[..., :1, None], x.shape)

  keywords = dict(
    cond_D=jnp.full((1, 2), 1.0),
    null_D=jnp.full(2, 0.25),
    noise_FC=jnp.zeros((1, 16, 80)),
  )
  sample = functools.partial(flow_head.sample, velocity, **keywords)
  config = dataclasses.replace(FLOW, mel_mean=0.0, mel_std=1.0)
  np.testing.assert_allclose(sample(config=config), 1.0, rtol=1e-6)
  guided = dataclasses.replace(config, guidance=2.0)
  np.testing.assert_allclose(sample(config=guided), 1.75, rtol=1e-6)


def test_noise_of_a_row_depends_on_its_key_alone():
  keys = jax.random.split(jax.random.key(3), 4)
  whole = flow_head.noise(keys, shape=(16, 80), temperature=0.5)
  part = flow_head.noise(keys[2:3], shape=(16, 80), temperature=0.5)
  np.testing.assert_array_equal(whole[2], part[0])
  assert abs(float(whole.std()) - 0.5) < 0.02
