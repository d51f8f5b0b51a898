"""How fast each transform of `data.augment` is, on one core.

For: benchmarks.data. Not for: what a transform does (tests/data/augment). Start
reading at `measure`.
"""

import dataclasses
import pathlib
import time
from typing import Any

from tml_jax import errors
from tml_jax.config import augment as augment_config
from tml_jax.data import corpus
from tml_jax.data import options as options_lib
from tml_jax.data.augment import TRANSFORMS, chain, transform
from tml_jax.streams import clock
from tml_jax.streams.timeline import Timeline

_SECONDS = 1.0  # of processor time for each row, at least
_LENGTH = 60.0  # seconds of each call
# About what a mixture of calls would ask for.
TOGETHER = (
  *("noise:0.5", "room:0.3", "echo:0.3", "microphone:0.2", "g711:0.1"),
  *("opus:0.1", "gain:1", "lost:0.2"),
)


class _Calls:
  """Some calls in memory, as elements of a mixture."""

  def __init__(self, calls: list[Timeline]):
    self._calls = calls

  def __len__(self) -> int:
    return len(self._calls)

  def __getitem__(self, index: int) -> Timeline:
    return self._calls[index]

  def measured(self, index: int) -> transform.Measured:
    raise NotImplementedError("these are no stretches")


def measure(path: pathlib.Path, *, noises: str) -> dict[str, Any]:
  """Seconds of conversation that are changed in a core-second.

  Args:
    path: a corpus of calls; the first minutes of three are changed in turn.
    noises: folder of files for a row of its own; "" for none.
  """
  recorded = corpus.RecordSource(path)
  calls = [_beginning(recorded[i]) for i in range(min(3, len(recorded)))]
  asked = {name: (f"{name}:1",) for name in TRANSFORMS}
  # These agents begin over the user's end, and overlaps are short.
  asked["cut"] = ("swap:1", "cut:1:least=0.1:after=0:rest=3600")
  if noises:
    asked["noise, of files"] = (f"noise:1:folder={noises}",)
  rows = {name: _rate(calls, asked=text) for name, text in asked.items()}
  rows = dict(sorted(rows.items()))
  rows["together"] = _rate(calls, asked=TOGETHER)
  return {
    "augment_seconds_per_core_second": rows,
    "augment_call_seconds": sum(call.duration for call in calls) / len(calls),
    "augment_together": ",".join(TOGETHER),
  }


def _beginning(call: Timeline) -> Timeline:
  """Its first minute."""
  duration = min(_LENGTH, call.duration)
  tracks = [
    dataclasses.replace(
      track,
      audio=track.audio[: round(duration * clock.SAMPLE_RATE)],
      words=tuple(w for w in track.words if w.end <= duration),
      spans=tuple(s for s in track.spans if s.end <= duration),
    )
    for track in call.tracks
  ]
  return dataclasses.replace(call, duration=duration, tracks=tuple(tracks))


def _rate(calls: list[Timeline], *, asked: tuple[str, ...]) -> float:
  steps = []
  for salt, text in enumerate(asked):
    parsed = augment_config.parse(text)
    kind = TRANSFORMS[parsed.name]
    options = options_lib.Options(
      parsed.options,
      known=kind.OPTIONS,
      importer=text,
      common=transform.COMMON,
    )
    steps.append(
      chain.Step(parsed.name, salt, parsed.probability, "", kind(options))
    )
  read = chain.Augmented(
    _Calls(calls), steps=steps, entry="", seed=0, grid=clock.TICKS
  )
  changed = read(0, 0)  # files are read, filters are made
  if asked is not TOGETHER and not _is_changed(changed, asked):
    raise errors.UserError(f"{asked[0]} leaves {changed.id} as it is")
  place, seconds, before = 0, 0.0, time.process_time()
  while (taken := time.process_time() - before) < _SECONDS:
    done = read(place, place % len(calls))
    if asked is TOGETHER or _is_changed(done, asked):
      seconds += done.duration
    place += 1
  return seconds / taken


def _is_changed(call: Timeline, asked: tuple[str, ...]) -> bool:
  """By the last of the transforms."""
  return asked[-1].split(":")[0] in call.metadata.get("augment", ())
