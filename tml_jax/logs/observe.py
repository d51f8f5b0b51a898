"""Sessions and recordings as tick logs.

For: whoever has frames or knows when an agent sounds. Not for: the format
(`ticks`). Start reading at `from_frames`.
"""

import dataclasses
import functools
import os
from typing import Any

import numpy as np

from tml_jax.logs import ticks, transcript
from tml_jax.streams import annotation, calls, clock, framing
from tml_jax.streams.frame import Control, Frame
from tml_jax.streams.timeline import EventKind, Role, Timeline
from tml_jax.streams.tokenizer import Tokenizer

_CONTEXT = 32  # tokens before new text that may change how it is spelled


def from_frames(
  frames: list[Frame],
  *,
  timeline: Timeline,
  tokenizer: Tokenizer,
  grid: clock.Grid,
  seconds: np.ndarray | None = None,
  provenance: dict[str, Any] | None = None,
) -> ticks.Log:
  """The log of a session.

  Args:
    frames: of the session, one per window.
    timeline: whose user was talked to.
    tokenizer: of the run.
    grid: of the windows. A longer one spreads over its ticks: the agent sounds
      in all of them, its text and calls stand in the first, what is perceived
      in the last. Shorter ones share a tick, in which the agent sounds if it
      does in one of them.
    seconds: [windows] that each decision took.
    provenance: see `Log`.
  """
  spell = functools.partial(transcript.spell, tokenizer=tokenizer)
  windows, said, before = [], [], None
  open_bursts: dict[Control, list[int]] = {}
  num_calls = 0
  for k, frame in enumerate(frames):
    text, made, shown = "", [], []
    if before is not None:  # what was decided then is heard now
      context = said[-_CONTEXT:]
      said = context + list(before.say)
      text = _difference(spell(said), spell(context))
      for burst in before.text_out:
        tokens = open_bursts.setdefault(burst.channel, [])
        tokens.extend(burst.tokens)
        if not burst.complete:
          continue
        message = spell(open_bursts.pop(burst.channel))
        if burst.channel == Control.CALL:
          num_calls += 1
          made.append(_call(num_calls, message))
        else:
          shown.append((burst.channel.name.lower(), message))
    typed = [b for b in frame.text_in if b.channel == Control.USER_TEXT]
    arrived = [b for b in frame.text_in if b.channel == Control.RESULT]
    windows.append(
      ticks.Tick(
        agent=frame.own_dmel is not None,
        user=False,  # here and below: it has its own ticks
        agent_text=text,
        calls=tuple(made),
        results=tuple(_result(spell(list(b.tokens))) for b in arrived),
        shown=tuple(shown),
        typed="".join(spell(list(b.tokens)) for b in typed),
        video_patches=len(frame.patches),
        seconds=None if seconds is None else round(float(seconds[k]), 5),
      )
    )
    before = frame
  count = clock.TICKS.num_windows(timeline.duration)
  result = _on_ticks(windows, grid=grid, count=count)
  log = from_ticks(result, timeline=timeline)
  return dataclasses.replace(log, provenance=provenance or {})


def _on_ticks(
  windows: list[ticks.Tick], *, grid: clock.Grid, count: int
) -> list[ticks.Tick]:
  """What `windows` of a grid hold, tick by tick; `count` at most.

  The last window may reach beyond the recording.
  """
  if grid.ms >= clock.TICKS.ms:
    most = grid.ms // clock.TICKS.ms
    return [
      tick
      for k, window in enumerate(windows[: -(-count // most)])
      for tick in _spread(window, count=min(most, count - k * most))
    ]
  shared = clock.TICKS.ms // grid.ms
  parts = range(0, min(len(windows), count * shared), shared)
  return [_merged(windows[k : k + shared]) for k in parts]


def _spread(window: ticks.Tick, *, count: int) -> list[ticks.Tick]:
  """One window as `count` ticks."""
  if count == 1:
    return [window]
  heard = ticks.Tick(
    agent=window.agent,
    user=False,
    agent_text=window.agent_text,
    calls=window.calls,
    shown=window.shown,
  )
  between = ticks.Tick(agent=window.agent, user=False)
  perceived = dataclasses.replace(window, agent_text="", calls=(), shown=())
  return [heard, *[between] * (count - 2), perceived]


def _merged(windows: list[ticks.Tick]) -> ticks.Tick:
  """A few windows as one tick."""
  known = [w.seconds for w in windows if w.seconds is not None]
  return ticks.Tick(
    agent=any(w.agent for w in windows),
    user=False,
    agent_text="".join(w.agent_text for w in windows),
    calls=tuple(call for w in windows for call in w.calls),
    results=tuple(result for w in windows for result in w.results),
    shown=tuple(text for w in windows for text in w.shown),
    typed="".join(w.typed for w in windows),
    video_patches=sum(w.video_patches for w in windows),
    seconds=sum(known) if known else None,
  )


def from_activity(
  timeline: Timeline, *, agent: np.ndarray, says_recording: bool = False
) -> ticks.Log:
  """The log of an agent without a model.

  Args:
    timeline: whose user is heard.
    agent: [windows] bool, where the agent sounds.
    says_recording: whether its words and calls, and what comes of them, are
      the recorded ones.
  """
  count = len(agent)
  users, words = _user(timeline, count)
  said = [""] * count
  made: list[list[ticks.Call]] = [[] for _ in range(count)]
  arrived: list[list[ticks.Call]] = [[] for _ in range(count)]
  if says_recording:
    said = _words(timeline, Role.AGENT, count)
    events = [e for e in timeline.events if e.kind == EventKind.CALL]
    events.sort(key=lambda event: event.time)
    for number, event in enumerate(events, start=1):
      k = min(clock.TICKS.window_of(event.time), count - 1)
      made[k].append(_call(number, event.text))
    for event in timeline.events:
      if event.kind == EventKind.RESULT:
        k = min(clock.TICKS.window_of(event.time), count - 1)
        arrived[k].append(_result(event.text))
  result = [
    ticks.Tick(
      agent=bool(agent[k]),
      user=bool(users[k]),
      agent_text=said[k],
      user_text=words[k],
      calls=tuple(made[k]),
      results=tuple(arrived[k]),
    )
    for k in range(count)
  ]
  return _log(timeline, made=result, provenance={})


def from_ticks(made: list[ticks.Tick], *, timeline: Timeline) -> ticks.Log:
  """The log of an agent that knows what it does in every tick.

  Args:
    made: its side; the user's is written into it.
    timeline: of the conversation that was held, as long as that.
  """
  users, words = _user(timeline, len(made))
  result = [
    dataclasses.replace(tick, user=bool(user), user_text=text)
    for tick, user, text in zip(made, users, words, strict=True)
  ]
  return _log(timeline, made=result, provenance={})


def recorded_activity(timeline: Timeline) -> np.ndarray:
  """[windows] bool: where the recorded agent sounds."""
  return _activity(
    timeline, Role.AGENT, clock.TICKS.num_windows(timeline.duration)
  )


def _log(
  timeline: Timeline, *, made: list[ticks.Tick], provenance: dict[str, Any]
) -> ticks.Log:
  agent = timeline.track(Role.AGENT)
  spans = agent.spans if agent else ()
  return ticks.Log(
    id=timeline.id,
    family=timeline.metadata.get("family", ""),
    duration=timeline.duration,
    annotations=annotation.of(timeline),
    recorded=tuple((s.start, s.end) for s in spans),
    ticks=tuple(made),
    provenance=provenance,
  )


def _user(timeline: Timeline, count: int) -> tuple[np.ndarray, list[str]]:
  """[count] activity of the user, and the words that begin in each tick."""
  return (
    _activity(timeline, Role.USER, count),
    [text.strip() for text in _words(timeline, Role.USER, count)],
  )


def _activity(timeline: Timeline, role: Role, count: int) -> np.ndarray:
  result = np.zeros(count, bool)
  windows = framing.speech_windows(timeline.track(role), grid=clock.TICKS)
  result[[w for w in windows if w < count]] = True
  return result


def _words(timeline: Timeline, role: Role, count: int) -> list[str]:
  result = [""] * count
  track = timeline.track(role)
  for word in track.words if track else ():
    result[min(clock.TICKS.window_of(word.start), count - 1)] += f" {word.text}"
  return result


def _difference(text: str, before: str) -> str:
  """What `text` adds to `before`."""
  return text[len(os.path.commonprefix([text, before])) :]


def _call(number: int, text: str) -> ticks.Call:
  return ticks.Call(number, calls.call_text(calls.parse_call(text)))


def _result(text: str) -> ticks.Call:
  """A part of a result; number 0 where it goes on from an earlier frame."""
  try:
    return ticks.Call(*calls.parse_result(text))
  except ValueError:
    return ticks.Call(0, text)
