"""A recording as records of a shard, and back, whole or a stretch of it.

For: the bytes of a corpus. Not for: where they lie (`writing`, `reading`).
Start reading at `encode` and `decode`.

A recording is one record for each `CHUNK_SECONDS`, so that a window of a long
call is read without the rest of it. The first has everything but the sound and
the pictures of later ones:

  kind       "timeline", or "document" with the field `document` alone
  id, duration, events, metadata, muted
  tracks     role, words, spans, voice, number of samples
  video      time of each frame
  chunk      the first; a record that follows is such a chunk alone

A chunk has the sound of each track as FLAC of 16 bits, which loses nothing
(nothing at all where it is silent), and its pictures as JPEG of quality 95
without subsampling of colours. Before every record stands its CRC-32 (4 bytes,
little endian).
"""

import dataclasses
import io
import math
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import msgpack
import numpy as np
import soundfile
from PIL import Image

from tml_jax.streams import clock, document
from tml_jax.streams.document import Document
from tml_jax.streams.timeline import (
  Event,
  EventKind,
  Role,
  Span,
  Timeline,
  Track,
  VideoFrame,
  Word,
)

CHUNK_SECONDS = 30.0
_CHUNK = round(CHUNK_SECONDS * clock.SAMPLE_RATE)
_QUALITY = 95
_FULL = 32767
_NOTHING = np.zeros((0, 0, 3), np.uint8)

Item = Timeline | Document
# The records from one number on, of a recording.
Read = Callable[[Sequence[int]], list[bytes]]


def encode(item: Item) -> list[bytes]:
  """The records of a valid recording or document.

  Raises:
    TypeError: it holds a value that cannot be written.
  """
  if isinstance(item, Document):
    return [_sealed({"kind": "document", "document": document.to_bytes(item)})]
  first, *others = (_chunk(item, number) for number in range(_chunks_of(item)))
  header = _header(item) | {"chunk": first}
  return [_sealed(header), *map(_sealed, others)]


def check(item: Item) -> None:
  """Finds what cannot be written, without coding sound.

  Raises:
    TypeError: it holds such a value.
  """
  if isinstance(item, Document):
    document.to_bytes(item)
  else:
    msgpack.packb(_header(item))


def _header(item: Timeline) -> dict[str, Any]:
  return {
    "kind": "timeline",
    "id": item.id,
    "duration": item.duration,
    "tracks": [
      {
        "role": str(track.role),
        "samples": len(track.audio),
        "words": [(w.start, w.end, w.text) for w in track.words],
        "spans": [(s.start, s.end) for s in track.spans],
        "voice": track.voice,
      }
      for track in item.tracks
    ],
    "video": [frame.time for frame in item.video],
    "events": [(e.time, str(e.kind), e.text) for e in item.events],
    "metadata": item.metadata,
    "muted": [(s.start, s.end) for s in item.muted],
  }


def decode(
  read: Read, *, records: int, seconds: tuple[float, float] | None = None
) -> Item:
  """A recording of so many records.

  Args:
    read: gives those at some numbers, counted from its first.
    records: how many there are.
    seconds: from where to where sound and pictures are needed. Elsewhere it is
      silent, which takes no memory, and has no pictures. Words, events and the
      duration are those of the whole.

  Raises:
    ValueError: a record is damaged.
  """
  header = _opened(read([0])[0])
  try:
    if header["kind"] == "document":
      return document.from_bytes(header["document"])
    numbers = _needed(records, seconds=seconds)
    later = [number for number in numbers if number]
    chunks = dict(
      zip(later, map(_opened, read(later) if later else []), strict=True)
    )
    if 0 in numbers:
      chunks[0] = header["chunk"]
    return _timeline(header, chunks)
  except Exception as error:  # msgpack, FLAC and JPEG raise unrelated types
    raise ValueError(f"it is no recording: {error!r}") from error


def outline(record: bytes) -> Item:
  """A recording without its sound and pictures, of its first record alone.

  Tracks are as long as they are and silent, which takes no memory; of pictures
  there are the times. Documents are whole.

  Raises:
    ValueError: the record is damaged.
  """
  header = _opened(record)
  try:
    if header["kind"] == "document":
      return document.from_bytes(header["document"])
    video = tuple(VideoFrame(time, _NOTHING) for time in header["video"])
    return dataclasses.replace(_timeline(header, {}), video=video)
  except Exception as error:  # msgpack raises many unrelated types
    raise ValueError(f"it is no recording: {error!r}") from error


def _needed(records: int, *, seconds: tuple[float, float] | None) -> list[int]:
  if seconds is None:
    return list(range(records))
  end = min(seconds[1], records * CHUNK_SECONDS)  # it may be infinite
  first = max(0, math.floor(seconds[0] / CHUNK_SECONDS))
  return list(range(first, math.ceil(end / CHUNK_SECONDS)))


def _chunks_of(item: Timeline) -> int:
  longest = max((len(track.audio) for track in item.tracks), default=0)
  last = max((_chunk_at(frame.time) for frame in item.video), default=0)
  return max(1, -(-longest // _CHUNK), last + 1)


def _chunk_at(time: float) -> int:
  return math.floor(time / CHUNK_SECONDS)


def _chunk(item: Timeline, number: int) -> dict[str, Any]:
  span = slice(number * _CHUNK, (number + 1) * _CHUNK)
  return {
    "sound": [_to_flac(track.audio[span]) for track in item.tracks],
    "video": [
      _to_jpeg(frame.image)
      for frame in item.video
      if _chunk_at(frame.time) == number
    ],
  }


def _timeline(header: dict[str, Any], chunks: dict[int, Any]) -> Timeline:
  tracks = []
  for place, track in enumerate(header["tracks"]):
    audio = np.zeros(track["samples"], np.float32)
    for number, chunk in chunks.items():
      span = slice(number * _CHUNK, (number + 1) * _CHUNK)
      _from_flac(chunk["sound"][place], into=audio[span])
    tracks.append(
      Track(
        role=Role(track["role"]),
        audio=audio,
        words=tuple(Word(*word) for word in track["words"]),
        spans=tuple(Span(*span) for span in track["spans"]),
        voice=track["voice"],
      )
    )
  pictures = {number: iter(chunk["video"]) for number, chunk in chunks.items()}
  return Timeline(
    id=header["id"],
    duration=header["duration"],
    tracks=tuple(tracks),
    video=tuple(
      VideoFrame(time, _from_jpeg(next(pictures[_chunk_at(time)])))
      for time in header["video"]
      if _chunk_at(time) in pictures
    ),
    events=tuple(
      Event(time, EventKind(kind), text)
      for time, kind, text in header["events"]
    ),
    metadata=header["metadata"],
    muted=tuple(Span(*span) for span in header["muted"]),
  )


def _to_flac(audio: np.ndarray) -> bytes:
  pcm = np.round(np.clip(audio, -1, 1) * _FULL).astype(np.int16)
  if not pcm.any():
    return b""
  file = io.BytesIO()
  soundfile.write(file, pcm, clock.SAMPLE_RATE, format="FLAC", subtype="PCM_16")
  return file.getvalue()


def _from_flac(data: bytes, *, into: np.ndarray) -> None:
  if not data:
    return
  with soundfile.SoundFile(io.BytesIO(data)) as file:
    if (file.frames, file.channels) != (len(into), 1):
      raise ValueError(
        f"{file.channels} x {file.frames} samples, want 1 x {len(into)}"
      )
    pcm = file.read(dtype="int16")
  np.divide(pcm, np.float32(_FULL), out=into)


def _to_jpeg(image: np.ndarray) -> bytes:
  file = io.BytesIO()
  Image.fromarray(image).save(
    file, format="JPEG", quality=_QUALITY, subsampling=0
  )
  return file.getvalue()


def _from_jpeg(data: bytes) -> np.ndarray:
  with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
    return np.array(image)


def _sealed(content: dict[str, Any]) -> bytes:
  data = msgpack.packb(content)
  return struct.pack("<I", zlib.crc32(data)) + data


def _opened(record: bytes) -> Any:
  """What a record holds.

  Raises:
    ValueError: its bytes are not those that were written.
  """
  if len(record) < 4:
    raise ValueError(f"it has {len(record)} bytes")
  data = memoryview(record)[4:]
  if zlib.crc32(data) != struct.unpack_from("<I", record)[0]:
    raise ValueError("checksum mismatch")
  return msgpack.unpackb(data)
