"""Logs of an evaluation that was cut: it goes on from them.

For: `run.evaluate`. Not for: the format (`ticks`). Start reading at `Kept`.
"""

import dataclasses
import pathlib
import re
from typing import Any

from tml_jax.evals import suites, ticks
from tml_jax.streams import annotation
from tml_jax.streams.timeline import Timeline


@dataclasses.dataclass(frozen=True)
class Kept:
  """Where logs are kept, and what they must say to be used again.

  Attributes:
    directory: FAMILY/ID.jsonl are written below it.
    provenance: of this model; the item's seed and digest are added to it.
  """

  directory: pathlib.Path
  provenance: dict[str, Any]

  def path(self, family: str, identifier: str) -> pathlib.Path:
    name = re.sub(r"[^\w.-]+", "-", identifier.removeprefix(f"{family}/"))
    return self.directory / family / f"{name}.jsonl"

  def of(self, item: suites.Item) -> dict[str, Any]:
    digest = {"input": item.digest} if item.digest else {}
    return self.provenance | {"seed": item.seed} | digest

  def find(self, item: suites.Item, timeline: Timeline) -> ticks.Log | None:
    """The log of an item that need not be held again.

    Raises:
      errors.UserError: the file is broken.
    """
    path = self.path(item.family, timeline.id)
    if not path.exists():
      return None
    log = ticks.read(path)
    asked = annotation.of(timeline)
    if log.provenance != self.of(item) or log.annotations != asked:
      return None
    return log
