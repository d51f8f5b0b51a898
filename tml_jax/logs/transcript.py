"""Who said, wrote and read what, and when.

For: reading a session, afterwards (`lines`) or while it goes on (`Record`).
Not for: sound (`report`).
"""

import bisect
import collections
import dataclasses

from tml_jax import errors
from tml_jax.streams import clock
from tml_jax.streams.frame import Burst, Control, Frame
from tml_jax.streams.timeline import EventKind, Role, Timeline
from tml_jax.streams.tokenizer import Tokenizer

AGENT = "agent"
TYPED = "user types"
RESULT = "result"
_LAST_TOKENS = 1024
_MOST_TOKENS = 4096  # of one line where not all is kept
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
  frames: list[Frame],
  *,
  timeline: Timeline,
  tokenizer: Tokenizer,
  grid: clock.Grid,
) -> list[Line]:
  """Everything that was said, written or read, in order of its start.

  Args:
    frames: of the session.
    timeline: whose user was talked to; what its agent said is left out.
    tokenizer: of the run.
    grid: of the windows.
  """
  record = Record(tokenizer, grid=grid)
  for frame in frames:
    record.observe(frame)
  # What the user typed has a better time than that of its being read.
  result = [line for line in record.lines() if line.who != TYPED]
  return sorted(result + heard(timeline), key=_order)


def heard(timeline: Timeline, *, until: float = float("inf")) -> list[Line]:
  """What the user of `timeline` had said and typed at the time `until`."""
  result = [
    Line(event.time, event.time, TYPED, printable(event.text))
    for event in timeline.events
    if event.kind == EventKind.USER_TEXT and event.time < until
  ]
  for track in timeline.tracks:
    if track.role == Role.AGENT:
      continue
    words = sorted(track.words, key=lambda word: word.start)
    starts = [word.start for word in words]
    for span in track.spans:
      if span.start >= until:
        continue
      first = bisect.bisect_left(starts, span.start)
      stop = bisect.bisect_left(starts, min(span.end, until))
      text = " ".join(word.text for word in words[first:stop])
      unknown = "(speech)" if track.role == Role.USER else "(sound)"
      result.append(
        Line(
          span.start,
          min(span.end, until),
          str(track.role),
          printable(text) or unknown,
        )
      )
  return sorted(result, key=_order)


def _order(line: Line) -> tuple[float, float]:
  return line.start, line.end


class Record:
  """What was said, written and read so far; grows frame by frame.

  Holds text and no frames, so that it lasts an hour.
  """

  def __init__(
    self, tokenizer: Tokenizer, *, grid: clock.Grid, most: int | None = None
  ):
    """Starts empty.

    Args:
      tokenizer: of the run.
      grid: of the windows.
      most: lines that are kept, the last ones, and of what is not over its
        last tokens: for a session whose end nobody knows. None keeps all.
    """
    self._tokenizer = tokenizer
    self._seconds = grid.seconds
    self._done: collections.deque[Line] = collections.deque(maxlen=most)
    self._is_bounded = most is not None
    # Start and tokens of what is not over yet, by who says it.
    self._open: dict[str, tuple[float, list[int]]] = {}
    self._last: Frame | None = None

  def observe(self, frame: Frame) -> None:
    """Takes a finished frame."""
    self._last = frame
    decided = (frame.window + 1) * self._seconds  # heard from then on
    for burst in frame.text_in:
      who = TYPED if burst.channel == Control.USER_TEXT else RESULT
      now = frame.window * self._seconds
      self._burst(burst, who=who, start=now, end=decided)
    for burst in frame.text_out:
      who = f"{AGENT} {burst.channel.name.lower()}s"
      self._burst(burst, who=who, start=decided, end=decided)
    if AGENT in self._open or frame.say or frame.speak:
      start, tokens = self._open.pop(AGENT, (decided, []))
      tokens += frame.say
      self._bound(tokens)
      if frame.speak:
        self._open[AGENT] = (start, tokens)
      else:
        self._done.append(self._said(start, tokens, end=decided))

  def lines(self, *, last: int | None = None) -> list[Line]:
    """All of it, in order of its start; what is not over yet so far.

    With `last` only so many lines, and of what is not over its last tokens:
    work that does not grow with the session.
    """
    result = list(self._done)[-last:] if last else list(self._done)
    for who, (start, tokens) in self._open.items():
      if last:
        tokens = tokens[-_LAST_TOKENS:]
      if who == AGENT:
        end = (self._last.window + 2) * self._seconds
        result.append(self._said(start, tokens, end=end))
      else:
        text = spell(tokens, tokenizer=self._tokenizer) + " (unfinished)"
        result.append(Line(start, start, who, text))
    return sorted(result, key=_order)

  def _said(self, start: float, tokens: list[int], *, end: float) -> Line:
    """An utterance: a run of sound with the text that led it."""
    text = spell(tokens, tokenizer=self._tokenizer)
    if end == start:
      text += " (without sound)"
    return Line(start, end, AGENT, text or "(sound without text)")

  def _burst(self, burst: Burst, *, who: str, start: float, end: float) -> None:
    """One part of a message; one that spans frames is one line."""
    start, tokens = self._open.pop(who, (start, []))
    tokens += burst.tokens
    self._bound(tokens)
    if burst.complete:
      text = spell(tokens, tokenizer=self._tokenizer)
      self._done.append(Line(start, end, who, text))
    else:
      self._open[who] = (start, tokens)

  def _bound(self, tokens: list[int]) -> None:
    if self._is_bounded:
      del tokens[:-_MOST_TOKENS]


def spell(tokens: list[int], *, tokenizer: Tokenizer) -> str:
  """Printable text of tokens: an untrained model also draws control bytes."""
  return printable(tokenizer.decode(tokens))


def printable(text: str) -> str:
  """Text that stays on its line, whoever wrote it.

  Ends of lines, codes that terminals obey and such, each becomes a replacement
  character.
  """
  return "".join(c if errors.is_shown(c) else _NOT_PRINTABLE for c in text)
