"""What a finished evaluation leaves: tables, numbers, a page, an archive.

For: the end of `evaluate`. Not for: the formats (`show`, `as_json`,
`archive`). Start at `write`.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from tml_jax import errors, files
from tml_jax import workdir as workdir_lib
from tml_jax.config import Config
from tml_jax.evals import archive, as_json, conditions, from_sound, show
from tml_jax.evals.metrics import panel
from tml_jax.evals.report import SLOTS, Report


def write(
  parts: Mapping[str, archive.Part],
  *,
  config: Config,
  source: Mapping[str, Any],
  output: pathlib.Path | None,
  packs: bool,
  seconds: float,
  title: str,
  sound: Mapping[str, from_sound.Row],
) -> None:
  """Prints the tables; writes a page, an archive, and at last `output`.

  So whoever finds `output` finds what is beside it, also after a kill.

  Args:
    parts: the plain one, then those of conditions.
    config: as run.
    source: what was evaluated, at the head of the JSON file.
    output: the JSON file; None for none.
    packs: whether there is an archive.
    seconds: that all took.
    title: of the page.
    sound: of those who heard the sound of the model, by family; in the JSON
      file, and in no archive.
  """
  report = parts[conditions.PLAIN].report
  rows = {}
  if len(parts) > 1:
    rows = {
      name: conditions.row(part.report, plain=report)
      for name, part in parts.items()
    }
  wrote = ""
  if output is not None:
    numbers = archive.numbers(source, part=parts[conditions.PLAIN], rows=rows)
    if sound:
      numbers |= as_json.without_nan({"from_sound": from_sound.as_json(sound)})
    text = json.dumps(numbers, indent=1, allow_nan=False)
    page_text = show.html(report, title=title, conditions=rows)
    # The JSON file says that all is there: an older one goes first.
    output.unlink(missing_ok=True)
    page = output.with_suffix(".html")
    files.write_atomically(page, content=page_text)
    beside = [str(page)]
    if packs:
      packed = output.with_suffix(archive.SUFFIX)
      archive.write(
        packed, head=archive.head(config, numbers=source), parts=parts
      )
      beside.append(str(packed))
    files.write_atomically(output, content=text + "\n")
    wrote = (
      f"wrote {output}, {', '.join(beside)} and"
      f" {output.with_suffix('')}/{workdir_lib.TICKS}"
    )
  # What can fail, as where nobody reads it, comes after what took the time.
  for family in (*report.families, panel.ALL):
    if family != panel.ALL or len(report.families) > 1:
      print(show.table(report, family) + "\n")
  if rows:
    print(conditions.text(rows) + "\n")
  if sound:
    print(from_sound.text(sound) + "\n")
  print(f"{title}; {len(report.scored)} conversations\n{show.NOTE}")
  for name, why in parts[conditions.PLAIN].left_out.items():
    print(errors.escaped(f"left out {name}: {why}"))
  print(_summary(report, seconds=seconds))
  if wrote:
    print(wrote)


def _summary(report: Report, *, seconds: float) -> str:
  """What was left out, what was there, how long it took."""
  lines = [
    f"{count} conversations of {family} have no annotations and were skipped"
    for family, count in report.skipped.items()
  ]
  if report.reused:
    lines.append(f"{report.reused} conversations were there from before")
  line = f"all took {seconds:.0f} s"
  if len(report.tick_seconds):
    median = 1000 * np.median(report.tick_seconds)
    line = f"a window of {SLOTS} sessions took {median:.0f} ms (median); {line}"
  return "\n".join([*lines, line])
