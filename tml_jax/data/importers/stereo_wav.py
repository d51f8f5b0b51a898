"""Conversations of two people in WAV files, with or without timed words.

For: a user and an agent recorded apart, at any sample rate. Not for: mixed
recordings, which must be separated first. Start reading at `StereoWav`;
docs/add_a_data_source.md walks through this file. `stereo_wav:calls` reads the
folder ROOT/calls:

  0001.wav                           two channels, the user on the left
  channels.json                      only where it is otherwise: who is on the
                                     left and on the right, ["agent", "user"]
  0002.user.wav, 0002.agent.wav      or a file of one channel for each
  0001.json, 0002.json               {"words": [{"role": "agent",
                                     "start": 1.2, "end": 1.5, "text": "hello"},
                                     ...]}, in seconds

A folder has words for all recordings or for none: where some have a .json
file, a recording without one is skipped. Words without times are left out.
"""

import pathlib

import numpy as np

from tml_jax import errors, files
from tml_jax.data import audio, media, source, utterance
from tml_jax.streams import clock
from tml_jax.streams.timeline import Role, Timeline, Track, Word

ROLES = (Role.USER, Role.AGENT)  # left, right, unless channels.json says else
CHANNELS = "channels.json"
_MAX_SECONDS = 3600.0

Words = dict[Role, tuple[Word, ...]]


class StereoWav:
  """The conversations of one folder, in order of their names."""

  def __init__(self, folder: pathlib.Path):
    """Lists the files; they are opened one at a time, by `__getitem__`.

    Raises:
      errors.UserError: there are none, or channels.json is broken.
    """
    self._folder = folder
    self._roles = _roles(folder / CHANNELS)
    parts: dict[str, set[str]] = {}  # role of each file, "" with two channels
    for path in folder.glob("*.wav"):
      stem, role = _split(path)
      parts.setdefault(stem, set()).add(role)
    if not parts:
      raise errors.UserError(
        f"no *.wav in {folder}; give --sounds_root the directory above it"
      )
    for stem, roles in parts.items():
      if "" in roles and len(roles) > 1:
        raise errors.UserError(
          f"{folder} has {stem}.wav and also {stem}.{max(roles)}.wav: keep one"
        )
    self._stems = sorted(parts)
    self._has_words = any(_sidecar(folder, stem).exists() for stem in parts)

  def __len__(self) -> int:
    return len(self._stems)

  def __getitem__(self, index: int) -> Timeline:
    stem = self._stems[index]
    voices = self._voices(stem)
    words, untimed = (
      _words(_sidecar(self._folder, stem)) if self._has_words else ({}, 0)
    )
    tracks = [
      Track(
        role=role,
        audio=voices[role],
        words=words.get(role, ()),
        spans=tuple(audio.speech_spans(voices[role], name=f"{stem} {role}")),
        voice=stem,
      )
      for role in ROLES
    ]
    longest = max(len(track.audio) for track in tracks)
    return Timeline(
      id=f"stereo_wav/{stem}",
      duration=longest / clock.SAMPLE_RATE,
      tracks=tuple(tracks),
      metadata=source.notes({source.Note.UNTIMED: untimed}),
    )

  def stamp(self, index: int) -> str:
    stem, folder = self._stems[index], self._folder
    paths = [folder / f"{stem}.wav"]
    if not paths[0].exists():
      paths = [folder / f"{stem}.{role}.wav" for role in ROLES]
    words = [_sidecar(folder, stem)] if self._has_words else []
    roles = " ".join(self._roles)
    return f"{roles} {source.stamp_of(*paths, *words)}"

  def _voices(self, stem: str) -> dict[Role, np.ndarray]:
    """[n] float32 at 16 kHz of each role.

    Raises:
      source.BadRecording: a file cannot be used, or has not the channels.
    """
    path = self._folder / f"{stem}.wav"
    if path.exists():
      return dict(zip(self._roles, _channels(path, count=2), strict=True))
    return {
      role: _channels(self._folder / f"{stem}.{role}.wav", count=1)[0]
      for role in ROLES
    }


@source.register("stereo_wav")
def open_folder(variant: str, *, settings: source.Settings) -> StereoWav:
  """The folder `variant` under --sounds_root."""
  return StereoWav(settings.root / variant)


def _split(path: pathlib.Path) -> tuple[str, str]:
  """Name of the conversation of a file, and its role; "" if it has both."""
  stem, _, role = path.stem.rpartition(".")
  return (stem, role) if stem and role in ROLES else (path.stem, "")


def _sidecar(folder: pathlib.Path, stem: str) -> pathlib.Path:
  return folder / f"{stem}.json"


def _roles(path: pathlib.Path) -> tuple[Role, ...]:
  """Who is on which channel; never guessed from what they say."""
  if not path.exists():
    return ROLES
  try:
    roles = tuple(Role(name) for name in files.load_json(path))
  except (OSError, ValueError, TypeError) as error:
    raise errors.UserError(
      f'{path} is broken ({error}): write ["user", "agent"] or the reverse'
    ) from error
  if sorted(roles) != sorted(ROLES):
    raise errors.UserError(
      f'{path} names {", ".join(roles)}: write ["user", "agent"] or the reverse'
    )
  return roles


def _channels(path: pathlib.Path, *, count: int) -> list[np.ndarray]:
  """[n] float32 at 16 kHz of each channel.

  Raises:
    source.BadRecording: not a recording that can be used, or of another number
      of channels.
  """
  sound = media.sound(path)
  if len(sound) != count:
    raise source.BadRecording(
      source.Reason.WRONG_CHANNELS, f"{path.name}: {len(sound)}, want {count}"
    )
  utterance.check_samples(sound, max_seconds=_MAX_SECONDS, name=path.name)
  return list(sound)


def _words(path: pathlib.Path) -> tuple[Words, int]:
  """Words by role, in order of time, and how many had no times.

  Raises:
    source.BadRecording: no such file, or not such words.
  """
  words: dict[Role, list[Word]] = {role: [] for role in ROLES}
  untimed = 0
  try:
    for e in files.load_json(path)["words"]:
      role = Role(e["role"])
      if e.get("start") is None or e.get("end") is None:
        untimed += 1
        continue
      words[role].append(Word(float(e["start"]), float(e["end"]), e["text"]))
  except (
    *(OSError, ValueError, KeyError),
    *(TypeError, AttributeError, OverflowError),
  ) as error:
    raise source.BadRecording(
      source.Reason.BROKEN_METADATA, f"{path.name}: {error!r}"
    ) from error
  return {
    role: tuple(sorted(found, key=lambda word: word.start))
    for role, found in words.items()
  }, untimed
