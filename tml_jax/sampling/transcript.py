"""Who said, showed and typed what, and when.

For: reading a session. Not for: sound (`report`). Start reading at `lines`.
"""

import dataclasses

from tml_jax.streams import clock
from tml_jax.streams.frame import Burst, Frame
from tml_jax.streams.timeline import EventKind, Role, Timeline
from tml_jax.streams.tokenizer import Tokenizer

_NOT_PRINTABLE = "\N{REPLACEMENT CHARACTER}"


@dataclasses.dataclass(frozen=True)
class Line:
  """One utterance or message; times in seconds."""

  start: float
  end: float
  who: str
  text: str

  def __str__(self) -> str:
    return f"{self.start:7.1f} {self.end:7.1f}  {self.who:<14} {self.text}"


def lines(
  frames: list[Frame], *, timeline: Timeline, tokenizer: Tokenizer
) -> list[Line]:
  """Everything that was said, shown or typed, in order of its start.

  Args:
    frames: of the session.
    timeline: whose user was talked to; what its agent said is left out.
    tokenizer: of the run.
  """
  result = said(frames, tokenizer=tokenizer)
  result += shown(frames, tokenizer=tokenizer)
  for event in timeline.events:
    if event.kind in (EventKind.USER_TEXT, EventKind.RESULT):
      who = "user types" if event.kind == EventKind.USER_TEXT else "result"
      result.append(Line(event.time, event.time, who, event.text))
  for track in timeline.tracks:
    if track.role == Role.AGENT:
      continue
    for span in track.spans:
      words = [w.text for w in track.words if span.start <= w.start < span.end]
      text = " ".join(words) or "(speech)"
      result.append(Line(span.start, span.end, str(track.role), text))
  return sorted(result, key=lambda line: (line.start, line.end))


def said(frames: list[Frame], *, tokenizer: Tokenizer) -> list[Line]:
  """The agent's utterances: runs of sound with the text that led them."""
  result, tokens, start = [], [], None
  for frame in frames:
    if start is None and (frame.say or frame.speak):
      start = frame.window + 1  # decided now, heard in the next window
    tokens += frame.say
    is_last = frame is frames[-1]
    if start is not None and (not frame.speak or is_last):
      # The decision is about the next window, which ends the sound.
      end = frame.window + 1 + frame.speak
      text = spell(tokens, tokenizer=tokenizer)
      if end == start and not frame.speak:
        text += " (without sound)"
      result.append(
        Line(
          start * clock.TURN_SECONDS,
          end * clock.TURN_SECONDS,
          "agent",
          text or "(sound without text)",
        )
      )
      tokens, start = [], None
  return result


def shown(frames: list[Frame], *, tokenizer: Tokenizer) -> list[Line]:
  """The agent's messages; one that spans frames is one line."""
  result: list[Line] = []
  open_bursts: dict[str, tuple[float, list[int]]] = {}
  for frame in frames:
    time = (frame.window + 1) * clock.TURN_SECONDS
    for burst in frame.text_out:
      who = f"agent {burst.channel.name.lower()}s"
      start, tokens = open_bursts.pop(who, (time, []))
      tokens = tokens + list(burst.tokens)
      if burst.complete:
        text = spell(tokens, tokenizer=tokenizer)
        result.append(Line(start, time, who, text))
      else:
        open_bursts[who] = (start, tokens)
  for who, (start, tokens) in open_bursts.items():
    text = spell(tokens, tokenizer=tokenizer) + " (unfinished)"
    result.append(Line(start, start, who, text))
  return result


def message(burst: Burst, *, tokenizer: Tokenizer) -> dict[str, str | bool]:
  """One burst for the tick log."""
  return {
    "channel": burst.channel.name.lower(),
    "text": spell(list(burst.tokens), tokenizer=tokenizer),
    "complete": burst.complete,
  }


def spell(tokens: list[int], *, tokenizer: Tokenizer) -> str:
  """Printable text of tokens.

  An untrained model also draws bytes that are control characters; each
  becomes one replacement character.
  """
  text = tokenizer.decode(tokens)
  return "".join(c if c.isprintable() else _NOT_PRINTABLE for c in text)
