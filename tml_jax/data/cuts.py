"""Lhotse's cuts, as JSON, become timelines.

For: the importers `lhotse_cuts` and `lhotse_shar`, which find the sound of a
cut. Not for: mixed cuts, features, or sound of several people in one channel.
Start at `Cuts.timeline`.

Who is who is told by the names of speakers (options `user` and `agent`, lists
in which letter case does not count). The agent's sound is in the custom field
`target` where there is one, as NeMo has it, and the recording is the user's;
else each of both has a channel, which supervisions name.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tml_jax.data import calls, source
from tml_jax.data import options as options_lib
from tml_jax.data.source import BadRecording, Note, Reason
from tml_jax.streams import clock
from tml_jax.streams.document import PART_OF
from tml_jax.streams.timeline import Role, Timeline

KNOWN = {
  "user": "user",
  "agent": "agent,assistant",
  "target": "target_audio",
}
ROLES = {str(role): role for role in (Role.USER, Role.AGENT)}
_KINDS = ("MonoCut", "MultiCut", "")
_STAMP = re.compile(r"<\|\d+\|>")  # NeMo's times of frames inside of text

# Reads [channels, n] of a field that holds a recording, given its manifest.
ReadSound = Callable[[str, Mapping[str, Any]], np.ndarray]


class Cuts:
  """How cuts become timelines."""

  def __init__(self, options: options_lib.Options):
    """Reads the names of speakers.

    Raises:
      errors.UserError: a name is of both.
    """
    self._options, self._target = options, options["target"]
    self._roles: dict[str, Role] = {}
    for role in ROLES.values():
      for name in options[str(role)].split(","):
        key = name.strip().casefold()
        if self._roles.setdefault(key, role) != role:
          raise options.error(
            str(role), want="names that are of one side alone"
          )

  def timeline(
    self, cut: Mapping[str, Any], *, name: str, read: ReadSound
  ) -> Iterator[Timeline]:
    """The conversation of a cut.

    Args:
      cut: as it is in the manifest.
      name: of the line.
      read: of `recording` or `target`, [channels, n] of the whole file.

    Raises:
      BadRecording: it cannot be used.
    """
    with calls.reading(name):
      kind = str(cut.get("type") or "")
      if kind not in _KINDS:
        raise BadRecording(
          Reason.BROKEN_METADATA, f"{name}: a {kind:.80} is not read"
        )
      id_ = str(cut["id"])
      if not id_:
        raise KeyError("id")
      said, spans, channels, notes = self._said(cut, name=name)
      custom = cut.get("custom") or {}
      sound = self._cut(cut, read("recording", cut["recording"]), name=name)
      if self._target and custom.get(self._target) is not None:
        target = self._cut(
          cut, read(self._target, custom[self._target]), name=name
        )
        heard = {
          "user": _channel(sound, cut.get("channel", 0), name=name),
          "agent": _channel(
            target, custom.get(f"{self._target}_channel_selector", 0), name=name
          ),
        }
      else:
        heard = _apart(sound, channels, cut=cut, name=name)
      metadata = self._options.metadata(
        calls.KIND, language=_language(cut.get("supervisions"))
      )
      recording = str(cut["recording"].get("id") or "")
      if recording not in ("", id_):  # its other cuts are of the same split
        metadata[PART_OF] = source.as_text(recording)
      if isinstance(custom.get("system_prompt"), str):
        metadata["system_prompt"] = custom["system_prompt"]
    yield from calls.timelines(
      source.as_text(id_),
      {
        key: calls.Side(
          # Sound without supervisions tells itself when somebody speaks.
          *(audio, said[key], spans[key] or None),
          voice=f"{id_} {key}",
        )
        for key, audio in heard.items()
      },
      among=[ROLES],
      metadata=metadata,
      notes=notes,
    )

  def _said(
    self, cut: Mapping[str, Any], *, name: str
  ) -> tuple[
    dict[str, list[calls.Said]],
    dict[str, list[tuple[object, object]]],
    dict[str, set[int]],
    calls.Notes,
  ]:
    """Words, spans and channels of each role, and what was left out."""
    said: dict[str, list[calls.Said]] = {key: [] for key in ROLES}
    spans: dict[str, list[tuple[object, object]]] = {key: [] for key in ROLES}
    channels: dict[str, set[int]] = {key: set() for key in ROLES}
    notes = calls.Notes()
    for each in cut.get("supervisions") or ():
      text = _STAMP.sub(" ", each.get("text") or "")
      role = self._roles.get(str(each.get("speaker") or "").casefold())
      if role is None:
        notes[Note.OTHER_SPEAKERS] += len(text.split())
        continue
      start = calls.seconds(each["start"], name=name)
      length = calls.seconds(each["duration"], name=name)
      if start is None or length is None:
        notes[Note.SPANS] += 1
        continue
      # What began before the cut is heard from its beginning.
      spans[role].append((max(0.0, start), start + length))
      words = (each.get("alignment") or {}).get("word")
      if words:
        for symbol, begin, seconds, *_ in words:
          said[role].append(calls.Said(begin, float(begin) + seconds, symbol))
      elif text.strip():
        said[role].append(calls.Said(start, start + length, text))
      found = each.get("channel", 0)
      channels[role].update(found if isinstance(found, list) else [found])
    return said, spans, channels, notes

  def _cut(
    self, cut: Mapping[str, Any], sound: np.ndarray, *, name: str
  ) -> np.ndarray:
    """[channels, n] of the stretch that is cut out of a recording.

    Raises:
      BadRecording: there is none.
    """
    start = calls.seconds(cut.get("start", 0), name=name)
    length = calls.seconds(cut["duration"], name=name)
    if start is None or length is None or start < 0 or length <= 0:
      raise BadRecording(
        Reason.BROKEN_METADATA, f"{name}: from {start} s, {length} s long"
      )
    first = round(start * clock.SAMPLE_RATE)
    wanted = round(length * clock.SAMPLE_RATE)
    found = sound[:, first : first + wanted]
    if found.shape[1] < 0.98 * wanted - 0.5 * clock.SAMPLE_RATE:
      raise BadRecording(
        Reason.TRUNCATED,
        f"{name}: {length:.2f} s from {start:.2f} s, the sound has"
        f" {sound.shape[1] / clock.SAMPLE_RATE:.2f} s",
      )
    return found


def _channel(sound: np.ndarray, channel: object, *, name: str) -> np.ndarray:
  """[n] of the one channel that is chosen of [channels, n]."""
  if isinstance(channel, list):
    (channel,) = channel
  if len(sound) == 1:
    return sound[0]  # what is stored is the channel that was chosen
  if not isinstance(channel, int) or not 0 <= channel < len(sound):
    raise BadRecording(
      Reason.WRONG_CHANNELS,
      f"{name}: channel {channel!r:.80} of {len(sound)} channels",
    )
  return sound[channel]


def _apart(
  sound: np.ndarray,
  channels: Mapping[str, set[int]],
  *,
  cut: Mapping[str, Any],
  name: str,
) -> dict[str, np.ndarray]:
  """The channel of each role.

  Raises:
    BadRecording: they have not one each.
  """
  if len(sound) < 2:
    raise BadRecording(
      Reason.WRONG_CHANNELS,
      f"{name}: one channel for all who speak, and no target",
    )
  if any(len(found) != 1 for found in channels.values()) or (
    channels["user"] == channels["agent"]
  ):
    raise BadRecording(
      Reason.WRONG_CHANNELS,
      f"{name}: the user has the channels {sorted(channels['user'])}, the agent"
      f" {sorted(channels['agent'])}; each must have one, which supervisions"
      " name, of speakers in the options user and agent",
    )
  # A cut may have chosen some of the channels.
  there: Sequence[int] = cut.get("channel", [])
  if not isinstance(there, list) or len(there) != len(sound):
    there = range(len(sound))
  heard = {}
  for key, found in channels.items():
    (channel,) = found
    if channel not in there:
      raise BadRecording(
        Reason.WRONG_CHANNELS, f"{name}: no channel {channel!r:.80}"
      )
    heard[key] = sound[list(there).index(channel)]
  return heard


def _language(supervisions: Any) -> str:
  """The language that all supervisions have, if they say."""
  found = {each.get("language") for each in supervisions or ()}
  (language,) = found if len(found) == 1 else ("",)
  return language if isinstance(language, str) else ""
