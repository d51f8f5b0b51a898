"""Weights that change, limits of epochs, and a mixture that is another one."""

import collections
import functools
import json
import shutil

import pytest

from tests.helpers import recorded, small_data
from tml_jax import errors
from tml_jax.data import mixture, shares, stages
from tml_jax.data.splits import Split

SIZES = {"a": shares.Size(100.0, 10.0), "b": shares.Size(50.0, 10.0)}
LENGTHS = {"a": 1000, "b": 100}


def plan(weights=None, begin=stages.BEGIN, **data):
  config = small_data.config(**data)
  positions = {name: SIZES[name].positions * LENGTHS[name] for name in SIZES}
  return stages.plan(
    config,
    weights=weights or {"a": 1.0, "b": 1.0},
    temper=functools.partial(
      shares.tempered,
      positions=positions,
      power=config.data.inverse_temperature,
    ),
    sizes=SIZES,
    lengths=LENGTHS,
    begin=begin,
  )


def test_one_stage_without_limits():
  (stage,) = plan()
  assert stage.draws == {"a": 0.3333, "b": 0.6667}
  assert stage.drawn_at(300) == {"a": 100, "b": 200}
  for element in (0, 1, 2, 3, 7, 1000, 10**9):
    drawn = stage.drawn_at(element)
    assert sum(drawn.values()) == element


def test_what_was_drawn_so_often_is_drawn_no_more():
  first, second = plan(max_epochs=("b:2.5",))
  assert second.first == 375
  assert second.drawn == {"a": 125, "b": 250}
  assert second.draws == {"a": 1.0}
  with pytest.raises(errors.UserError, match="leave one without a limit"):
    plan(max_epochs=("b:2", "a:1"))


def test_weights_by_step():
  """A step is a batch of full sequences."""
  config = small_data.config()
  per_step = config.train.global_batch_size * config.streams.seq_len
  first, second, third = plan(
    schedule=("100:b:0", "300:b:3"),
  )
  assert first.draws == {"a": 0.3333, "b": 0.6667}
  assert second.draws == {"a": 1.0}
  mean = 0.3333 * 100 + 0.6667 * 50
  assert second.first == pytest.approx(100 * per_step / mean, rel=0.01)
  assert (third.first - second.first) * 100 == pytest.approx(
    200 * per_step, rel=0.01
  )
  assert third.draws["b"] * 50 / (third.draws["a"] * 100) == pytest.approx(
    3, rel=0.01
  )


def test_a_scheduled_weight_is_tempered_like_that_of_the_mixture():
  # b's own weight, once more: its share of the positions stays 1 of 20.
  first, second = plan(inverse_temperature=1.0, schedule=("100:b:1",))
  for stage in (first, second):
    positions = {
      name: stage.draws[name] * SIZES[name].positions for name in "ab"
    }
    assert positions["b"] / sum(positions.values()) == pytest.approx(
      1 / 21, rel=0.02
    )


@pytest.mark.parametrize(
  ("data", "message"),
  [
    (dict(max_epochs=("c:1",)), "data.max_epochs has 'c:1', and data.mixture"),
    (dict(schedule=("5:c:1",)), "data.schedule has '5:c:1', and data.mixture"),
  ],
)
def test_names_that_are_not_in_the_mixture(data, message):
  with pytest.raises(errors.UserError, match=message):
    plan(**data)


@pytest.mark.parametrize(
  "data",
  [
    dict(max_epochs=("a",)),
    dict(max_epochs=("a:0",)),
    dict(schedule=("a:1",)),
    dict(schedule=("x:a:1",)),
    dict(schedule=("5:a:-1",)),
    dict(inverse_temperature=1.5),
    dict(stretch_seconds=0.0),
    dict(past_seconds=1000.0),
  ],
)
def test_bad_values_are_refused(data):
  with pytest.raises(errors.UserError, match=f"data.{next(iter(data))}"):
    small_data.config(**data)


def test_temperature_is_over_the_sizes_of_corpora():
  weights = {"big": 1.0, "small": 1.0, "family": 2.0}
  positions = {"big": 900.0, "small": 100.0}
  assert shares.tempered(weights, positions=positions, power=0.0) == weights
  whole = shares.tempered(weights, positions=positions, power=1.0)
  assert whole == pytest.approx({"big": 1.8, "small": 0.2, "family": 2.0})
  half = shares.tempered(weights, positions=positions, power=0.5)
  assert half["big"] / half["small"] == pytest.approx(3.0)
  assert half["big"] + half["small"] == pytest.approx(2.0)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  path = tmp_path_factory.mktemp("kinds")
  calls = [recorded.call(f"c{i}", seconds=4.0) for i in range(20)]
  lines = [recorded.line(f"l{i}", text=f"line {i}") for i in range(40)]
  more = [recorded.line(f"m{i}", text=f"more {i}") for i in range(40)]
  recorded.write(path, **{"a-calls": calls, "a-lines": lines, "a-more": more})
  return path


def test_an_entry_goes_on_in_its_order_from_stage_to_stage(root):
  """Its items are those of one epoch after the other, limits or not."""

  def ids(**data):
    config = recorded.config("a-calls:1", "a-lines:1", **data)
    mixed = mixture.open_mixture(config, data_dir=root, split=Split.TRAIN)
    return [mixed.items[i].id for i in range(600)], mixed.stages

  plain, _ = ids()
  limited, found = ids(max_epochs=("a-lines:3",))
  assert len(found) == 2
  calls = [i for i in limited if i.startswith("c")]
  more = [i for i in plain if i.startswith("c")]
  assert calls[: len(more)] == more
  epoch = {i for i in limited if i.startswith("l")}
  count = collections.Counter(i for i in limited if i.startswith("l"))
  assert {*count.values()} <= {3, 4}
  assert sum(count.values()) - 3 * len(epoch) in (0, 1)
  assert all(i.startswith("c") for i in limited[found[1].first :])


def test_a_run_goes_on_with_another_mixture(root):
  def opened(*entries, **data):
    fields = dict(group_size=8, logical_shards=2) | data
    return small_data.load(recorded.config(*entries, **fields), root)

  old = opened("a-calls:1", "a-lines:1")
  small_data.take(old, 5)
  state = json.loads(json.dumps(old.get_state()))
  old.close()
  refused = opened("a-calls:1", "a-more:1")
  with pytest.raises(errors.UserError, match=r"data\.on_change=go_on"):
    refused.set_state(state)
  refused.close()
  new = opened("a-calls:3", "a-more:1", on_change="go_on")
  new.set_state(state)
  group = max(
    p["group"] + bool(p["offset"] or p["first"])
    for p in state["shards"].values()
  )
  assert new._begin.element == group * 2 * 8
  assert {*new._begin.drawn} == {"a-calls"}
  drawn = new._begin.drawn["a-calls"]
  # The calls go on where they stood; what is new begins at its beginning.
  alone = mixture.build(
    recorded.config("a-calls:1"), data_dir=root, split=Split.TRAIN
  )
  fresh = mixture.build(
    recorded.config("a-more:1"), data_dir=root, split=Split.TRAIN
  )
  items = [new._mixture.items[new._begin.element + i].id for i in range(60)]
  calls = [i for i in items if i.startswith("c")]
  more = [i for i in items if i.startswith("m")]
  assert calls == [alone[drawn + i].id for i in range(len(calls))]
  assert more == [fresh[i].id for i in range(len(more))]
  # And so does its own state, without another word.
  small_data.take(new, 2)
  state = json.loads(json.dumps(new.get_state()))
  expected = small_data.take(new, 2)
  new.close()
  again = opened("a-calls:3", "a-more:1")
  again.set_state(state)
  for a, b in zip(small_data.take(again, 2), expected, strict=True):
    assert (a.packed.inputs.tokens == b.packed.inputs.tokens).all()
  again.close()


def test_a_corpus_that_has_grown_begins_anew(root, tmp_path):
  shutil.copytree(root, tmp_path / "data")
  config = recorded.config(
    "a-calls:1", "a-lines:1", group_size=8, logical_shards=2, on_change="go_on"
  )
  old = small_data.load(config, tmp_path / "data")
  small_data.take(old, 5)
  state = old.get_state()
  old.close()
  lines = [recorded.line(f"l{i}", text=f"line {i}") for i in range(50)]
  tokens = (tmp_path / "data/tokenizer.model").read_bytes()
  recorded.write(tmp_path / "data", **{"a-lines": lines})
  (tmp_path / "data/tokenizer.model").write_bytes(tokens)
  new = small_data.load(config, tmp_path / "data")
  new.set_state(state)
  assert {*new._begin.drawn} == {"a-calls"}
  new.close()
