"""Layout changes against plain numpy, whole and by parts."""

import itertools

import numpy as np
import pytest

from tml_jax.interop.inkling import dims

SIZES = dict(n=3, h=4, d=5, f=6, g=2, e=2, k=4, i=1)
# The line, and the same change spelled out.
CHANGES = {
  "d -> d": lambda x: x,
  "f d -> d f": lambda x: x.T,
  "(n h) d -> d n h": lambda x: x.T.reshape(5, 3, 4),
  "d (n h) -> n h d": lambda x: x.T.reshape(3, 4, 5),
  "(f g=0) d -> d f": lambda x: x[0::2].T,
  "(f g=1) d -> d f": lambda x: x[1::2].T,
  "e (g=1 f) d -> e d f": lambda x: x[:, 6:].transpose(0, 2, 1),
  "e (f g=1) d -> e d f": lambda x: x[:, 1::2].transpose(0, 2, 1),
  "(n h) i=0 ~k -> k n h": lambda x: x[:, 0, ::-1].T.reshape(4, 3, 4),
  "e d f -> f e d": lambda x: x.transpose(2, 0, 1),
}


def foreign(change):
  count = np.prod(change.foreign_shape)
  return np.arange(count, dtype=np.float32).reshape(change.foreign_shape)


@pytest.mark.parametrize("line", CHANGES)
def test_view_is_the_change_and_no_copy(line):
  change = dims.parse(line, sizes=SIZES)
  array = foreign(change)
  view = change.view(array)
  np.testing.assert_array_equal(view, CHANGES[line](array))
  assert view.shape == change.shape
  assert np.shares_memory(view, array)


@pytest.mark.parametrize("line", CHANGES)
def test_every_part_is_found_in_the_box_that_narrow_gives(line):
  change = dims.parse(line, sizes=SIZES)
  array = foreign(change)
  whole = change.view(array)
  ranges = [itertools.combinations(range(n + 1), 2) for n in change.shape]
  read, needed = 0, 0
  for box in itertools.product(*ranges):
    outer, part, chosen = change.narrow(box)
    data = np.ascontiguousarray(array[dims.slices(outer)])
    found = part.view(data)[dims.slices(chosen)]
    np.testing.assert_array_equal(found, whole[dims.slices(box)])
    read, needed = read + data.size, needed + found.size
  # Interleaved gate and up: half of what is read; a cut head: all heads.
  assert read <= 3 * needed


def test_a_line_with_unequal_sides_is_refused():
  with pytest.raises(ValueError, match="differ"):
    dims.parse("f d -> d", sizes=SIZES)
