"""Speech that is said faster or slower, at its own pitch.

For: users who speak at another rate than those of training
(`scenarios.shift`). Not for: recordings that run faster and sound higher
(`augment.speed`). Start reading at `changed`.
"""

import dataclasses

import av
import numpy as np

from tml_jax.streams import clock
from tml_jax.streams.timeline import Span, Timeline, Track, Word


def changed(recording: Timeline, *, rate: float) -> Timeline:
  """An utterance at `rate` times its speed, 0.5 to 2.

  Sound is stretched by overlap and add of similar pieces (WSOLA: Verhelst and
  Roelands, ICASSP 1993; FFmpeg's `atempo`); words and spans follow, which
  is right to 20 ms from 0.8 to 1.25. One of n samples has round(n / rate).
  """
  if rate == 1.0:
    return recording
  tracks = tuple(_faster(track, rate=rate) for track in recording.tracks)
  samples = max(len(track.audio) for track in tracks)
  return dataclasses.replace(
    recording, duration=samples / clock.SAMPLE_RATE, tracks=tracks
  )


def _faster(track: Track, *, rate: float) -> Track:
  audio = stretched(track.audio, rate=rate)
  end = len(audio) / clock.SAMPLE_RATE

  def at(seconds: float) -> float:
    return min(seconds / rate, end)

  return dataclasses.replace(
    track,
    audio=audio,
    words=tuple(Word(at(w.start), at(w.end), w.text) for w in track.words),
    spans=tuple(Span(at(s.start), at(s.end)) for s in track.spans),
  )


def stretched(audio: np.ndarray, *, rate: float) -> np.ndarray:
  """[round(n / rate)] of [n] float32 at 16 kHz."""
  wanted = round(len(audio) / rate)
  graph = av.filter.Graph()
  source = graph.add_abuffer(
    sample_rate=clock.SAMPLE_RATE, format="flt", layout="mono"
  )
  tempo = graph.add("atempo", str(rate))
  sink = graph.add("abuffersink")
  source.link_to(tempo)
  tempo.link_to(sink)
  graph.configure()
  frame = av.AudioFrame.from_ndarray(
    np.ascontiguousarray(audio[None]), format="flt", layout="mono"
  )
  frame.sample_rate = clock.SAMPLE_RATE
  graph.push(frame)
  graph.push(None)
  pieces = [np.zeros(0, np.float32)]
  while True:
    try:
      pulled = graph.pull().to_ndarray().reshape(-1)
      pieces.append(pulled.astype(np.float32))
    except (av.error.EOFError, av.error.BlockingIOError):
      break
  made = np.concatenate(pieces)[:wanted]
  # The last piece may lack some milliseconds, which are of a fade.
  return np.pad(made, (0, wanted - len(made)))
