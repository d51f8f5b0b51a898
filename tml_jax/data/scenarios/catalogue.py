"""What a voice corpus has, looked up once however many families ask.

For: opening a mixture of many families in seconds. Not for: the recordings
themselves. Start reading at `of`.
"""

import dataclasses
import itertools
import weakref

from tml_jax.data import corpus, source
from tml_jax.streams.timeline import Timeline

_READ: weakref.WeakKeyDictionary[source.Source, tuple["Entry", ...]] = (
  weakref.WeakKeyDictionary()
)


@dataclasses.dataclass(frozen=True)
class Entry:
  """One utterance of a corpus."""

  prompt: str
  language: str
  seconds: float
  gap: float  # longest pause in it, in seconds


def of(recordings: source.Source) -> tuple[Entry, ...]:
  """The entries of a corpus, in its order."""
  if recordings not in _READ:
    if isinstance(recordings, corpus.RecordSource):
      found = recordings.columns("prompt", "language", "seconds", "gap")
      _READ[recordings] = tuple(
        itertools.starmap(Entry, zip(*found.values(), strict=True))
      )
    else:
      _READ[recordings] = tuple(
        _entry(recordings[i]) for i in range(len(recordings))
      )
  return _READ[recordings]


def _entry(item: Timeline) -> Entry:
  spans = item.tracks[0].spans
  gaps = [b.start - a.end for a, b in zip(spans[:-1], spans[1:], strict=True)]
  return Entry(
    prompt=item.metadata["prompt"],
    language=item.metadata["language"],
    seconds=item.duration,
    gap=max(gaps, default=0.0),
  )
