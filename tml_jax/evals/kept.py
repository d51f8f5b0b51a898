"""What an evaluation that was cut had done: it goes on from there.

For: `run.evaluate`. Not for: the format (`ticks`). Start reading at `Kept`;
`Known` is what a start finds.
"""

import collections
import dataclasses
import hashlib
import json
import pathlib
import re
from typing import Any

from tml_jax import errors, files
from tml_jax import workdir as workdir_lib
from tml_jax.evals import suites
from tml_jax.evals import sums as sums_lib
from tml_jax.evals.metrics.floor import Series
from tml_jax.logs import columns, ticks
from tml_jax.streams import annotation
from tml_jax.streams.frame import Kind
from tml_jax.streams.timeline import Timeline


@dataclasses.dataclass(frozen=True)
class Kept:
  """Where logs are kept, and what they must say to be used again.

  Attributes:
    directory: ticks/FAMILY/ID.jsonl and content/FAMILY/ID.json, of the chunk
      that begins with it, are written below it.
    provenance: of this model; the item's seed and digest are added to it, and
      a digest of what its script asks for.
  """

  directory: pathlib.Path
  provenance: dict[str, Any]

  def path(self, family: str, identifier: str) -> pathlib.Path:
    name = f"{_name(family, identifier)}.jsonl"
    return self.directory / workdir_lib.TICKS / family / name

  def of(self, item: suites.Item, *, script: Timeline) -> dict[str, Any]:
    """What a log of an item must say; its own times may have moved."""
    return self.provenance | of_item(item, script=script)

  def find(self, item: suites.Item, timeline: Timeline) -> ticks.Log | None:
    """The log of an item that need not be held again.

    Raises:
      errors.UserError: the file is broken.
    """
    path = self.path(item.family, timeline.id)
    if not path.exists():
      return None
    log = ticks.read(path)
    if log.provenance != self.of(item, script=timeline):
      return None
    return log

  def find_content(self, family: str, names: list[str]) -> sums_lib.Sums | None:
    """Forced predictions on these recordings, if they were made before."""
    path = self._content_path(family, names)
    if not names or not path.exists():
      return None
    try:
      found = files.load_json(path)
      if found["of"] != self._of_content(names):
        return None
      return sums_lib.from_json(found["sums"])
    except (ValueError, KeyError, TypeError) as error:
      raise errors.UserError(
        f"{path} cannot be read ({error!r}); delete it and start again"
      ) from error

  def write_content(
    self, sums: sums_lib.Sums, *, family: str, names: list[str]
  ) -> None:
    """All or nothing, also when killed half-way."""
    path = self._content_path(family, names)
    files.make_parents(path)
    text = {"of": self._of_content(names), "sums": sums_lib.to_json(sums)}
    files.write_atomically(path, content=json.dumps(text) + "\n")

  def _content_path(self, family: str, names: list[str]) -> pathlib.Path:
    first = _name(family, names[0]) if names else ""
    return self.directory / workdir_lib.CONTENT / family / f"{first}.json"

  def _of_content(self, names: list[str]) -> dict[str, Any]:
    kinds = [kind.name for kind in Kind]  # what sums are sums of
    return self.provenance | {"recordings": names, "kinds": kinds}


def of_item(item: suites.Item, *, script: Timeline) -> dict[str, Any]:
  """Names an item: whoever meets the same user has the same."""
  asked = [annotation.to_json(a) for a in annotation.of(script)]
  text = json.dumps(asked, sort_keys=True)
  found = {
    "seed": item.seed,
    "asks": hashlib.sha256(text.encode()).hexdigest()[:16],
  }
  digest = {"input": item.digest} if item.digest else {}
  return found | digest


def _name(family: str, identifier: str) -> str:
  """An id as the name of a file."""
  return re.sub(r"[^\w.-]+", "-", identifier.removeprefix(f"{family}/"))


@dataclasses.dataclass
class Known:
  """What is known of items before any session.

  Attributes:
    dummies: series by agent, by index of the item.
    columns: of their logs (`logs.columns`), the same way.
    of: what names the item (`of_item`), by index.
    logs: that need not be made again.
    waiting: indices of items whose sessions are to be held.
    skipped: items that say nothing of what is due, by family.
  """

  dummies: dict[int, dict[str, Series]] = dataclasses.field(
    default_factory=dict
  )
  columns: dict[int, dict[str, Any]] = dataclasses.field(default_factory=dict)
  of: dict[int, dict[str, Any]] = dataclasses.field(default_factory=dict)
  logs: dict[int, ticks.Log] = dataclasses.field(default_factory=dict)
  waiting: list[int] = dataclasses.field(default_factory=list)
  skipped: collections.Counter[str] = dataclasses.field(
    default_factory=collections.Counter
  )

  def add(
    self,
    index: int,
    *,
    suite: suites.Suite,
    item: suites.Item,
    timeline: Timeline,
    kept: Kept | None,
  ) -> bool:
    """Takes an item; returns whether there is anything to score."""
    if not suite.asks(timeline):
      self.skipped[item.family] += 1
      return False
    logs = {name: agent(timeline) for name, agent in suite.agents.items()}
    self.dummies[index] = {n: suite.measure(log) for n, log in logs.items()}
    self.columns[index] = {n: columns.of(log) for n, log in logs.items()}
    self.of[index] = of_item(item, script=timeline)
    log = kept.find(item, timeline) if kept else None
    if log is None or not suite.is_kept(log):
      self.waiting.append(index)
    else:
      self.logs[index] = log
    return True
