"""One recorded or synthesised prompt becomes a Timeline of a voice corpus.

For: level, trimming, speech activity and word times of utterances, the same
for every source. Not for: conversations (`scenarios`). Start reading at
`build`.
"""

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

from tml_jax.data import audio as audio_lib
from tml_jax.data import media, source
from tml_jax.streams import clock
from tml_jax.streams.timeline import Role, Span, Timeline, Track, Word

LEVEL_DB = -23.0  # dBFS RMS of active speech, in every corpus
MAX_SECONDS = 30.0
LIMITS = media.Limits(seconds=2 * MAX_SECONDS)  # of a file to be decoded
_CLIPPED_SHARE = 0.001  # of samples at full scale
_FADE = clock.SAMPLE_RATE // 200  # 5 ms, so that a cut does not click
_HEADROOM = 0.98


def build(
  samples: np.ndarray,
  *,
  voice: str,
  language: str,
  prompt: str,
  text: str,
) -> Timeline:
  """Checks, trims and levels a recording.

  Words have no alignment in these corpora: they are spread over the active
  speech in proportion to their letters.

  Raises:
    source.BadRecording: the recording cannot be used, and why.
  """
  samples, spans = trimmed(mono(samples, name=prompt), name=prompt)
  return timeline_of(
    samples,
    spans=spans,
    words=spread_words(text, spans=spans),
    voice=voice,
    language=language,
    prompt=prompt,
    text=text,
  )


def trimmed(samples: np.ndarray, *, name: str) -> tuple[np.ndarray, list[Span]]:
  """The speech of [n] samples from its first to its last, at `LEVEL_DB`.

  Raises:
    source.BadRecording: there is none.
  """
  spans = audio_lib.speech_spans(samples, name=name)
  if not spans:
    raise source.BadRecording(
      source.Reason.SILENT, f"{name}: {len(samples)} samples without speech"
    )
  samples = samples[_sample(spans[0].start) : _sample(spans[-1].end)]
  offset = spans[0].start
  spans = [
    Span(round(s.start - offset, 6), round(s.end - offset, 6)) for s in spans
  ]
  samples = normalise(samples, spans=spans)
  fade = np.linspace(0, 1, min(_FADE, len(samples)), dtype=np.float32)
  samples[: len(fade)] *= fade
  samples[len(samples) - len(fade) :] *= fade[::-1]
  return samples, spans


def timeline_of(
  samples: np.ndarray,
  *,
  spans: list[Span],
  words: list[Word],
  voice: str,
  language: str,
  prompt: str,
  text: str,
) -> Timeline:
  """The Timeline of a voice corpus: one track, three metadata."""
  return Timeline(
    id=f"{voice}/{prompt}",
    duration=len(samples) / clock.SAMPLE_RATE,
    tracks=(
      Track(
        role=Role.ENVIRONMENT,
        audio=samples,
        words=tuple(words),
        spans=tuple(spans),
        voice=voice,
      ),
    ),
    metadata={
      "language": language,
      "prompt": prompt,
      "text": text,
    },
  )


def mono(samples: np.ndarray, *, name: str) -> np.ndarray:
  """[n] of the [1, n] samples of a valid recording.

  Raises:
    source.BadRecording: it is not one, or cannot be speech as recorded.
  """
  if samples.shape[0] != 1:
    raise source.BadRecording(
      source.Reason.WRONG_CHANNELS, f"{name}: {samples.shape[0]}, want 1"
    )
  check_samples(samples, max_seconds=MAX_SECONDS, name=name)
  return samples[0]


def check_samples(
  samples: np.ndarray, *, max_seconds: float, name: str
) -> None:
  """Refuses [channels, n] samples at 16 kHz that no recording should have.

  Raises:
    source.BadRecording: empty, no sound, too long, silent or clipped.
  """
  if not samples.size:
    raise source.BadRecording(source.Reason.EMPTY, f"{name}: 0 samples")
  media.check(samples, name=name)
  seconds = samples.shape[1] / clock.SAMPLE_RATE
  if seconds > max_seconds:
    raise source.BadRecording(
      source.Reason.TOO_LONG, f"{name}: {seconds:.1f} s, over {max_seconds} s"
    )
  peak = max(float(samples.max()), -float(samples.min()))
  if peak < 1e-3:  # -60 dBFS
    raise source.BadRecording(source.Reason.SILENT, f"{name}: peak {peak:.1e}")
  high = np.count_nonzero(samples > 0.999) + np.count_nonzero(samples < -0.999)
  clipped = high / samples.size
  if clipped > _CLIPPED_SHARE:
    raise source.BadRecording(
      source.Reason.CLIPPED, f"{name}: {clipped:.2%} of the samples"
    )


def normalise(samples: np.ndarray, *, spans: Sequence[Span]) -> np.ndarray:
  """A copy at `LEVEL_DB` inside `spans`, or lower where it would clip."""
  gain = 10 ** ((LEVEL_DB - audio_lib.active_level(samples, spans)) / 20)
  gain = min(gain, _HEADROOM / float(np.abs(samples).max()))
  return (samples * np.float32(gain)).astype(np.float32)


def spread_words(text: str, *, spans: list[Span]) -> list[Word]:
  """Words over the active time, each as long as its share of the letters."""
  words = text.split()
  letters = np.array([max(1, len(re.findall(r"\w", w))) for w in words], float)
  ends = np.cumsum(letters) / letters.sum()
  lengths = np.array([span.end - span.start for span in spans])
  active = np.concatenate([[0.0], np.cumsum(lengths)])

  def to_time(share: float, *, side: Literal["left", "right"]) -> float:
    at = share * active[-1]
    i = int(np.searchsorted(active, at, side=side)) - 1
    i = min(max(i, 0), len(spans) - 1)
    return float(spans[i].start + at - active[i])

  # A word that begins where a gap begins starts after the gap, one that ends
  # there ends before it.
  return [
    Word(to_time(start, side="right"), to_time(end, side="left"), word)
    for start, end, word in zip([0.0, *ends[:-1]], ends, words, strict=True)
  ]


def _sample(seconds: float) -> int:
  return round(seconds * clock.SAMPLE_RATE)
