"""Every benchmark starts, as a module and as a file."""

import ast

import pytest

from tests.helpers import commands

NAMES = sorted(
  path.stem
  for path in (commands.ROOT / "benchmarks").glob("*.py")
  if "__main__" in path.read_text(encoding="utf-8")
)


def test_they_are_found():
  assert {"train_step", "packer", "checkpoint", "tpu"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_finds_the_checkout_before_it_imports_from_it(name):
  """Else `python benchmarks/NAME.py` finds files of benchmarks/ instead."""
  path = commands.ROOT / "benchmarks" / f"{name}.py"
  is_ready = False
  for node in ast.parse(path.read_text(encoding="utf-8")).body:
    if isinstance(node, ast.If) and "__package__" in ast.unparse(node.test):
      (statement,) = node.body
      assert "sys.path[0] = str(" in ast.unparse(statement)
      is_ready = True
    if isinstance(node, ast.ImportFrom):
      root = node.module.split(".")[0]
      assert is_ready or root not in ("benchmarks", "experiments", "tml_jax")
  assert is_ready


@pytest.mark.slow
@pytest.mark.parametrize("how", ["module", "file"])
@pytest.mark.parametrize("name", NAMES)
def test_help_names_its_flags(name, how, tmp_path):
  arguments = ["-m", f"benchmarks.{name}"]
  if how == "file":
    arguments = [str(commands.ROOT / "benchmarks" / f"{name}.py")]
  result = commands.run(
    *arguments, "--help", cwd=tmp_path if how == "file" else commands.ROOT
  )
  source = (commands.ROOT / "benchmarks" / f"{name}.py").read_text()
  assert ast.get_docstring(ast.parse(source)).splitlines()[0] in result.stdout
  assert ("flags:" in result.stdout) == ("flags.DEFINE_" in source), (
    result.stderr
  )
  assert "Error" not in result.stderr
