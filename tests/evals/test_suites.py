"""What is evaluated of prepared data, and what is refused."""

import dataclasses

import pytest

from tml_jax import errors
from tml_jax.data.splits import Split
from tml_jax.evals import suites
from tml_jax.streams import annotation


def suite(config, data_dir, **fields):
  arguments = dict(data_dir=str(data_dir), split=Split.HELDOUT, count=3)
  return suites.Interactivity(config, **(arguments | fields))


def mixed(config, *mixture):
  data = dataclasses.replace(config.data, mixture=mixture)
  return dataclasses.replace(config, data=data)


def test_items_of_the_mixture_or_of_families(config, data_dir):
  both = mixed(config, "reply:1.0", "draw:0.1")
  for split in (Split.HELDOUT, Split.FRESH):
    items = suite(both, data_dir, split=split).items()
    assert [(item.family, item.seed) for item in items] == [
      (family, i) for family in ("reply", "draw") for i in range(3)
    ]
    loaded = [item.load() for item in items]
    assert len({timeline.id for timeline in loaded}) == 6
    assert {timeline.id.split("/")[1] for timeline in loaded} == {str(split)}
    assert all(annotation.of(timeline) for timeline in loaded)
  named = suite(config, data_dir, families=("tool_call",), count=2)
  assert [item.family for item in named.items()] == ["tool_call"] * 2


def test_inside_training_there_are_few(config, data_dir):
  assert len(suites.quick(config, data_dir=str(data_dir)).items()) == 16
  many = mixed(config, "reply:1", "draw:1", "tool_call:1")
  assert len(suites.quick(many, data_dir=str(data_dir)).items()) == 15


def test_what_is_refused(config, data_dir):
  with pytest.raises(errors.UserError, match="--families=repply: .*'reply'"):
    suite(config, data_dir, families=("repply",))
  with pytest.raises(errors.UserError, match="--suite=fdp: no such suite"):
    suites.check_name("fdp")
  suites.check_name("interactivity")
  plain = suite(mixed(config, "procedural-low:1.0"), data_dir)
  with pytest.raises(errors.UserError, match="no item of procedural-low says"):
    suites.check_annotations(plain.items())
  both = suite(mixed(config, "procedural-low:1", "reply:1"), data_dir)
  suites.check_annotations(both.items())
