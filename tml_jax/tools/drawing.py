"""What the model draws: `<draw>` messages become a picture as they arrive.

For: `Drawing`, which is given every finished frame. Not for: the commands'
grammar (`svg_path`). A message is SVG path data; the next one goes on from
where its pen was left. What is malformed is drawn up to the error, in red, and
the error is written down.
"""

import dataclasses
import functools
import html
import io

from tml_jax.streams import clock
from tml_jax.streams.frame import Control, Frame
from tml_jax.streams.tokenizer import Tokenizer
from tml_jax.tools import svg_path
from tml_jax.tools.svg_path import Pen, Segment

SVG, PNG = "drawing.svg", "drawing.png"
_INK, _WRONG = "#000000", "#d50000"
_MARGIN = 0.08  # of the longer side
_STROKE = 0.02
_TOKENS = 4096  # of one message
_PNG_INCHES = 4.0


@dataclasses.dataclass(frozen=True)
class Message:
  """One `<draw>` message as far as it has arrived.

  Attributes:
    start: seconds of the session at its first token.
    text: as the model wrote it.
    segments: what is drawn of it.
    error: what is malformed, else "".
    complete: whether it has ended.
  """

  start: float
  text: str
  segments: tuple[Segment, ...]
  error: str
  complete: bool

  @functools.cached_property
  def line(self) -> str:
    """The message as an element of SVG."""
    marks = f'data-seconds="{self.start:.1f}"'
    if self.error:
      marks += f' data-malformed="{html.escape(_plain(self.error))}"'
    data = " ".join(
      segment.kind
      + " ".join(
        f"{x:g} {y:g}" for x, y in segment.points if segment.kind != "Z"
      )
      for segment in self.segments
    )
    return f'  <path {marks} stroke="{self.colour}" d="{data}"/>'

  @property
  def colour(self) -> str:
    return _WRONG if self.error else _INK

  @functools.cached_property
  def corners(self) -> tuple[svg_path.Point, ...]:
    """Upper left and lower right of what is drawn; empty where nothing is."""
    points = [point for s in self.segments for point in s.points]
    if not points:
      return ()
    xs, ys = zip(*points, strict=True)
    return (min(xs), min(ys)), (max(xs), max(ys))


class Drawing:
  """All that one session has drawn.

  Attributes:
    messages: in order; only the last one may still grow.
  """

  def __init__(self, tokenizer: Tokenizer, *, grid: clock.Grid):
    self._tokenizer = tokenizer
    self._grid = grid
    self._tokens: list[int] = []
    self._pen = Pen()  # before the last message, if that is not complete
    self.messages: list[Message] = []

  def observe(self, frame: Frame) -> bool:
    """Takes a finished frame; returns whether it drew anything."""
    drawn = [b for b in frame.text_out if b.channel == Control.DRAW]
    for burst in drawn:
      start = (frame.window + 1) * self._grid.seconds
      if self.messages and not self.messages[-1].complete:
        start = self.messages.pop().start
      room = _TOKENS - len(self._tokens)
      self._tokens += burst.tokens[: max(0, room)]
      text = self._tokenizer.decode(self._tokens)
      reading = svg_path.read(text, pen=self._pen, complete=burst.complete)
      self.messages.append(
        Message(start, text, reading.segments, reading.error, burst.complete)
      )
      if burst.complete:
        self._tokens, self._pen = [], reading.pen
    return bool(drawn)

  def svg(self) -> str:
    """The picture, every message a path with its time."""
    left, top, width, height = self._box()
    stroke = _STROKE * max(width, height)
    lines = [
      '<svg xmlns="http://www.w3.org/2000/svg" fill="none"'
      f' viewBox="{left:g} {top:g} {width:g} {height:g}"'
      f' stroke-width="{stroke:g}" stroke-linecap="round"'
      ' stroke-linejoin="round">'
    ]
    lines += [message.line for message in self.messages]
    return "\n".join([*lines, "</svg>", ""])

  def png(self) -> bytes:
    """The same picture, by matplotlib."""
    from matplotlib import figure, patches, path

    left, top, width, height = self._box()
    longer = max(width, height)
    size = [_PNG_INCHES * side / longer for side in (width, height)]
    canvas = figure.Figure(figsize=size)
    axes = canvas.add_axes((0, 0, 1, 1), xticks=[], yticks=[], frameon=False)
    axes.set_xlim(left, left + width)
    axes.set_ylim(top + height, top)  # SVG counts y downwards
    kinds = {
      "M": path.Path.MOVETO,
      "L": path.Path.LINETO,
      "C": path.Path.CURVE4,
      "Z": path.Path.CLOSEPOLY,
    }
    for message in self.messages:
      points, codes = [], []
      for segment in message.segments:
        points += segment.points
        codes += [kinds[segment.kind]] * len(segment.points)
      if points:
        axes.add_patch(
          patches.PathPatch(
            path.Path(points, codes),
            fill=False,
            edgecolor=message.colour,
            linewidth=72 * _PNG_INCHES * _STROKE,
            capstyle="round",
            joinstyle="round",
          )
        )
    file = io.BytesIO()
    canvas.savefig(file, dpi=150, format="png")
    return file.getvalue()

  def _box(self) -> tuple[float, float, float, float]:
    """Left, top, width and height of what is drawn, with a margin."""
    points = [point for m in self.messages for point in m.corners]
    points = points or [(0.0, 0.0)]
    xs, ys = zip(*points, strict=True)
    longer = max(max(xs) - min(xs), max(ys) - min(ys)) or 1.0
    margin = _MARGIN * longer
    # A line that is straight has one side only; the picture has two.
    return (
      min(xs) - margin,
      min(ys) - margin,
      max(max(xs) - min(xs), 0.1 * longer) + 2 * margin,
      max(max(ys) - min(ys), 0.1 * longer) + 2 * margin,
    )


def _plain(text: str) -> str:
  """`text` without what XML does not allow."""
  return "".join(
    c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text
  )
