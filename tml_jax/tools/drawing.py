"""What the model draws: `<draw>` messages become a picture as they arrive.

For: `Drawing`, which is given every finished frame, and `GrowingFile`, which
shows it meanwhile. Not for: the commands' grammar (`svg_path`). A message is
SVG path data; the next one goes on from where its pen was left. What is
malformed is drawn up to the error, in red, and the error is written down.
"""

import html
import io
import os
import pathlib

from absl import logging

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
_CONTEXT = 8  # tokens before new ones, for their decoding
MOST_SEGMENTS = 1 << 15
MOST_MESSAGES = 1 << 12
_HEADER_CHARS = 256
_SVG_END = "</svg>\n"
_PNG_INCHES = 4.0


class Message:
  """One `<draw>` message as far as it has arrived.

  Attributes:
    start: seconds of the session at its first token.
    complete: whether it has ended.
    corners: upper left and lower right of what is drawn; empty where nothing
      is.
  """

  def __init__(self, start: float, *, pen: Pen):
    self.start = start
    self.complete = False
    self.corners: tuple[svg_path.Point, ...] = ()
    self._reader = svg_path.Reader(pen)
    self._texts: list[str] = []
    self._data: list[str] = []  # of each segment, as SVG

  @property
  def text(self) -> str:
    """As the model wrote it."""
    return "".join(self._texts)

  @property
  def segments(self) -> list[Segment]:
    """What is drawn of it."""
    return self._reader.segments

  @property
  def error(self) -> str:
    """What is malformed, else ""."""
    return self._reader.error

  @property
  def pen(self) -> Pen:
    return self._reader.pen

  @property
  def colour(self) -> str:
    return _WRONG if self.error else _INK

  @property
  def line(self) -> str:
    """The message as an element of SVG."""
    marks = f'data-seconds="{self.start:.1f}"'
    if self.error:
      marks += f' data-malformed="{html.escape(_plain(self.error))}"'
    data = " ".join(self._data)
    return f'  <path {marks} stroke="{self.colour}" d="{data}"/>\n'

  def feed(self, text: str, *, complete: bool) -> None:
    """Takes more of the message."""
    self._texts.append(text)
    self.complete = complete
    count = len(self.segments)
    self._reader.feed(text, complete=complete)
    new = self.segments[count:]
    for segment in new:
      points = segment.points if segment.kind != "Z" else ()
      self._data.append(
        segment.kind + " ".join(f"{x:g} {y:g}" for x, y in points)
      )
    self.corners = _corners(*self.corners, *(p for s in new for p in s.points))


class Drawing:
  """All that one session has drawn, up to a bound.

  Attributes:
    messages: in order; only the last one may still grow.
  """

  def __init__(self, tokenizer: Tokenizer, *, grid: clock.Grid):
    self._tokenizer = tokenizer
    self._grid = grid
    self._context: list[int] = []  # the last tokens of the last message
    self._room = _TOKENS  # of the last message
    self._segments = 0  # of all messages before
    self._corners: tuple[svg_path.Point, ...] = ()  # of them
    self._pen = Pen()
    self._is_said = False  # that it is full
    self.messages: list[Message] = []

  def observe(self, frame: Frame) -> bool:
    """Takes a finished frame; returns whether it drew anything."""
    drawn = [b for b in frame.text_out if b.channel == Control.DRAW]
    for burst in drawn:
      if not self.messages or self.messages[-1].complete:
        if self._is_full():
          return False
        start = (frame.window + 1) * self._grid.seconds
        self.messages.append(Message(start, pen=self._pen))
        self._context, self._room = [], _TOKENS
      message = self.messages[-1]
      tokens = list(burst.tokens[: self._room])
      self._room -= len(tokens)
      # Decoded with what stands before them, on which spaces depend.
      before = self._tokenizer.decode(self._context)
      text = self._tokenizer.decode(self._context + tokens)
      same = len(os.path.commonprefix([before, text]))
      message.feed(text[same:], complete=burst.complete)
      self._context = (self._context + tokens)[-_CONTEXT:]
      if burst.complete:
        self._pen = message.pen
        self._corners = _corners(*self._corners, *message.corners)
        self._segments += len(message.segments)
    return bool(drawn)

  def _is_full(self) -> bool:
    full = (
      self._segments >= MOST_SEGMENTS or len(self.messages) >= MOST_MESSAGES
    )
    if full and not self._is_said:
      logging.warning(
        "nothing more is drawn after %d messages with %d commands",
        len(self.messages),
        self._segments,
      )
      self._is_said = True
    return full

  def svg(self) -> str:
    """The picture, every message a path with its time."""
    return self.header() + "".join(m.line for m in self.messages) + _SVG_END

  def header(self) -> str:
    """The first line of the picture, always as long."""
    left, top, width, height = self.box
    stroke = _STROKE * max(width, height)
    text = (
      '<svg xmlns="http://www.w3.org/2000/svg" fill="none"'
      f' viewBox="{left:g} {top:g} {width:g} {height:g}"'
      f' stroke-width="{stroke:g}" stroke-linecap="round"'
      ' stroke-linejoin="round">'
    )
    return f"{text:<{_HEADER_CHARS - 1}}\n"

  def png(self) -> bytes:
    """The same picture, by matplotlib."""
    from matplotlib import figure, patches, path

    left, top, width, height = self.box
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

  @property
  def box(self) -> tuple[float, float, float, float]:
    """Left, top, width and height of what is drawn, with a margin."""
    last = self.messages[-1].corners if self.messages else ()
    points = _corners(*self._corners, *last) or ((0.0, 0.0),)
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


class GrowingFile:
  """The picture on disk, of which every window adds what is new.

  A message that has not ended is written anew, and the first line, whose
  length is fixed; nothing else. Whoever reads it at any time finds a picture,
  perhaps with the frame of the window before.
  """

  def __init__(self, path: pathlib.Path):
    """Takes the place of a file, or link, that was there before."""
    path.unlink(missing_ok=True)
    self._path = path
    self._file = None  # until something is drawn
    self._has_failed = False
    self._end = _HEADER_CHARS  # of the messages that have ended
    self._count = 0  # of these

  def update(self, drawing: Drawing) -> None:
    """Writes what `drawing` has more than the last time.

    A session goes on where that fails: all of it is written at its end.
    """
    try:
      self._write(drawing)
    except OSError as error:
      if not self._has_failed:
        logging.warning("%s does not grow: %s", self._path, error)
      self._has_failed = True

  def _write(self, drawing: Drawing) -> None:
    if self._file is None:
      self._file = open(self._path, "xb")
    messages = drawing.messages[self._count :]
    ended = [m.line.encode() for m in messages if m.complete]
    growing = [m.line.encode() for m in messages if not m.complete]
    tail = b"".join([*ended, *growing, _SVG_END.encode()])
    header = drawing.header().encode()
    self._file.seek(self._end)
    self._file.write(tail)
    self._file.truncate(self._end + len(tail))
    self._file.seek(0)
    self._file.write(header)
    self._file.flush()
    self._end += sum(map(len, ended))
    self._count += len(ended)

  def close(self) -> None:
    if self._file is not None:
      self._file.close()


def _corners(*points: svg_path.Point) -> tuple[svg_path.Point, ...]:
  """Upper left and lower right of points; empty where there is none."""
  if not points:
    return ()
  xs, ys = zip(*points, strict=True)
  return (min(xs), min(ys)), (max(xs), max(ys))


def _plain(text: str) -> str:
  """`text` without what XML does not allow."""
  return "".join(
    c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text
  )
