"""A recorded session, played to a model again.

For: `sample --session=DIR`, with a folder that `serve --record` wrote. Not for:
training on such folders (`data.importers.sessions`). Start at `Replay`: it
brings every window as it came, sound to the sample and text to the token, so
that the same model decides the same.
"""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import PIL.Image

from tml_jax import errors
from tml_jax.config import Config, StreamsConfig
from tml_jax.data import audio
from tml_jax.live.server import recording
from tml_jax.live.session import Senses
from tml_jax.live.transport import Arrived
from tml_jax.streams import clock
from tml_jax.streams.frame import Control, Frame
from tml_jax.streams.timeline import (
  Event,
  EventKind,
  Role,
  Timeline,
  Track,
  VideoFrame,
)
from tml_jax.streams.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class _Header:
  """Of inputs.jsonl."""

  id: str
  seed: int
  fingerprint: str
  window_ms: int
  first_window: int


class Replay:
  """What a user of a recorded session said, showed and typed.

  Attributes:
    grid: of the windows.
    seed: of the session.
    fingerprint: of the model that was talked to.
  """

  def __init__(self, directory: str, *, config: Config):
    """Reads all but the pictures.

    Raises:
      errors.UserError: no such folder, not from its beginning, or of windows
        that the model does not have.
    """
    self._directory = pathlib.Path(directory)
    self._streams = config.streams
    self.grid = clock.of(config.streams)
    header, self._records = self._read()
    if header.first_window:
      raise self._wrong(
        f"it was recorded from window {header.first_window} on, and what was"
        " said before is not known: allow it before the session begins"
      )
    if header.window_ms != self.grid.ms:
      raise self._wrong(
        f"its windows have {header.window_ms} ms, those of the run"
        f" {self.grid.ms}"
      )
    self._id, self.seed = header.id, header.seed
    self.fingerprint = header.fingerprint
    path = self._directory / recording.SOUND
    if not path.is_file():
      raise self._wrong(f"it has no {recording.SOUND}: copy the whole folder")
    sound = recording.user_side(path)
    size = self.grid.samples
    self._samples = sound[: len(self._records) * size].reshape(-1, size)
    # A server that was killed may not have written its last window.
    self._records = self._records[: len(self._samples)]

  def __len__(self) -> int:
    return len(self._records)

  def has(self, window: int) -> bool:
    """Whether the session went on."""
    return window < len(self)

  @property
  def senses(self) -> set[Senses]:
    """The kinds of window that the user brings."""
    more = any(r["typed"] or r["results"] or r["images"] for r in self._records)
    return {Senses.SOUND, Senses.ALL} if more else {Senses.SOUND}

  def check_room(self, config: StreamsConfig) -> None:
    """Nothing: what was not read then is not read now."""

  def take(self, frame: Frame) -> None:
    """Nothing: results of calls come when they came then."""

  def window(self, k: int) -> Arrived:
    """All that window `k` brought."""
    record = self._records[k]
    return Arrived(
      samples=None if record["is_absent"] else self._samples[k],
      images=[self._image(name) for name in record["images"]],
      typed=[
        *((Control.RESULT, tokens) for tokens in record["results"]),
        *((Control.USER_TEXT, tokens) for tokens in record["typed"]),
      ],
      is_asked=record["is_asked"],
    )

  def same(self, frames: list[Frame]) -> int:
    """How many windows were decided as they were then."""
    return sum(
      recording.outputs(frame, config=self._streams) == record["outputs"]
      for frame, record in zip(frames, self._records, strict=False)
    )

  def timeline(self, tokenizer: Tokenizer) -> Timeline:
    """The user's side, for logs and pictures."""
    sound = self._samples.reshape(-1)
    events, video = [], []
    for k, record in enumerate(self._records):
      at = k * self.grid.seconds
      for tokens in record["typed"]:
        text = tokenizer.decode(tokens)
        events.append(Event(at, EventKind.USER_TEXT, text))
      video += [VideoFrame(at, self._image(n)) for n in record["images"]]
    spans = tuple(audio.speech_spans(sound, name=self._id))
    return Timeline(
      id=self._id,
      duration=len(self) * self.grid.seconds,
      tracks=(Track(Role.USER, sound, (), spans, self._id),),
      video=tuple(video),
      events=tuple(events),
    )

  def _image(self, name: str) -> np.ndarray:
    path = (self._directory / name).resolve()
    if not path.is_relative_to(self._directory.resolve()):
      raise self._wrong(f"{name} lies outside of it")
    try:
      with PIL.Image.open(path, formats=("PNG",)) as image:
        return np.asarray(image.convert("RGB"))
    except OSError as error:
      raise self._wrong(f"{name}: {error}") from error

  def _read(self) -> tuple[_Header, list[dict[str, Any]]]:
    path = self._directory / recording.INPUTS
    try:
      lines = path.read_text(encoding="utf-8").splitlines()
      header, *records = [json.loads(line) for line in lines]
      if (header["schema"], header["version"]) != (
        recording.SCHEMA,
        recording.VERSION,
      ):
        raise ValueError(f"version {header['version']!r:.20}")
      for k, record in enumerate(records):
        if record["window"] != header["first_window"] + k:
          raise ValueError(f"window {record['window']!r:.20} is at line {k}")
        for name in ("is_absent", "is_asked"):
          if not isinstance(record[name], bool):
            raise ValueError(f"window {k}: {name}")
        for name in ("results", "typed"):
          for tokens in record[name]:
            if not all(type(token) is int for token in tokens):
              raise ValueError(f"window {k}: {name}")
        if not all(isinstance(name, str) for name in record["images"]):
          raise ValueError(f"window {k}: images")
      fields = [field.name for field in dataclasses.fields(_Header)]
      return _Header(**{name: header[name] for name in fields}), records
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
      raise self._wrong(f"{recording.INPUTS}: {error!r:.120}") from error

  def _wrong(self, what: str) -> errors.UserError:
    return errors.UserError(
      f"--session={self._directory}: {what}; give a folder that `serve"
      " --record` has written"
    )
