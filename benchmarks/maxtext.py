"""MaxText's nearest configuration, compiled for the same slices as ours.

`python -m benchmarks.maxtext --python=VENV/bin/python --dir=DIR
[--only=NAME,...] [--nocompile]` compiles each row of maxtext_rows.py with
MaxText's own ahead-of-time command, in that Python, and reads the programs
with `tml_jax/compiled`, as `python -m tml_jax.aot` reads ours. DIR keeps
NAME.json (the report, or the refusal) and NAME.program.{json,hlo.xz}. With
reports of `benchmarks.tpu` in DIR, the section of benchmarks/tpu.md is written
anew. Needs no TPU. VENV is of its own, as MaxText needs Python 3.12:

  pip install jax==0.10.2 libtpu==0.0.42.1 'flax>=0.12.8,<0.12.9'
  pip install maxtext[tpu]==0.2.4

(0.2.5 asks for jax 0.11.1.) Start reading at `compile_row`.
"""

import json
import pathlib
import sys

if not __package__:  # run as a file
  sys.path[0] = str(pathlib.Path(__file__).parents[1])

from absl import app, flags

from benchmarks import (
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
      if python is not None:
        maxtext_process.compile_row(row, python=python, directory=directory)
      elif not maxtext_process.program_files(row.name, directory=directory)[
        0
      ].exists():
        continue
      result = maxtext_report.read(row, directory=directory)
      text = json.dumps(result, indent=2) + "\n"
      (directory / f"{row.name}.json").write_text(text, encoding="utf-8")
      print("\n".join(maxtext_tables.rows_of([result])), flush=True)
  except errors.UserError as error:
    print(error, file=sys.stderr)
    sys.exit(error.status)


if __name__ == "__main__":
  app.run(main)
