"""MaxText's nearest configuration, compiled for the same slices as ours.

`python -m benchmarks.maxtext --python=VENV/bin/python --dir=DIR
[--only=NAME,...] [--nocompile]` compiles each row of maxtext_rows.py with
MaxText's own ahead-of-time command, in that Python, and reads the programs
with `tml_jax/compiled`, as `python -m tml_jax.aot` reads ours. DIR keeps
NAME.json (the report, or the refusal) and NAME.program.{json,hlo.xz}; from all
of them, and of our rows (reports of `tml_jax.aot` in DIR, else the first table
of benchmarks/tpu.md), the section of that file is written. Needs no TPU. VENV
is of its own, as MaxText needs Python 3.12:

  pip install -r benchmarks/outside/maxtext_requirements.txt
  pip install --no-deps maxtext==0.2.4

Start reading at `main`, then maxtext_rows.py.
"""

import json
import pathlib
import sys

if not __package__:  # run as a file
  sys.path[0] = str(pathlib.Path(__file__).parents[1])

from absl import app, flags

from benchmarks import (
  maxtext_ours,
  maxtext_process,
  maxtext_report,
  maxtext_rows,
  maxtext_tables,
)
from tml_jax import errors

_PYTHON = flags.DEFINE_string("python", "", "The Python that has MaxText.")
_DIR = flags.DEFINE_string("dir", "", "Reports and programs.")
_ONLY = flags.DEFINE_list("only", [], "Rows to compile; empty compiles all.")
_COMPILE = flags.DEFINE_bool(
  "compile", True, "Compile, or only read the programs in --dir again."
)

_TABLES = pathlib.Path(__file__).parent / "tpu.md"


def main(argv: list[str]) -> None:
  del argv
  try:
    rows = maxtext_rows.chosen(_ONLY.value)
    if not _DIR.value:
      raise errors.UserError("--dir= is missing: name one for the reports")
    directory = pathlib.Path(_DIR.value).absolute()
    directory.mkdir(parents=True, exist_ok=True)
    python = (
      maxtext_process.check_python(_PYTHON.value) if _COMPILE.value else None
    )
    for row in rows:
      described, _ = maxtext_process.program_files(
        row.name, directory=directory
      )
      if python is not None:
        maxtext_process.compile_row(row, python=python, directory=directory)
      elif not described.exists():
        continue
      result = maxtext_report.read(row, directory=directory)
      text = json.dumps(result, indent=2) + "\n"
      (directory / f"{row.name}.json").write_text(text, encoding="utf-8")
      print("\n".join(maxtext_tables.rows_of([result])), flush=True)
    theirs = maxtext_tables.read(directory)
    if not theirs:
      raise errors.UserError(
        f"--dir={directory} has no programs: run without --nocompile first"
      )
    text = _TABLES.read_text(encoding="utf-8")
    ours = maxtext_ours.known(directory, text=text)
    section = maxtext_tables.section(ours, theirs)
    text = maxtext_tables.replaced(text, section=section)
    _TABLES.write_text(text, encoding="utf-8")
  except errors.UserError as error:
    print(error, file=sys.stderr)
    sys.exit(error.status)


if __name__ == "__main__":
  app.run(main)
