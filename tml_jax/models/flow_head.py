"""The head that turns one hidden state into a window of mel, by flow matching.

For: the velocity network, its loss and its sampler. Not for: deciding to
speak, or turning mel into sound. Start at `FlowHead`. Network: SimpleMLPAdaLN
of MAR (arXiv 2406.11838, section 4.2); flow: x_t = (1 - t) noise + t mel,
velocity mel - noise (arXiv 2210.02747). The network predicts mel, from which
the velocity follows: the noise has 1280 dims and does not fit through a head
of 256, mel nearly does (JiT, arXiv 2511.13720).

With `map_weight` the head also learns mean velocities over a span of time, the
flow map, by Lagrangian self-distillation (LSD; Boffi, Albergo and
Vanden-Eijnden, arXiv 2505.18825): sampling takes one or two steps.

Legend: any leading dims, F fine frames of a window, C mel channels,
D d_model, W width of the head, R draws.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from tml_jax.config import FlowConfig, ModelConfig
from tml_jax.models import norm
from tml_jax.models.execution import Execution

NORM_EPS = 1e-6
TIME_PERIOD = 10_000.0  # longest period of the sinusoids, t scaled by 1000
MIN_TIME_LEFT = 0.05  # where velocity divides by 1 - t (JiT's value)

SPAN_WAVES = 4  # of sinusoids of a span; few, as it is differentiated

Velocity = Callable[..., jax.Array]  # x, t, cond, and span where map_weight


def time_features(t: jax.Array, *, count: int) -> jax.Array:
  """Sinusoids [..., count] of flow times in [0, 1]."""
  half = count // 2
  rates = np.exp(-math.log(TIME_PERIOD) * np.arange(half) / half)
  angle = t[..., None].astype(jnp.float32) * 1000.0 * rates.astype(np.float32)
  return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def span_features(span: jax.Array) -> jax.Array:
  """Smooth features [..., 2 * SPAN_WAVES + 1] of spans in [0, 1], 0 at 0."""
  angle = np.pi / 2 * np.arange(1, SPAN_WAVES + 1, dtype=np.float32)
  angle = span[..., None].astype(jnp.float32) * angle
  return jnp.concatenate(
    [span[..., None], jnp.sin(angle), 1 - jnp.cos(angle)], axis=-1
  )


def layer_norm(x: jax.Array) -> jax.Array:
  """Zero mean, unit variance over the last dim, no parameters."""
  x32 = x.astype(jnp.float32)
  x32 -= jnp.mean(x32, axis=-1, keepdims=True)
  variance = jnp.mean(x32 * x32, axis=-1, keepdims=True)
  return (x32 * jax.lax.rsqrt(variance + NORM_EPS)).astype(x.dtype)


class Linear(nn.Module):
  """Dense layer with bias and logical names (`inner`, `outer`)."""

  inputs: int
  outputs: int
  names: tuple[str, str]
  dtype: str
  init: Callable[..., jax.Array] = nn.initializers.lecun_normal()

  def setup(self):
    self.kernel = norm.param(
      self,
      name="kernel",
      init=self.init,
      shape=(self.inputs, self.outputs),
      names=self.names,
    )
    self.bias = norm.param(
      self,
      name="bias",
      init=nn.initializers.zeros,
      shape=(self.outputs,),
      names=self.names[1:],
    )

  def __call__(self, x: jax.Array) -> jax.Array:
    kernel = norm.whole(self.kernel.astype(self.dtype), names=self.names)
    return x @ kernel + self.bias.astype(self.dtype)


class FlowHead(nn.Module):
  """Velocity of standardised mel at time t, given a hidden state."""

  config: ModelConfig
  execution: Execution

  def setup(self):
    flow, d_model = self.config.flow, self.config.d_model
    execution, width = self.execution, flow.width
    mel = execution.grid.fine_frames * self.config.dmel_channels
    zeros = nn.initializers.zeros
    inner = ("flow_in", "flow")

    def linear(inputs, outputs, names=inner, **keywords):
      return Linear(inputs, outputs, names, execution.dtype, **keywords)

    self.null_condition = norm.param(
      self,
      name="null_condition",
      init=nn.initializers.normal(self.config.init_std),
      shape=(d_model,),
      names=("embed",),
    )
    self.input = linear(mel, width)
    self.condition = linear(d_model, width, names=("embed", "flow"))
    self.time_in = linear(flow.time_features, width)
    self.time_out = linear(width, width)
    if flow.map_weight:
      self.span = linear(2 * SPAN_WAVES + 1, width)
    self.modulations = [
      linear(width, 3 * width, init=zeros) for _ in range(flow.depth)
    ]
    self.expand = [linear(width, width) for _ in range(flow.depth)]
    self.contract = [linear(width, width) for _ in range(flow.depth)]
    self.final_modulation = linear(width, 2 * width, init=zeros)
    self.output = linear(width, mel, names=("flow", "flow_in"), init=zeros)

  def __call__(
    self,
    x_FC: jax.Array,
    t: jax.Array,
    cond_D: jax.Array,
    span: jax.Array | float = 0.0,
  ) -> jax.Array:
    """Mean velocity from t to t + span, float32 [..., F, C].

    The dims before F, those of t, of span and those of cond before D broadcast
    against each other. Without `map_weight` the span has no influence.
    """
    shape, dtype = x_FC.shape, self.execution.dtype
    left = jnp.maximum(1.0 - t, MIN_TIME_LEFT)[..., None, None]
    x = self.input(x_FC.reshape(*shape[:-2], -1).astype(dtype))
    t = time_features(t, count=self.config.flow.time_features)
    t = self.time_out(jax.nn.silu(self.time_in(t.astype(dtype))))
    if self.config.flow.map_weight:
      t += self.span(span_features(jnp.asarray(span)).astype(dtype))
    guide = jax.nn.silu(t + self.condition(cond_D.astype(dtype)))
    for modulation, expand, contract in zip(
      self.modulations, self.expand, self.contract, strict=True
    ):
      shift, scale, gate = jnp.split(modulation(guide), 3, axis=-1)
      y = layer_norm(x) * (1 + scale) + shift
      x += gate * contract(jax.nn.silu(expand(y)))
    shift, scale = jnp.split(self.final_modulation(guide), 2, axis=-1)
    mel = self.output(layer_norm(x) * (1 + scale) + shift)
    mel_FC = mel.reshape(*mel.shape[:-1], *shape[-2:]).astype(jnp.float32)
    return (mel_FC - x_FC.astype(jnp.float32)) / left

  def null(self) -> jax.Array:
    """The condition that stands for "no condition", [D]."""
    return self.null_condition


def standardise(mel: jax.Array, *, config: FlowConfig) -> jax.Array:
  """log10 mel to the flow's units."""
  return (mel.astype(jnp.float32) - config.mel_mean) / config.mel_std


def flow_loss(
  velocity: Velocity,
  *,
  mel_FC: jax.Array,
  cond_D: jax.Array,
  null_D: jax.Array,
  rng: jax.Array,
  config: FlowConfig,
) -> jax.Array:
  """Mean squared error of the mel that the velocity leads to.

  That is the velocity's error times 1 - t: plain velocity error would weigh
  the last steps, which hardly look at the condition, hundreds of times more.
  With `map_weight` the mean squared `map_error` is added, so weighed.

  Args:
    velocity: (x [R, ..., F, C], t [R, ...], cond [R, ..., D]) to x's shape;
      with `map_weight` also of a span [R, ...].
    mel_FC: log10 fine mel, [..., F, C].
    cond_D: hidden states, [..., D].
    null_D: stands in for a dropped condition, [D].
    rng: key of noise, times and drops.
    config: draws, condition drop, standardisation.

  Returns:
    float32, the leading dims of `mel_FC`.
  """
  lead = (config.draws, *mel_FC.shape[:-2])
  noise_rng, time_rng, drop_rng = jax.random.split(rng, 3)
  span_rng = jax.random.fold_in(rng, 3)
  mel = standardise(mel_FC, config=config)
  with jax.named_scope("noise"):
    noise = jax.random.normal(noise_rng, (*lead, *mel.shape[-2:]))
  # Uniform, one draw in each of R equal parts. The common sigmoid(N(0, 1)) has
  # no mass at 0, where sampling starts and only the condition is known: there
  # the head was worse than the mean.
  part = jnp.arange(config.draws).reshape(-1, *[1] * (len(lead) - 1))
  t = (part + jax.random.uniform(time_rng, lead)) / config.draws
  mix = t[..., None, None]
  x = (1.0 - mix) * noise + mix * mel
  # One drop per position, not per draw: the condition is projected once.
  drop = jax.random.bernoulli(drop_rng, config.condition_drop, lead[1:])
  cond = jnp.where(drop[..., None], null_D.astype(cond_D.dtype), cond_D)
  error = (1.0 - mix) * (velocity(x, t, cond) - (mel - noise))
  loss = jnp.mean(error * error, axis=(0, -2, -1))
  if config.map_weight:
    end = t + (1 - t) * jax.random.uniform(span_rng, lead)
    error = map_error(velocity, x=x, t=t, end=end, cond=cond)
    loss += config.map_weight * jnp.mean(error * error, axis=(0, -2, -1))
  return loss


def map_error(
  velocity: Velocity,
  *,
  x: jax.Array,
  t: jax.Array,
  end: jax.Array,
  cond: jax.Array,
) -> jax.Array:
  """How far the map from `t` to `end` leaves the flow there, times 1 - end.

  The map goes to X(end) = x + (end - t) * velocity(x, t, cond, end - t). It
  follows the flow if dX / d end is the velocity at X(end), which is taken as
  given: no gradient goes into it (LSD, arXiv 2505.18825).

  Returns:
    float32, the shape of x.
  """

  def go(end):
    span = end - t
    return x + span[..., None, None] * velocity(x, t, cond, span)

  there, speed = jax.jvp(go, (end,), (jnp.ones_like(end),))
  wanted = velocity(jax.lax.stop_gradient(there), end, cond)
  left = (1 - end)[..., None, None]
  return left * (speed - jax.lax.stop_gradient(wanted))


def noise(
  keys_B: jax.Array, *, shape: tuple[int, int], temperature: float
) -> jax.Array:
  """Initial noise [B, F, C] of `shape` (F, C), each row from its own key."""
  draw = jax.vmap(lambda key: jax.random.normal(key, shape))
  return temperature * draw(keys_B)


@jax.named_scope("flow_sample")
def sample(
  velocity: Velocity,
  *,
  cond_D: jax.Array,
  null_D: jax.Array,
  noise_FC: jax.Array,
  config: FlowConfig,
) -> jax.Array:
  """log10 mel [..., F, C] in `config.steps` steps in float32.

  Steps of Euler; with `map_weight` the head's own mean velocity of each. A
  guidance other than 1 also follows the null condition:
  v = v_null + guidance * (v_cond - v_null).
  """
  lead = cond_D.shape[:-1]
  null = jnp.broadcast_to(null_D.astype(cond_D.dtype), cond_D.shape)
  span = jnp.full(lead, 1 / config.steps, jnp.float32)
  spans = [span] if config.map_weight else []

  def step(x, index):
    t = jnp.full(lead, index / config.steps, jnp.float32)
    v = velocity(x, t, cond_D, *spans)
    if config.guidance != 1.0:
      base = velocity(x, t, null, *spans)
      v = base + config.guidance * (v - base)
    return x + v / config.steps, None

  start = noise_FC.astype(jnp.float32)
  x, _ = jax.lax.scan(step, start, jnp.arange(config.steps, dtype=jnp.float32))
  return x * config.mel_std + config.mel_mean
