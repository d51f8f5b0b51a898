"""Where every parameter lies on each topology that has a row."""

import pytest

from experiments import topologies
from tests import goldens


@pytest.mark.slow
@pytest.mark.parametrize("size, topology", topologies.ROWS)
def test_the_sharding_table_is_the_expected_one(size, topology):
  # To accept a change: python -m tests.goldens
  path = goldens.sharding_path(size, topology=topology)
  got = goldens.sharding_of(size, topology=topology)
  assert got == path.read_text(encoding="utf-8")
