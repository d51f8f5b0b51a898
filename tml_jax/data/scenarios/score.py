"""Placing utterances on a common time line while a conversation is drawn.

For: what every scenario family needs: a cursor in samples, who says what when,
and the rule of reply timing. Not for: deciding what is said. Start reading at
`Score`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tml_jax.streams import clock
from tml_jax.streams.annotation import Annotation, Kind
from tml_jax.streams.timeline import (
  Event,
  EventKind,
  Role,
  Span,
  Timeline,
  Track,
  Word,
)

PEAK = 0.98  # of full scale, the most that a gain may reach


@dataclasses.dataclass(frozen=True)
class Part:
  """An utterance at a place in the timeline."""

  start: int  # samples
  recording: Timeline
  gain: float

  @property
  def audio(self) -> np.ndarray:
    return self.recording.tracks[0].audio

  @property
  def stop(self) -> int:
    return self.start + len(self.audio)


@dataclasses.dataclass
class Score:
  """A timeline in the making; `cursor` is the sample where it goes on."""

  user_voice: str
  agent_voice: str
  cursor: int = 0
  user: list[Part] = dataclasses.field(default_factory=list)
  agent: list[Part] = dataclasses.field(default_factory=list)
  events: list[Event] = dataclasses.field(default_factory=list)
  exchanges: list[dict[str, Any]] = dataclasses.field(default_factory=list)
  annotations: list[Annotation] = dataclasses.field(default_factory=list)

  @property
  def windows(self) -> int:
    return -(-self.cursor // clock.TURN_SAMPLES)

  @property
  def duration(self) -> float:
    return self.windows * clock.TURN_MS / 1000

  def pause(
    self, seconds: tuple[float, float], *, random: np.random.Generator
  ) -> None:
    self.cursor += round(random.uniform(*seconds) * clock.SAMPLE_RATE)

  def say(self, recording: Timeline, *, gain_db: float) -> None:
    """The user speaks now, at most as loud as full scale allows."""
    peak = float(np.abs(recording.tracks[0].audio).max())
    gain = min(10 ** (gain_db / 20), PEAK / peak)
    self.user.append(Part(self.cursor, recording, gain))
    self.cursor = self.user[-1].stop

  def show(self, text: str, *, kind: EventKind = EventKind.SHOW) -> int:
    """The agent writes `text` one window after what the user just said.

    Returns:
      that window.
    """
    time = self.cursor / clock.SAMPLE_RATE + clock.TURN_SECONDS
    self.events.append(Event(time, kind, text))
    return clock.window_of(time)

  @property
  def quiet_window(self) -> int:
    """First window in which nobody speaks any more."""
    return (self.cursor - 1) // clock.TURN_SAMPLES + 1

  def answer(self, recording: Timeline, *, delay_windows: int) -> int:
    """The agent answers what was just said; returns the onset window."""
    onset = self.quiet_window + delay_windows
    self.answer_at(recording, window=onset)
    return onset

  def answer_at(self, recording: Timeline, *, window: int) -> None:
    """The agent speaks from the start of a window."""
    self.agent.append(Part(window * clock.TURN_SAMPLES, recording, 1.0))
    self.cursor = self.agent[-1].stop

  def say_on(self, recording: Timeline) -> None:
    """The agent goes on at once."""
    self.agent.append(Part(self.cursor, recording, 1.0))
    self.cursor = self.agent[-1].stop

  def annotate(
    self,
    kind: Kind,
    *,
    start: int,
    end: int,
    onset: int | None = None,
    until: int | None = None,
    said: Sequence[Timeline] = (),
    group: str = "",
  ) -> None:
    """Writes down what is asked of the agent (`Annotation`).

    Args:
      kind: of it.
      start: sample where it begins.
      end: sample where it is over.
      onset: window in which the recorded agent begins.
      until: sample that is too late for a beginning.
      said: what the agent says.
      group: joins those of one instruction.
    """
    self.annotations.append(
      Annotation(
        kind,
        start=start / clock.SAMPLE_RATE,
        end=end / clock.SAMPLE_RATE,
        due=None if onset is None else onset * clock.TURN_SECONDS,
        until=None if until is None else until / clock.SAMPLE_RATE,
        text=text_of(said),
        group=group,
      )
    )

  def render(self, parts: list[Part]) -> np.ndarray:
    """[windows x 3200] float32, silent between the parts."""
    audio = np.zeros(self.windows * clock.TURN_SAMPLES, np.float32)
    for part in parts:
      audio[part.start : part.stop] += np.float32(part.gain) * part.audio
    return audio


def text_of(said: Sequence[Timeline]) -> str:
  """The words of recordings, one after the other."""
  return " ".join(w.text for r in said for w in r.tracks[0].words)


def track(
  role: Role, parts: list[Part], *, audio: np.ndarray, voice: str
) -> Track:
  words, spans = [], []
  for part in parts:
    offset = part.start / clock.SAMPLE_RATE
    track = part.recording.tracks[0]
    words += [
      Word(offset + w.start, offset + w.end, w.text) for w in track.words
    ]
    spans += [Span(offset + s.start, offset + s.end) for s in track.spans]
  return Track(role, audio, tuple(words), tuple(spans), voice)
