"""Expected texts that are checked in; `python -m tests.goldens` rewrites them.

The tests compare; rewrite after a change that is meant, and read the diff.
"""

import pathlib
import re

from experiments import interaction
from tml_jax import config_text, inspect

ROOT = pathlib.Path(__file__).parent.parent
PARAMETERS = ROOT / "docs" / "parameters.md"
README = ROOT / "experiments" / "README.md"
COUNTED = (
  "tiny",
  "medium",
  "tml_interaction_small",
  "inkling_small_as_shipped",
)


def config_path(size: str) -> pathlib.Path:
  return ROOT / "tests" / "golden" / f"config_{size}.txt"


def config_of(size: str) -> str:
  return config_text.to_text(interaction.get_config(size))


def with_counts(text: str, *, counts: dict[str, dict[str, inspect.Row]]) -> str:
  """docs/parameters.md with the numbers of its two tables from `counts`."""
  lines, column = [], "total"
  for line in text.splitlines():
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    if len(cells) == 2 + len(COUNTED):
      module = cells[0].strip("*")
      if module in ("module", "active"):
        column = {"module": "total", "active": "active"}[module]
      elif module in inspect.MODULES:
        rows = [counts[size][module] for size in COUNTED]
        cells[2:] = [f"{getattr(row, column):,}" for row in rows]
        line = f"| {' | '.join(cells)} |"
    lines.append(line)
  return "\n".join(lines) + "\n"


def with_tiny_size(text: str, *, everything: inspect.Row) -> str:
  """experiments/README.md with the size of `tiny` in millions."""
  size = f"{everything.total / 1e6:.2f} M / {everything.active / 1e6:.2f} M"
  return re.sub(r"[\d.]+ M / [\d.]+ M", size, text)


def counts() -> dict[str, dict[str, inspect.Row]]:
  """Rows of the parameter table by size and module."""
  return {
    size: {
      row.module: row
      for row in inspect.parameter_rows(interaction.get_config(size))
    }
    for size in COUNTED
  }


def main() -> None:
  for size in interaction.SIZES:
    config_path(size).write_text(config_of(size), encoding="utf-8")
  table = counts()
  PARAMETERS.write_text(
    with_counts(PARAMETERS.read_text(encoding="utf-8"), counts=table),
    encoding="utf-8",
  )
  everything = table["tiny"]["= everything"]
  README.write_text(
    with_tiny_size(README.read_text(encoding="utf-8"), everything=everything),
    encoding="utf-8",
  )


if __name__ == "__main__":
  main()
