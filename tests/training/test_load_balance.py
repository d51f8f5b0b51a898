"""Switch's auxiliary loss: by hand, in the step, on meshes, in training."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.helpers import small_run
from tests.helpers import step as plain
from tml_jax.config import Config
from tml_jax.models import moe
from tml_jax.training import metrics
from tml_jax.training import step as step_lib


def _balanced(**execution) -> Config:
  cfg = small_run.config()
  train = dataclasses.replace(
    cfg.train,
    load_balance_loss_weight=0.5,
    execution=dataclasses.replace(cfg.train.execution, **execution),
  )
  return dataclasses.replace(cfg, train=train)


def test_by_hand():
  """Equations 4 to 6 of Switch Transformer with loops, sequence by sequence."""
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(3, 7, 4)).astype(np.float32)
  chosen = np.argsort(-logits, axis=-1)[..., :2]
  valid = np.arange(7) < np.array([[7], [4], [0]])
  want = []
  for row in range(3):
    total = 0.0
    for expert in range(4):
      f, p, count = 0.0, 0.0, max(1, valid[row].sum())
      for t in np.flatnonzero(valid[row]):
        scores = 1 / (1 + np.exp(-logits[row, t]))
        f += (chosen[row, t] == expert).sum() / 2 / count
        p += scores[expert] / scores.sum() / count
      total += 4 * f * p
    want.append(total)
  got = moe.load_balance(logits, experts_BTk=chosen, valid_BT=valid)
  np.testing.assert_allclose(got, want, atol=1e-6)
  assert got[0] > 1.0 and got[2] == 0.0
  even = np.tile(np.arange(4)[:, None], (1, 1))[None]
  flat = moe.load_balance(
    np.zeros((1, 4, 4), np.float32), experts_BTk=even, valid_BT=valid[:1, :4]
  )
  np.testing.assert_allclose(flat, 1.0, atol=1e-6)


@pytest.mark.slow  # two gradients are compiled
def test_is_added_to_the_loss():
  cfg = _balanced()
  without = small_run.config()
  off = plain.gradient_of(
    without, jax.devices()[:1], small_run.batch(without, seed=0)
  )
  gradient, loss, sums = plain.gradient_of(
    cfg, jax.devices()[:1], small_run.batch(cfg, seed=0)
  )
  layers = sums.load_KLE.shape[1]
  assert layers == 2 and 1.0 < sums.balance < 4.0
  added = 0.5 * layers * sums.balance
  np.testing.assert_allclose(loss, off[1] + added, atol=1e-5)
  assert off[2].balance == 0
  moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), gradient, off[0])
  assert moved["trunk"]["layer_01"]["mlp"]["router"] > 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
  "axes, accumulation_steps, scan_layers",
  [({}, 4, False), (dict(fsdp=2, expert=2, tensor=2), 1, False), ({}, 1, True)],
)
def test_of_any_cut(axes, accumulation_steps, scan_layers):
  cfg = _balanced()
  batch = small_run.batch(cfg, seed=0)
  _, loss, sums = plain.gradient_of(cfg, jax.devices()[:1], batch)
  cut = _balanced(scan_layers=scan_layers)
  cut = dataclasses.replace(
    cut,
    mesh=small_run.config(**axes).mesh,
    train=dataclasses.replace(cut.train, accumulation_steps=accumulation_steps),
  )
  devices = jax.devices() if axes else jax.devices()[:1]
  _, other, other_sums = plain.gradient_of(cut, devices, batch)
  if not scan_layers:  # other names of parameters, other random numbers
    np.testing.assert_allclose(other, loss, atol=1e-5)
    np.testing.assert_allclose(other_sums.balance, sums.balance, atol=1e-5)
  assert 1.0 < other_sums.balance < 4.0


@pytest.mark.slow
def test_works_in_training():
  cfg = _balanced()
  quiet = dict(router_bias_rate=0.0, learning_rate=3e-2, weight_decay=0.0)
  cfg = dataclasses.replace(
    cfg,
    train=dataclasses.replace(
      cfg.train,
      load_balance_loss_weight=10.0,  # nothing else counts
      optim=dataclasses.replace(
        cfg.train.optim, muon_learning_rate=1e-30, **quiet
      ),
    ),
  )
  _, model, optimizer, state = plain.fresh(cfg, jax.devices()[:1])
  step = jax.jit(step_lib.create(cfg, model=model, optimizer=optimizer))
  state = state.replace(
    router=jax.tree.map(lambda bias: bias.at[0].set(0.1), state.router)
  )
  batch = small_run.batch(cfg, seed=0)
  imbalance = []
  for _ in range(60):
    state, values = step(state, batch)
    scalars = metrics.summarise(jax.device_get(values["sums"]))
    imbalance.append(scalars["router/all/max_over_mean"])
  # The loss itself is near 1 as long as scores are near 0.5.
  assert imbalance[0] > 1.25 and np.mean(imbalance[-10:]) < 1.12
