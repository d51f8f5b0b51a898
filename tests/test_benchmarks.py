"""Every benchmark starts: `python -m benchmarks.NAME --help`."""

import pytest

from tests.helpers import commands

NAMES = sorted(
  path.stem
  for path in (commands.ROOT / "benchmarks").glob("*.py")
  if "app.run(main)" in path.read_text(encoding="utf-8")
)


def test_they_are_found():
  assert {"train_step", "packer", "checkpoint", "tpu"} <= set(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_help_names_its_flags(name):
  result = commands.run("-m", f"benchmarks.{name}", "--help")
  assert "flags:" in result.stdout, result.stderr
  assert "Error" not in result.stderr
