"""The directory of a run."""

import dataclasses
import itertools
import json

import pytest

from experiments import interaction, topologies
from tests.helpers import commands
from tml_jax import errors, workdir
from tml_jax.config import text as config_text
from tml_jax.config.data import Damaged, OnChange


def _with(config, *, section: str, **changes):
  value = dataclasses.replace(getattr(config, section), **changes)
  return dataclasses.replace(config, **{section: value})


def test_create_records_the_start_and_load_reads_it_back(tmp_path):
  config = interaction.tiny()
  path = tmp_path / "runs" / "one"
  for _ in range(2):
    workdir.create(str(path), config)
  assert workdir.load_config(str(path)) == config
  starts = [json.loads(line) for line in open(path / workdir.STARTS)]
  assert len(starts) == 2
  for start in starts:
    assert start["versions"].keys() > {"python", "jax", "flax", "optax"}
    assert start["argv"] and start["time"]
    assert start["git"] == workdir.git_hash()
  assert sorted(item.name for item in path.iterdir()) == [
    "config.txt",
    "starts.jsonl",
  ]


def test_overrides_and_argv_are_those_of_the_command(tmp_path):
  script = (
    "from tml_jax import workdir\n"
    "from tml_jax.config import flags as config_flags\n"
    "def main(config):\n"
    "  overrides = config_flags.overrides()\n"
    "  path = config_flags.WORKDIR.value\n"
    "  workdir.create(path, config, overrides=overrides)\n"
    "config_flags.run(main)\n"
  )
  flags = [
    "--config=experiments/interaction.py:tiny",
    "--config.model.num_layers=2",
    f"--workdir={tmp_path}",
  ]
  result = commands.run("-c", script, *flags)
  assert result.returncode == 0, result.stderr
  start = json.loads((tmp_path / workdir.STARTS).read_text())
  assert start["overrides"] == {"model.num_layers": "2"}
  assert start["argv"][1:] == flags
  assert workdir.load_config(str(tmp_path)).model.num_layers == 2


def test_a_directory_that_cannot_be_written_is_refused(tmp_path):
  (tmp_path / "file").write_text("")
  for path in (tmp_path / "file", tmp_path / "file" / "run", ""):
    with pytest.raises(errors.UserError, match="--workdir"):
      workdir.create(str(path), interaction.tiny())


def test_a_run_is_resumed_by_its_own_config_only(tmp_path):
  config = interaction.tiny()
  workdir.create(str(tmp_path), config)
  other = _with(config, section="model", num_layers=2)
  # Nothing is trained yet: any change is free.
  workdir.create(str(tmp_path), other)
  assert workdir.load_config(str(tmp_path)) == other
  (tmp_path / workdir.CHECKPOINTS / "100").mkdir(parents=True)
  with pytest.raises(errors.UserError, match="model.num_layers: 2 -> 4"):
    workdir.create(str(tmp_path), config)
  assert workdir.load_config(str(tmp_path)) == other
  longer = _with(other, section="train", steps=10_000, log_every=1)
  longer = _with(longer, section="sample", top_p=0.5)
  workdir.create(str(tmp_path), longer)
  assert workdir.load_config(str(tmp_path)) == longer


# A row that memory forces to learn otherwise (experiments/topologies.py).
# Rows whose slice takes another global batch: what a run from v5p is told.
LEARNS_OTHERWISE = {
  ("tml_interaction_small", "v6e:16x16"): "1024 -> 256",
  ("tml_interaction_small", "tpu7x:4x8x8"): "1024 -> 2560",
}


def test_data_may_change_where_it_is_said_how(tmp_path):
  config = interaction.tiny()
  workdir.create(str(tmp_path), config)
  (tmp_path / workdir.CHECKPOINTS / "100").mkdir(parents=True)
  skipping = _with(config, section="data", damaged=Damaged.SKIP)
  workdir.create(str(tmp_path), skipping)
  other = _with(skipping, section="data", mixture=("count:1.0",))
  with pytest.raises(errors.UserError, match="data.mixture.*on_change=go_on"):
    workdir.create(str(tmp_path), other)
  going_on = _with(other, section="data", on_change=OnChange.GO_ON)
  workdir.create(str(tmp_path), going_on)
  assert workdir.load_config(str(tmp_path)) == going_on
  # Nothing else is free by that.
  other = _with(going_on, section="data", seed=7)
  with pytest.raises(errors.UserError, match="data.seed: 0 -> 7"):
    workdir.create(str(tmp_path), other)


def test_a_run_may_move_between_topologies_of_its_size():
  placed = {}
  for size, topology in topologies.ROWS:
    if (size, topology) not in LEARNS_OTHERWISE:
      config = interaction.get_config(f"{size}@{topology}")
      placed.setdefault(size, []).append(config)
  for configs in placed.values():
    for old, new in itertools.permutations(configs, 2):
      workdir.check_resume(old, new=new, source="a run")


@pytest.mark.parametrize(("row", "change"), LEARNS_OTHERWISE.items())
def test_a_row_that_learns_otherwise_does_not_resume_the_run_of_another(
  row, change
):
  old = interaction.get_config("tml_interaction_small@v5p:8x8x8")
  new = interaction.get_config("@".join(row))
  with pytest.raises(errors.UserError, match=f"global_batch_size: {change}"):
    workdir.check_resume(old, new=new, source="a run")


def test_a_run_moves_to_a_row_of_another_batch_with_its_own():
  old = interaction.get_config("tml_interaction_small@v5p:8x8x8")
  new = interaction.get_config("tml_interaction_small@tpu7x:4x8x8")
  batch = old.train.global_batch_size
  new = _with(new, section="train", global_batch_size=batch)
  workdir.check_resume(old, new=new, source="a run")


def test_another_layout_of_parameters_is_refused():
  config = interaction.tiny()
  execution = dataclasses.replace(
    config.train.execution,
    scan_layers=not config.train.execution.scan_layers,
  )
  new = _with(config, section="train", execution=execution)
  with pytest.raises(errors.UserError, match="scan_layers: False -> True"):
    workdir.check_resume(config, new=new, source="a run")


def test_checkpoints_without_a_config_are_not_resumed(tmp_path):
  (tmp_path / workdir.CHECKPOINTS / "100").mkdir(parents=True)
  with pytest.raises(errors.UserError, match=r"no config\.txt"):
    workdir.create(str(tmp_path), interaction.tiny())
  assert not (tmp_path / config_text.FILE_NAME).exists()


def test_git_hash_names_a_commit_or_says_why_not():
  text = workdir.git_hash()
  assert text == "not a checkout" or len(text.removesuffix("-dirty")) == 40


def test_a_cut_line_of_starts_is_left_out(tmp_path, caplog):
  config = interaction.tiny()
  workdir.create(str(tmp_path), config)
  (first,) = workdir.start_ids(str(tmp_path))
  with open(tmp_path / workdir.STARTS, "a") as file:
    file.write('{"id": "abc", "ti')
  workdir.create(str(tmp_path), config)
  assert workdir.start_ids(str(tmp_path))[0] == first
  assert len(workdir.start_ids(str(tmp_path))) == 2
  assert "cut or damaged" in caplog.text
  (tmp_path / workdir.STARTS).write_text('{"id": "../x"}\n{"id": 3}\n')
  assert workdir.start_ids(str(tmp_path)) == ["", ""]


def test_another_number_of_steps_on_resume_is_said(tmp_path, caplog):
  config = interaction.tiny()
  workdir.create(str(tmp_path), config)
  (tmp_path / workdir.CHECKPOINTS / "100").mkdir(parents=True)
  workdir.create(str(tmp_path), config)
  assert "schedule" not in caplog.text
  longer = _with(config, section="train", steps=10_000)
  workdir.create(str(tmp_path), longer)
  assert f"train.steps: {config.train.steps} -> 10000 on resume" in caplog.text


def test_documents_name_commits_by_seven_digits():
  commit = "0123456789abcdef0123456789abcdef01234567"
  assert workdir.short_hash(commit) == "0123456"
  assert workdir.short_hash(f"{commit}-dirty") == "0123456-dirty"
  assert workdir.short_hash("not a checkout") == "not a checkout"
