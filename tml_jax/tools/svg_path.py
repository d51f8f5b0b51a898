"""SVG path commands: reading what a model writes, one command at a time.

For: `drawing`, which must show what is right and say what is wrong. Not for:
other parts of SVG. Start reading at `Reader.feed`. Source: SVG 1.1, section
8.3, with its rule for errors: what comes before an error is drawn. Arcs become
cubic curves by its appendix F.6.
"""

import dataclasses
import math
import re

LIMIT = 1e4  # of a coordinate
MOST = 4096  # commands in one message
COMMAND_CHARS = 512  # of one, with its spaces: what has not ended is read again
_ARITY = dict(zip("MLHVCSQTAZ", (2, 2, 1, 1, 6, 4, 4, 2, 7, 0), strict=True))
_SPACE = re.compile(r"[\s,]*")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_FLAG = re.compile(r"[01]")
_LONG = f"a command of more than {COMMAND_CHARS} letters"
_IN_NUMBERS = "+-.0123456789eE"

Point = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Segment:
  """One piece of an outline, in absolute coordinates.

  Attributes:
    kind: M moves, L draws a line, C a cubic curve, Z closes the outline.
    points: one for M, L and Z, where it ends; three for C.
  """

  kind: str
  points: tuple[Point, ...]


@dataclasses.dataclass(frozen=True)
class Pen:
  """Where a message leaves off and the next one goes on."""

  at: Point = (0.0, 0.0)
  start: Point = (0.0, 0.0)  # of the outline
  down: bool = False  # after a first M


class _Malformed(Exception):
  pass


class Reader:
  """Reads the commands of one message as they arrive, each of them once.

  Attributes:
    segments: up to the first error.
    pen: behind them.
    error: what is wrong and where; "" where nothing is.
  """

  def __init__(self, pen: Pen):
    """Starts where the message before left off; M comes first unless down."""
    self.segments: list[Segment] = []
    self.pen = pen
    self.error = ""
    self._text = ""  # from the first command that has not ended
    self._before = 0  # letters before it
    self._position = self._end = 0  # in it
    self._count = 0
    self._letter = ""
    self._began = False  # whether the outline began in this message
    self._control: tuple[str, Point] | None = None  # of the curve before

  def feed(self, text: str, *, complete: bool) -> None:
    """Takes more of the message.

    Args:
      text: path data.
      complete: whether the message has ended. In one that has not, the last
        number may still grow, and a command without all of its numbers waits.
    """
    if self.error:
      return
    self._before += self._position
    self._text = self._text[self._position :] + text
    ended = self._text if complete else self._text.rstrip(_IN_NUMBERS)
    self._position, self._end = 0, len(ended)
    start = 0
    try:
      while not self._done():
        start = self._position
        self._command()
    except _Malformed as malformed:
      found = f"{malformed} at letter {self._before + self._position + 1}"
      if complete or not self._done():
        self.error = found
        return
      self._position = start
    if len(self._text) - self._position > COMMAND_CHARS:
      self.error = f"{_LONG} at letter {self._before + self._position + 1}"

  def _done(self) -> bool:
    self._position = _SPACE.match(self._text, self._position, self._end).end()
    return self._position == self._end

  def _command(self) -> None:
    """Reads one command, or one more set of numbers of the last."""
    if self._count >= MOST:
      raise _Malformed(f"more than {MOST} commands")
    start, letter = self._position, self._text[self._position]
    if letter.upper() in _ARITY:
      self._position += 1
    elif self._letter.upper() in ("", "Z") or not self._number_follows():
      raise _Malformed(f"{letter!r} where a command was due")
    else:
      letter = {"M": "L", "m": "l"}.get(self._letter, self._letter)
    if not self.pen.down and letter.upper() != "M":
      raise _Malformed(f"{letter!r} before the first M")
    numbers = self._numbers(letter.upper())
    if self._position - start > COMMAND_CHARS:
      raise _Malformed(_LONG)
    self._add(letter, numbers)
    self._letter = letter
    self._count += 1

  def _number_follows(self) -> bool:
    return _NUMBER.match(self._text, self._position, self._end) is not None

  def _numbers(self, kind: str) -> list[float]:
    numbers = []
    for i in range(_ARITY[kind]):
      is_flag = kind == "A" and i in (3, 4)
      self._done()
      pattern = _FLAG if is_flag else _NUMBER
      found = pattern.match(self._text, self._position, self._end)
      if found is None:
        raise _Malformed(f"{kind} without its {_ARITY[kind]} numbers")
      self._position = found.end()
      numbers.append(float(found[0]))
      if not abs(numbers[-1]) <= LIMIT:
        raise _Malformed(f"a number beyond {LIMIT:g}")
    return numbers

  def _add(self, letter: str, numbers: list[float]) -> None:
    kind, relative = letter.upper(), letter.islower()
    x, y = self.pen.at if relative else (0.0, 0.0)
    if kind == "H":
      numbers = [numbers[0], self.pen.at[1] - y]
    elif kind == "V":
      numbers = [self.pen.at[0] - x, numbers[0]]
    radii = []
    if kind == "A":
      radii, numbers = numbers[:5], numbers[5:]
    points = [
      (x + a, y + b) for a, b in zip(numbers[::2], numbers[1::2], strict=True)
    ]
    if any(abs(value) > LIMIT for point in points for value in point):
      raise _Malformed(f"a point beyond {LIMIT:g}")
    if kind == "Z":
      self._draw("Z", self.pen.start)
    elif kind == "M":
      self.segments.append(Segment("M", (points[0],)))
      self.pen = Pen(points[0], start=points[0], down=True)
      self._began = True
    elif kind in "LHV":
      self._draw("L", points[0])
    elif kind == "A":
      for curve in arc(self.pen.at, radii, points[0]):
        self._draw("C", *curve)
    else:
      self._curve(kind, points)
      return
    self._control = None

  def _curve(self, kind: str, points: list[Point]) -> None:
    """C and S are cubic, Q and T quadratic; S and T go on smoothly."""
    at = self.pen.at
    if kind in "ST":
      family, control = self._control or ("", at)
      if family != {"S": "C", "T": "Q"}[kind]:
        control = at
      points = [(2 * at[0] - control[0], 2 * at[1] - control[1]), *points]
    if kind in "CS":
      self._draw("C", *points)
      self._control = ("C", points[1])
      return
    control, end = points
    thirds = [
      tuple(p + 2 / 3 * (c - p) for p, c in zip(point, control, strict=True))
      for point in (at, end)
    ]
    self._draw("C", *thirds, end)
    self._control = ("Q", control)

  def _draw(self, kind: str, *points: Point) -> None:
    if not self.segments or self.segments[-1].kind == "Z":
      self.segments.append(Segment("M", (self.pen.at,)))
      self._began = self.pen.at == self.pen.start
    if kind == "Z" and not self._began:
      kind = "L"  # the outline began in an earlier message
    self.segments.append(Segment(kind, points))
    self.pen = dataclasses.replace(self.pen, at=points[-1])


def arc(
  start: Point, radii: list[float], end: Point
) -> list[tuple[Point, Point, Point]]:
  """An elliptical arc as cubic curves of at most a quarter turn.

  Args:
    start: where it begins.
    radii: rx, ry, rotation in degrees, large-arc flag, sweep flag.
    end: where it ends.
  """
  rx, ry, degrees, large, sweep = radii
  rx, ry = abs(rx), abs(ry)
  if start == end:
    return []
  if not rx or not ry:
    return [(start, end, end)]
  cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
  dx, dy = (start[0] - end[0]) / 2, (start[1] - end[1]) / 2
  x, y = cos * dx + sin * dy, cos * dy - sin * dx
  scale = math.hypot(x / rx, y / ry)
  if scale > 1:  # too small to reach: grown until they just do
    rx, ry = rx * scale, ry * scale
  reach = (rx * y) ** 2 + (ry * x) ** 2
  root = math.sqrt(max(0.0, (rx * ry) ** 2 / reach - 1)) if reach else 0.0
  root = -root if large == sweep else root
  cx, cy = root * rx * y / ry, -root * ry * x / rx
  first = math.atan2((y - cy) / ry, (x - cx) / rx)
  turn = math.atan2((-y - cy) / ry, (-x - cx) / rx) - first
  turn = turn % (2 * math.pi) - (0 if sweep else 2 * math.pi)
  middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)

  def place(u: float, v: float) -> Point:
    u, v = cx + rx * u, cy + ry * v
    return middle[0] + cos * u - sin * v, middle[1] + sin * u + cos * v

  count = max(1, math.ceil(abs(turn) / (math.pi / 2) - 1e-9))
  step = turn / count
  pull = 4 / 3 * math.tan(step / 4)
  curves = []
  for i in range(count):
    a, b = first + i * step, first + (i + 1) * step
    (ca, sa), (cb, sb) = ((math.cos(t), math.sin(t)) for t in (a, b))
    curves.append(
      (
        place(ca - pull * sa, sa + pull * ca),
        place(cb + pull * sb, sb - pull * cb),
        end if i == count - 1 else place(cb, sb),
      )
    )
  return curves
