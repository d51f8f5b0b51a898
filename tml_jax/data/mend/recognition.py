"""Words with times for tracks that have none, by a recogniser.

For: the protocol, and `prepare --annotate=words --recogniser=NAME[:ARGUMENT]`.
Not for: a recogniser itself, which is a file in `recognisers`, or a plugin that
registers itself (docs/mend.md shows one). Start reading at `Recogniser`.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from tml_jax import errors, registry
from tml_jax.data.source import BadRecording, Reason
from tml_jax.streams import clock
from tml_jax.streams.timeline import Span, Track, Word

_LONGEST = 25.0  # seconds that a recogniser is given at once
_NEAR = 0.5  # seconds between spans that are given together
_PAD = 0.15  # seconds before and after


class Recogniser(Protocol):
  """Writes down what is said.

  Attributes:
    languages: codes of those that it knows, as "en"; () for all.
  """

  @property
  def languages(self) -> Sequence[str]: ...

  def words(self, audio: np.ndarray, *, language: str) -> list[Word]:
    """Words with times from the first sample.

    Args:
      audio: [n] float32 at 16 kHz, at most half a minute.
      language: "en" or "en-US"; "" where nobody says.
    """


# factory(argument): raises errors.UserError where it cannot work. It must be
# quick: the model is loaded by the first call of `words`.
RECOGNISERS: registry.Registry[Callable[[str], Recogniser]] = registry.Registry(
  "recogniser", packages=("tml_jax.data.mend.recognisers",)
)
register_recogniser = RECOGNISERS.register  # decorator of a factory


class Chosen:
  """A recogniser and the language of a recording."""

  def __init__(self, recogniser: Recogniser, *, language: str):
    self._recogniser, self._language = recogniser, language

  def words_of(self, track: Track) -> tuple[Word, ...]:
    """Of the spans of a track, in order, none beyond its sound."""
    found: list[Word] = []
    for first, last in stretches(track.spans):
      start = max(0.0, first - _PAD)
      end = min(last + _PAD, len(track.audio) / clock.SAMPLE_RATE)
      samples = slice(
        round(start * clock.SAMPLE_RATE), round(end * clock.SAMPLE_RATE)
      )
      for word in self._recogniser.words(
        track.audio[samples], language=self._language
      ):
        at = max(start, min(start + word.start, end))
        until = max(at, min(start + word.end, end))
        found.append(Word(at, until, word.text))
    return tuple(sorted(found, key=lambda word: (word.start, word.end)))


def stretches(spans: Sequence[Span]) -> Iterator[tuple[float, float]]:
  """Spans as they are recognised: near ones together, long ones in parts."""
  groups: list[list[float]] = []
  for span in spans:
    is_near = groups and span.start - groups[-1][1] < _NEAR
    if is_near and span.end - groups[-1][0] <= _LONGEST:
      groups[-1][1] = span.end
    else:
      groups.append([span.start, span.end])
  for start, end in groups:
    parts = int(np.ceil((end - start) / _LONGEST))
    edges = np.linspace(start, end, max(1, parts) + 1).tolist()
    yield from zip(edges[:-1], edges[1:], strict=True)


def check(chosen: str, *, language: str) -> None:
  """Refuses a recogniser that cannot work, before any work.

  Args:
    chosen: NAME or NAME:ARGUMENT.
    language: of all recordings, or "".

  Raises:
    errors.UserError: there is none, or it does not know the language.
  """
  found = _opened(chosen)
  if language and not _knows(found, language):
    raise errors.UserError(
      f"--recogniser={chosen} has no model of the language {language!r}, only"
      f" of {', '.join(found.languages)}: choose another recogniser"
    )


def of_language(chosen: str, *, language: str, name: str) -> Chosen:
  """A recogniser for one recording.

  Raises:
    BadRecording: it does not know the language.
  """
  found = _opened(chosen)
  if not _knows(found, language):
    raise BadRecording(
      Reason.NO_RECOGNISER,
      f"{name}: {language or 'unknown'!r}; {chosen} knows"
      f" {', '.join(found.languages)}; --option=language=CODE says what it is",
    )
  return Chosen(found, language=language)


def _knows(recogniser: Recogniser, language: str) -> bool:
  if not recogniser.languages:
    return True
  return language.lower().replace("_", "-").partition("-")[0] in (
    recogniser.languages
  )


@functools.lru_cache(2)
def _opened(chosen: str) -> Recogniser:
  """One for each process."""
  name, _, argument = chosen.partition(":")
  return RECOGNISERS[name](argument)
