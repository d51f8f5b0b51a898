"""A run in 8 bits learns as the one in bfloat16 does."""

import dataclasses

import numpy as np
import pytest

from experiments import interaction as sizes
from tests import golden_runs
from tml_jax.config import Dtype, Precision

_STEPS = 300
_RULE = "trunk/.*"  # all that can be


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  return golden_runs.prepared(str(tmp_path_factory.mktemp("prepared")))


def _curve(data_dir, rules=()) -> np.ndarray:
  """Mean losses of 50 steps each."""
  config = sizes.get_config("tiny_procedural")
  train = dataclasses.replace(
    config.train, dtype=Dtype.BFLOAT16, low_precision=rules
  )
  config = dataclasses.replace(config, train=train)
  run = golden_runs.trained(config, data_dir=data_dir, steps=_STEPS)
  losses = np.array([loss for loss, _ in run])
  return losses.reshape(-1, 50).mean(axis=1)


@pytest.fixture(scope="module")
def bfloat16(data_dir):
  return _curve(data_dir)


@pytest.mark.slow
@pytest.mark.parametrize("precision", Precision)
def test_losses_of_300_steps(precision, bfloat16, data_dir):
  got = _curve(data_dir, (f"{_RULE}={precision}",))
  print(precision, got, bfloat16, got / bfloat16)
  assert bfloat16[-1] < 0.5 * bfloat16[0]  # it learns
  np.testing.assert_allclose(got, bfloat16, rtol=0.03)
