"""The directory of a run."""

import dataclasses
import json

import pytest

from experiments import interaction
from tml_jax import errors, workdir


def _with(config, *, section: str, **changes):
  value = dataclasses.replace(getattr(config, section), **changes)
  return dataclasses.replace(config, **{section: value})


def test_create_records_the_start_and_load_reads_it_back(tmp_path):
  config = interaction.tiny()
  path = tmp_path / "runs" / "one"
  for value in (4, 5):
    workdir.create(
      str(path), config=config, overrides={"model.num_layers": value}
    )
  assert workdir.load_config(str(path)) == config
  starts = [json.loads(line) for line in open(path / workdir.STARTS)]
  assert [start["overrides"]["model.num_layers"] for start in starts] == [
    "4",
    "5",
  ]
  for start in starts:
    assert start["versions"].keys() > {"python", "jax", "flax", "optax"}
    assert start["argv"] and start["time"]
    assert start["git"] == workdir.git_hash()
  assert sorted(item.name for item in path.iterdir()) == [
    "config.txt",
    "starts.jsonl",
  ]


def test_a_directory_that_cannot_be_written_is_refused(tmp_path):
  (tmp_path / "file").write_text("")
  for path in (tmp_path / "file", tmp_path / "file" / "run", ""):
    with pytest.raises(errors.UserError, match="--workdir"):
      workdir.create(str(path), config=interaction.tiny(), overrides={})


def test_a_run_is_resumed_by_its_own_config_only(tmp_path):
  config = interaction.tiny()
  workdir.create(str(tmp_path), config=config, overrides={})
  other = _with(config, section="model", num_layers=2)
  # Nothing is trained yet: any change is free.
  workdir.create(str(tmp_path), config=other, overrides={})
  assert workdir.load_config(str(tmp_path)) == other
  (tmp_path / workdir.CHECKPOINTS / "100").mkdir(parents=True)
  with pytest.raises(errors.UserError, match="model.num_layers: 2 -> 4"):
    workdir.create(str(tmp_path), config=config, overrides={})
  assert workdir.load_config(str(tmp_path)) == other
  longer = _with(other, section="train", steps=10_000, log_every=1)
  longer = _with(longer, section="sample", top_p=0.5)
  workdir.create(str(tmp_path), config=longer, overrides={})
  assert workdir.load_config(str(tmp_path)) == longer


def test_git_hash_names_a_commit_or_says_why_not():
  text = workdir.git_hash()
  assert text == "not a checkout" or len(text.removesuffix("-dirty")) == 40
