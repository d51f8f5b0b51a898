"""Conversations of two people recorded apart, with or without timed words.

For: the simplest layout. Not for: mixed recordings, unless `prepare --separate`
names who makes two channels of one. Start reading at `Stereo`;
docs/add_a_data_source.md walks through this file. Below the folder, at any
depth and any sample rate:

  0001.wav                          two channels (or .flac, .mp3, .opus, ...)
  channels.json                     at the top, who is on the left and on the
                                    right: ["user", "agent"]; or the option
                                    `user` says so: left or right
  0002.user.wav, 0002.agent.wav     or a file of one channel for each
  0001.json, 0002.json              {"words": [{"role": "agent",
                                    "start": 1.2, "end": 1.5, "text": "hello"},
                                    ...]}, in seconds

A folder has words for all recordings or for none: where some have a .json
file, a recording without one is skipped.
"""

import posixpath
from collections.abc import Iterator, Mapping

import numpy as np

from tml_jax import errors
from tml_jax.data import calls, samples, source, stored
from tml_jax.data import options as options_lib
from tml_jax.data.mend import measures, separation
from tml_jax.data.source import BadRecording, Part
from tml_jax.streams.timeline import Role, Timeline

ROLES = (Role.USER, Role.AGENT)
CHANNELS = "channels.json"
_WORDS = "json"
SEPARATE = "separate"  # option: who makes two channels of one
_KNOWN = {"user": "", SEPARATE: ""}


class Stereo(calls.Listed):
  """The conversations of a file, or of a folder in order of their names."""

  def __init__(self, src: str, *, options: options_lib.Options):
    """Lists the files; they are opened one at a time, by `read`.

    Raises:
      errors.UserError: there are none, two are of the same conversation,
        nothing says who is who, or the separator cannot work.
    """
    self._place, self._options = stored.Place(src), options
    self._separator = options[SEPARATE]
    if self._separator:
      separation.opened(self._separator)
    found = self._conversations()
    self._has_words = any(_WORDS in files for files in found.values())
    self._roles: calls.Roles = {str(role): role for role in ROLES}
    if any("" in files for files in found.values()):
      self._roles = self._who()
    elif options["user"]:
      raise options.error(
        "user", want="nothing: the files' names say who it is"
      )
    self._parts = [
      calls.call(stem, [files.get(key) for key in ("", *ROLES, _WORDS)])
      for stem, files in sorted(found.items())
    ]

  def read(self, part: Part) -> Iterator[Timeline | BadRecording]:
    assert isinstance(part, calls.Call)  # of `parts`
    both, user, agent, words = part.paths
    try:
      who: calls.Roles = {str(role): role for role in ROLES}
      metadata = self._options.metadata(calls.KIND)
      if both:
        sound = calls.sound(
          self._place, both, channels=None if self._separator else 2
        )
        if len(sound) == 1:
          sound = separation.separated(
            sound[0], chosen=self._separator, name=part.name
          )
          metadata[measures.SEPARATED] = self._separator
        elif len(sound) != 2:
          raise BadRecording(
            source.Reason.WRONG_CHANNELS,
            f"{part.name}: {len(sound)}, want 1 or 2",
          )
        heard, who = dict(zip(calls.CHANNELS, sound, strict=True)), self._roles
      else:
        heard = {
          str(role): self._alone(part.name, role, path=path)
          for role, path in zip(ROLES, (user, agent), strict=True)
        }
      said = self._words(part.name, words)
      yield from calls.timelines(
        part.name,
        {
          side: calls.Side(sound, said=said[who[side]], voice=part.name)
          for side, sound in heard.items()
        },
        among=[who],
        metadata=metadata,
      )
    except BadRecording as error:
      yield error

  def _conversations(self) -> dict[str, dict[str, stored.File]]:
    """Files by what they are, of each conversation; "" has both channels.

    Raises:
      errors.UserError: two are the same.
    """
    found: dict[str, dict[str, stored.File]] = {}
    words: dict[str, stored.File] = {}
    for file in self._place.beside(ends=(*samples.SOUNDS, _WORDS)):
      stem, end = posixpath.splitext(file.name)
      if end[1:].lower() == _WORDS:
        words[stem] = file
        continue
      stem, role = _split(stem)
      files = found.setdefault(stem, {})
      for other in files:
        if other == role or not (other and role):
          raise errors.UserError(
            f"{self._place.src} has {file.name} and also"
            f" {files[other].name}: keep one"
          )
      files[role] = file
    if not found:
      raise errors.UserError(
        f"{self._place.src} has no sound: no file that ends in"
        f" {', '.join(samples.SOUNDS)}"
      )
    for stem, files in found.items():
      if stem in words:
        files[_WORDS] = words[stem]
    return found

  def _who(self) -> calls.Roles:
    """Who is on which channel; never guessed from what they say.

    Raises:
      errors.UserError: nothing says so, or two things do.
    """
    path = posixpath.join(self._place.top, CHANNELS)
    if not self._place.fs.isfile(path):
      user = self._options.choice("user", among=calls.CHANNELS)
      return calls.roles_of(user, sides=calls.CHANNELS)
    if self._options["user"]:
      raise self._options.error(
        "user", want=f"nothing, or delete {CHANNELS}, which says it too"
      )
    want = 'write ["user", "agent"] or the reverse'
    try:
      with calls.reading(CHANNELS):
        names = calls.value(self._place, path)
        found = tuple(Role(name) for name in names)
    except BadRecording as error:
      raise errors.UserError(f"{path} is broken ({error}): {want}") from error
    if sorted(found) != sorted(ROLES):
      raise errors.UserError(f"{path} names {', '.join(found)}: {want}")
    return dict(zip(calls.CHANNELS, found, strict=True))

  def _alone(self, stem: str, role: Role, *, path: str) -> np.ndarray:
    """[n] of a file of one channel."""
    if not path:
      raise BadRecording(
        source.Reason.MISSING, f"{stem}: no file of the {role}"
      )
    return calls.sound(self._place, path, channels=1)[0]

  def _words(self, stem: str, path: str) -> Mapping[Role, list[calls.Said]]:
    """Words by role; of a folder without words none.

    Raises:
      BadRecording: no such file, or not such words.
    """
    found: dict[Role, list[calls.Said]] = {role: [] for role in ROLES}
    if not self._has_words:
      return found
    if not path:
      raise BadRecording(source.Reason.NO_TRANSCRIPT, f"{stem}.{_WORDS}")
    with calls.reading(f"{stem}.{_WORDS}"):
      for e in calls.value(self._place, path)["words"]:
        found[_role(e["role"])].append(
          calls.Said(e.get("start"), e.get("end"), e["text"])
        )
    return found


@source.register_importer("stereo")
def open_calls(src: str, *, options: Mapping[str, str]) -> Stereo:
  """The file or folder at a path or URL."""
  known = options_lib.Options(options, known=_KNOWN, importer="stereo")
  return Stereo(src, options=known)


def _split(name: str) -> tuple[str, str]:
  """Name of the conversation of a file, and its role; "" if it has both."""
  stem, _, role = name.rpartition(".")
  return (stem, role) if stem and role in ROLES else (name, "")


def _role(name: str) -> Role:
  role = Role(name)
  if role not in ROLES:
    raise ValueError(f"{name!r} is neither user nor agent")
  return role
