"""With invariant numerics, training and ticks give the same bits."""

import dataclasses

import pytest

from benchmarks import alignment
from tests.helpers import small_session
from tml_jax.config import Numerics, Position


@pytest.mark.slow
@pytest.mark.parametrize(
  "numerics, position",
  [(numerics, Position.RELATIVE_BIAS) for numerics in Numerics]
  + [(Numerics.INVARIANT, Position.TIME_ROPE)],
)
def test_pairs(numerics, position):
  cfg = small_session.config(temperature=1.0, horizon=256, sinks=8)
  cfg = dataclasses.replace(
    cfg,
    numerics=numerics,
    model=dataclasses.replace(cfg.model, position=position),
  )
  model = alignment.Model(cfg, small_session.variables(cfg))
  pairs = alignment.pairs(model, windows=16, evicting=40, crowds=((4, 2),))
  assert len(pairs) == 9
  for pair in pairs:
    assert pair.difference < 2e-5, pair
    # A segment that begins elsewhere has its keys on other places of blocks;
    # why a row of a larger batch differs in the last bit is not known yet.
    bounded = "behind another" in pair.name or "batch of 1" in pair.name
    if numerics is Numerics.INVARIANT and not bounded:
      assert pair.equal == 1.0, pair
