"""MaxText in a process of its own, as its Python and packages are not ours.

For: `check_python`, and `compile_row`, which leaves a program and what is said
of it in files. Not for: reading them (`maxtext_report.py`).
"""

import json
import os
import pathlib
import subprocess

from benchmarks import maxtext_rows
from tml_jax import errors

# Runs there.
PROGRAM = pathlib.Path(__file__).parent / "outside" / "maxtext_program.py"


def check_python(value: str) -> pathlib.Path:
  """The Python of --python, which has MaxText.

  Raises:
    errors.UserError: there is none, or it has no MaxText.
  """
  fix = "name bin/python of an environment with maxtext (pip install maxtext)"
  path = pathlib.Path(value).absolute()
  if not value or not os.access(path, os.X_OK) or path.is_dir():
    raise errors.UserError(f"--python={value}: no program is there; {fix}")
  found = subprocess.run(
    [path, "-c", "import importlib.metadata as m; m.version('maxtext')"],
    cwd="/",
    capture_output=True,
    check=False,
  )
  if found.returncode:
    raise errors.UserError(f"--python={value} has no package maxtext; {fix}")
  return path


def compile_row(
  row: maxtext_rows.Row, *, python: pathlib.Path, directory: pathlib.Path
) -> None:
  """Leaves what MaxText compiled, or why it did not, in `directory`."""
  out = directory / f"{row.name}.program"
  described, program = program_files(row.name, directory=directory)
  for path in (described, program):
    path.unlink(missing_ok=True)
  environment = os.environ | {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5p-8",
    "LIBTPU_INIT_ARGS": " ".join(row.xla_flags),
  }
  environment.pop("PYTHONPATH", None)  # ours is no place for its modules
  result = subprocess.run(
    [python, PROGRAM, "compile", out, *row.arguments],
    cwd=directory,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    check=False,
  )
  (directory / f"{row.name}.log").write_text(result.stdout, encoding="utf-8")
  if not described.exists():  # it ended in the middle of something
    lines = [line for line in result.stdout.splitlines() if line.strip()]
    said = {"refusal": "\n".join(lines[-12:]), "status": result.returncode}
    described.write_text(json.dumps(said), encoding="utf-8")


def program_files(
  name: str, *, directory: pathlib.Path
) -> tuple[pathlib.Path, pathlib.Path]:
  """Where a row's program is described, and its text."""
  return (
    directory / f"{name}.program.json",
    directory / f"{name}.program.hlo.xz",
  )
