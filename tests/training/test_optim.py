"""Learning rates: those in the metrics are those of the updates."""

import dataclasses

import jax.numpy as jnp
import pytest

from experiments import interaction
from tml_jax.config import Optimizer, Schedule
from tml_jax.training import optim

STEPS = 12


@pytest.mark.parametrize("schedule", list(Schedule))
def test_rates_are_those_of_the_updates(schedule):
  config = dataclasses.replace(
    interaction.tiny().train.optim,
    name=Optimizer.ADAMW,
    schedule=schedule,
    learning_rate=0.25,
    warmup_steps=4,
    weight_decay=0.0,
    clip_norm=1e9,
  )
  optimizer = optim.create(config, steps=STEPS)
  params = {"x": jnp.zeros(3)}
  state = optimizer.init(params)
  for step in range(1, STEPS + 1):
    # Adam's steps along a gradient that does not change are of the rate's size.
    update, state = optimizer.update({"x": jnp.ones(3)}, state, params)
    rates = optim.rates(config, step=step, steps=STEPS)
    assert list(rates) == ["learning_rate"]
    assert rates["learning_rate"] == pytest.approx(
      -float(update["x"][0]), rel=1e-4, abs=1e-9
    )


def test_muon_has_a_rate_of_its_own():
  config = dataclasses.replace(
    interaction.tiny().train.optim,
    name=Optimizer.MUON,
    schedule=Schedule.CONSTANT,
    learning_rate=0.5,
    muon_learning_rate=0.25,
    warmup_steps=2,
  )
  rates = [optim.rates(config, step=step, steps=9) for step in (1, 2, 3)]
  assert [r["learning_rate"] for r in rates] == [0, 0.25, 0.5]
  assert [r["learning_rate/muon"] for r in rates] == [0, 0.125, 0.25]
