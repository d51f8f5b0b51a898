"""docs/data.md: its commands, run one after the other as they stand there."""

import json
import re
import shlex
import shutil

import pytest

from tests.helpers import commands

DOC = commands.ROOT / "docs" / "data.md"


def written():
  """The commands of the document by their module, without `python -m`."""
  blocks = re.findall(r"```bash\n(.*?)```", DOC.read_text(), re.DOTALL)
  lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
  return {line[2]: line[2:] for line in lines if line[:2] == ["python", "-m"]}


def run(folder, **added):
  """All commands in `folder`; `added` flags by the last part of a module."""
  for program in ("espeak-ng", "flite"):
    if shutil.which(program) is None:
      pytest.skip(f"needs Debian's {program}")
  for module, command in written().items():
    more = added.get(module.rpartition(".")[2], ())
    done = commands.run("-m", *command, *more, cwd=folder, timeout=3600)
    assert done.returncode == 0, f"{module}: {done.stderr[-3000:]}"


@pytest.mark.slow  # compiles the train step and the tick of `tiny`
def test_few_calls(tmp_path):
  assert len(written()) == 6  # the calls, and the five
  run(
    tmp_path,
    synthesised_calls=["--count=8", "--seconds=20,20"],
    train=["--config.train.steps=2"],
    evaluate=["--count=1"],
  )
  report = json.loads((tmp_path / "DATA/calls/report.json").read_text())
  assert report["recordings"] == 8 and not report["skipped"]
  assert (tmp_path / "OUT/data.html").stat().st_size > 10_000


@pytest.mark.slow  # half an hour: 200 calls, 300 steps
def test_two_hundred_calls(tmp_path):
  run(tmp_path)
  report = json.loads((tmp_path / "DATA/calls/report.json").read_text())
  assert report["recordings"] == 200 and not report["skipped"]
  lines = (tmp_path / "RUN/metrics.jsonl").read_text().splitlines()
  losses = [row["loss"] for row in map(json.loads, lines) if "loss" in row]
  assert losses[-1] < 0.5 * losses[0]
  found = json.loads((tmp_path / "RUN/evaluation.json").read_text())
  calls = found["metrics"]["calls"]
  for agent in ("model", "recorded"):
    for name in ("took_floor", "floor_transfer_p50", "floor_transfer_js"):
      assert calls[agent][name]["events"] > 0, (agent, name)
  # The recorded agent is as far from itself as can be: not at all.
  assert calls["recorded"]["floor_transfer_js"]["value"] == 0
  assert calls["recorded"]["took_floor"]["value"] == 1
