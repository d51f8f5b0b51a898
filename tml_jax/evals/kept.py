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
from collections.abc import Mapping
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

# By id of the timeline, what else names an item: `of_item`.
Recordings = Mapping[str, Mapping[str, Any]]


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
    return log_file(self.directory, family=family, identifier=identifier)

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

  def find_content(self, family: str, of: Recordings) -> sums_lib.Sums | None:
    """Forced predictions on these recordings, if they were made before."""
    path = self._content_path(family, of)
    if not of or not path.exists():
      return None
    try:
      found = files.load_json(path)
      if found["of"] != self._of_content(of):
        return None
      return sums_lib.from_json(found["sums"])
    except (ValueError, KeyError, TypeError) as error:
      raise errors.UserError(
        f"{path} cannot be read ({error!r}); delete it and start again"
      ) from error

  def write_content(
    self, sums: sums_lib.Sums, *, family: str, of: Recordings
  ) -> None:
    """All or nothing, also when killed half-way."""
    path = self._content_path(family, of)
    files.make_parents(path)
    text = {"of": self._of_content(of), "sums": sums_lib.to_json(sums)}
    files.write_atomically(path, content=json.dumps(text) + "\n")

  def _content_path(self, family: str, of: Recordings) -> pathlib.Path:
    first = file_name(family, identifier=next(iter(of), ""))
    return self.directory / workdir_lib.CONTENT / family / f"{first}.json"

  def _of_content(self, of: Recordings) -> dict[str, Any]:
    kinds = [kind.name for kind in Kind]  # what sums are sums of
    recordings = [[name, dict(each)] for name, each in of.items()]
    return self.provenance | {"recordings": recordings, "kinds": kinds}


def of_item(item: suites.Item, *, script: Timeline) -> dict[str, Any]:
  """Names an item: whoever meets the same user has the same."""
  asked = [annotation.to_json(a) for a in annotation.of(script)]
  text = json.dumps(asked, sort_keys=True)
  found = {
    "seed": item.seed,
    "asks": hashlib.sha256(text.encode()).hexdigest()[:16],
  }
  digest = item.digest_of(script) if item.digest_of else item.digest
  return found | ({"input": digest} if digest else {})


def log_file(
  directory: pathlib.Path, *, family: str, identifier: str
) -> pathlib.Path:
  """Where an evaluation below `directory` has the log of an item."""
  name = f"{file_name(family, identifier=identifier)}.jsonl"
  return directory / workdir_lib.TICKS / family / name


def file_name(family: str, *, identifier: str) -> str:
  """Of whatever is kept of an item, in a folder of its family.

  The id without the family, and a dash for all but letters, digits, `_`, `.`
  and `-`; the ending is the caller's.

  Args:
    family: of the item, which a recording's timeline does not know.
    identifier: of the timeline.
  """
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
    if log is None or not suite.is_kept(log, family=item.family):
      self.waiting.append(index)
    else:
      self.logs[index] = log
    return True
