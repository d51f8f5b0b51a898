"""Queries in parts that see the keys up to their end: the dense form."""

import pytest

from tests.models import test_attention as plain
from tml_jax.models import attention


@pytest.mark.parametrize(
  "length, extent",
  # Three parts, the last one shorter; profiles longer than the first part.
  [(150, 80), (130, 130)],
)
def test_parts_equal_the_dense_form(length, extent):
  arrays, segments = plain.draw(length, length=length, extent=extent)
  plain.check(attention.full, arrays=arrays, segments=segments, window=length)
