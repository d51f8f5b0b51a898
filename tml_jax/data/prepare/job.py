"""One corpus, from what is there to what it shall be.

For: the command `prepare`. Not for: flags (`tml_jax.prepare`) or who runs the
units (`runners`). Start reading at `Job.look`, then `Job.finish`.

A unit that is there is kept when its parts, the size of video and the code that
made it are what they were. A run that was killed has left finished units, and
no index: the next keeps them. What no unit has makes new ones.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from absl import logging

from tml_jax import errors
from tml_jax.data import corpus, source
from tml_jax.data.corpus import index as index_lib
from tml_jax.data.prepare import convert, plan, report

REPORT_JSON = "report.json"
REPORT_HTML = "report.html"


@dataclasses.dataclass(frozen=True)
class Looked:
  """What there is, and what is to be done.

  Attributes:
    plan: the units.
    done: in words.
    is_kept: nothing is to be done.
  """

  plan: plan.Plan
  done: str
  is_kept: bool


class Job:
  """A corpus to be prepared."""

  def __init__(self, name: str, *, task: convert.Task):
    """Lists the parts of its source.

    Args:
      name: of the corpus, for messages.
      task: how its units are made.

    Raises:
      errors.UserError: the source has nothing, or cannot be listed.
    """
    self.name, self.task = name, task
    self.place = corpus.Place(task.place)
    self._parts = plan.parts_of(task.recordings)

  def look(self, *, verify: bool, other_code: bool) -> Looked:
    """Compares the corpus with what its source is now.

    Args:
      verify: read every file against its checksum.
      other_code: keep units that other code has made.

    Raises:
      errors.UserError: the place cannot be read.
    """
    self._check_folder()
    sizes = self.place.sizes()
    found, damaged = self._find(sizes, verify=verify)
    usable, reasons = [], []
    for each in found:
      reason = self._changed(each.meta, other_code=other_code)
      if reason:
        reasons.append(reason)
      else:
        usable.append(each)
    indexed = self._indexed()
    planned = plan.plan(
      self._parts,
      maker=self.task.maker,
      before=[
        (each.unit.name, [tuple(key) for key in each.meta["parts"]])
        for each in usable
        if each.unit.name in indexed
      ],
      finished={each.unit.name for each in usable} - indexed.keys(),
      order=indexed,
    )
    is_whole = self._is_whole(planned, sizes=sizes, verify=verify)
    return Looked(
      plan=planned,
      done=self._words(
        planned,
        sizes=sizes,
        damaged=damaged,
        reasons=reasons,
        is_whole=is_whole,
      ),
      is_kept=is_whole,
    )

  def finish(self, planned: plan.Plan) -> dict[str, Any]:
    """Makes a corpus of the units, all of which are there; its report.

    Raises:
      errors.UserError: nothing could be used, or it cannot be written.
    """
    found = self._found(planned)
    result = report.of(found)
    if not result["recordings"]:
      raise errors.UserError(
        f"{self.name}: none of {sum(len(u.parts) for u in planned.units)}"
        f" recordings can be used: {result[convert.SKIPPED]}"
      )
    for name, content in (
      (REPORT_JSON, index_lib.json_text(result)),
      (REPORT_HTML, report.html(self.name, result)),
    ):
      self.place.write(name, content=content.encode())
    corpus.finish(
      [each.unit for each in found],
      place=self.place,
      report={
        name: value
        for name, value in result.items()
        if name in (convert.SKIPPED, source.NOTES, convert.VIDEO)
      },
    )
    for note, entry in result[source.NOTES].items():
      logging.warning(
        "%s: left out %d %s, for instance of %s",
        *(self.name, entry["count"], note, ", ".join(entry["examples"])),
      )
    return result

  def report(self, planned: plan.Plan) -> dict[str, Any]:
    """Of a corpus that is kept."""
    return report.of(self._found(planned))

  def _found(self, planned: plan.Plan) -> list[corpus.Found]:
    sizes = self.place.sizes()
    try:
      return [
        corpus.find_unit(unit.name, place=self.place, sizes=sizes)
        for unit in planned.units
      ]
    except ValueError as error:
      raise errors.UserError(
        f"{self.place}: a unit was not written: {error}; run this again"
      ) from error

  def _check_folder(self) -> None:
    if self.place.is_local:
      path = self.place.path
      if path.exists() and not path.is_dir():
        raise errors.UserError(f"{path} must be a folder: move that file away")

  def _find(
    self, sizes: Mapping[str, int], *, verify: bool
  ) -> tuple[list[corpus.Found], list[str]]:
    """Units that are whole, in the order of the index, and what is not."""
    found, damaged = [], []
    order = self._indexed()
    names = corpus.unit_names(dict(sizes))
    for name in sorted(names, key=lambda name: order.get(name, len(order))):
      try:
        each = corpus.find_unit(name, place=self.place, sizes=dict(sizes))
        if verify:
          self._verify(each)
        if "parts" not in each.meta:
          raise ValueError("it does not say what it was made of")
        found.append(each)
      except ValueError as error:
        logging.warning("%s: unit %s is damaged: %s", self.place, name, error)
        damaged.append(name)
    return found, damaged

  def _indexed(self) -> dict[str, int]:
    """Units of the corpus that is there, with their places in it."""
    try:
      index = index_lib.parse(self.place.read(corpus.INDEX))
    except (FileNotFoundError, ValueError):
      return {}
    return {unit.name: place for place, unit in enumerate(index.units)}

  def _verify(self, each: corpus.Found) -> None:
    for shard in each.unit.shards:
      checksum = self.place.crc32(shard.file)
      if checksum != shard.crc32:
        raise ValueError(
          f"the CRC-32 of {shard.file} is {checksum:08x}, its table says"
          f" {shard.crc32:08x}"
        )

  def _changed(self, meta: Mapping[str, Any], *, other_code: bool) -> str:
    """Why a unit is made again; "" if it is not."""
    if meta.get("options") != self.task.options:
      return "other options were given"
    if meta.get("code") != self.task.code and not other_code:
      return "the code that converts it has changed"
    if meta.get(convert.VIDEO) and meta.get("size") != list(self.task.size):
      was, want = (
        "x".join(map(str, each)) for each in (meta["size"], self.task.size)
      )
      return f"video is {want} now, and was {was}"
    return ""

  def _is_whole(
    self, planned: plan.Plan, *, sizes: Mapping[str, int], verify: bool
  ) -> bool:
    """Whether the index names exactly what is planned."""
    if planned.todo:
      return False
    try:
      index = index_lib.parse(self.place.read(corpus.INDEX))
    except (FileNotFoundError, ValueError):
      return False
    if [unit.name for unit in index.units] != [u.name for u in planned.units]:
      return False
    if sizes.get(index.table.file) != index.table.bytes:
      return False
    return not verify or (
      self.place.crc32(index.table.file) == index.table.crc32
      and all(
        self.place.crc32(unit.table.file) == unit.table.crc32
        for unit in index.units
      )
    )

  def _words(
    self,
    planned: plan.Plan,
    *,
    sizes: Mapping[str, int],
    damaged: list[str],
    reasons: list[str],
    is_whole: bool,
  ) -> str:
    if is_whole:
      if isinstance(self.task.recordings, source.Streamed | source.Stamped):
        return "kept"
      return (
        "kept: as many recordings as before, and its source has no stamp()"
        " that would tell whether one has changed"
      )
    if damaged:
      done = "mended" if planned.kept else "rebuilt"
      return f"{done}: it was damaged"
    if reasons:
      done = "brought up to date" if planned.kept else "rebuilt"
      return f"{done}: {reasons[0]}"
    if corpus.INDEX not in sizes:
      if not planned.kept:
        return "new"
      return (
        f"finished: {len(planned.kept)} of {len(planned.units)} units were"
        " there"
      )
    return (
      f"brought up to date: {planned.new} recordings are new or changed,"
      f" {planned.gone} gone"
    )
