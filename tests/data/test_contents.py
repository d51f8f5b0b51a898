"""What packed sequences hold, by entry."""

import numpy as np
import pytest

from tests.helpers import recorded
from tml_jax.data import contents


def test_each_entry_has_its_part(tmp_path):
  recorded.write(
    tmp_path,
    **{
      "a-calls": [recorded.call(f"c{i}", seconds=6.0) for i in range(20)],
      "a-texts": [recorded.article(f"t{i}", words=30) for i in range(20)],
    },
  )
  config = recorded.config("a-calls:3", "a-texts:1", group_size=40)
  found = contents.measure(config, data_dir=tmp_path, count=3)
  assert found.entries == ("a-calls", "a-texts")
  positions, sound, patches, speech, targets = found.used.T
  assert positions[0] / positions.sum() == pytest.approx(0.75, abs=0.06)
  # Every token of a document but one is a target; it has nothing else.
  assert targets[1] > 0.9 * positions[1]
  assert sound[1] == patches[1] == speech[1] == 0 and sound[0] > 0
  assert (found.used.sum(0) <= found.limits).all()
  streams = config.streams
  assert found.limits[0] == streams.seq_len * found.sequences
  lines = found.text().split("\n")
  assert lines[2].startswith("a-calls") and "padding" in lines[-1]
  percent = np.array([line.split()[1:] for line in lines[2:4]], float)
  assert percent[:, 0].sum() == pytest.approx(100, abs=0.2)
