"""Placing utterances on a common time line while a conversation is drawn.

For: what every scenario family needs: a cursor in samples, who says what when,
and the rule of reply timing. Not for: deciding what is said. Start reading at
`Score`.
"""

import dataclasses
from collections.abc import Sequence

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
  VideoFrame,
  Word,
)

PEAK = 0.98  # of full scale, the most that a gain may reach
_FADE = clock.SAMPLE_RATE // 100  # 10 ms, where speech is cut off


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
  """A timeline in the making; `cursor` is the sample where it goes on.

  It lasts until the cursor, and until everything that was placed is over.
  `asked` are the prompts and questions that its split is about.

  Windows are those of `clock.TICKS`. An agent whose own `grid` is coarser
  begins and stops at the next boundary of that: it decides nowhere else. What
  is asked of it (`annotate`) stays where it was. The silences of `wait` are
  `waits` times as long.
  """

  user_voice: str
  agent_voice: str
  grid: clock.Grid = clock.TICKS
  waits: float = 1.0
  cursor: int = 0
  user: list[Part] = dataclasses.field(default_factory=list)
  agent: list[Part] = dataclasses.field(default_factory=list)
  environment: list[Part] = dataclasses.field(default_factory=list)
  video: list[VideoFrame] = dataclasses.field(default_factory=list)
  events: list[Event] = dataclasses.field(default_factory=list)
  annotations: list[Annotation] = dataclasses.field(default_factory=list)
  asked: list[str] = dataclasses.field(default_factory=list)

  @property
  def windows(self) -> int:
    parts = self.user + self.agent + self.environment
    end = max([self.cursor, *(part.stop for part in parts)])
    return -(-end // clock.TICKS.samples)

  @property
  def duration(self) -> float:
    return self.windows * clock.TICKS.ms / 1000

  def pause(
    self, seconds: tuple[float, float], *, random: np.random.Generator
  ) -> None:
    """A silence whose length matters to the rule of a family."""
    self.cursor += round(random.uniform(*seconds) * clock.SAMPLE_RATE)

  def wait(
    self, seconds: tuple[float, float], *, random: np.random.Generator
  ) -> None:
    """A silence that the user may as well make longer or shorter."""
    drawn = random.uniform(*seconds) * self.waits
    self.cursor += round(drawn * clock.SAMPLE_RATE)

  def say(self, recording: Timeline, *, gain_db: float) -> None:
    """The user speaks now, at most as loud as full scale allows."""
    peak = float(np.abs(recording.tracks[0].audio).max())
    gain = min(10 ** (gain_db / 20), PEAK / peak)
    self.user.append(Part(self.cursor, recording, gain))
    self.cursor = self.user[-1].stop

  def say_all(
    self,
    recordings: Sequence[Timeline],
    *,
    gain_db: float,
    gap: tuple[float, float],
    random: np.random.Generator,
  ) -> None:
    """The user says one after the other, with pauses of `gap` seconds."""
    for i, recording in enumerate(recordings):
      if i:
        self.pause(gap, random=random)
      self.say(recording, gain_db=gain_db)

  def sound(self, recording: Timeline, *, start: int, gain_db: float) -> int:
    """Something else is heard from sample `start`; returns where it ends."""
    part = Part(start, recording, 10 ** (gain_db / 20))
    self.environment.append(part)
    return part.stop

  def show(self, text: str, *, kind: EventKind = EventKind.SHOW) -> int:
    """The agent writes `text` one window after what the user just said.

    Where that ends with its window, the next one has nothing of it.

    Returns:
      that window.
    """
    ends = self.cursor % clock.TICKS.samples == 0
    said = (self.cursor - ends) / clock.SAMPLE_RATE
    time = said + clock.TICKS.seconds
    self.events.append(Event(time, kind, text))
    return clock.TICKS.window_of(time)

  @property
  def quiet_window(self) -> int:
    """First window in which nobody speaks any more."""
    return (self.cursor - 1) // clock.TICKS.samples + 1

  @property
  def free_window(self) -> int:
    """First window in which the agent has nothing more to say."""
    stop = self.agent[-1].stop if self.agent else 0
    return -(-stop // clock.TICKS.samples)

  def answer(self, said: Sequence[Timeline], *, delay_windows: int) -> int:
    """The agent answers after `delay_windows` in which nobody speaks.

    Returns:
      the onset window; the cursor goes on where the answer ends.
    """
    onset = max(self.quiet_window, self.free_window) + delay_windows
    self.cursor = self.speak(said, window=onset)
    return onset

  def speak(self, said: Sequence[Timeline], *, window: int) -> int:
    """The agent speaks without a pause, whoever else does.

    It begins when it has said all that it was saying.

    Returns:
      the sample at which it ends; the cursor stays.
    """
    at = self.onset(window)
    for recording in said:
      self.agent.append(Part(at, recording, 1.0))
      at = self.agent[-1].stop
    return at

  def break_off(self, *, window: int) -> list[Timeline]:
    """The agent is silent from the start of a window, where it can be.

    Returns:
      what it says before, as far as it comes.
    """
    end = self._boundary(window)
    self.agent = [
      Part(part.start, cut(part.recording, samples=end - part.start), part.gain)
      for part in self.agent
      if part.start < end
    ]
    return [part.recording for part in self.agent]

  def onset(self, window: int) -> int:
    """The sample where speech that is due in a window would begin."""
    return self._boundary(max(window, self.free_window))

  def decided(self, sample: int) -> int:
    """Where the agent decides what it says at a sample."""
    return sample // self.grid.samples * self.grid.samples

  def _boundary(self, window: int) -> int:
    """The sample where the agent's first window from `window` on begins."""
    samples = self.grid.samples
    return -(-window * clock.TICKS.samples // samples) * samples

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
    call: str = "",
    since: int | None = None,
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
      call: that a question asks for.
      since: sample from which the user says all again who asks once more.
    """
    self.annotations.append(
      Annotation(
        kind,
        start=start / clock.SAMPLE_RATE,
        end=end / clock.SAMPLE_RATE,
        due=None if onset is None else onset * clock.TICKS.seconds,
        until=None if until is None else until / clock.SAMPLE_RATE,
        text=text_of(said),
        group=group,
        call=call,
        since=None if since is None else since / clock.SAMPLE_RATE,
      )
    )

  def surroundings(self) -> tuple[Track, ...]:
    """The track of what is neither user nor agent, if there is something."""
    parts = sorted(self.environment, key=lambda part: part.start)
    if not parts:
      return ()
    audio = self.render(parts)
    return (track(Role.ENVIRONMENT, parts, audio=audio, voice="environment"),)

  def render(self, parts: list[Part]) -> np.ndarray:
    """All windows, [samples] float32, silent between the parts."""
    audio = np.zeros(self.windows * clock.TICKS.samples, np.float32)
    for part in parts:
      audio[part.start : part.stop] += np.float32(part.gain) * part.audio
    return audio


def cut(recording: Timeline, *, samples: int) -> Timeline:
  """The beginning of an utterance; a word that begins in it stays."""
  track = recording.tracks[0]
  if samples >= len(track.audio):
    return recording
  audio = track.audio[:samples].copy()
  fade = min(_FADE, samples)
  audio[samples - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
  end = samples / clock.SAMPLE_RATE
  track = dataclasses.replace(
    track,
    audio=audio,
    words=tuple(
      Word(w.start, min(w.end, end), w.text)
      for w in track.words
      if w.start < end
    ),
    spans=tuple(
      Span(s.start, min(s.end, end)) for s in track.spans if s.start < end
    ),
  )
  return dataclasses.replace(recording, duration=end, tracks=(track,))


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
