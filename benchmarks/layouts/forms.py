"""The calls that are laid out, and what all forms of them share.

For: the other files here, and benchmarks.data_importers. Not for: a form of its
own. Start at `LAYOUTS`; `calls` makes what is laid out.
"""

import dataclasses
import io
import json
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import scipy.signal
import soundfile

from benchmarks import planted
from tml_jax.streams import clock
from tml_jax.streams.timeline import Role, Timeline, Track, Word

BOTH = (Role.USER, Role.AGENT)
SIDES = dict(zip(BOTH, "AB", strict=True))  # of what names them by letters
RATE = clock.SAMPLE_RATE
_PAUSE = 0.3  # seconds without a word, which end an utterance

Write = Callable[[pathlib.Path, list[Timeline]], None]


@dataclasses.dataclass(frozen=True)
class Layout:
  """A form of calls.

  Attributes:
    write: lays calls out below a folder, which is there and empty.
    options: of the importer, whose `src` is that folder.
    said: whose words are in it.
    heard: whose sound is in it.
  """

  write: Write
  options: Mapping[str, str]
  said: tuple[Role, ...] = BOTH
  heard: tuple[Role, ...] = BOTH


LAYOUTS: dict[str, Layout] = {}  # by the importer's name


LAYOUTS: dict[str, Layout] = {}  # by the importer's name


def calls(
  voices: Mapping[Role, list[Track]], *, count: int, seconds: float
) -> list[Timeline]:
  """Calls with noise of -60 dBFS under each side, the same every time.

  Args:
    voices: prompts of each side.
    count: of calls.
    seconds: of each.
  """
  return [
    planted.call(number, voices, seconds=seconds, noise=-60.0, jitter=0.0)
    for number in range(count)
  ]


def layout(
  name: str,
  *,
  said: tuple[Role, ...] = BOTH,
  heard: tuple[Role, ...] = BOTH,
  **options: str,
) -> Callable[[Write], Write]:
  """Decorator of what writes the form of an importer."""

  def decorator(write: Write) -> Write:
    LAYOUTS[name] = Layout(write, options, said=said, heard=heard)
    return write

  return decorator


def named(items: list[Timeline]) -> Iterator[tuple[str, Timeline]]:
  """With names of four digits."""
  return ((f"{2000 + number}", item) for number, item in enumerate(items))


def track(item: Timeline, role: Role) -> Track:
  track = item.track(role)
  assert track is not None  # `calls` gives both
  return track


def both(item: Timeline) -> list[np.ndarray]:
  """[n] of the user and of the agent."""
  return [planted.sound(item, role) for role in BOTH]


def utterances(track: Track) -> list[tuple[Word, ...]]:
  """Words in stretches that a pause ends."""
  found: list[tuple[Word, ...]] = []
  for word in track.words:
    if found and word.start - found[-1][-1].end < _PAUSE:
      found[-1] = (*found[-1], word)
    else:
      found.append((word,))
  return found


def turns(item: Timeline) -> list[tuple[Role, tuple[Word, ...]]]:
  """Utterances of both, by their beginnings."""
  found = [
    (role, words) for role in BOTH for words in utterances(track(item, role))
  ]
  return sorted(found, key=lambda turn: turn[1][0].start)


def words(
  item: Timeline, *, key: str, text: str = "text"
) -> list[dict[str, Any]]:
  """Words of both; `key` names who says them and `text` what."""
  return [
    {key: str(role), text: word.text, "start": word.start, "end": word.end}
    for role, words in turns(item)
    for word in words
  ]


def text(words: tuple[Word, ...]) -> str:
  return " ".join(word.text for word in words)


def at_rate(rate: int, sound: np.ndarray, *, of: int = RATE) -> np.ndarray:
  """[n] at another rate."""
  if rate == of:
    return sound
  common = math.gcd(rate, of)
  found = scipy.signal.resample_poly(sound, rate // common, of // common)
  return found.astype(np.float32)


def write(
  path: pathlib.Path,
  *sounds: np.ndarray,
  rate: int = RATE,
  of: int = RATE,
  **how: Any,
) -> None:
  """A file with a channel for each sound, of 16 bits if nothing else is said.

  Args:
    path: of the file.
    *sounds: [n] each.
    rate: of the file, Hz.
    of: rate of the sounds.
    **how: of `soundfile.write`.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  channels = [at_rate(rate, sound, of=of) for sound in sounds]
  soundfile.write(path, np.stack(channels, axis=1), rate, **how)


def flac(*sounds: np.ndarray) -> bytes:
  buffer = io.BytesIO()
  soundfile.write(buffer, np.stack(sounds, axis=1), RATE, format="FLAC")
  return buffer.getvalue()


def put(path: pathlib.Path, *lines: str) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def put_json(path: pathlib.Path, value: Any) -> None:
  put(path, json.dumps(value))


def put_lines(path: pathlib.Path, rows: list[Any]) -> None:
  put(path, *map(json.dumps, rows))
