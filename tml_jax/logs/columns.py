"""A tick log by columns: what changes from tick to tick, and nothing else.

For: archives of evaluations, where a conversation of 30 s takes some hundred
bytes. Not for: logs that people read (`ticks`), or files (`evals.archive`).
`of` and `log_of` are inverse but for `Tick.seconds`: how long a machine took is
not what was decided.

A column is a list of [tick, value], ticks in ascending order; `agent` and
`user`, true or false, are [first, stop, first, stop, ...] of what is true;
`video` is [first, stop, patches] of ticks that see equally many. Columns
without an entry are left out.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tml_jax.logs import ticks
from tml_jax.streams import annotation

_TEXTS = ("agent_text", "user_text", "typed")
_CALLS = ("calls", "results")


def of(log: ticks.Log) -> dict[str, Any]:
  """The columns of a log, JSON values."""
  rows = list(enumerate(log.ticks))
  columns = {
    "agent": _edges(log.agent),
    "user": _edges(log.user),
    **{
      name: [[k, getattr(t, name)] for k, t in rows if getattr(t, name)]
      for name in _TEXTS
    },
    **{
      name: [[k, c.number, c.text] for k, t in rows for c in getattr(t, name)]
      for name in _CALLS
    },
    "shown": [[k, *item] for k, t in rows for item in t.shown],
    "video": _levels([t.video_patches for t in log.ticks]),
  }
  return {
    "id": log.id,
    "family": log.family,
    "duration": log.duration,
    "annotations": [annotation.to_json(a) for a in log.annotations],
    "recorded": [list(span) for span in log.recorded],
    "ticks": len(log.ticks),
    **{name: column for name, column in columns.items() if column},
    "provenance": log.provenance,
  }


def log_of(columns: Mapping[str, Any]) -> ticks.Log:
  """The log of columns; its ticks took no seconds.

  Raises:
    ValueError, TypeError, KeyError: no columns, or ticks that are missing,
      doubled or out of order.
  """
  count = ticks.exactly(int, columns["ticks"])
  if count < 0:
    raise ValueError(f"{count} ticks")
  found: list[dict[str, Any]] = [{} for _ in range(count)]
  for name in ("agent", "user"):
    for first, stop in _runs(columns.get(name, ()), count, name=name):
      for k in range(first, stop):
        found[k][name] = True
  for name in _TEXTS:
    for k, text in _entries(columns, name, count=count, most=1):
      found[k][name] = ticks.exactly(str, text)
  for name in _CALLS:
    for k, number, text in _entries(columns, name, count=count):
      call = ticks.Call(ticks.exactly(int, number), ticks.exactly(str, text))
      found[k][name] = (*found[k].get(name, ()), call)
  for k, channel, text in _entries(columns, "shown", count=count):
    item = (ticks.exactly(str, channel), ticks.exactly(str, text))
    found[k]["shown"] = (*found[k].get("shown", ()), item)
  video = columns.get("video", ())
  edges = [edge for first, stop, _ in video for edge in (first, stop)]
  _runs(edges, count, name="video", touching=True)
  for first, stop, patches in video:
    for k in range(first, stop):
      found[k]["video_patches"] = ticks.exactly(int, patches)
  nothing = {"agent": False, "user": False}
  return ticks.log_of(
    {
      "id": columns["id"],
      "family": columns["family"],
      "duration": columns["duration"],
      "annotations": columns["annotations"],
      "recorded_agent": columns["recorded"],
      "provenance": columns["provenance"],
    },
    ticks=tuple(ticks.Tick(**nothing | tick) for tick in found),
  )


def _edges(active: np.ndarray) -> list[int]:
  """Where [ticks] bool begins to be true, stops, begins, ..."""
  padded = np.concatenate([[False], active, [False]])
  return np.flatnonzero(padded[1:] != padded[:-1]).tolist()


def _levels(values: list[int]) -> list[list[int]]:
  """[first, stop, value] of equal values other than 0."""
  result: list[list[int]] = []
  for k, value in enumerate(values):
    if value and result and result[-1][1:] == [k, value]:
      result[-1][1] = k + 1
    elif value:
      result.append([k, k + 1, value])
  return result


def _runs(
  edges: Iterable[Any], count: int, *, name: str, touching: bool = False
) -> list[tuple[int, int]]:
  """Pairs of `edges`, checked: each after the one before, within the log."""
  edges = [ticks.exactly(int, edge) for edge in edges]
  if len(edges) % 2:
    raise ValueError(f"{name}: its last run has no end")
  least = 0
  for i, edge in enumerate(edges):
    if not least <= edge <= count:
      raise ValueError(
        f"{name}: tick {edge} is there twice, out of order or beyond the"
        f" {count} of the log"
      )
    least = edge if i % 2 and touching else edge + 1
  return list(zip(edges[::2], edges[1::2], strict=True))


def _entries(
  columns: Mapping[str, Any], name: str, *, count: int, most: int = 0
) -> list[list[Any]]:
  """Entries of a column, `most` a tick (0: any), checked as `_runs` are."""
  entries, before = columns.get(name, ()), -1
  for k, *_ in entries:
    least = before + 1 if most else max(before, 0)
    if not least <= ticks.exactly(int, k) < count:
      raise ValueError(
        f"{name}: tick {k} is there twice, out of order or beyond the {count}"
        " of the log"
      )
    before = k
  return list(entries)
