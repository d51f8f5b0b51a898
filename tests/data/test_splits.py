"""Splits by hash: what each has, and that none shares anything."""

import dataclasses

import numpy as np
import pytest

from tests.helpers import small_data
from tml_jax import errors
from tml_jax.data import loader, splits
from tml_jax.data.scenarios import instructed
from tml_jax.data.splits import Split
from tml_jax.evals import suites

NAMES = [f"prompt/{i}" for i in range(5000)]
SHARES = dict(share=0.1, dev=0.05)


def _of(split, **shares):
  return {n for n in NAMES if splits.contains(split, n, **shares)}


def test_dev_is_taken_from_training_and_nothing_else_moves():
  before = {split: _of(split, share=0.1) for split in Split}
  after = {split: _of(split, **SHARES) for split in Split}
  assert after[Split.HELDOUT] == before[Split.HELDOUT]
  assert not before[Split.DEV]
  assert after[Split.DEV] | after[Split.TRAIN] == before[Split.TRAIN]
  assert not after[Split.DEV] & after[Split.TRAIN]
  assert after[Split.FRESH] == after[Split.TRAIN]
  # 5 % of 5,000 are 250, within four standard deviations of 15.4.
  assert len(after[Split.DEV]) == pytest.approx(250, abs=62)
  assert before[Split.TRAIN] == {
    n for n in NAMES if not splits.is_heldout(n, share=0.1)
  }


@pytest.mark.parametrize("split", list(Split))
def test_many_at_once_are_the_same(split):
  hashes = np.array([splits.hash_of(n) for n in NAMES], np.uint64)
  for shares in (SHARES, dict(share=0.1), dict(share=0.3, dev=0.6)):
    wanted = _of(split, **shares)
    found = splits.members(split, hashes, **shares)
    assert {NAMES[i] for i in found} == wanted


def test_every_split_has_random_numbers_of_its_own():
  drawn = {
    splits.generator(family="reply", split=split, seed=0, index=0).random()
    for split in Split
  }
  assert len(drawn) == len(Split)


def _config(**data):
  return small_data.config(
    mixture=("reply:1.0", "elapsed:1.0", "backchannel:1.0"), **data
  )


def test_no_question_of_dev_is_trained_on_or_held_out(data_dir):
  config = _config(dev_share=0.2)
  asked = {}
  for split in (Split.TRAIN, Split.DEV, Split.HELDOUT):
    suite = suites.Interactivity(
      config, data_dir=str(data_dir), split=split, count=12
    )
    asked[split] = {
      question
      for item in suite.items()
      for question in item.load().metadata["asked"]
    }
    assert asked[split]
    for question in asked[split]:
      assert splits.contains(split, question, share=0.1, dev=0.2)
      assert split != Split.DEV or question not in instructed.WORDS
  assert not asked[Split.DEV] & (asked[Split.TRAIN] | asked[Split.HELDOUT])


def test_without_a_share_there_is_no_dev(data_dir):
  config = _config()
  assert config.data.dev_share == 0
  with pytest.raises(errors.UserError, match=r"dev: data.dev_share = 0.*train"):
    suites.Interactivity(
      config, data_dir=str(data_dir), split=Split.DEV, count=1
    ).items()
  with pytest.raises(errors.UserError, match="data.dev_share = 0.95"):
    _config(dev_share=0.95)


def test_choices_inside_training_are_made_on_dev(data_dir):
  for share, split in ((0.0, "heldout"), (0.2, "dev")):
    (item, *_) = suites.quick(
      _config(dev_share=share), data_dir=str(data_dir)
    ).items()
    assert item.load().id.split("/")[1] == split


def test_a_run_does_not_go_on_with_another_dev(data_dir):
  config = small_data.config()
  position = loader.Loader(
    config, data_dir=data_dir, split=Split.TRAIN
  ).get_state()
  same = loader.Loader(config, data_dir=data_dir, split=Split.TRAIN)
  same.set_state(position)
  data = dataclasses.replace(config.data, dev_share=0.05)
  other = loader.Loader(
    dataclasses.replace(config, data=data), data_dir=data_dir, split=Split.TRAIN
  )
  with pytest.raises(errors.UserError, match="dev_share"):
    other.set_state(position)
