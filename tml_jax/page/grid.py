"""A recording as lanes over its windows, in one SVG.

For: `recording`. Not for: what is in the lanes (`windows`). Start at `draw`.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from tml_jax.page import html, media, spelling
from tml_jax.page.windows import Seen
from tml_jax.streams import framing, patches
from tml_jax.streams.frame import Burst, Frame, Kind
from tml_jax.streams.timeline import EventKind, Role, Word
from tml_jax.streams.tokenizer import Tokenizer

PER_SECOND = 120  # pixels
_LETTER = 6.4  # pixels of one of the texts
_ROW = 15  # pixels of a row of text
_MEL = 80  # pixels of a picture of mel
_FILM = 48  # pixels of a thumbnail
_NAMES = 104  # pixels of the names of lanes
_MOST_LETTERS = 60
_COLOURS = {
  Kind.SILENCE: "c-none",
  Kind.ONSET: "c-red",
  Kind.GOING_ON: "c-orange",
  Kind.STOP: "c-black",
}
_WEIGHT = 24  # pixels of the lanes of weights


@dataclasses.dataclass(frozen=True)
class Label:
  """A text at a time, in seconds."""

  start: float
  text: str


@dataclasses.dataclass(frozen=True)
class _Lane:
  """One line of the drawing.

  Attributes:
    name: of it.
    high: pixels.
    draw: SVG of it, given where it begins from above.
  """

  name: str
  high: int
  draw: Callable[[int], str]


def draw(seen: Seen, *, tokenizer: Tokenizer) -> str:
  """HTML of the lanes with their names.

  Args:
    seen: what is drawn.
    tokenizer: of the text.
  """
  wide = PER_SECOND * seen.grid.seconds
  width = len(seen.frames) * wide
  names, lanes, top = [], [], 0
  for lane in _lanes(seen, tokenizer=tokenizer, wide=wide):
    middle = top + lane.high / 2 + 4
    names.append(f"<text x=4 y='{middle:g}'>{html.text(lane.name)}</text>")
    lanes.append(
      f"<rect y='{top}' width='{width:g}' height='{lane.high}' class=lane />"
      f"{lane.draw(top)}"
    )
    top += lane.high + 4
  ticks = "".join(
    f"<line x1='{at}' x2='{at}' y2='{top}' class=tick />"
    for at in range(0, int(width) + 1, PER_SECOND)
  )
  return (
    f"<div class=grid><div class=names><svg width={_NAMES} height='{top}'"
    f" aria-hidden=true>{''.join(names)}</svg></div>"
    "<div class=lanes tabindex=0 role=group aria-label='Windows: arrow keys"
    f" move the line'><svg width='{width:g}' height='{top}' role=img"
    f" aria-label='{html.text(seen.timeline.id)} by windows'>"
    f"{''.join(lanes)}{ticks}<rect class=cursor width='{wide:g}'"
    f" height='{top}' visibility=hidden /></svg></div></div>"
  )


def _lanes(seen: Seen, *, tokenizer: Tokenizer, wide: float) -> list[_Lane]:
  frames, grid = seen.frames, seen.grid
  lanes = [_Lane("seconds", _ROW, lambda top: _ruler(seen, top))]
  if any(len(frame.patches) for frame in frames):
    lanes.append(_Lane("sees", _FILM, lambda top: _film(seen, top, wide=wide)))
  for role, style in ((Role.USER, "user"), (Role.ENVIRONMENT, "soft")):
    words = [
      word
      for track in seen.timeline.tracks
      if track.role == role
      for word in track.words
    ]
    if words:
      lanes.append(_words(f"{role} says", words, seen=seen, style=style))
  typed = _events(seen, kinds={*framing.TYPED, EventKind.NOTE})
  if typed:
    lanes.append(_texts("typed, notes", typed, seen=seen, style="event"))
  if any(frame.user_dmel is not None for frame in frames):
    heard = [frame.user_dmel for frame in frames]
    lanes.append(_mel("user, as heard", heard, seen=seen, wide=wide))
  agent = seen.timeline.track(Role.AGENT)
  if agent is not None and agent.words:
    lanes.append(_words("agent says", agent.words, seen=seen, style="agent"))
  if any(frame.own_dmel is not None for frame in frames):
    own = [frame.own_dmel for frame in frames]
    lanes.append(_mel("agent, as heard", own, seen=seen, wide=wide))
  written = [
    Label(frame.window * grid.seconds, text)
    for frame in frames
    if (text := _written(frame, tokenizer=tokenizer))
  ]
  if written:
    lanes.append(_texts("decides: text", written, seen=seen, style="agent"))
  lanes.append(
    _Lane("decides: speak", _ROW, lambda top: _decisions(seen, top, wide=wide))
  )
  by_text = np.array([sum(t.weight for t in ts) for ts in seen.targets])
  for name, values, style in (
    ("tokens", by_text, "c-green"),
    ("sound", seen.speech, "c-purple"),
  ):
    lanes.append(_weights(name, values, wide=wide, style=style))
  return lanes


def _ruler(seen: Seen, top: int) -> str:
  return "".join(
    f"<text x='{s * PER_SECOND + 3}' y='{top + 11}' class=soft>{s} s</text>"
    for s in range(int(seen.seconds) + 1)
  )


def _film(seen: Seen, top: int, *, wide: float) -> str:
  """Pictures as the model sees them, put together of their patches."""
  result, free = [], 0.0
  for k, frame in enumerate(seen.frames):
    if not len(frame.patches) or k * wide < free:
      continue
    image = picture(frame, like=seen.timeline.video[0].image.shape)
    shown = _FILM * image.shape[1] / image.shape[0]
    result.append(
      f"<image x='{k * wide:g}' y='{top}' width='{shown:g}' height={_FILM}"
      f" href='{media.thumbnail(image)}' />"
    )
    free = k * wide + shown
  return "".join(result)


def picture(frame: Frame, *, like: tuple[int, ...]) -> np.ndarray:
  """The later image of a frame's patches, [height, width, 3] uint8."""
  rows, columns = like[0] // patches.PATCH, like[1] // patches.PATCH
  last = frame.patches[:, -1].reshape(
    rows, columns, patches.PATCH, patches.PATCH, 3
  )
  return last.transpose(0, 2, 1, 3, 4).reshape(
    rows * patches.PATCH, columns * patches.PATCH, 3
  )


def _words(
  name: str, words: Sequence[Word], *, seen: Seen, style: str
) -> _Lane:
  labels = [Label(word.start, word.text) for word in words]
  return _texts(name, labels, seen=seen, style=style)


def _events(seen: Seen, *, kinds: set[EventKind]) -> list[Label]:
  return [
    Label(event.time, f"{event.kind}: {event.text}")
    for event in sorted(seen.timeline.events, key=lambda event: event.time)
    if event.kind in kinds
  ]


def _written(frame: Frame, *, tokenizer: Tokenizer) -> str:
  """What is decided to be said and written in a window."""
  parts = []
  if frame.say:
    parts.append(spelling.decode(list(frame.say), tokenizer=tokenizer))
  parts += [_burst(burst, tokenizer=tokenizer) for burst in frame.text_out]
  return " ".join(parts)


def _burst(burst: Burst, *, tokenizer: Tokenizer) -> str:
  said = spelling.decode(list(burst.tokens), tokenizer=tokenizer)
  return f"[{burst.channel.name.lower()}] {said}"


def _texts(
  name: str, labels: Sequence[Label], *, seen: Seen, style: str
) -> _Lane:
  """Texts at their times, each in the first row of three that is free."""
  free: list[float] = []
  placed = []
  for label in labels:
    if label.start >= seen.seconds:
      continue
    text = label.text
    if len(text) > _MOST_LETTERS:
      text = text[: _MOST_LETTERS - 1] + "…"
    left = label.start * PER_SECOND
    row = next((i for i, stop in enumerate(free) if stop <= left), len(free))
    if row == 3:
      row = int(np.argmin(free))
    elif row == len(free):
      free.append(0.0)
    free[row] = left + (len(text) + 1) * _LETTER
    placed.append((left, row, text, label.text))

  def draw(top: int) -> str:
    return "".join(
      f"<text x='{left:.1f}' y='{top + row * _ROW + 11}' class={style}>"
      f"{html.text(text)}<title>{html.text(whole)}</title></text>"
      for left, row, text, whole in placed
    )

  return _Lane(name, max(1, len(free)) * _ROW, draw)


def _mel(
  name: str, steps: list[np.ndarray | None], *, seen: Seen, wide: float
) -> _Lane:
  def draw(top: int) -> str:
    address = media.levels(steps, each=seen.grid.audio_tokens)
    return (
      f"<image y='{top}' width='{len(steps) * wide:g}' height={_MEL}"
      f" preserveAspectRatio=none href='{address}' />"
    )

  return _Lane(name, _MEL, draw)


def _decisions(seen: Seen, top: int, *, wide: float) -> str:
  """A cell a window by the kind of its last token."""
  return "".join(
    f"<rect x='{k * wide + 0.5:g}' y='{top}' width='{wide - 1:g}'"
    f" height={_ROW} class={_COLOURS[targets[-1].kind]} />"
    for k, targets in enumerate(seen.targets)
    if targets
  )


def _weights(
  name: str, values: np.ndarray, *, wide: float, style: str
) -> _Lane:
  """Weights of the loss: a bar a window, up to the largest that is shown."""
  most = float(values.max(initial=0.0)) or 1.0

  def draw(top: int) -> str:
    return "".join(
      f"<rect x='{k * wide + 0.5:g}'"
      f" y='{top + _WEIGHT - _WEIGHT * value / most:.2f}'"
      f" width='{wide - 1:g}' height='{_WEIGHT * value / most:.2f}'"
      f" class={style} />"
      for k, value in enumerate(values.tolist())
      if value
    )

  return _Lane(f"loss {name}: {most:.3g}", _WEIGHT, draw)
