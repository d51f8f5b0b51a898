"""Full-Duplex-Bench: user sides of short conversations.

For: folders ID/input.wav, at any depth, of versions 1.0, 1.5 and 3, with what
lies beside it: transcription.json, words with times; interrupt.json and
metadata.json, what interrupts and when; pause.json and turn_taking.json, whose
marks become notes. Not for: training. It is a benchmark, and most of it is CC
BY-NC: prepare it to look at, or as a corpus of evaluation. Start at
`FullDuplexBench`.

All sound is the user's; there is no agent.
"""

import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

from tml_jax import errors
from tml_jax.data import calls, pairs, source, stored
from tml_jax.data import options as options_lib
from tml_jax.data.source import BadRecording, Note, Part
from tml_jax.streams.timeline import Event, EventKind, Role, Timeline

KIND = "user_side"
_INPUT = "input.wav"
_WORDS, _INTERRUPT, _ABOUT = (
  "transcription.json",
  "interrupt.json",
  "metadata.json",
)
_MARKS = ("pause.json", "turn_taking.json")


class FullDuplexBench(calls.Listed):
  """The examples of a folder."""

  def __init__(self, src: str, *, options: options_lib.Options):
    """Lists the files.

    Raises:
      errors.UserError: there are none.
    """
    self._place, self._options = stored.Place(src), options
    folders = stored.Folders(self._place)
    self._parts = [
      calls.call(
        posixpath.dirname(file.name) or _INPUT,
        [
          file,
          *(
            folders.find(posixpath.join(file.folder, name))
            for name in (_WORDS, _INTERRUPT, _ABOUT, *_MARKS)
          ),
        ],
      )
      for file in self._place.files(ends=(_INPUT,))
      if posixpath.basename(file.path) == _INPUT
    ]
    if not self._parts:
      raise errors.UserError(f"{src} has no {_INPUT}")

  def read(self, part: Part) -> Iterator[Timeline | BadRecording]:
    assert isinstance(part, calls.Call)  # of `parts`
    try:
      path, words, interrupt, about, *marks = part.paths
      sound = pairs.mono(calls.sound(self._place, path, channels=None))
      notes = calls.Notes()
      said: list[calls.Said] = []
      events: list[Event] = []
      if words:
        said += self._list(part, words, _of_words)
      else:
        said += self._list(part, interrupt, _of_interrupts)
        said += self._list(part, about, _of_metadata)
      for mark in marks:
        events += self._list(part, mark, _of_marks)
      if not said:
        notes[Note.NO_WORDS] += 1
      yield from calls.timelines(
        part.name,
        {"user": calls.Side(sound, said, voice=part.name)},
        among=[{"user": Role.USER}],
        metadata=self._options.metadata(KIND),
        notes=notes,
        events=tuple(sorted(events, key=lambda event: event.time)),
      )
    except BadRecording as error:
      yield error

  def _list(self, part: calls.Call, path: str, read: Any) -> list[Any]:
    """What is in a file; nothing where there is none."""
    if not path:
      return []
    with calls.reading(f"{part.name}/{posixpath.basename(path)}"):
      return list(read(calls.value(self._place, path)))


def _of_words(content: Any) -> Iterator[calls.Said]:
  for speaker in content:
    for each in speaker["item"]:
      yield _said(each["timestamp"], each["text"])


def _of_interrupts(content: Any) -> Iterator[calls.Said]:
  for each in content:
    yield _said(each["timestamp"], each["interrupt"])


def _of_metadata(content: Any) -> Iterator[calls.Said]:
  if content.get("timestamps") and content.get("current_turn_text"):
    yield _said(content["timestamps"], content["current_turn_text"])


def _said(times: Any, text: object) -> calls.Said:
  start, end = times
  return calls.Said(start, end, text)


def _of_marks(content: Any) -> Iterator[Event]:
  for each in content:
    start, _ = each["timestamp"]
    yield Event(float(start), EventKind.NOTE, str(each["text"]))


@source.register_importer("full_duplex_bench")
def open_folder(src: str, *, options: Mapping[str, str]) -> FullDuplexBench:
  """The folder at a path or URL."""
  known = options_lib.Options(options, known={}, importer="full_duplex_bench")
  return FullDuplexBench(src, options=known)
