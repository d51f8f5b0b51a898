"""A session as a log of 200 ms ticks: what the panel reads.

For: logs of live sessions, of recordings and of agents without a model, as
JSON lines. Not for: making them (`observe`) or metrics (`panel`). Start
reading at `Log`; `write` and `read` are inverse.

Names follow the voice trajectories of tau2-bench: `tick_id`, `timestamp`,
`tick_duration_seconds`, `wall_clock_duration_seconds`, `agent_chunk` and
`user_chunk` with `contains_speech` and `content`, `agent_tool_calls`,
`agent_tool_results`. Ours: timestamps are seconds of the session; `labels`
are kinds of annotations that touch the tick; the first line is a header.
A tick holds what is heard in it, so the agent's decision to speak at the end
of tick k is speech in tick k + 1, and its text stands there; a model whose
windows are no ticks is put on them (`observe`).
"""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np

from tml_jax import errors, files
from tml_jax.streams import annotation, calls, clock
from tml_jax.streams.annotation import Annotation

SCHEMA, VERSION = "tml_jax.ticks", 1
T = TypeVar("T")
_MOST_SECONDS = 1e9  # 30 years
_NO_TICK = (KeyError, TypeError, ValueError, AttributeError, OverflowError)


@dataclasses.dataclass(frozen=True)
class Call:
  """A tool call that ended in its tick, or a result (a part of one)."""

  number: int
  text: str


@dataclasses.dataclass(frozen=True)
class Tick:
  """What is heard, said and written in 200 ms.

  Attributes:
    agent: whether the agent sounds.
    user: whether the user does, by the track's speech activity.
    agent_text: that the agent says, with the spaces between its parts.
    user_text: words of the user that begin here.
    calls: of tools, NAME ARGUMENTS, numbered from 1.
    results: of them, as they arrive.
    shown: texts the agent displays, [channel, text].
    typed: by the user.
    video_patches: that are seen.
    seconds: the decision took; None where nothing was computed.
  """

  agent: bool
  user: bool
  agent_text: str = ""
  user_text: str = ""
  calls: tuple[Call, ...] = ()
  results: tuple[Call, ...] = ()
  shown: tuple[tuple[str, str], ...] = ()
  typed: str = ""
  video_patches: int = 0
  seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Log:
  """One session.

  Attributes:
    id: of the timeline.
    family: of scenarios; "" for other recordings.
    duration: seconds.
    annotations: what was asked of the agent.
    recorded: [start, end) seconds of the recorded agent's speech.
    ticks: from time 0, without gaps.
    provenance: what made the log, JSON values; equal where it need not be
      made again.
  """

  id: str
  family: str
  duration: float
  annotations: tuple[Annotation, ...]
  recorded: tuple[tuple[float, float], ...]
  ticks: tuple[Tick, ...]
  provenance: dict[str, Any] = dataclasses.field(default_factory=dict)

  @functools.cached_property
  def agent(self) -> np.ndarray:
    """[ticks] bool, whether the agent sounds."""
    return np.array([tick.agent for tick in self.ticks], bool)

  @functools.cached_property
  def user(self) -> np.ndarray:
    """[ticks] bool, whether the user does."""
    return np.array([tick.user for tick in self.ticks], bool)

  @functools.cached_property
  def recorded_agent(self) -> np.ndarray:
    """[ticks] bool, whether the recorded agent sounds."""
    return self._touched(self.recorded)

  def covered(self, *kinds: annotation.Kind) -> np.ndarray:
    """[ticks] bool, those that an annotation of these kinds touches."""
    return self._touched((a.start, a.end) for a in self.of_kind(*kinds))

  def _touched(self, spans: Iterable[tuple[float, float]]) -> np.ndarray:
    result = np.zeros(len(self.ticks), bool)
    for start, end in spans:
      result[clock.TICKS.window_of(start) : clock.TICKS.num_windows(end)] = True
    return result

  def of_kind(self, *kinds: annotation.Kind) -> list[Annotation]:
    return [a for a in self.annotations if a.kind in kinds]


def to_text(log: Log) -> str:
  """The log as JSON lines."""
  header = {
    "schema": SCHEMA,
    "version": VERSION,
    "id": log.id,
    "family": log.family,
    "duration": log.duration,
    "tick_duration_seconds": clock.TICKS.seconds,
    "ticks": len(log.ticks),
    "annotations": [annotation.to_json(a) for a in log.annotations],
    "recorded_agent": [list(span) for span in log.recorded],
    "provenance": log.provenance,
  }
  records = [_record(log, k) for k in range(len(log.ticks))]
  lines = [json.dumps(r, ensure_ascii=False) for r in (header, *records)]
  return "".join(f"{errors.escaped(line)}\n" for line in lines)


def _record(log: Log, k: int) -> dict[str, Any]:
  tick, start = log.ticks[k], k * clock.TICKS.seconds
  labels = {
    str(a.kind)
    for a in log.annotations
    if clock.TICKS.window_of(a.start) <= k < clock.TICKS.num_windows(a.end)
  }
  return {
    "tick_id": k,
    "timestamp": round(start, 1),
    "tick_duration_seconds": clock.TICKS.seconds,
    "wall_clock_duration_seconds": tick.seconds,
    "agent_chunk": {
      "contains_speech": tick.agent,
      "content": tick.agent_text,
      "shown": [list(item) for item in tick.shown],
    },
    "user_chunk": {
      "contains_speech": tick.user,
      "content": tick.user_text,
      "labels": sorted(labels),
      "typed": tick.typed,
      "video_patches": tick.video_patches,
    },
    "agent_tool_calls": [
      {"id": call.number} | dataclasses.asdict(calls.parse_call(call.text))
      for call in tick.calls
    ],
    "agent_tool_results": [
      {"id": result.number, "content": result.text} for result in tick.results
    ],
  }


def write(log: Log, path: pathlib.Path) -> None:
  """All of the log or nothing, also when killed half-way."""
  files.make_parents(path)
  files.write_atomically(path, content=to_text(log))


def read(path: str | os.PathLike[str]) -> Log:
  """The log that `write` wrote.

  Raises:
    errors.UserError: naming the file, the line and what is wrong with it.
  """
  try:
    lines = files.path(path).read_text(encoding="utf-8")
    lines = lines.removesuffix("\n").split("\n")
  except (OSError, UnicodeDecodeError) as error:
    raise errors.UserError(f"{path} is no tick log: {error}") from error
  header = _json(lines[0], path=path, line=1)
  if header.get("schema") != SCHEMA or header.get("version") != VERSION:
    raise _broken(
      path,
      line=1,
      what=f"schema {header.get('schema')!r} version {header.get('version')!r};"
      f" this reads {SCHEMA} version {VERSION}",
    )
  found = []
  for number, line in enumerate(lines[1:], start=2):
    record = _json(line, path=path, line=number)
    if record.get("tick_id") != len(found):
      fault = f"tick {len(found)} is missing"
      if isinstance(record.get("tick_id"), int):
        if record["tick_id"] < len(found):
          fault = "it is there twice or out of order"
      raise _broken(
        path, line=number, what=f"tick_id {record.get('tick_id')!r}: {fault}"
      )
    try:
      found.append(_tick(record))
    except _NO_TICK as error:
      raise _broken(path, line=number, what=f"no tick: {error!r}") from error
  try:
    if len(found) != header["ticks"]:
      raise ValueError(f"{len(found)} ticks follow, not {header['ticks']}")
    return log_of(header, ticks=tuple(found))
  except _NO_TICK as error:
    raise _broken(path, line=1, what=f"the header: {error}") from error


def log_of(header: dict[str, Any], *, ticks: tuple[Tick, ...]) -> Log:
  """A log of what its header says.

  Raises:
    ValueError, TypeError, KeyError: it lacks something, or says what cannot be.
  """
  return Log(
    id=str(header["id"]),
    family=str(header["family"]),
    duration=_seconds(header["duration"]),
    annotations=_annotations(header["annotations"]),
    recorded=tuple(
      (_seconds(s), _seconds(e)) for s, e in header["recorded_agent"]
    ),
    ticks=ticks,
    provenance=exactly(dict, header["provenance"]),
  )


def _tick(record: dict[str, Any]) -> Tick:
  agent, user = record["agent_chunk"], record["user_chunk"]
  took = record["wall_clock_duration_seconds"]
  return Tick(
    agent=exactly(bool, agent["contains_speech"]),
    user=exactly(bool, user["contains_speech"]),
    agent_text=exactly(str, agent["content"]),
    user_text=exactly(str, user["content"]),
    calls=tuple(
      Call(
        exactly(int, call["id"]),
        calls.call_text(
          calls.Request(
            exactly(str, call["name"]), exactly(str, call["arguments"])
          )
        ),
      )
      for call in record["agent_tool_calls"]
    ),
    results=tuple(
      Call(exactly(int, result["id"]), exactly(str, result["content"]))
      for result in record["agent_tool_results"]
    ),
    shown=tuple(
      (exactly(str, channel), exactly(str, text))
      for channel, text in agent["shown"]
    ),
    typed=exactly(str, user["typed"]),
    video_patches=exactly(int, user["video_patches"]),
    seconds=None if took is None else _seconds(took),
  )


def exactly(kind: type[T], value: Any) -> T:
  """`value`, which has to be of a kind.

  Raises:
    TypeError: it is not.
  """
  if type(value) is not kind:
    raise TypeError(f"{value!r:.40} is not of type {kind.__name__}")
  return value


def _seconds(value: Any) -> float:
  """A time that a session can have."""
  if type(value) not in (int, float) or not 0 <= value <= _MOST_SECONDS:
    raise ValueError(f"{value!r:.40} is no time in seconds")
  return float(value)


def _annotations(items: Any) -> tuple[Annotation, ...]:
  found = annotation.parse(items, where="header")
  for each in found:
    for time in (each.start, each.end, each.due, each.until):
      if time is not None:
        _seconds(time)
  return found


def _json(text: str, *, path, line: int) -> dict[str, Any]:
  try:
    record = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise _broken(path, line=line, what=f"no JSON: {error}") from error
  if not isinstance(record, dict):
    raise _broken(path, line=line, what="no JSON object")
  return record


def _broken(path, *, line: int, what: str) -> errors.UserError:
  return errors.UserError(
    f"{path}, line {line}: {what}; delete the file and make it again"
  )
