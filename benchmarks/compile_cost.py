"""What a program costs its compiler, by part of the model.

`python -m benchmarks.compile_cost --kept=DIR --config=... --topology=...` runs
`python -m tml_jax.aot` with the same flags, has libtpu log what it does, keeps
log and program in DIR and prints a table in Markdown; --again=false only
reads them again. libtpu makes low-level (LLO) instructions of each fusion: time
and memory go with their number, which is the same on every machine. Start
reading at `main`.
"""

import collections
import os
import pathlib
import re
import subprocess
import sys

if not __package__:  # run as a file
  sys.path[0] = str(pathlib.Path(__file__).parents[1])

from absl import app, flags

from tml_jax.compiled import hlo, scopes

_KEPT = flags.DEFINE_string("kept", "", "Directory of log and program.")
_AGAIN = flags.DEFINE_bool("again", True, "Compile, or only read DIR.")

_ROOT = pathlib.Path(__file__).parent.parent
_LOGGED = {
  "TPU_STDERR_LOG_LEVEL": "0",
  "TPU_MIN_LOG_LEVEL": "0",
  "TPU_VMODULE": "deepsea_compiler_backend=2",
}
_FUSION = re.compile(r"\[(\S+)\] LLO optimizing ([\d,]+) instructions")
_STAGE = re.compile(r"\] (\w+) stage duration: (\S+?)\.?\s*$", re.MULTILINE)
# In the names of scopes, and no part of the model.
_AROUND = re.compile(
  r"^(?:trunk|blocks|layers?_[\d*_]+|feed_forward|while|body|vmap.*)$"
)
_LISTED = 20
_MAIN = "<no-hlo-instruction>"  # starts and awaits the others


def parts(log: str, *, program: hlo.Module) -> list[tuple[str, int, int]]:
  """Part, fusions, their LLO instructions; the most instructions first.

  A fusion that is compiled again, as its first form took too much VMEM, counts
  again.
  """
  named = {
    item.name: item.op_name
    for computation in program.computations.values()
    for item in computation.instructions
  }
  fusions, instructions = collections.Counter(), collections.Counter()
  for name, count in _FUSION.findall(log):
    part = "main program" if name == _MAIN else _part(named.get(name, ""))
    fusions[part] += 1
    instructions[part] += int(count.replace(",", ""))
  return [(p, fusions[p], n) for p, n in instructions.most_common()]


def _part(op_name: str) -> str:
  names = scopes.Scope.of(op_name).path.split("/") if op_name else []
  names = [name for name in names if not _AROUND.match(name)]
  return "/".join(names[:2]) or "made by the compiler"


def main(argv: list[str]) -> None:
  if not _KEPT.value:
    sys.exit("--kept is missing: name a directory for the log and the program")
  directory = pathlib.Path(_KEPT.value)
  directory.mkdir(parents=True, exist_ok=True)
  log, program = directory / "compile.log", directory / "program.hlo"
  if _AGAIN.value:
    command = [sys.executable, "-m", "tml_jax.aot", *argv[1:]]
    with open(log, "w", encoding="utf-8") as file:
      status = subprocess.run(
        [*command, f"--hlo={program}"],
        cwd=_ROOT,
        env=os.environ | _LOGGED,
        stderr=file,
        check=False,
      ).returncode
    if status:
      sys.exit(f"{' '.join(command)} exits {status}: see {log}")
  text = log.read_text(encoding="utf-8", errors="replace")
  module = hlo.parse(program.read_text(encoding="utf-8"))
  rows = parts(text, program=module)
  total = sum(count for *_, count in rows)
  print("Stages: " + ", ".join(f"{a} {b}" for a, b in _STAGE.findall(text)))
  print(f"\n{total:,} LLO instructions\n")
  print("| part | fusions | LLO instructions | share |\n|---|--:|--:|--:|")
  for part, fusions, count in rows[:_LISTED]:
    print(f"| {part} | {fusions:,} | {count:,} | {count / total:.3f} |")


def _known_and_others(argv: list[str]) -> list[str]:
  return flags.FLAGS(argv, known_only=True)


if __name__ == "__main__":
  app.run(main, flags_parser=_known_and_others)
