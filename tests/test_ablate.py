"""The command of ablations: what it plans, keeps, refuses and makes."""

import json
import shlex
import sys

import pytest

from experiments import ablations, interaction, scaling
from tests.helpers import commands
from tml_jax import ablate as ablate_lib
from tml_jax import errors
from tml_jax.config import text as config_text
from tml_jax.evals import ablation, archive

BASICS = ("-m", "tml_jax.ablate", "--data_dir=nowhere")


def ablate(*flags, timeout=120.0):
  return commands.run(*BASICS, *flags, timeout=timeout)


def write_result(out, row, seed, *, step=2400, split="dev", **source):
  """What an evaluation without other flags leaves; returns its JSON file."""
  path = out / row / f"seed_{seed}" / "evaluation.json"
  path.parent.mkdir(parents=True)
  model = {"responded": dict(value=0.5 + seed / 4)}
  source = dict(step=step, git="abc", config=f"interactive_{row}") | source
  source |= dict(split=split, count=64, users="reacting")
  command = f"python -m tml_jax.evaluate --config=x --split={split}"
  head = archive.Head(source, command=command, config="", seeds={})
  archive.write(path.with_suffix(".xz"), head=head, parts={})
  numbers = source | dict(
    metrics={"all": {"model": model}}, content={"all": {"mel_db": None}}
  )
  path.write_text(json.dumps(numbers))
  return path


@pytest.mark.parametrize("module", [ablations, scaling])
def test_every_row_is_the_base_and_its_flags(module):
  base = module.base()
  names = set()
  for name, row in module.ROWS.items():
    config = module.get_config(name)
    changed = config_text.diff(base, new=config)
    assert changed.pop("name")
    assert changed.keys() <= row.changes.keys()
    assert row.run == "" or row.run in module.ROWS
    names.add(config.name)
  assert len(names) == len(module.ROWS)
  with pytest.raises(errors.UserError, match="the nearest is"):
    module.get_config("no_clok")


@pytest.mark.parametrize("name", ["time_rope_no_clock", "no_say_text", "dense"])
def test_flags_of_a_row_make_it(name):
  changes = ablations.ROWS[name].changes
  result = commands.run(
    "-m",
    "tml_jax.inspect",
    f"--config=experiments/interaction.py:{ablations.BASE}",
    *(config_text.as_flag(path, value) for path, value in changes.items()),
    "--flat",
  )
  made = config_text.from_text(result.stdout, source="inspect --flat")
  assert set(config_text.diff(made, new=ablations.get_config(name))) == {"name"}


@pytest.mark.slow
def test_a_dense_row_has_as_many_parameters_active():
  from tml_jax import inspect

  active = {
    name: inspect.parameter_rows(ablations.get_config(name))[-1].active
    for name in ("base", "dense", "experts_32")
  }
  for name in ("dense", "experts_32"):  # the router apart
    assert abs(active[name] / active["base"] - 1) < 0.005, active


@pytest.mark.slow
def test_sizes_grow_on_equal_data():
  from tml_jax import inspect

  active, steps = [], set()
  for name in scaling.ROWS:
    config = scaling.get_config(name)
    active.append(inspect.parameter_rows(config)[-1].active)
    assert f"{active[-1] / 1e6:.1f}m" == name.removeprefix("active_")
    base = interaction.get_config(scaling.BASE)
    assert (config.streams, config.data) == (base.streams, base.data)
    steps.add((config.train.steps, config.train.global_batch_size))
  assert active == sorted(active) and len(steps) == 1


def test_the_readme_has_the_rows():
  readme = commands.ROOT / "experiments" / "README.md"
  table = ablation.overview(ablations.ROWS, as_flag=config_text.as_flag)
  assert table in readme.read_text(encoding="utf-8"), table


def test_one_command_a_run_and_seed(tmp_path):
  result = ablate(
    "--rows=flow_1,no_clock,base",
    "--seeds=2",
    "--steps=30",
    f"--out={tmp_path}/out",
    "--print_commands",
    "--evaluate_flag=--count=8",
    "--config.train.log_every=5",
    "--tokenizer=t.model",
  )
  assert result.returncode == 0, result.stderr
  lines = result.stdout.splitlines()
  assert len(lines) == 4 and not (tmp_path / "out").exists()
  train, evaluate, sampled = lines[0].split(" && ")
  assert shlex.split(train)[2:] == [
    "tml_jax.train",
    "--config=experiments/ablations.py:base",
    f"--workdir={tmp_path}/out/base/seed_0",
    "--data_dir=nowhere",
    "--tokenizer=t.model",
    "--config.train.log_every=5",
    "--config.train.steps=30",
    "--config.train.seed=0",
  ]
  assert shlex.split(evaluate)[2:] == [
    "tml_jax.evaluate",
    f"--workdir={tmp_path}/out/base/seed_0",
    "--data_dir=nowhere",
    "--tokenizer=t.model",
    f"--json={tmp_path}/out/base/seed_0/evaluation.json",
    "--split=dev",
    "--count=8",
  ]
  assert f"--json={tmp_path}/out/flow_1/seed_0/evaluation.json" in sampled
  assert "--config.model.flow.steps=1" in sampled
  assert "ablations.py:no_clock" in lines[3] and "seed=1" in lines[3]


@pytest.mark.parametrize(
  "flags, message",
  [
    (["--rows=no_clok"], "no row 'no_clok'; the nearest is no_clock"),
    ([], "--rows is missing: all, or some of base, turns"),
    (
      ["--rows=no_clock", "--config.model.clock_features=8"],
      "--config.model.clock_features is what the row no_clock changes",
    ),
    (
      ["--rows=all", "--config=experiments/interaction.py:tiny"],
      "experiments/interaction.py has no ROWS",
    ),
    (["--rows=base", "--seeds=0"], "--seeds"),
    (["--rows=base", "--config.train.seed=1"], "set by --seeds"),
    (
      ["--rows=base", "--metrics=respond"],
      "--metrics: there is no 'respond'; the nearest is responded",
    ),
  ],
)
def test_bad_input_is_one_line(tmp_path, flags, message):
  result = ablate(f"--out={tmp_path}", *flags)
  assert result.returncode == 2
  (line,) = result.stderr.strip().splitlines()
  assert message in line


def test_what_is_there_is_kept_and_tabulated(tmp_path):
  for row in ("base", "silence_1"):
    for seed in (0, 1):
      write_result(tmp_path, row, seed)
  # A run that `train` refuses, before it starts jax.
  (tmp_path / "no_clock" / "seed_0" / "checkpoints" / "5").mkdir(parents=True)
  flags = (
    "--rows=base,silence_1",
    "--seeds=2",
    f"--out={tmp_path}",
    "--metrics=responded,mel_db",
  )
  result = ablate(*flags)
  assert result.returncode == 0, result.stderr
  row = (
    "| `silence_1` | how much does a decision to stay silent weigh? (base:"
    " 0.3) | 2 | 62.5 ± 17.7 | - |"
  )
  assert row in result.stdout
  assert row in (tmp_path / "table.md").read_text()
  users = "Split: dev. Conversations of a family: 64. Users: reacting."
  assert users in result.stdout
  assert "silence_1" in (tmp_path / "table.csv").read_text()
  assert (tmp_path / "table.png").read_bytes()[1:4] == b"PNG"

  rows = "--rows=base,no_clock,silence_1"
  result = ablate("--norun", rows, "--seeds=2", *flags[2:])
  assert result.returncode == 0, result.stderr
  assert row in result.stdout and "told the time? | 0 |" in result.stdout

  result = ablate(rows, "--seeds=1", *flags[2:])
  assert result.returncode == 1
  assert "failed:\nno_clock seed 0: exit status 2: error:" in result.stderr
  assert "no tokenizer" in result.stderr
  assert (
    "| `silence_1` |" in result.stdout and "| `no_clock` |" in result.stdout
  )


def test_what_another_command_made_is_made_again(tmp_path):
  config = ablations.get_config("base")
  path = write_result(tmp_path, "base", 0, step=config.train.steps)
  job = ablate_lib.Job("base", 0, config, [], {}, path.parent)
  of = [sys.executable, "-m", "tml_jax.evaluate", f"--workdir={tmp_path}"]
  of += ["--data_dir=elsewhere", f"--json={path}", "--split=dev"]

  def is_kept(*flags):
    return ablate_lib._is_evaluated(job, [*of, *flags])

  assert is_kept() and is_kept("--split=heldout", "--split=dev")
  for flag in (
    *("--count=16", "--users=scripted", "--conditions=all", "--agent=turns"),
    *("--endpoint=0.3", "--config.sample.onset_bias=1.0"),
  ):
    assert not is_kept(flag), flag


def test_a_result_without_its_archive_is_made_again(tmp_path):
  """As an evaluation that was killed has left it."""
  config = ablations.get_config("base")
  steps = config.train.steps
  path = write_result(tmp_path, "base", 0, step=steps)
  other = write_result(tmp_path, "other", 0, step=steps, git="older")
  job = ablate_lib.Job("base", 0, config, [], {}, path.parent)
  command = [f"--json={path}", "--split=dev"]
  assert ablate_lib._is_evaluated(job, command)
  packed = path.with_suffix(".xz")
  whole = packed.read_bytes()
  for content in (other.with_suffix(".xz").read_bytes(), whole[:40], b""):
    packed.write_bytes(content)
    assert not ablate_lib._is_evaluated(job, command)
  packed.unlink()
  assert not ablate_lib._is_evaluated(job, command)


@pytest.mark.slow
def test_a_result_of_another_split_is_made_again(tmp_path):
  write_result(tmp_path, "no_clock", 0, split="heldout")
  (tmp_path / "no_clock" / "seed_0" / "checkpoints" / "5").mkdir(parents=True)
  flags = ("--rows=no_clock", "--seeds=1", f"--out={tmp_path}")
  result = ablate("--evaluate_flag=--split=heldout", *flags)
  assert result.returncode == 0, result.stderr
  assert "Split: heldout." in result.stdout
  result = ablate(*flags)  # dev, for choosing
  assert result.returncode == 1 and "no tokenizer" in result.stderr
