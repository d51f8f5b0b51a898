"""Groups are bounded by the duration of what is in them."""

import json
import pickle

import jax
import numpy as np
import pytest

from tests.helpers import recorded, small_data
from tml_jax.data import groups


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  path = tmp_path_factory.mktemp("calls")
  items = [
    recorded.call(f"c{i}", seconds=float(seconds))
    for i, seconds in enumerate([2, 9, 3, 1, 4, 1, 5, 2, 6, 3, 5, 8])
  ]
  recorded.write(path, **{"a-calls": items})
  return path


@pytest.fixture(autouse=True)
def limit(monkeypatch):
  monkeypatch.setattr(groups, "_MAX_SECONDS", 7.0)


def opened(root, **data):
  fields = dict(group_size=4, logical_shards=2) | data
  return small_data.load(recorded.config("a-calls:1", **fields), root)


def parts_of(made, *, place, count):
  """(group, first element, seconds) of the first parts of a shard."""
  found = []
  for turn in range(count):
    group, first = made._begin(place, turn)
    following, stop = made._after(place, (group, first))
    start = made._start(place, group)
    end = stop if following == group else 4
    found.append(
      (
        group,
        first,
        [made._mixture.seconds[start + i] for i in range(first, end)],
      )
    )
  return found


def groups_of(batches):
  config = batches._config
  return groups.Groups(
    batches._mixture,
    shards=(0, 1),
    first=((0, 0), (0, 0)),
    num_shards=2,
    group_size=4,
    tokenizer_path=batches._tokenizer_path,
    config=config,
  )


def test_parts_are_short_and_leave_nothing_out(root):
  batches = opened(root)
  made = groups_of(batches)
  batches.close()
  for place in (0, 1):
    parts = parts_of(made, place=place, count=16)
    for _, _, seconds in parts:
      assert sum(seconds) <= 7 or len(seconds) == 1
    # In order, each element once.
    elements = [
      (group, first + i)
      for group, first, seconds in parts
      for i in range(len(seconds))
    ]
    assert elements == [divmod(i, 4) for i in range(len(elements))]
    # As many as fit: the next would be too much.
    for one, other in zip(parts[:-1], parts[1:], strict=True):
      if one[0] == other[0]:
        assert sum(one[2]) + other[2][0] > 7
  # Counted from anywhere, in any order, in another process.
  copy = pickle.loads(pickle.dumps(made))
  assert [copy._begin(1, t) for t in (15, 3, 9)] == [
    made._begin(1, t) for t in (15, 3, 9)
  ]


def test_a_state_in_the_middle_of_a_group_goes_on_bit_for_bit(root):
  batches = opened(root)
  reference = small_data.take(batches, 5)
  batches.close()
  firsts = set()
  for steps in (1, 3):
    batches = opened(root)
    small_data.take(batches, steps)
    state = json.loads(json.dumps(batches.get_state()))
    firsts |= {shard["first"] for shard in state["shards"].values()}
    batches.close()
    resumed = opened(root)
    resumed.set_state(state)
    again = small_data.take(resumed, 2)
    jax.tree.map(
      np.testing.assert_array_equal, again, reference[steps : steps + 2]
    )
    resumed.close()
  assert firsts - {0}


def test_short_recordings_are_packed_as_before(root, monkeypatch):
  """A group that is short enough is one part."""
  batches = opened(root)
  made = groups_of(batches)
  batches.close()
  monkeypatch.setattr(groups, "_MAX_SECONDS", 4 * 9.0)
  assert made._is_whole()
  assert [made._begin(0, t) for t in range(3)] == [(0, 0), (1, 0), (2, 0)]
