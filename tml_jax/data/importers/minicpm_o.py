"""Recordings of MiniCPM-o-Demo: a user with a camera, and the model.

For: data/sessions/ID with recording.json, user_audio, user_frames and ai_audio
beside it, at any depth. Not for: sessions by turns (mode chat), whose
recording.json has no chunks of a duplex session. Start at `MiniCpmO`.

Roles are those of the format. Time is the model's: chunks of the user follow
each other without a gap, as they reached it. merged_replay.wav, the user on the
left and the model on the right, is the sound where there is one; else the
files of both are laid on that clock. When chunks came by the wall clock is kept
in `received_ms` of the metadata.
"""

import dataclasses
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tml_jax import errors
from tml_jax.data import calls, media, pairs, source, stored
from tml_jax.data import options as options_lib
from tml_jax.data.source import BadRecording, Note, Part, Reason
from tml_jax.streams import clock
from tml_jax.streams.timeline import Role, Timeline, VideoFrame

_RECORDING = "recording.json"
_MAX_STILL = 64 << 20  # bytes
_SIDES = {"user": Role.USER, "agent": Role.AGENT}


@dataclasses.dataclass
class _Laid:
  """What chunks hold, on the model's clock."""

  user: np.ndarray
  agent: np.ndarray
  said: list[calls.Said]
  frames: list[VideoFrame]


class MiniCpmO(calls.Listed):
  """The sessions of a folder."""

  def __init__(self, src: str, *, options: options_lib.Options):
    """Lists the files.

    Raises:
      errors.UserError: there are none.
    """
    self._place, self._options = stored.Place(src), options
    self._sees = options.choice("video", among=("yes", "no")) == "yes"
    self._size = options.size("size")
    self._parts = [
      calls.call(posixpath.dirname(file.name) or _RECORDING, [file])
      for file in self._place.files(ends=(_RECORDING,))
      if posixpath.basename(file.path) == _RECORDING
    ]
    if not self._parts:
      raise errors.UserError(f"{src} has no {_RECORDING}")

  def read(self, part: Part) -> Iterator[Timeline | BadRecording]:
    assert isinstance(part, calls.Call)  # of `parts`
    try:
      folder, notes = posixpath.dirname(part.paths[0]), calls.Notes()
      with calls.reading(f"{part.name}/{_RECORDING}"):
        content = calls.value(self._place, part.paths[0])
        chunks = content["chunks"]
        if content.get("mode") != "duplex" or not chunks:
          raise ValueError(
            f"mode {content.get('mode')!r:.80}, no duplex chunks"
          )
        laid = self._laid(chunks, folder=folder, notes=notes)
        received = [chunk.get("receive_ts_ms") for chunk in chunks]
        merged = content.get("merged_replay")
      heard = {"user": laid.user, "agent": laid.agent}
      if isinstance(merged, str) and merged:
        path = self._place.below(folder, merged)
        sound = calls.sound(self._place, path, channels=2)
        heard = dict(zip(heard, sound, strict=True))
      yield from calls.timelines(
        part.name,
        {
          side: calls.Side(
            *(audio, laid.said if side == "agent" else ()),
            voice=f"{part.name} {side}",
          )
          for side, audio in heard.items()
        },
        among=[_SIDES],
        metadata=self._options.metadata(calls.KIND) | {"received_ms": received},
        notes=notes,
        video={"user": tuple(laid.frames)},
        lasts=len(laid.user) / clock.SAMPLE_RATE,
      )
    except BadRecording as error:
      yield error

  def _laid(
    self,
    chunks: Sequence[Mapping[str, Any]],
    *,
    folder: str,
    notes: calls.Notes,
  ) -> _Laid:
    """Lays chunks one after the other, and what the model said at its chunk."""
    user: list[np.ndarray] = []
    agent: list[tuple[int, np.ndarray]] = []
    laid = _Laid(np.zeros(0), np.zeros(0), [], [])
    at = end = 0  # samples: of the chunk, and where the model's sound ends
    for chunk in chunks:
      if not chunk.get("user_audio"):
        raise BadRecording(
          Reason.MISSING, f"chunk {chunk.get('index')!r:.20} has no sound"
        )
      user.append(self._sound(folder, chunk["user_audio"]))
      if self._sees and chunk.get("user_frame"):
        self._look(laid, folder, chunk["user_frame"], at=at, notes=notes)
      result = chunk.get("result") or {}
      start, stop = at, at + len(user[-1])
      if result.get("ai_audio"):
        sound = self._sound(folder, result["ai_audio"])
        start = max(at, end)
        stop = end = start + len(sound)
        agent.append((start, sound))
      if result.get("text"):
        laid.said.append(
          calls.Said(
            start / clock.SAMPLE_RATE,
            stop / clock.SAMPLE_RATE,
            result["text"],
          )
        )
      at += len(user[-1])
    laid.user = np.concatenate(user)
    laid.agent = np.zeros(max(at, end), np.float32)
    for start, sound in agent:
      laid.agent[start : start + len(sound)] = sound
    if not laid.said:
      notes[Note.NO_WORDS] += 1
    return laid

  def _sound(self, folder: str, name: str) -> np.ndarray:
    """[n] of a chunk, which may be silent."""
    path = self._place.below(folder, name)
    base = source.as_text(posixpath.basename(path))
    with self._place.opened(path) as file:
      return pairs.mono(media.sound_of_file(file, name=base))

  def _look(
    self, laid: _Laid, folder: str, name: str, *, at: int, notes: calls.Notes
  ) -> None:
    """Adds a still; one that cannot be read is counted."""
    height, width = self._size
    try:
      path = self._place.below(folder, name)
      image = media.picture_of_bytes(
        self._place.read(path, limit=_MAX_STILL),
        name=source.as_text(name),
        height=height,
        width=width,
      )
    except BadRecording:
      notes[Note.NO_STILL] += 1
      return
    laid.frames.append(VideoFrame(at / clock.SAMPLE_RATE, image))


@source.register_importer("minicpm_o")
def open_folder(src: str, *, options: Mapping[str, str]) -> MiniCpmO:
  """The folder of a session, or of several, at a path or URL."""
  known = options_lib.Options(
    options, known={"video": "yes"}, importer="minicpm_o"
  )
  return MiniCpmO(src, options=known)
