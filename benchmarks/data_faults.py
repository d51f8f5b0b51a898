"""How often planted faults are found, and what looking for them costs.

For: benchmarks.data, part `faults`. Not for: mending, which the tests of
`data.mend` check. Start reading at `measure`. Calls are made of recorded
prompts, English and French (`made_calls`), with words whose ends are wrong by
50 ms (standard deviation) and noise of -60 dBFS. Each is measured once without
a fault, and once with each fault in each size (`planted`).
"""

import collections
import pathlib
import time
from collections.abc import Callable
from typing import Any

import scipy.stats

from benchmarks import made_calls, planted
from tml_jax.data.importers import stereo
from tml_jax.data.mend import measures, options, stage
from tml_jax.data.mend.options import Check
from tml_jax.data.source import BadRecording, Reason
from tml_jax.streams.timeline import Role, Timeline

SECONDS = 180.0
_TIMED = 12  # calls of 300 s
_REASONS = {
  Check.UNITS: Reason.BROKEN_METADATA,
  Check.SILENT: Reason.ONE_SILENT,
  Check.RATE: Reason.WRONG_RATE,
  Check.SWAP: Reason.SWAPPED,
  Check.DRIFT: Reason.DRIFTS,
  Check.OFFSET: Reason.OFFSET,
  Check.ECHO: Reason.ECHO,
}


def _bled_both_ways(item: Timeline) -> Timeline:
  for role in (Role.AGENT, Role.USER):
    item = planted.bled(item, level=-37, delay=0.03, source_role=role)
  return item


# Fault and size by its name; sizes under a threshold are no faults.
PLANTED: dict[tuple[Check, str], Callable[[Timeline], Timeline]] = {
  (Check.SWAP, "swapped"): planted.swapped,
  **{
    (Check.OFFSET, f"words {late:+g} s"): (
      lambda item, late=late: planted.words_moved(item, late=late)
    )
    for late in (-2.0, -0.5, 0.5, 1.0)
  },
  **{
    (Check.OFFSET, f"user's channel {late:+g} s, bleed of -37 dB"): (
      lambda item, late=late: planted.user_moved(
        _bled_both_ways(item), late=late
      )
    )
    for late in (-0.5, 0.3)
  },
  **{
    (Check.DRIFT, f"words {ppm:+g} ppm"): (
      lambda item, ppm=ppm: planted.words_moved(item, ppm=ppm)
    )
    for ppm in (-3000, 1000, 2000)
  },
  **{
    (Check.DRIFT, f"user's channel {ppm:+g} ppm"): (
      lambda item, ppm=ppm: planted.user_moved(item, ppm=ppm)
    )
    for ppm in (-2000, 1000)
  },
  (Check.DRIFT, "user's channel +700 ppm, echo of -25 dB"): (
    lambda item: planted.user_moved(
      planted.bled(item, level=-25, delay=0.05), ppm=700
    )
  ),
  **{
    (Check.ECHO, f"{level:g} dB after {1000 * delay:g} ms"): (
      lambda item, level=level, delay=delay: planted.bled(
        item, level=level, delay=delay
      )
    )
    for level, delay in ((-10, 0.05), (-20, 0.2), (-30, 0.05), (-32, 0.5))
  },
  (Check.SILENT, "user"): lambda item: planted.silent(item, Role.USER),
  (Check.SILENT, "agent"): lambda item: planted.silent(item, Role.AGENT),
  **{
    (Check.RATE, name): (
      lambda item, factor=factor: planted.at_rate(item, factor=factor)
    )
    for name, factor in (
      ("8000 for 16000", 2.0),
      ("16000 for 8000", 0.5),
      ("44100 for 48000", 48 / 44.1),
      ("22050 for 16000", 16 / 22.05),
    )
  },
  **{
    (Check.UNITS, name): (
      lambda item, second=second: planted.in_units(item, second=second)
    )
    for name, second in (
      ("milliseconds", 1e3),
      ("samples of 8000 Hz", 8e3),
      ("samples of 44100 Hz", 44.1e3),
    )
  },
}


def measure(root: pathlib.Path, *, calls: int) -> dict[str, Any]:
  """Recall and precision by fault, and hours a core-minute.

  Args:
    root: for calls that the importer reads, of which the speed is measured.
    calls: that are made, each with every fault.
  """
  voices = {
    role: made_calls.prompts(language)
    for role, language in made_calls.LANGUAGES.items()
  }
  found: collections.Counter[tuple[Check, str]] = collections.Counter()
  # What was said of a recording that has another fault, or none.
  wrong: collections.Counter[Check] = collections.Counter()
  right: collections.Counter[Check] = collections.Counter()
  clean: list[str] = []
  for number in range(calls):
    item = planted.call(number, voices, seconds=SECONDS)
    said = _said(item)
    clean += [f"{number}: {said}"] if said else []
    wrong.update([said] if said else [])
    for (check, size), plant in PLANTED.items():
      said = _said(plant(item))
      if said is check:
        found[check, size] += 1
        right[check] += 1
      elif said is not None:
        wrong[said] += 1
  return {
    "faults": {
      "calls": calls,
      "seconds": SECONDS,
      "sizes": {
        f"{check}: {size}": _interval(found[check, size], calls)
        for check, size in PLANTED
      },
      "precision": {
        str(check): _interval(right[check], right[check] + wrong[check])
        for check in _REASONS
      },
      "clean": _interval(len(clean), calls) | {"which": clean},
      **_speed(root),
    }
  }


def _said(item: Timeline) -> Check | None:
  """The fault for which it is skipped."""
  (result,) = stage.apply(planted.as_read(item), mending=options.DEFAULT)
  if not isinstance(result, BadRecording):
    return None
  return next(c for c, reason in _REASONS.items() if reason is result.reason)


def _interval(found: int, among: int) -> dict[str, float]:
  """A share with its interval of Clopper and Pearson, 95 %."""
  if not among:
    return {"found": 0, "of": 0, "low": 0.0, "high": 1.0}
  test = scipy.stats.binomtest(found, among)
  interval = test.proportion_ci(0.95, method="exact")
  return {
    "found": found,
    "of": among,
    "low": float(interval.low),
    "high": float(interval.high),
  }


def _speed(root: pathlib.Path) -> dict[str, Any]:
  """Hours of calls a core-minute that are read, and that are measured."""
  folder = root / "faults"
  if not folder.exists():
    made_calls.write(folder, count=_TIMED, seconds=300.0, noise=-60.0)
  opened = stereo.open_calls(str(folder), options={})
  hours, read, checked = 0.0, 0.0, 0.0
  for part in opened.parts():
    before = time.process_time()
    items = [*opened.read(part)]
    read += time.process_time() - before
    for item in items:
      assert isinstance(item, Timeline)
      hours += item.duration / 3600
      before = time.process_time()
      measures.of(item, mending=options.DEFAULT)
      checked += time.process_time() - before
  return {
    "read_hours_per_core_minute": hours / (read / 60),
    "checked_hours_per_core_minute": hours / (checked / 60),
  }
