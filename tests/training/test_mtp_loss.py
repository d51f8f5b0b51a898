"""The loss of multi-token prediction: by hand, of any cut, in training."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from tests.helpers import small_run
from tests.helpers import step as plain
from tml_jax.config import Config
from tml_jax.training import flops, losses, metrics
from tml_jax.training import step as step_lib

WEIGHT = 0.3


def _config(**axes: int) -> Config:
  """One global and one local layer that predict further."""
  cfg = small_run.config(**axes)
  return dataclasses.replace(
    cfg,
    model=dataclasses.replace(
      cfg.model, num_mtp_layers=2, mtp_attention_pattern="GL"
    ),
    train=dataclasses.replace(
      cfg.train, mtp_loss_weight=WEIGHT, feedback_noise=0.0
    ),
  )


def test_by_hand():
  """Every target, layer and sequence with loops over written-out softmaxes."""
  cfg = _config()
  _, model, _, state = plain.fresh(cfg, jax.devices()[:1])
  batch = small_run.batch(cfg, seed=0)
  variables = {"params": state.params, "router": state.router}

  @jax.jit
  def run(variables, packed):
    hidden, _ = model.apply(variables, packed, method="hidden")
    further = model.apply(
      variables, packed, hidden_BTD=hidden, method="mtp_hidden"
    )
    return model.apply(variables, further, method="logits")

  logits_ZBTV = np.asarray(run(variables, batch.packed), np.float64)
  segments = batch.packed.segment_ids
  total, right = np.zeros(2), np.zeros(2)
  entropy, count = np.zeros(2), np.zeros(2)
  weight = 0.0
  targets = batch.targets
  for row in range(len(targets.tokens)):
    for position, token, w in zip(
      targets.positions[row],
      targets.tokens[row],
      targets.weights[row],
      strict=True,
    ):
      if position == cfg.streams.seq_len:
        continue
      weight += w
      for k in range(2):
        source = position - 1 - k
        if source < 0 or segments[row, source] != segments[row, position]:
          continue
        logits = logits_ZBTV[k, row, source]
        lost = np.log(np.exp(logits).sum()) - logits[token]
        total[k] += w * lost
        entropy[k] += lost
        right[k] += logits[token] >= logits.max()
        count[k] += 1
  assert count[1] < count[0] < (targets.positions < cfg.streams.seq_len).sum()

  def loss(cfg):
    return jax.jit(functools.partial(losses.loss, model=model, config=cfg))(
      state.params,
      collections=state.collections,
      batch=batch,
      keys_B=jax.random.split(jax.random.key(0), len(targets.tokens)),
      denominators=losses.denominators(batch),
    )

  off = dataclasses.replace(
    cfg, train=dataclasses.replace(cfg.train, mtp_loss_weight=0.0)
  )
  (value, sums), (without, _) = loss(cfg), loss(off)
  np.testing.assert_allclose(
    value - without, WEIGHT * (total / weight).mean(), rtol=1e-4
  )
  scalars = metrics.summarise(jax.device_get(sums))
  for k in range(2):
    np.testing.assert_allclose(
      scalars[f"loss/mtp_{k + 1}"], entropy[k] / count[k], rtol=1e-5
    )
    assert scalars[f"accuracy/mtp_{k + 1}"] == pytest.approx(
      right[k] / count[k]
    )


def test_it_costs_two_layers_and_two_heads():
  cfg = _config()
  off = dataclasses.replace(
    cfg, train=dataclasses.replace(cfg.train, mtp_loss_weight=0.0)
  )
  m, s = cfg.model, cfg.streams
  layers = sum(
    flops.layer_flops(
      cfg,
      is_global=m.mtp_is_global(k),
      is_dense=True,
      context=s.seq_len / 2
      if m.mtp_is_global(k)
      else min(m.sliding_window, s.seq_len / 2),
    )
    for k in range(2)
  )
  head = 2 * s.max_targets * m.d_model * m.vocab_size
  more = s.seq_len * (layers + 2 * 4 * m.d_model**2) + 2 * head
  assert flops.step_flops(cfg) - flops.step_flops(off) == pytest.approx(
    3 * cfg.train.global_batch_size * more
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  "axes, accumulation_steps",
  [({}, 4), (dict(fsdp=2, expert=2, tensor=2), 1)],
)
def test_of_any_cut(axes, accumulation_steps):
  cfg = _config()
  batch = small_run.batch(cfg, seed=0)
  gradient, loss, sums = plain.gradient_of(cfg, jax.devices()[:1], batch)
  cut = _config(**axes)
  cut = dataclasses.replace(
    cut,
    train=dataclasses.replace(cut.train, accumulation_steps=accumulation_steps),
  )
  devices = jax.devices() if axes else jax.devices()[:1]
  other, other_loss, other_sums = plain.gradient_of(cut, devices, batch)
  np.testing.assert_allclose(other_loss, loss, atol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3),
    other_sums.further,
    sums.further,
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4),
    other["mtp"],
    gradient["mtp"],
  )
  assert all(np.abs(g).max() > 1e-6 for g in jax.tree.leaves(gradient["mtp"]))


@pytest.mark.slow
def test_layers_learn_what_comes_after_the_next_token():
  cfg = _config()
  _, model, optimizer, state = plain.fresh(cfg, jax.devices()[:1])
  step = jax.jit(step_lib.create(cfg, model=model, optimizer=optimizer))
  batch = small_run.batch(cfg, seed=0)
  found = []
  for _ in range(40):
    state, values = step(state, batch)
    found.append(metrics.summarise(jax.device_get(values["sums"])))
  for name in ("loss/mtp_1", "loss/mtp_2"):
    assert found[-1][name] < 0.5 * found[0][name]
