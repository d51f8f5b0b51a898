"""Mean velocities: exact where the flow is known, and of use in one step."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.helpers import small_trunk
from tml_jax.models import flow_head

FLOW = dataclasses.replace(
  small_trunk.CONFIG.flow,
  mel_mean=0.0,
  mel_std=1.0,
  condition_drop=0.0,
  draws=1,
  map_weight=1.0,
)
COND = jnp.zeros((1, 1))
# Two peaks: one Euler step from noise lands between them.
MEANS, SPREAD = jnp.array([-1.5, 1.5]), 0.3


def _gaussian(mean: float, std: float):
  """The exact velocity over a span, from N(0, 1) to N(mean, std^2)."""

  def scale(t):
    return jnp.sqrt((1 - t) ** 2 + (std * t) ** 2)

  def velocity(x, t, cond, span=0.0):
    t = jnp.broadcast_to(t, x.shape[:-2])[..., None, None]
    span = jnp.broadcast_to(jnp.asarray(span), x.shape[:-2])[..., None, None]
    z = (x - mean * t) / scale(t)
    end = t + span
    slope = ((std**2 + 1) * t - 1) / scale(t)
    mean_slope = (scale(end) - scale(t)) / jnp.where(span == 0, 1.0, span)
    return mean + z * jnp.where(span == 0, slope, mean_slope)

  return velocity


def _draws(shape, *, seed: int):
  rng = np.random.default_rng(seed)
  t = rng.uniform(0, 0.95, shape).astype(np.float32)
  end = t + (1 - t) * rng.uniform(0.01, 1, shape).astype(np.float32)
  x = rng.standard_normal((*shape, 2, 3)).astype(np.float32)
  return jnp.asarray(x), jnp.asarray(t), jnp.asarray(end)


def test_the_exact_map_of_a_gaussian_has_no_error():
  velocity = _gaussian(0.7, 0.4)
  x, t, end = _draws((200,), seed=0)
  error = flow_head.map_error(velocity, x=x, t=t, end=end, cond=COND)
  # The mean slope is a difference of two square roots, float32.
  assert np.abs(error).max() < 2e-4

  def euler(x, t, cond, span=0.0):
    return velocity(x, t, cond)

  error = flow_head.map_error(euler, x=x, t=t, end=end, cond=COND)
  assert np.abs(error).mean() > 0.05


def test_steps_of_the_exact_map_agree_in_any_number():
  velocity = _gaussian(0.7, 0.4)
  noise = jax.random.normal(jax.random.key(0), (500, 2, 3))
  sample = functools.partial(
    flow_head.sample,
    velocity,
    cond_D=jnp.zeros((500, 1)),
    null_D=jnp.zeros(1),
    noise_FC=noise,
  )
  for steps in (1, 2, 5):
    mel = sample(config=dataclasses.replace(FLOW, steps=steps))
    np.testing.assert_allclose(mel, 0.7 + 0.4 * noise, atol=1e-5)
  euler = sample(config=dataclasses.replace(FLOW, steps=1, map_weight=0.0))
  assert np.std(euler) < 0.1  # one step of Euler lands at the mean


@pytest.fixture(scope="module", name="learned")
def _learned():
  """A network that learned two peaks from samples: a `Velocity`."""

  def init(key):
    sizes, keys = [2 + 2 * flow_head.SPAN_WAVES, 96, 96, 1], []
    keys = jax.random.split(key, len(sizes))
    sizes[0] += 1  # x, t and the features of the span
    return [
      (jax.random.normal(k, (m, n)) / np.sqrt(m), jnp.zeros(n))
      for k, m, n in zip(keys, sizes, sizes[1:], strict=False)
    ]

  def velocity(params, x, t, cond, span=0.0):
    span = jnp.broadcast_to(jnp.asarray(span), t.shape)
    h = jnp.concatenate(
      [x[..., 0], t[..., None], flow_head.span_features(span)], axis=-1
    )
    for weight, bias in params[:-1]:
      h = jnp.tanh(h @ weight + bias)
    weight, bias = params[-1]
    mel = h @ weight + bias
    left = jnp.maximum(1 - t, flow_head.MIN_TIME_LEFT)[..., None, None]
    return (mel[..., None] - x) / left

  optimizer = optax.adam(optax.cosine_decay_schedule(5e-3, 3000))

  def loss(params, key):
    data_key, loss_key = jax.random.split(key)
    return flow_head.flow_loss(
      functools.partial(velocity, params),
      mel_FC=_two_peaks(data_key, 512),
      cond_D=jnp.zeros((512, 1)),
      null_D=jnp.zeros(1),
      rng=loss_key,
      config=FLOW,
    ).mean()

  def step(carry, key):
    params, state = carry
    gradient = jax.grad(loss)(params, key)
    updates, state = optimizer.update(gradient, state)
    return (optax.apply_updates(params, updates), state), None

  params = init(jax.random.key(0))
  keys = jax.random.split(jax.random.key(1), 3000)
  scan = jax.jit(lambda carry: jax.lax.scan(step, carry, keys)[0])
  params, _ = scan((params, optimizer.init(params)))
  return jax.jit(functools.partial(velocity, params))


def _two_peaks(key, count: int):
  side_key, noise_key = jax.random.split(key)
  mean = MEANS[jax.random.bernoulli(side_key, 0.5, (count,)).astype(int)]
  spread = SPREAD * jax.random.normal(noise_key, (count,))
  return (mean + spread)[:, None, None]


def _exact_velocity(x, t):
  """E[mel - noise | x] of two peaks, by Bayes."""
  variance = (1 - t) ** 2 + (SPREAD * t) ** 2
  odds = jax.nn.softmax(-((x - t * MEANS) ** 2) / (2 * variance), axis=-1)
  slope = (SPREAD**2 * t - (1 - t)) / variance
  return (odds * (MEANS + slope * (x - t * MEANS))).sum(-1, keepdims=True)


def _sample(velocity, *, steps: int, map_weight: float):
  return flow_head.sample(
    velocity,
    cond_D=jnp.zeros((4000, 1)),
    null_D=jnp.zeros(1),
    noise_FC=jax.random.normal(jax.random.key(7), (4000, 1, 1)),
    config=dataclasses.replace(FLOW, steps=steps, map_weight=map_weight),
  )


def _distance(samples) -> float:
  """Wasserstein distance to the two peaks, by sorting."""
  wanted = _two_peaks(jax.random.key(8), 4000)
  return float(
    jnp.abs(jnp.sort(samples.ravel()) - jnp.sort(wanted.ravel())).mean()
  )


@pytest.mark.slow
def test_learned_mean_velocity_is_that_of_the_exact_flow(learned):
  x = start = jnp.linspace(-2, 2, 81)[:, None]
  steps, (t, end) = 2000, (0.1, 0.8)
  for k in range(steps):
    middle = t + (k + 0.5) * (end - t) / steps
    x = x + (end - t) / steps * _exact_velocity(x, middle)
  wanted = (x - start)[:, 0] / (end - t)
  times = jnp.full(81, t)
  found = learned(start[..., None], times, COND, jnp.full(81, end - t))
  error = np.abs(found[:, 0, 0] - wanted)
  assert error.mean() < 0.05  # measured 0.034
  assert np.abs(wanted).mean() > 0.5


@pytest.mark.slow
def test_one_learned_step_beats_one_of_euler(learned):
  one_map = _distance(_sample(learned, steps=1, map_weight=1.0))
  two_map = _distance(_sample(learned, steps=2, map_weight=1.0))
  one_euler = _distance(_sample(learned, steps=1, map_weight=0.0))
  eight_euler = _distance(_sample(learned, steps=8, map_weight=0.0))
  assert one_euler > 1.0  # in the middle, where there is nothing
  assert one_map < 0.2 * one_euler and two_map < 0.2 * one_euler
  assert one_map < eight_euler + 0.15


def test_a_head_without_a_map_has_no_weights_for_it():
  def names(map_weight):
    config = small_trunk.config(
      flow=dataclasses.replace(small_trunk.CONFIG.flow, map_weight=map_weight)
    )
    head = flow_head.FlowHead(config, small_trunk.EXECUTION)
    x, t = jnp.zeros((2, 16, 80)), jnp.zeros(2)
    shapes = jax.eval_shape(
      head.init, jax.random.key(0), x, t, jnp.zeros((2, 32)), t
    )
    return set(shapes["params"])

  assert names(1.0) - names(0.0) == {"span"}
