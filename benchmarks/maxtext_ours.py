"""Our programs, for MaxText's to stand beside: reports, or the table of them.

For: the command that writes only one section of benchmarks/tpu.md. Not for:
`benchmarks.tpu`, which has its reports. Start at `known`.
"""

import json
import pathlib
import re
from typing import Any

Report = dict[str, Any]

_CONFIG = re.compile(r"--config=\S+:(\w+)")
# Columns of the table of rows in benchmarks/tpu.md, and what they are here.
_COLUMNS = {
  "slice": "topology",
  "HBM, GiB": "hbm_gib_per_chip",
  "FLOP ratio": "flop_ratio",
  "ICI, GB": "ici_gb_per_chip",
  "bound, s": "roofline_s",
  "MFU bound": "mfu_bound",
  "exposed": "mfu_bound_exposed",
  "reachable": "mfu_bound_reachable",
  "exposed again": "mfu_bound_reachable_exposed",
  "compile, s": "compile_s",
  "host, GiB": "host_rss_gib",
}


def known(directory: pathlib.Path, *, text: str) -> dict[str, Report]:
  """Our train steps: rows of `text`, and newer reports in `directory`.

  The first of a slice is what MaxText's rows are compared with: the one that is
  called after its family, else one in bfloat16.

  Args:
    directory: of files that `tml_jax.aot --json` wrote, among others.
    text: benchmarks/tpu.md.
  """
  reports = recorded(text) | written(directory)

  def order(name: str) -> tuple[bool, bool, str]:
    family = reports[name]["topology"].partition(":")[0]
    return name != family, "fp8" in name, name

  return {name: reports[name] for name in sorted(reports, key=order)}


def written(directory: pathlib.Path) -> dict[str, Report]:
  """Reports in `directory`, by the names of their files."""
  reports = {}
  for path in directory.glob("*.json"):
    report = json.loads(path.read_text(encoding="utf-8"))
    if "config" in report and report.get("program") == "step":
      reports[path.stem] = report
  return reports


def recorded(text: str) -> dict[str, Report]:
  """Rows of one slice from the first table of benchmarks/tpu.md.

  They have what the table shows: `tokens_shown` is of a step, in millions, and
  commands below the table say of which config.

  Raises:
    ValueError: rows and commands below them differ in number.
  """
  lines = text.splitlines()
  start = next(i for i, line in enumerate(lines) if line.startswith("| row |"))
  head, _, *rest = [_cells(line) for line in lines[start:]]
  rows = rest[: rest.index([])]
  if head.count("exposed") == 2:
    head[len(head) - head[::-1].index("exposed") - 1] = "exposed again"
  commands = [
    line for line in lines if line.startswith("python -m tml_jax.aot")
  ]
  steps = [command for command in commands if "--program=" not in command]
  reports = {}
  for cells, command in zip(rows, steps, strict=True):
    row = dict(zip(head, cells, strict=False))
    if " x " in row["slice"]:
      continue
    report: Report = {
      "config": _CONFIG.search(command)[1],
      "program": "step",
      "num_slices": 1,
      "chips": int(row["chips"].replace(",", "")),
      "mesh": _mesh(row["mesh"]),
      "tokens_shown": row["tokens a step"].split(" ")[0],
    }
    for column, key in _COLUMNS.items():
      if row.get(column, "-") != "-":
        report[key] = _number(row[column])
    report["hbm_limit_gib"] = float(row["HBM, GiB"].rpartition(" of ")[2])
    reports[row["row"]] = report
  return reports


def _cells(line: str) -> list[str]:
  return [cell.strip() for cell in line.split("|")[1:-1]]


def _mesh(text: str) -> dict[str, int]:
  parts = text.split()
  return {
    axis: int(size) for axis, size in zip(parts[::2], parts[1::2], strict=True)
  }


def _number(text: str) -> float | str:
  """The first number of a cell; the text of one that begins with none."""
  first = text.split(" ")[0].replace(",", "")
  return float(first) if first.replace(".", "", 1).isdigit() else text
