"""The train step: microbatches, gradient, optimizer, router balance.

For: the one jitted function that every training runs. Not for: what is
minimised (`objective`; pretraining: `losses`). Start reading at `create`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from tml_jax.models import stacking
from tml_jax.training import losses
from tml_jax.training import objective as objective_lib
from tml_jax.training import state as state_lib

StepFn = Callable[
  [state_lib.TrainState, Any],
  tuple[state_lib.TrainState, dict[str, Any]],
]


def create(
  config: Any,
  *,
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  objective: objective_lib.Objective = losses.PRETRAINING,
) -> StepFn:
  """The step as a function of (state, batch), to be jitted by the caller.

  Args:
    config: the experiment, whose `train` is a `LoopConfig`.
    model: the module that the parameters are of.
    optimizer: of the parameters.
    objective: what is minimised.

  Returns:
    A function that gives the new state, and arrays by name: loss, grad_norm
    and the objective's sums.
  """
  optim = config.train.optim

  def train_step(state, batch):
    gradient, loss, sums = accumulate(
      state, batch, config=config, model=model, objective=objective
    )
    with jax.named_scope("optimizer"):
      moments = state.opt_state
      if optim.offload_moments:
        # Not before the activations are gone: they would be live beside them.
        gradient, moments = jax.lax.optimization_barrier((gradient, moments))
        moments = jax.device_put(moments, jax.memory.Space.Device)
      updates, opt_state = optimizer.update(gradient, moments, state.params)
      params = optax.apply_updates(state.params, updates)
    new_state = state.replace(
      step=state.step + 1,
      params=params,
      router=balanced(state.router, objective.load_KLE(sums), config=config),
      opt_state=opt_state,
      ema=moving_average(
        state.ema, params, decay=optim.ema_decay, step=state.step
      ),
    )
    with jax.named_scope("grad_norm"):
      norm = optax.global_norm(gradient)
    return new_state, {"loss": loss, "grad_norm": norm, "sums": sums}

  return train_step


def accumulate(
  state, batch, *, config, model, objective: objective_lib.Objective
):
  """Gradient, loss and sums of a global batch, one microbatch at a time."""
  train = config.train
  size = train.global_batch_size
  # One key per (step, row): neither the cut into microbatches nor the mesh
  # changes the noise.
  step_key = jax.random.fold_in(jax.random.key(train.seed), state.step)
  # Where its row is: else every device draws the noise of the whole batch.
  keys = nn.with_logical_constraint(
    jax.random.split(step_key, size), ("batch",)
  )
  denominators = objective.denominators(batch)

  def gradient_of(rows, row_keys):
    (value, sums), gradient = jax.value_and_grad(objective.loss, has_aux=True)(
      state.params,
      collections=state.collections,
      batch=rows,
      keys_B=row_keys,
      denominators=denominators,
      model=model,
      config=config,
    )
    return gradient, value, sums

  if train.accumulation_steps == 1:
    return gradient_of(batch, keys)

  def cut(leaf):
    # Interleaved, so that every device has rows in every microbatch.
    count = train.accumulation_steps
    return jnp.swapaxes(leaf.reshape(-1, count, *leaf.shape[1:]), 0, 1)

  def add(total, micro):
    parts = gradient_of(*micro)
    with jax.named_scope("accumulate"):
      return jax.tree.map(jnp.add, total, parts), None

  micro = jax.tree.map(cut, (batch, keys))
  shapes = jax.eval_shape(gradient_of, *jax.tree.map(lambda x: x[0], micro))
  zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
  return jax.lax.scan(add, zeros, micro)[0]


def balanced(router, load_KLE: jax.Array | None, *, config: Any):
  """The router's biases after a step; the same where there is no router."""
  if load_KLE is None:
    return router
  layout = stacking.Layout.of(
    config.model, scan_layers=config.train.execution.scan_layers
  )
  moved = balance(
    stacking.unstack(router, layout=layout),
    load_KLE,
    rate=config.train.optim.router_bias_rate,
  )
  return stacking.stack(moved, layout=layout)


@jax.named_scope("router_balance")
def balance(router, load_KLE, *, rate: float):
  """Moves each expert's selection bias towards equal load, by its sign.

  Source: auxiliary-loss-free balancing (arXiv 2408.15664), as in DeepSeek-V3.

  Args:
    router: biases [E] per MoE layer, in the order of the layers.
    load_KLE: choices in the step.
    rate: step of the bias; 0 leaves it.
  """
  leaves, tree = jax.tree.flatten(router)
  moved = []
  for bias, choices in zip(leaves, load_KLE.sum(axis=0), strict=True):
    moved.append(bias + rate * jnp.sign(choices.mean() - choices))
  return jax.tree.unflatten(tree, moved)


@jax.named_scope("moving_average")
def moving_average(ema, params, *, decay: float, step: jax.Array):
  """Average of the weights; short at first, so that it forgets the start."""
  if not decay:
    return ema
  steps = step.astype(jnp.float32)
  weight = jnp.minimum(decay, (1 + steps) / (10 + steps))
  return jax.tree.map(lambda e, p: weight * e + (1 - weight) * p, ema, params)
