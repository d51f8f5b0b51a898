"""docs/data.md: its commands, run one after the other as they stand there."""

import json
import re
import shlex
import shutil

import pytest

from tests.helpers import commands
from tml_jax.logs import report

DOC = commands.ROOT / "docs" / "data.md"
PROGRAMS = ("espeak-ng", "flite")


def written():
  """The commands of the document by their module, without `python -m`."""
  blocks = re.findall(r"```bash\n(.*?)```", DOC.read_text(), re.DOTALL)
  lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
  return {line[2]: line[2:] for line in lines if line[:2] == ["python", "-m"]}


def run(folder, *, timeout, **other):
  """All commands in `folder`; `other` flags by module, by their last part."""
  for program in PROGRAMS:
    if shutil.which(program) is None:
      pytest.skip(f"needs Debian's {program}")
  for module, command in written().items():
    added = other.get(module.rpartition(".")[2], [])
    done = commands.run("-m", *command, *added, cwd=folder, timeout=timeout)
    assert done.returncode == 0, f"{module}: {done.stderr[-3000:]}"


def rows(folder):
  """Metrics of the model, and of the recorded agent beside it."""
  return json.loads((folder / "evaluation.json").read_text())


@pytest.mark.slow  # compiles the train step and the tick of `tiny`
def test_the_commands_on_few_calls(tmp_path):
  assert len(written()) == 6  # the calls, and the five
  run(
    tmp_path,
    timeout=600,
    synthesised_calls=["--count=8", "--seconds=20,20"],
    train=["--config.train.steps=2"],
    evaluate=["--count=1", "--json=evaluation.json"],
  )
  assert (tmp_path / "OUT" / "data.html").is_file()
  report_of = json.loads((tmp_path / "DATA/calls/report.json").read_text())
  assert report_of["recordings"] == 8 and not report_of["skipped"]
