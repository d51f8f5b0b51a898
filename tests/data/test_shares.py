"""Weights of a mixture are shares of positions."""

import collections
import logging

import pytest

from tests.helpers import recorded, small_data
from tml_jax.data import loader, mixture, shares
from tml_jax.data.splits import Split
from tml_jax.streams import framing, tokenizer

ENTRIES = ("a-calls:1", "a-pairs:1", "a-lines:1")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  path = tmp_path_factory.mktemp("kinds")
  recorded.write(
    path,
    **{
      "a-calls": [
        recorded.call(f"c{i}", seconds=20.0 + 20 * (i % 3)) for i in range(9)
      ],
      "a-pairs": [recorded.call(f"p{i}", seconds=3.0) for i in range(30)],
      "a-lines": [
        recorded.line(f"l{i}", text="a line of text " * (1 + i % 3))
        for i in range(30)
      ],
    },
  )
  return path


def drawn(config, root, *, count):
  """Positions by entry of so many elements."""
  mixed = mixture.open_mixture(config, data_dir=root, split=Split.TRAIN)
  pieces = tokenizer.load(tokenizer.path(root), config=config.streams)
  found, known = collections.Counter(), {}
  for i in range(count):
    item = mixed.items[i]
    kind = {"c": "a-calls", "p": "a-pairs", "l": "a-lines"}[item.id[0]]
    assert mixed.names[i] == kind
    assert mixed.seconds[i] == item.duration
    if item.id not in known:
      known[item.id] = framing.count_positions(
        item, config=config.streams, tokenizer=pieces
      )
    found[kind] += known[item.id]
  return {kind: n / found.total() for kind, n in found.items()}


@pytest.mark.slow
def test_kinds_of_any_length_have_a_third_each(root, caplog):
  caplog.set_level(logging.INFO)
  config = recorded.config(*ENTRIES)
  third = drawn(config, root, count=400)
  assert third == pytest.approx(dict.fromkeys(third, 1 / 3), abs=0.03)
  assert len(third) == 3
  assert "a-lines is 33.3 % of the positions" in caplog.text
  twice = recorded.config("a-calls:2", "a-pairs:1", "a-lines:1")
  half = drawn(twice, root, count=300)
  assert half["a-calls"] == pytest.approx(0.5, abs=0.05)


def test_the_log_says_what_was_drawn(root, caplog):
  caplog.set_level(logging.INFO)
  batches = loader.Loader(
    recorded.config(*ENTRIES, group_size=40), data_dir=root, split=Split.TRAIN
  )
  small_data.take(batches, 2)
  identity = batches.identity
  batches.close()
  lines = [r.message for r in caplog.records if "drawn of the" in r.message]
  assert lines and all(name.rpartition(":")[0] in lines[0] for name in ENTRIES)
  (stage,) = identity["stages"]
  assert [*stage["draws"]] == ["a-calls", "a-pairs", "a-lines"]
  assert stage["draws"]["a-lines"] > 5 * stage["draws"]["a-calls"]
  other = loader.Loader(
    recorded.config("a-calls:1", "a-pairs:1"), data_dir=root, split=Split.TRAIN
  )
  assert other.identity["stages"] != identity["stages"]
  other.close()


def test_long_recordings_are_counted(root, caplog):
  """And it is said with how much of its past a piece begins."""
  caplog.set_level(logging.INFO)
  config = recorded.config("a-calls:1", past_seconds=2.0)
  mixture.open_mixture(config, data_dir=root, split=Split.TRAIN)
  (line,) = [r.message for r in caplog.records if "than a seq" in r.message]
  assert line.startswith("a-calls: 6 of 9 elements are longer")
  assert "begins with the 2.0 s before it" in line
  caplog.clear()
  mixture.open_mixture(
    recorded.config("a-pairs:1"), data_dir=root, split=Split.TRAIN
  )
  assert "than a sequence" not in caplog.text


def test_samples_are_all_over():
  assert shares.sample(3) == [0, 1, 2]
  found = shares.sample(1000)
  assert len(found) == 16 and found[0] == 31 and found[-1] == 968
