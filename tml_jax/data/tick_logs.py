"""Logs of conversations by ticks of 0.2 s, as tau2-bench and we write them.

For: importers of such logs. Not for: our own evaluation, which reads them whole
(`logs.ticks`). Start at `read`.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tml_jax.data import calls
from tml_jax.data.source import Note
from tml_jax.streams import calls as call_texts
from tml_jax.streams.timeline import Event, EventKind

SIDES = ("user", "agent")
_SECONDS = 0.2
_GOES_ON = "0"  # a part of the result before, as `logs.observe` writes it
_STOP = "###STOP###"  # how tau2's user ends a conversation; nobody says it


@dataclasses.dataclass
class Read:
  """What ticks say.

  Attributes:
    said: words of each side.
    spans: when each side speaks.
    events: calls, results, and what is typed and shown.
    seconds: how long they last.
  """

  said: dict[str, list[calls.Said]]
  spans: dict[str, list[tuple[object, object]]]
  events: list[Event]
  seconds: float = 0.0


def read(ticks: Sequence[Mapping[str, Any]], *, notes: calls.Notes) -> Read:
  """Ticks from time 0, as JSON; may raise whatever `calls.reading` catches."""
  found = Read({s: [] for s in SIDES}, {s: [] for s in SIDES}, [])
  starts = []
  for tick in ticks:
    starts.append(found.seconds)
    found.seconds += float(tick.get("tick_duration_seconds") or _SECONDS)
  starts.append(found.seconds)
  for side in SIDES:
    chunks = [tick.get(f"{side}_chunk") or {} for tick in ticks]
    texts = [str(chunk.get("content") or "") for chunk in chunks]
    stops = [text.strip() == _STOP for text in texts]
    for k, chunk in enumerate(chunks):
      if chunk.get("contains_speech") and not stops[k]:
        found.spans[side].append((starts[k], starts[k + 1]))
      if chunk.get("typed"):
        found.events.append(
          Event(starts[k], EventKind.USER_TEXT, str(chunk["typed"]))
        )
      for kind, shown in chunk.get("shown") or ():
        found.events.append(Event(starts[k], EventKind(kind), str(shown)))
    found.said[side] = _words(
      ["" if stop else t for stop, t in zip(stops, texts, strict=True)],
      starts=starts,
    )
  numbers: dict[str, int] = {}
  results: list[Event] = []
  for k, tick in enumerate(ticks):
    notes[Note.USER_TOOLS] += len(tick.get("user_tool_calls") or ())
    middle = (starts[k] + starts[k + 1]) / 2
    for call in tick.get("agent_tool_calls") or ():
      numbers[str(call["id"])] = len(numbers) + 1
      arguments = call["arguments"]
      if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
      text = call_texts.call_text(
        call_texts.Request(str(call["name"]), arguments)
      )
      found.events.append(Event(middle, EventKind.CALL, text))
    for result in tick.get("agent_tool_results") or ():
      name, text = str(result["id"]), str(result.get("content") or "")
      if name == _GOES_ON and results:
        before = results.pop()
        results.append(dataclasses.replace(before, text=before.text + text))
      else:
        text = call_texts.result_text(numbers[name], text)
        results.append(Event(middle, EventKind.RESULT, text))
  found.events += results
  found.events.sort(key=lambda event: event.time)
  return found


def _words(
  texts: Sequence[str], *, starts: Sequence[float]
) -> list[calls.Said]:
  """Words of texts by tick.

  Where one begins or ends with a space, texts are cut anywhere and are put
  together as they are; else each has whole words.
  """
  is_cut = any(text != text.strip() for text in texts)
  said: list[calls.Said] = []
  word, first, last = "", 0, 0
  for k, text in enumerate(texts):
    for letter in text if is_cut else f"{text} ":
      if letter.isspace():
        if word:
          said.append(calls.Said(starts[first], starts[last + 1], word))
        word = ""
        continue
      first = first if word else k
      word, last = word + letter, k
  if word:
    said.append(calls.Said(starts[first], starts[last + 1], word))
  return said
