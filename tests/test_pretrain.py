"""The mixtures for pretraining, and one that is there."""

import dataclasses
import math

import numpy as np
import pytest

from experiments import pretrain
from tests.helpers import pretraining
from tml_jax import errors
from tml_jax.data import loader, mixture, scenarios
from tml_jax.data.splits import Split
from tml_jax.streams.frame import Kind


@pytest.mark.parametrize("size", pretrain.SIZES)
def test_weights_are_percent_and_every_position_may_be_a_target(size):
  config = pretrain.get_config(size)
  assert math.isclose(sum(mixture.weights(config).values()), 100)
  assert config.streams.max_targets == config.streams.seq_len
  assert config.name in (size, f"pretrain_{size}")


def test_families_have_their_share():
  config = pretrain.get_config("tml_interaction_small@v5p:8x8x8")
  found = mixture.weights(config)
  share = sum(found[name] for name in scenarios.FAMILIES)
  assert share == pytest.approx(8.5)  # as the comment says
  with pytest.raises(errors.UserError, match="no size 'huge'; write"):
    pretrain.get_config("huge")


@pytest.mark.slow
def test_a_mixture_of_every_kind_is_packed(tmp_path):
  config = pretrain.get_config("tiny_pretrain")
  config = dataclasses.replace(
    config,
    data=dataclasses.replace(
      config.data, voices=("asterisk:en", "espeak:en-us")
    ),
  )
  pretraining.write(tmp_path, config, count=40)
  batches = loader.Loader(config, data_dir=tmp_path, split=Split.TRAIN)
  names = list(mixture.weights(config))
  positions = dict.fromkeys(names, 0)
  kinds, used, count = set(), 0, 0
  for _ in range(12):
    batch = next(batches)
    targets, segments = batch.targets, batch.packed.segment_ids
    valid = targets.positions < config.streams.seq_len
    kinds |= {*targets.kinds[valid].tolist()}
    used += int((segments > 0).sum())
    count += segments.size
    for row, ids in enumerate(segments):
      for segment in range(1, ids.max() + 1):
        places = np.minimum(targets.positions[row], len(ids) - 1)
        here = valid[row] & (ids[places] == segment)
        (source,) = {*targets.sources[row][here].tolist()}
        positions[names[source]] += int((ids == segment).sum())
  batches.close()
  assert kinds == {*Kind}
  assert used / count > 0.8  # little is padding
  for name, weight in mixture.weights(config).items():
    assert positions[name] / used == pytest.approx(weight / 100, abs=0.12), name
