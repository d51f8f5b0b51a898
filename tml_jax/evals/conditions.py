"""The same held-out conversations under conditions that training lacks.

For: `evaluate --conditions`: users with voices that nobody has trained on, with
other silences, at another rate, in noise; a row each. Not for: how a
conversation is made again (`scenarios.shift`), or voices (`data.unheard`).
Start reading at `CONDITIONS`. Ids, sentences and seeds are those of the plain
suite, so rows are compared user by user.
"""

import dataclasses
import functools
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tml_jax import errors, registry
from tml_jax.config import Config
from tml_jax.data import noise as noise_lib
from tml_jax.data import options as options_lib
from tml_jax.data import source, unheard
from tml_jax.data.augment import noise as augment_noise
from tml_jax.data.augment import transform
from tml_jax.data.scenarios import family, shift
from tml_jax.evals.metrics import panel, statistics
from tml_jax.evals.report import Report
from tml_jax.streams import clock
from tml_jax.streams.timeline import Timeline

ALL = "all"
PLAIN = "plain"  # the row of the suite as it is


@dataclasses.dataclass(frozen=True)
class Condition:
  """What differs from the plain suite.

  Attributes:
    name: of the row.
    kind: that --conditions asks for.
    unheard: users have voices of `unheard.VOICES`.
    waits: see `shift.Shift`; families draw the silences of training.
    rate: see there.
    snr_db: from noise to the user's speech; infinite for none besides that of
      the plain item.
  """

  name: str
  kind: str
  unheard: bool = False
  waits: float = 1.0
  rate: float = 1.0
  snr_db: float = math.inf


# Factors and ratios are just outside of what families draw: silences vary by 2
# to 3 times there, noise is at 15 to 35 dB, and a voice has one rate.
CONDITIONS = (
  Condition("voices", "voices", unheard=True),
  Condition("pauses_0.6", "pauses", waits=0.6),
  Condition("pauses_1.6", "pauses", waits=1.6),
  Condition("rates_0.85", "rates", rate=0.85),
  Condition("rates_1.2", "rates", rate=1.2),
  Condition("noise_10", "noise", snr_db=10.0),
  Condition("noise_0", "noise", snr_db=0.0),
)
KINDS = tuple(dict.fromkeys(condition.kind for condition in CONDITIONS))


def chosen(names: Sequence[str]) -> tuple[Condition, ...]:
  """The conditions of --conditions, in the order of `CONDITIONS`.

  Raises:
    errors.UserError: no such kind.
  """
  for name in names:
    if name not in (*KINDS, ALL):
      near = registry.nearest(name, names=[*KINDS, ALL])
      raise errors.UserError(f"--conditions={name}: no such condition; {near}")
  return tuple(c for c in CONDITIONS if ALL in names or c.kind in names)


@dataclasses.dataclass(frozen=True)
class Opened:
  """A condition with what it needs.

  Attributes:
    condition: as said.
    shift: for the families.
    change: of a composed item.
    files: digest of those of a folder; "" where there is none.
  """

  condition: Condition
  shift: shift.Shift | None
  change: Callable[[Timeline], Timeline]
  files: str = ""

  @property
  def digest(self) -> str:
    """Of all that it changes an item by."""
    name = self.condition.name
    return f"{name}/{self.files}" if self.files else name


def opened(
  condition: Condition, *, config: Config, data_dir: str, noise_folder: str
) -> Opened:
  """Finds voices and noises.

  Args:
    condition: as said.
    config: of the run.
    data_dir: prepared data.
    noise_folder: files of sound; "" for pink noise and babble of unheard
      voices, in turn.

  Raises:
    errors.UserError: they are not there.
  """
  needs_babble = condition.kind == "noise" and not noise_folder
  voices: Mapping[str, source.Source] = {}
  if condition.unheard or needs_babble:
    voices = unheard.open_voices(config, data_dir=data_dir)
  shifted = None
  if condition.kind != "noise":
    shifted = shift.Shift(
      voices=voices, waits=condition.waits, rate=condition.rate
    )
    return Opened(condition, shifted, _same)
  if noise_folder:
    options = options_lib.Options(
      {"folder": noise_folder, "snr": f"{condition.snr_db}"},
      known=augment_noise.Noise.OPTIONS,
      importer="--noise_folder",
      common={},
    )
    noise = augment_noise.Noise(options)
    change = functools.partial(_from_folder, noise=noise)
    return Opened(condition, None, change, files=noise.digest())
  return Opened(
    condition,
    None,
    functools.partial(_noisy, voices=voices, snr_db=condition.snr_db),
  )


def _same(timeline: Timeline) -> Timeline:
  return timeline


def _seeded(timeline: Timeline) -> np.random.Generator:
  """The same for an item at every ratio."""
  return np.random.default_rng(zlib.crc32(timeline.id.encode()))


def _around(timeline: Timeline) -> transform.Around:
  """All of it is there."""
  measured = transform.Measured(timeline, transform.places(timeline))
  return transform.Around(
    ((0, transform.samples(timeline)),), clock.TICKS, lambda: measured
  )


def _from_folder(timeline: Timeline, *, noise: augment_noise.Noise) -> Timeline:
  """An item with a noise of a folder; without speech it stays as it is."""
  try:
    return noise.apply(
      timeline, random=_seeded(timeline), around=_around(timeline)
    )
  except transform.NotFor:
    return timeline


def _noisy(
  timeline: Timeline, *, voices: Mapping[str, source.Source], snr_db: float
) -> Timeline:
  """An item with pink noise, or babble of `voices`, as often.

  Where the user does not speak there is no ratio: such an item stays as it is.
  """
  random = _seeded(timeline)
  count = transform.samples(timeline)
  if random.random() < 0.5:
    offset = int(random.integers(1 << 18))
    heard = noise_lib.take(noise_lib.Colour.PINK, count=count, offset=offset)
  else:
    names = sorted(voices)

    def utterance() -> np.ndarray:
      voice = voices[family.choose(names, random=random)]
      return voice[int(random.integers(len(voice)))].tracks[0].audio

    heard = noise_lib.babble(count, utterance=utterance, random=random)
  try:
    return augment_noise.mixed(
      timeline,
      take=lambda first, number: heard[first : first + number],
      snr_db=snr_db,
      around=_around(timeline),
    )
  except transform.NotFor:
    return timeline


def row(report: Report, *, plain: Report) -> dict[str, Any]:
  """Of a condition, by agent, what was evaluated first.

  The summary score with its interval, the shares of what was due that was done
  in time (`done`) and with the right words too (`right`), the mean of the holds
  (`score.sides`), seconds of unasked speech a minute (`quiet`), how many things
  were due (`n`), and `less`: the score less that of the plain suite on the same
  users, a paired bootstrap.
  """
  metrics = {m.name: m for m in panel.METRICS}
  score = metrics["summary_score"]
  users = {item.log.id: item for item in plain.scored}
  pairs = [(s, users[s.log.id]) for s in report.scored if s.log.id in users]
  result = {}
  for agent in (panel.MODEL, *report.agents):
    series = [item.series[agent] for item in report.scored]
    found = statistics.summarise(
      series,
      metrics=(score, metrics["done"], metrics["right"]),
    )
    quiet = statistics.summarise(
      series, metrics=(metrics["unasked_seconds"],), resamples=0
    )["unasked_seconds"]
    less = statistics.compare(
      [ours.series[agent] for ours, _ in pairs],
      [theirs.series[agent] for _, theirs in pairs],
      metrics=(score,),
      resamples=statistics.RESAMPLES,
    ).get(score.name)
    result[agent] = {
      "summary_score": found[score.name].value,
      "interval": [found[score.name].low, found[score.name].high],
      "done": found["done"].value,
      "right": found["right"].value,
      "holds": statistics.sides(series)["holds"],
      "quiet": quiet.value,
      "n": found["done"].events,
      "less": dataclasses.asdict(less) if less else None,
    }
  return result


def table(rows: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
  """What was evaluated, a line a condition, under its titles."""
  lines = [
    [
      *("condition", "summary score", "", "less plain", ""),
      *("done, %", "right, %", "holds, %", "unasked, s/min", "n"),
    ]
  ]
  for name, agents in rows.items():
    found = agents[panel.MODEL]
    less = found["less"]
    low, high = found["interval"]
    lines.append(
      [
        name,
        _number(found["summary_score"]),
        f"[{_number(low)}, {_number(high)}]",
        _number(less["value"]) if less else "-",
        f"[{_number(less['low'])}, {_number(less['high'])}]" if less else "",
        *(_number(100 * found[side]) for side in ("done", "right", "holds")),
        _number(found["quiet"]),
        str(found["n"]),
      ]
    )
  return lines


def text(rows: Mapping[str, Mapping[str, Any]]) -> str:
  """`table` as text."""
  lines = table(rows)
  widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
  return "\n".join(
    "  ".join(
      cell.ljust(width) if i == 0 else cell.rjust(width)
      for i, (cell, width) in enumerate(zip(line, widths, strict=True))
    ).rstrip()
    for line in lines
  )


def _number(value: float) -> str:
  return "-" if math.isnan(value) else f"{value:.1f}"
