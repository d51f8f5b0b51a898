"""What is measured of a recording, and which of it is a fault.

For: the report of `prepare` and whoever mends. Not for: mending (`stage`).
Start reading at `of`, then `faults`; docs/mend.md explains the thresholds.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from tml_jax.data.mend import activity, bleed, words
from tml_jax.data.mend.activity import STEP, Sounding
from tml_jax.data.mend.options import Check, Mending
from tml_jax.data.source import Reason
from tml_jax.streams import clock
from tml_jax.streams.timeline import Role, Timeline, Track

SEPARATED = "separated_by"  # of Timeline.metadata: its channels were one

# Names of measures in the report, with their units.
LEVEL = "level of the quieter channel, dBFS"
RATE = "sound's time over words' time"
SWAP = "fit of words to the other channel less that to their own"
WORDS_DRIFT = "drift of sound against words, ppm"
WORDS_OFFSET = "sound later than words, s"
CHANNEL_DRIFT = "drift of the user's channel against the agent's, ppm"
CHANNEL_OFFSET = "user's channel later than the agent's, s"
ECHO = "echo of the agent in the user's channel, dB"
ECHO_DELAY = "delay of that echo, ms"
LEAKAGE = "leakage between separated channels, dB"
ERLE = "echo taken out, dB"

# A window of the model is 0.2 s: what is later than that falls into another
# one. Drift adds up to half of it. Words of logs are exact to a window, and
# those of segments to their silence: only words that are later still are wrong.
_MOST_OFFSET = clock.TICKS.seconds
_MOST_WORDS_OFFSET = 2 * clock.TICKS.seconds
MOST_SLIP = clock.TICKS.seconds / 2
_SURE = 4.0  # standard errors of a slope
MOST_SWAP = 0.2
MOST_ECHO_DB = -35.0
_NEAR_ONE = 0.02  # of the rate; nearer is drift
_QUIET_DB = -60.0
_OTHER_SPEAKS = 20.0  # seconds, beside which silence is a fault
_WORDS_OF_SILENCE = 5
_EARLY = 0.02  # seconds that echo may be early, by its rise
_PAIR = 0.002  # seconds


@dataclasses.dataclass(frozen=True)
class Measured:
  """A recording that was measured.

  Attributes:
    values: by the names above; what cannot be measured is not there.
    fit: of words to sound.
    heard: the agent in the user's channel.
    silent: the role of a channel that is silent.
  """

  values: Mapping[str, float]
  fit: words.Fit | None = None
  heard: bleed.Bleed | None = None
  silent: Role | None = None


@dataclasses.dataclass(frozen=True)
class Fault:
  """One that a recording has.

  Attributes:
    check: what found it.
    reason: for which a recording is skipped.
    detail: its number, and what is allowed.
  """

  check: Check
  reason: Reason
  detail: str


def sides(item: Timeline) -> tuple[Track, ...]:
  """User and agent where there are both, else the one with sound.

  A role with several tracks is left out: nothing tells which channel it is.
  """
  found = []
  for role in (Role.USER, Role.AGENT):
    of_role = [track for track in item.tracks if track.role == role]
    if len(of_role) == 1 and of_role[0].audio.size:
      found += of_role
  return tuple(found)


def of(item: Timeline, *, mending: Mending) -> Measured:
  """Measures a recording of one or two sides."""
  tracks = sides(item)
  if not tracks or not mending.check:
    return Measured({})
  sounds = [activity.of(track) for track in tracks]
  values: dict[str, float] = {}
  silent = None
  if len(tracks) == 2:
    values[LEVEL] = min(each.loud for each in sounds)
    silent = _silent(tracks, sounds)
  found = None
  if silent is None and any(
    each in mending.check
    for each in (Check.RATE, Check.SWAP, Check.DRIFT, Check.OFFSET)
  ):
    found = words.fit(tracks, sounds=sounds, duration=item.duration)
  heard = None
  is_separated = SEPARATED in item.metadata
  if is_separated and len(tracks) == 2 and Check.LEAKAGE in mending.check:
    values[LEAKAGE] = _leakage(sounds)
  bleeds = (Check.DRIFT, Check.OFFSET, Check.ECHO)
  if (
    len(tracks) == 2
    and silent is None
    and not is_separated  # what is heard there is leakage
    and any(each in mending.check for each in bleeds)
  ):
    patterns = activity.patterns(sounds, bins=int(item.duration / STEP) + 1)
    heard = _heard(tracks, patterns)
    values |= _of_bleed(heard, tracks=tracks, patterns=patterns)
  if found is not None:
    values |= _of_words(found, bled=values)
  return Measured(values, found, heard, silent)


def _silent(tracks: Sequence[Track], sounds: Sequence[Sounding]) -> Role | None:
  """The side of which nothing is heard although it should be."""
  for track, own, other in zip(tracks, sounds, sounds[::-1], strict=True):
    if own.seconds and own.loud > _QUIET_DB:
      continue
    if len(track.words) >= _WORDS_OF_SILENCE or other.seconds > _OTHER_SPEAKS:
      return track.role
  return None


def _heard(
  tracks: Sequence[Track], patterns: Sequence[np.ndarray]
) -> bleed.Bleed:
  """The agent in the user's channel."""
  user, agent = tracks
  return bleed.find(
    agent.audio,
    user.audio,
    speaks=patterns[1],
    covered=patterns[0],
    step=STEP,
  )


def _of_bleed(
  heard: bleed.Bleed,
  *,
  tracks: Sequence[Track],
  patterns: Sequence[np.ndarray],
) -> dict[str, float]:
  """What the agent's bleed tells, and with the user's in the other channel.

  A delay of sound on its way and a later channel look the same in one
  direction. They differ in two: half the difference is the channels' offset.
  In one direction, what is heard before it is said is an offset. Strong bleed
  is found in the other direction, too, at the same delay before: of such a pair
  the one that is late is the bleed.
  """
  values: dict[str, float] = {}
  if not heard.blocks:
    return values
  values[ECHO] = heard.level_db
  if heard.delay is None:
    return values
  user, agent = tracks
  back = bleed.find(
    user.audio,
    agent.audio,
    speaks=patterns[0],
    covered=patterns[1],
    step=STEP,
  )
  is_pair = back.delay is not None and abs(heard.delay + back.delay) < _PAIR
  if is_pair and heard.delay < -_PAIR:
    values[ECHO] = bleed.NOT_FOUND_DB
    return values
  values[ECHO_DELAY] = 1000 * heard.delay
  if heard.slope is not None:
    values[CHANNEL_DRIFT] = 1e6 * heard.slope
  if back.delay is not None and not is_pair:
    values[CHANNEL_OFFSET] = (heard.delay - back.delay) / 2
  elif heard.delay < -_EARLY:
    values[CHANNEL_OFFSET] = heard.delay
  return values


def _of_words(
  found: words.Fit, *, bled: Mapping[str, float]
) -> dict[str, float]:
  """What the words tell; of the channels only where bleed tells nothing."""
  values = {RATE: found.scale}
  if found.crossed is not None:
    values[SWAP] = found.crossed - found.own
  lines = [line for line in found.lines if line is not None]
  if not lines or abs(found.scale - 1) > _NEAR_ONE:
    return values
  reference = lines[-1]  # of the agent, where both have words
  if reference.tells(reference.offset):
    values[WORDS_OFFSET] = reference.offset
  slopes = [line.slope for line in lines if line.slope is not None]
  if len(slopes) == len(lines):
    # What the whole was scaled by, and what was left.
    values[WORDS_DRIFT] = 1e6 * (found.scale * (1 + slopes[-1]) - 1)
  if len(lines) == 2 and SWAP in values and values[SWAP] < MOST_SWAP:
    apart = lines[0].offset - lines[1].offset
    if CHANNEL_OFFSET not in bled and ECHO_DELAY not in bled:
      if all(line.tells(apart) for line in lines):
        values[CHANNEL_OFFSET] = apart
    if len(slopes) == 2 and CHANNEL_DRIFT not in bled:
      values[CHANNEL_DRIFT] = 1e6 * (slopes[0] - slopes[1])
  return values


def _leakage(sounds: Sequence[Sounding]) -> float:
  """Median dB of the weaker channel below the stronger, while one speaks.

  In most frames of a conversation one side speaks alone, so that the median
  over all frames with speech is that of those, and both at once do not matter.
  """
  count = min(len(each.level) for each in sounds)
  levels = np.stack([each.level[:count] for each in sounds])
  speech = sum(
    activity.covered(each.spans, count=count, step=0.01) for each in sounds
  )
  apart = levels.min(axis=0) - levels.max(axis=0)
  spoken = apart[np.asarray(speech) > 0.5]
  return float(np.median(spoken)) if len(spoken) else 0.0


def most_offset(name: str, *, values: Mapping[str, float]) -> float:
  """Seconds from which an offset is a fault: more where words alone tell it."""
  if name == CHANNEL_OFFSET and ECHO_DELAY in values:
    return _MOST_OFFSET
  return _MOST_WORDS_OFFSET


def faults(
  measured: Measured, *, mending: Mending, duration: float
) -> list[Fault]:
  """What is over its threshold, in the order in which it is mended."""
  values = measured.values
  found: list[Fault] = []

  def add(check: Check, reason: Reason, detail: str) -> None:
    if check in mending.check:
      found.append(Fault(check, reason, detail))

  if measured.silent is not None:
    add(
      Check.SILENT,
      Reason.ONE_SILENT,
      f"the {measured.silent}'s, {values[LEVEL]:.0f} dBFS",
    )
  rate = values.get(RATE, 1.0)
  if abs(rate - 1) > _NEAR_ONE:
    add(
      Check.RATE,
      Reason.WRONG_RATE,
      f"the sound lasts {rate:.3f} times as long as its words say",
    )
    return found  # all else is measured when this is mended
  if values.get(SWAP, -1.0) >= MOST_SWAP:
    add(
      Check.SWAP,
      Reason.SWAPPED,
      f"words fit the other channel by {values[SWAP]:.2f} better than their"
      f" own, over {MOST_SWAP}",
    )
  for name, what in ((CHANNEL_DRIFT, "channels"), (WORDS_DRIFT, "words")):
    slip = abs(values.get(name, 0.0)) * 1e-6 * duration
    if slip > MOST_SLIP and _is_sure(name, measured):
      add(
        Check.DRIFT,
        Reason.DRIFTS,
        f"{what} by {values[name]:.0f} ppm, {slip:.2f} s at the end, over"
        f" {MOST_SLIP} s",
      )
  for name, what in ((CHANNEL_OFFSET, "user's channel"), (WORDS_OFFSET, "")):
    late, most = values.get(name, 0.0), most_offset(name, values=values)
    if abs(late) > most:
      add(
        Check.OFFSET,
        Reason.OFFSET,
        f"{what or 'sound against words'} {late:+.2f} s late, over {most} s",
      )
  if values.get(ECHO, bleed.NOT_FOUND_DB) > MOST_ECHO_DB:
    add(
      Check.ECHO,
      Reason.ECHO,
      f"{values[ECHO]:.1f} dB after {values[ECHO_DELAY]:.0f} ms, over"
      f" {MOST_ECHO_DB:.0f} dB",
    )
  if values.get(LEAKAGE, -120.0) > mending.max_leakage_db:
    add(
      Check.LEAKAGE,
      Reason.LEAKS,
      f"{values[LEAKAGE]:.1f} dB, over --max_leakage_db"
      f"={mending.max_leakage_db:g}",
    )
  return found


def _is_sure(name: str, measured: Measured) -> bool:
  """A slope is many standard errors from none."""
  if measured.fit is None:
    return True  # of bleed, exact to a few ppm
  errors = [line.error for line in measured.fit.lines if line is not None]
  if name == CHANNEL_DRIFT:
    if measured.heard is not None and measured.heard.slope is not None:
      return True
    error = float(np.linalg.norm(errors))
  else:
    error = max(errors, default=0.0)
  return abs(measured.values[name]) * 1e-6 > _SURE * error
