"""The transforms of a config, one after the other, on what is read.

For: `mixture`, which reads each element of the training split through
`Augmented`. Not for: what a transform does (beside this file). Start reading at
`steps` and `Augmented`.

Numbers are drawn anew from (data.seed, epoch, entry, id of the recording, name
of the transform): no trace of workers, hosts or what was read before, and the
stretches of a recording agree.
"""

import collections
import dataclasses
import threading
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from absl import logging

from tml_jax import errors, registry
from tml_jax.config import Config
from tml_jax.config import augment as augment_config
from tml_jax.data import options as options_lib
from tml_jax.data import splits
from tml_jax.data.augment import TRANSFORMS, transform
from tml_jax.streams import clock, framing
from tml_jax.streams.document import Document
from tml_jax.streams.timeline import Span, Timeline


@dataclasses.dataclass(frozen=True)
class Step:
  """An entry of `data.augment`.

  Attributes:
    name: of the transform.
    salt: tells it from an earlier one of the same name.
    probability: of each recording.
    entry: of the mixture that it is for; "" for all.
    transform: with its options.
  """

  name: str
  salt: int
  probability: float
  entry: str
  transform: transform.Transform


def steps(config: Config, *, corpora: Sequence[str]) -> tuple[Step, ...]:
  """`data.augment` with its files opened.

  Args:
    config: the experiment.
    corpora: entries of the mixture that are recorded.

  Raises:
    errors.UserError: an unknown transform, option or entry, a value that cannot
      be, or a folder without sound.
  """
  found: list[Step] = []
  count: collections.Counter[str] = collections.Counter()
  for text in config.data.augment:
    parsed = augment_config.parse(text)
    kind = TRANSFORMS[parsed.name]
    options = options_lib.Options(
      parsed.options,
      known=kind.OPTIONS,
      importer=f"data.augment entry {text!r}",
      common=transform.COMMON,
    )
    entry = options["entry"]
    if entry and entry not in corpora:
      raise errors.UserError(
        f"{options.where('entry')}={entry!r} is no recorded corpus of"
        " data.mixture (scenarios draw their own sound);"
        f" {registry.nearest(entry, names=[*corpora])}"
      )
    found.append(
      Step(
        parsed.name,
        count[parsed.name],
        parsed.probability,
        entry,
        kind(options),
      )
    )
    count[parsed.name] += 1
  return tuple(found)


def of_entry(found: Sequence[Step], entry: str) -> tuple[Step, ...]:
  """Those that are for an entry of the mixture."""
  return tuple(step for step in found if step.entry in ("", entry))


def reach(found: Sequence[Step]) -> float:
  """Seconds around a stretch whose sound its sound depends on."""
  return sum(step.transform.reach for step in found)


class Recorded(Protocol):
  """What the elements of an entry are read from: `subset.Subset`."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> Any: ...

  def measured(self, index: int) -> "transform.Measured": ...


class Augmented:
  """Reads elements of a corpus and changes them."""

  def __init__(
    self,
    recorded: Recorded,
    *,
    steps: Sequence[Step],
    entry: str,
    seed: int,
    grid: clock.Grid,
  ):
    self._recorded, self._steps = recorded, tuple(steps)
    self._seed, self._grid = (seed, zlib.crc32(entry.encode())), grid
    self._tally = Tally()

  def __call__(self, place: int, number: int) -> Any:
    """Element `number`, at this place of the entry's endless order."""
    item = self._recorded[number]
    if isinstance(item, Document):
      return item
    epoch = place // len(self._recorded)
    if not isinstance(item, framing.Excerpt):
      return self._change(item, epoch=epoch)
    changed = self._change(
      item.timeline,
      epoch=epoch,
      stretch=item.stretch,
      measured=lambda: self._recorded.measured(number),
    )
    return framing.Excerpt(changed, item.stretch)

  def _change(
    self,
    timeline: Timeline,
    *,
    epoch: int,
    stretch: framing.Stretch = framing.WHOLE,
    measured: Callable[[], transform.Measured] | None = None,
  ) -> Timeline:
    margin = reach(self._steps)
    run = _Run(
      timeline,
      grid=self._grid,
      sound=_sound(timeline, [stretch.seconds(self._grid)], margin=margin),
      measured=measured,
      margin=margin,
    )
    applied = []
    for step in self._steps:
      seed = np.random.SeedSequence(
        [
          *self._seed,
          epoch,
          splits.hash_of(timeline.id),
          zlib.crc32(step.name.encode()),
          step.salt,
        ]
      )
      if np.random.default_rng(seed).random() >= step.probability:
        continue
      try:
        if step.transform.takes is transform.Takes.WHOLE and measured:
          raise transform.NotFor("a stretch of a long recording")
        run.apply(step, seed=seed)
      except transform.NotFor as why:
        self._tally.left(step.name, why=str(why), name=timeline.id)
        continue
      applied.append(step.name)
    if not applied:
      return timeline
    metadata = run.timeline.metadata | {"augment": applied}
    return dataclasses.replace(run.timeline, metadata=metadata)

  def __repr__(self) -> str:  # Grain puts it in error messages
    names = ", ".join(step.name for step in self._steps)
    return f"Augmented({self._recorded!r}, {names})"


class _Run:
  """One recording on its way through the transforms.

  Attributes:
    timeline: as it is by now.
  """

  def __init__(
    self,
    timeline: Timeline,
    *,
    grid: clock.Grid,
    sound: tuple[tuple[int, int], ...],
    measured: Callable[[], transform.Measured] | None,
    margin: float,
  ):
    """Begins with a recording as it was read.

    Args:
      timeline: the recording.
      grid: of windows.
      sound: samples that are there.
      measured: reads where levels are measured; None where all is there.
      margin: seconds beside what is measured that are there, too.
    """
    self.timeline = timeline
    self._grid, self._sound, self._margin = grid, sound, margin
    self._read = measured
    self._beside: _Run | None = None
    self._places = transform.places(timeline) if measured is None else ()
    self._done: list[tuple[Step, np.random.SeedSequence]] = []

  def apply(self, step: Step, *, seed: np.random.SeedSequence) -> None:
    """Changes the recording.

    Raises:
      transform.NotFor: it cannot be changed so.
    """
    random = np.random.default_rng(seed)
    random.random()  # what decided whether
    before = self.timeline
    self.timeline = step.transform.apply(
      before,
      random=random,
      around=transform.Around(self._sound, self._grid, self._measured),
    )
    self._done.append((step, seed))
    ratio = self.timeline.duration / before.duration
    if ratio != 1:
      self._sound = _sound(self.timeline, [(0.0, np.inf)], margin=0.0)
      self._places = tuple(
        Span(place.start * ratio, place.end * ratio) for place in self._places
      )

  def _measured(self) -> transform.Measured:
    """The recording where it is measured, through the same transforms."""
    if self._read is None:
      return transform.Measured(self.timeline, self._places)
    if self._beside is None:
      found = self._read()
      self._places = found.places
      seconds = [(place.start, place.end) for place in found.places]
      self._beside = _Run(
        found.timeline,
        grid=self._grid,
        sound=_sound(found.timeline, seconds, margin=self._margin),
        measured=None,
        margin=0.0,
      )
    beside = self._beside
    for step, seed in self._done[len(beside._done) :]:
      beside.apply(step, seed=seed)
    return transform.Measured(beside.timeline, self._places)


def _sound(
  timeline: Timeline,
  seconds: Sequence[tuple[float, float]],
  *,
  margin: float,
) -> tuple[tuple[int, int], ...]:
  """[first, stop) samples of these seconds and what is beside them."""
  most, found = transform.samples(timeline), list[tuple[int, int]]()
  for start, stop in seconds:
    first = max(0, round((start - margin) * clock.SAMPLE_RATE))
    last = round(min(stop + margin, timeline.duration) * clock.SAMPLE_RATE)
    last = min(last, most)
    if found and first <= found[-1][1]:
      found[-1] = (found[-1][0], last)
    else:
      found.append((first, last))
  return tuple(found)


class Tally:
  """What was left as it is, said ever more rarely."""

  def __init__(self) -> None:
    self._counts: collections.Counter[tuple[str, str]] = collections.Counter()
    self._lock = threading.Lock()

  def left(self, step: str, *, why: str, name: str) -> None:
    """Counts a recording, `name`."""
    with self._lock:
      self._counts[step, why] += 1
      count = self._counts[step, why]
    if count & (count - 1) == 0:
      logging.info(
        "data.augment: %s left %d recordings as they are, lately %s: %s",
        *(step, count, name, why),
      )

  def __getstate__(self) -> dict[str, Any]:
    return {}

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__init__()  # type: ignore[misc]  # every process counts its own
