"""The same recordings as alternating turns: what a turn-based model trains on.

For: `--config.data.layout=turns`, the baseline of an interaction model, with
the same frames, packer and losses. Not for: sessions of such a model
(`evals.turn_based`). Start at `turn_based`; `lay_out` does what a config asks.

A turn of the new timeline, window by window:

  what the user said, showed and typed     the agent is quiet
  typed text that needs more windows       the microphone is off
  messages of the agent, if any            the microphone is off
  windows with nothing in them             the microphone is off
  the whole reply of the agent, if any     the microphone is off

So a window without microphone and own sound is where the agent is asked, and
`<speak>` or `<quiet>` is its decision to answer. There are as many as the
harness would give it (`TurnsConfig.asks`) until the recorded agent begins to
speak, the user goes on, or all is over: at least one. The agent hears no other
time pass: the clock of `<turn>` counts the windows that are left.

What a turn detector cannot deliver is lost or moved. The user's turns are cut
by what the harness has: its detector (`data.vad`) on the same microphone, and
`streams.endpoint` with the same settings. Speech of the agent that begins
during or after a turn of the user follows it, in the last window in which it
was asked if it came later; pauses in it are kept up to 0.5 s, longer ones are
cut. Where the user speaks over the agent for so long that it interrupts, the
agent's speech ends with the window in which that is noticed; what it says of
the same utterance behind the user's turn is its next reply; the rest was never
said. A turn that is too short for that follows the reply. What the agent says
or writes before the first turn is dropped, and so are pictures after the last.
"""

import bisect
import collections
import dataclasses

import numpy as np

from tml_jax.config import Config, Layout, StreamsConfig, TurnsConfig
from tml_jax.data import vad as vad_lib
from tml_jax.streams import clock, endpoint, framing, microphone
from tml_jax.streams import frame as frame_lib
from tml_jax.streams.endpoint import Brings, Turn
from tml_jax.streams.timeline import (
  Event,
  Role,
  Span,
  Timeline,
  Track,
  VideoFrame,
  Word,
)
from tml_jax.streams.tokenizer import Tokenizer

_PAUSE_SECONDS = 0.5  # within a reply


def lay_out(
  timeline: Timeline, *, config: Config, tokenizer: Tokenizer
) -> Timeline:
  """The recording as `config.data.layout` wants it; frames come next."""
  if config.data.layout is Layout.DUPLEX:
    return timeline
  return turn_based(
    timeline,
    detector=vad_lib.create(config.turns.vad),
    settings=config.turns,
    config=config.streams,
    tokenizer=tokenizer,
  )


@dataclasses.dataclass(frozen=True)
class _Piece:
  """Windows first..last of the agent's speech, at window `place` of ours."""

  first: int
  last: int
  place: int

  @property
  def stop(self) -> int:
    return self.place + self.last - self.first + 1


@dataclasses.dataclass(frozen=True)
class _Part:
  """A turn and what follows, in windows of the new timeline."""

  turn: Turn
  place: int  # of its first window
  messages: int  # window in which the first one is written
  pieces: tuple[_Piece, ...]  # the first is decided one window earlier
  stop: int


def turn_based(
  timeline: Timeline,
  *,
  detector: vad_lib.Vad,
  settings: TurnsConfig,
  config: StreamsConfig,
  tokenizer: Tokenizer,
) -> Timeline:
  """The conversation behind a turn detector; see the module.

  Annotations and other metadata are left out: their times mean nothing here.

  Args:
    timeline: of both sides.
    detector: that has heard nothing yet.
    settings: of the harness.
    config: of the frames.
    tokenizer: of the run.
  """
  turns = user_turns(timeline, detector=detector, settings=settings)
  spoken = _replies(timeline, turns)
  asks = _asks(timeline, turns, spoken=spoken, most=settings.asks)
  events = _by_turn(timeline, turns)
  parts: list[_Part] = []
  stop = 0
  for turn, ranges, count, (typed, written) in zip(
    turns, spoken, asks, events, strict=True
  ):
    place = stop
    messages = place + _windows_for_typed(
      turn, typed, config=config, tokenizer=tokenizer
    )
    asked = messages + _windows_for(
      written, budget=config.max_text_out, tokenizer=tokenizer
    )
    stop, pieces = asked + count, []
    for first, last in ranges:
      pieces.append(_Piece(first, last, place=stop))
      stop = pieces[-1].stop
    parts.append(_Part(turn, place, messages, tuple(pieces), stop))
  count = max(stop, 1)  # one window of nothing where the user never speaks
  return Timeline(
    id=timeline.id,
    duration=count * clock.TICKS.seconds,
    tracks=(
      _user(timeline, parts, count=count),
      _agent(timeline, parts, count=count, say_lead=config.say_lead),
    ),
    video=_video(timeline, parts),
    events=_events(parts, events),
    muted=_muted(parts, count=count),
  )


def user_turns(
  timeline: Timeline, *, detector: vad_lib.Vad, settings: TurnsConfig
) -> list[Turn]:
  """The turns that a harness cuts out of the recording.

  Args:
    timeline: of which the microphone is heard.
    detector: that has heard nothing yet.
    settings: of the harness.
  """
  brings = {
    clock.TICKS.window_of(f.time): Brings.PICTURES for f in timeline.video
  }
  for event in timeline.events:
    if event.kind in framing.TYPED:
      brings[clock.TICKS.window_of(event.time)] = Brings.TEXT
  endpointer = endpoint.Endpointer(settings)
  turns = []
  for k, samples in enumerate(microphone.hear(timeline, grid=clock.TICKS)):
    turn = endpointer.push(
      detector.push(samples),
      hop=detector.hop,
      brings=brings.get(k, Brings.NOTHING),
    )
    if turn is not None:
      turns.append(turn)
  if endpointer.in_turn:
    turns.append(endpointer.finish())
  return turns


def _asks(
  timeline: Timeline,
  turns: list[Turn],
  *,
  spoken: list[list[tuple[int, int]]],
  most: int,
) -> list[int]:
  """Windows in which the agent is asked after each turn, 1 to `most`."""
  over = clock.TICKS.num_windows(timeline.duration)
  result, free = [], 0
  for i, (turn, ranges) in enumerate(zip(turns, spoken, strict=True)):
    first = max(turn.ended, free)  # the agent may be speaking still
    ends = [over]
    if ranges:
      ends.append(ranges[0][0])  # is decided in the window before
      free = ranges[-1][1]
    if i + 1 < len(turns):
      ends.append(turns[i + 1].detected)
    result.append(min(max(1, min(ends) - first), most))
  return result


def _owner(turns: list[Turn], window: int) -> int:
  """The last turn that was noticed before `window`; -1 for none."""
  return bisect.bisect_left([turn.detected for turn in turns], window) - 1


def _replies(
  timeline: Timeline, turns: list[Turn]
) -> list[list[tuple[int, int]]]:
  """First and last windows of what the agent says after each turn."""
  utterances: list[tuple[int, int]] = []
  pause = clock.TICKS.window_of(_PAUSE_SECONDS)
  for window in framing.speech_windows(
    timeline.track(Role.AGENT), grid=clock.TICKS
  ):
    if utterances and window - utterances[-1][1] <= pause + 1:
      utterances[-1] = (utterances[-1][0], window)
    else:
      utterances.append((window, window))
  replies: list[list[tuple[int, int]]] = [[] for _ in turns]
  waiting = collections.deque(utterances)
  while waiting:
    first, last = waiting.popleft()
    owner = _owner(turns, first)
    over = [
      turn
      for turn in turns[owner + 1 :]
      if turn.interrupts is not None and turn.interrupts < last
    ]
    if over and over[0].interrupts is not None:
      if over[0].last < last:  # the agent had gone on
        waiting.append((over[0].interrupts + 1, last))
      last = over[0].interrupts
    if owner >= 0:
      replies[owner].append((first, last))
  return [sorted(ranges) for ranges in replies]


def _by_turn(
  timeline: Timeline, turns: list[Turn]
) -> list[tuple[list[Event], list[Event]]]:
  """What is typed in each turn, and what the agent writes after it."""
  result: list[tuple[list[Event], list[Event]]] = [([], []) for _ in turns]
  turn_of = {w: i for i, turn in enumerate(turns) for w in turn.windows}
  for event in sorted(timeline.events, key=lambda event: event.time):
    window = clock.TICKS.window_of(event.time)
    if event.kind in framing.TYPED and window in turn_of:
      result[turn_of[window]][0].append(event)
    elif event.kind in framing.WRITTEN and _owner(turns, window) >= 0:
      result[_owner(turns, window)][1].append(event)
  return result


def _windows_for_typed(
  turn: Turn,
  typed: list[Event],
  *,
  config: StreamsConfig,
  tokenizer: Tokenizer,
) -> int:
  """Windows of a turn until all that was typed in it has been read."""
  queue, late = frame_lib.TextQueue(), 0
  for window in turn.windows:
    for event in typed:
      if clock.TICKS.window_of(event.time) == window:
        queue.push(framing.TYPED[event.kind], tokenizer.encode(event.text))
    queue.take(config.max_text_in)
  while queue:
    queue.take(config.max_text_in)
    late += 1
  return len(turn.windows) + late


def _windows_for(
  written: list[Event], *, budget: int, tokenizer: Tokenizer
) -> int:
  """Windows that messages take."""
  queue, count = frame_lib.TextQueue(), 0
  for event in written:
    queue.push(framing.WRITTEN[event.kind], tokenizer.encode(event.text))
  while queue:
    queue.take(budget)
    count += 1
  return count


def _user(timeline: Timeline, parts: list[_Part], *, count: int) -> Track:
  """What the microphone hears of the turns."""
  heard = microphone.hear(timeline, grid=clock.TICKS)
  audio = np.zeros((count, clock.TICKS.samples), np.float32)
  for part in parts:
    for i, window in enumerate(part.turn.windows):
      audio[part.place + i] = heard[window]
  return Track(
    role=Role.USER,
    audio=audio.reshape(-1),
    words=(),
    spans=tuple(
      _span(part.place, part.place + len(part.turn.windows))
      for part in parts
      if part.turn.is_spoken and part.turn.windows
    ),
    voice=next((t.voice for t in timeline.tracks if t.role == Role.USER), ""),
  )


def _agent(
  timeline: Timeline, parts: list[_Part], *, count: int, say_lead: int
) -> Track:
  """The replies, each in one go; words only where they sound."""
  agent = timeline.track(Role.AGENT)
  audio = np.zeros((count, clock.TICKS.samples), np.float32)
  if agent is None:
    return Track(Role.AGENT, audio.reshape(-1), (), (), "")
  pieces = [piece for part in parts for piece in part.pieces]
  whole = np.zeros(
    (clock.TICKS.num_windows(timeline.duration), clock.TICKS.samples),
    np.float32,
  )
  whole.reshape(-1)[: len(agent.audio)] = agent.audio
  for piece in pieces:
    audio[piece.place : piece.stop] = whole[piece.first : piece.last + 1]
  starts = {
    piece: part.pieces[0].place for part in parts for piece in part.pieces
  }
  words = []
  for word in agent.words:
    window = clock.TICKS.window_of(word.start)
    kept = next((p for p in pieces if p.first <= window <= p.last), None)
    if kept is None:
      continue
    # A text that leads its sound still comes after the question.
    earliest = (starts[kept] + say_lead) * clock.TICKS.seconds
    shift = (kept.place - kept.first) * clock.TICKS.seconds
    start = max(word.start + shift, earliest)
    end = max(start, min(word.end + shift, kept.stop * clock.TICKS.seconds))
    words.append(Word(start, end, word.text))
  return Track(
    role=Role.AGENT,
    audio=audio.reshape(-1),
    words=tuple(sorted(words, key=lambda word: word.start)),
    spans=tuple(
      _span(part.pieces[0].place, part.stop) for part in parts if part.pieces
    ),
    voice=agent.voice,
  )


def _video(timeline: Timeline, parts: list[_Part]) -> tuple[VideoFrame, ...]:
  place = {
    window: part.place + i
    for part in parts
    for i, window in enumerate(part.turn.windows)
  }
  return tuple(
    VideoFrame(place[window] * clock.TICKS.seconds, video.image)
    for video in sorted(timeline.video, key=lambda video: video.time)
    for window in [clock.TICKS.window_of(video.time)]
    if window in place
  )


def _events(
  parts: list[_Part], events: list[tuple[list[Event], list[Event]]]
) -> tuple[Event, ...]:
  """Typed text in its window; messages as soon as the agent is asked."""
  result = []
  for part, (typed, written) in zip(parts, events, strict=True):
    for event in typed:
      i = part.turn.windows.index(clock.TICKS.window_of(event.time))
      time = (part.place + i) * clock.TICKS.seconds
      result.append(dataclasses.replace(event, time=time))
    time = part.messages * clock.TICKS.seconds
    result += [dataclasses.replace(event, time=time) for event in written]
  return tuple(result)


def _muted(parts: list[_Part], *, count: int) -> tuple[Span, ...]:
  """All but the turns."""
  if not parts:
    return (_span(0, count),)
  return tuple(
    _span(part.place + len(part.turn.windows), part.stop) for part in parts
  )


def _span(first: int, stop: int) -> Span:
  return Span(first * clock.TICKS.seconds, stop * clock.TICKS.seconds)
