"""SVG path commands: against another implementation, and malformed ones."""

import io
import math
import time
import xml.etree.ElementTree as ElementTree

import hypothesis
import numpy as np
import pytest
import svg.path
from hypothesis import strategies as st

from tests.helpers.frames import ByteTokenizer
from tml_jax.streams import clock
from tml_jax.streams import frame as frame_lib
from tml_jax.streams.frame import Burst, Control, Frame
from tml_jax.tools import drawing, svg_path
from tml_jax.tools.svg_path import Pen

_SPECIAL = "M0 0 10 0 10 10zm5 5h-3v2l1 1 2,2S20-5 30 0t5 5 5 5A3 2 30 1 0 40 9"


def read(text, *, pen=None, complete=True):
  reader = svg_path.Reader(pen or Pen())
  reader.feed(text, complete=complete)
  return reader


_T = np.linspace(0, 1, 20)


def outline(segments) -> list[np.ndarray]:
  """Points along each of our lines and curves, [20, 2]."""
  pieces, at, start = [], np.zeros(2), np.zeros(2)
  t = _T[:, None]
  for segment in segments:
    a, *_, end = [at, *map(np.array, segment.points)]
    if segment.kind == "M":
      start = end
    elif segment.kind == "C":
      b, c = map(np.array, segment.points[:2])
      pieces.append(
        (1 - t) ** 3 * a
        + 3 * (1 - t) ** 2 * t * b
        + 3 * (1 - t) * t**2 * c
        + t**3 * end
      )
    else:
      end = start if segment.kind == "Z" else end
      pieces.append((1 - t) * a + t * end)
    at = end
  return pieces


def points(part, count=20) -> np.ndarray:
  """The same of a part by the package svg.path."""
  found = [part.point(u) for u in np.linspace(0, 1, count)]
  return np.array([(p.real, p.imag) for p in found])


_N = st.integers(-20, 20).map(str)


@st.composite
def commands(draw):
  text = f"M{draw(_N)} {draw(_N)}"
  for _ in range(draw(st.integers(1, 5))):
    letter = draw(st.sampled_from("MmLlHhVvCcSsQqTtAaZz"))
    count = {"M": 2, "L": 2, "H": 1, "V": 1, "C": 6, "S": 4, "Q": 4, "T": 2}
    if letter.upper() == "A":
      radii = [str(draw(st.integers(1, 15))) for _ in range(2)]
      turn = str(draw(st.integers(-90, 90)))
      flags = [str(draw(st.integers(0, 1))) for _ in range(2)]
      numbers = [*radii, turn, *flags, draw(_N), draw(_N)]
    else:
      numbers = [draw(_N) for _ in range(count.get(letter.upper(), 0))]
    text += letter + " ".join(numbers)
  return text


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(commands())
@hypothesis.example(_SPECIAL)
def test_outlines_are_those_of_another_reader(text):
  ours = read(text)
  assert not ours.error
  pieces, theirs = outline(ours.segments), svg.path.parse_path(text)
  end = theirs[-1].end
  assert math.dist(ours.pen.at, (end.real, end.imag)) < 1e-6
  for part in theirs:
    if isinstance(part, svg.path.Move):
      continue
    if not isinstance(part, svg.path.Arc):
      np.testing.assert_allclose(pieces.pop(0), points(part), atol=1e-6)
      continue
    if part.start == part.end:
      continue  # nothing is drawn
    dense = points(part, 4000)
    radius = max(abs(part.radius.real), abs(part.radius.imag))
    # A cubic curve of a quarter turn is within 0.03 % of it (Goldapp 1991).
    near = (
      3e-4 * radius + 2 * np.linalg.norm(dense[1:] - dense[:-1], axis=1).max()
    )
    reached = np.array([part.start.real, part.start.imag])
    # As written: the other reader's arc of the least radii ends 1e-6 away.
    ends = np.array([part.end.real, part.end.imag])
    while np.linalg.norm(reached - ends) > 1e-6:
      piece = pieces.pop(0)
      np.testing.assert_allclose(piece[0], reached, atol=1e-6)
      apart = np.linalg.norm(piece[:, None] - dense[None], axis=-1)
      assert apart.min(axis=1).max() < near
      reached = piece[-1]
  assert not pieces


@pytest.mark.parametrize(
  "text, drawn, error",
  [
    ("", 0, ""),
    ("L 1 1", 0, "'L' before the first M at letter 2"),
    ("M 1", 0, "M without its 2 numbers at letter 4"),
    ("M0 0 L 5 5 L 6", 2, "L without its 2 numbers"),
    ("M0 0L5 5 hello", 2, "H without its 1 numbers"),
    ("M0 0 <call>", 1, "'<' where"),
    ("M0 0L1e9 0", 1, "a number beyond 10000"),
    ("M9999 0l9999 0", 1, "a point beyond 10000"),
    ("M0 0A5 5 0 2 0 1 1", 1, "A without its 7 numbers"),
    ("M0 0LNaN 0", 1, "L without its 2 numbers"),
    ("M0 0z5 5", 2, "'5' where a command was due"),
    (
      "M0 0" + "h1" * 5000,
      svg_path.MOST,
      f"more than {svg_path.MOST} commands",
    ),
  ],
)
def test_what_is_malformed_is_drawn_up_to_there(text, drawn, error):
  reading = read(text)
  assert len(reading.segments) == drawn
  assert error in reading.error and bool(error) == bool(reading.error)


def test_reading_is_linear():
  """In one piece and in many; numbers and spaces without end are an error."""

  def seconds(text, size):
    reader, start = svg_path.Reader(Pen(down=True)), time.process_time()
    for at in range(0, len(text), size):
      reader.feed(text[at : at + size], complete=False)
    return time.process_time() - start, reader.error

  for text in ("1" * 400_000 + " x", "M0 0 " + " " * 400_000):
    for size in (1, len(text)):
      assert seconds(text, size)[0] < 2, (text[:9], size)
  long = "a command of more than"
  for text in ("M0 0 L1." + "0" * 600 + " 1", "M0 0 L" + " " * 600 + "1 1"):
    assert long in seconds(text, 1)[1] and long in read(text).error
  assert not read("M0 0" + " " * 600 + "L1 1").error
  # Each command is read once, however small its parts are.
  text = "M0 0" + "C1 2 3 4 5 6" * 4000
  some, _ = seconds(text[: len(text) // 4], 3)
  whole, error = seconds(text, 3)
  assert not error and whole < 10 * some + 0.5


@hypothesis.given(st.text(max_size=60))
def test_no_text_crashes(text):
  for complete in (True, False):
    reading = read(text, complete=complete)
    for segment in reading.segments:
      assert all(abs(v) <= 2e4 for point in segment.points for v in point)


@hypothesis.settings(deadline=None)
@hypothesis.given(commands(), st.data())
def test_what_has_arrived_is_a_part_of_what_will(text, data):
  """Nothing that is drawn is taken back, and nothing is called wrong early."""
  whole = read(text)
  cut = data.draw(st.integers(0, len(text)))
  part = read(text[:cut], complete=False)
  assert not part.error
  assert part.segments == whole.segments[: len(part.segments)]
  part.feed(text[cut:], complete=True)
  assert (part.segments, part.pen) == (whole.segments, whole.pen)


@hypothesis.given(
  st.lists(st.text(alphabet="MLhaz01.-e ", max_size=6), max_size=8)
)
def test_parts_make_the_whole(parts):
  reader = svg_path.Reader(Pen())
  for part in parts:
    reader.feed(part, complete=False)
  reader.feed("", complete=True)
  whole = read("".join(parts))
  assert (reader.segments, reader.pen) == (whole.segments, whole.pen)
  assert reader.error == whole.error


def _frames(parts) -> list[Frame]:
  """One window for each (text, complete)."""
  return [
    Frame(
      window=k,
      own_dmel=None,
      user_dmel=None,
      patches=frame_lib.no_patches(),
      text_in=(),
      text_out=(Burst(Control.DRAW, tuple(text.encode()), complete),),
    )
    for k, (text, complete) in enumerate(parts)
  ]


def test_a_drawing_grows_and_messages_go_on_from_each_other():
  picture = drawing.Drawing(ByteTokenizer(), grid=clock.TICKS)
  seen = []
  for frame in _frames(
    [("M0 0h1", False), ("0v10", True), ("l-5 5 ", False), ("z", True)]
  ):
    assert picture.observe(frame)
    seen.append([len(m.segments) for m in picture.messages])
    ElementTree.fromstring(picture.svg())
  assert seen == [[1], [3], [3, 2], [3, 3]]
  first, second = picture.messages
  assert [s.points[-1] for s in second.segments] == [(10, 10), (5, 15), (0, 0)]
  assert (first.start, second.start) == pytest.approx((0.2, 0.6))
  assert first.text == "M0 0h10v10"


def test_a_malformed_message_is_marked_and_the_next_one_drawn():
  picture = drawing.Drawing(ByteTokenizer(), grid=clock.TICKS)
  wrong = 'M0 0L10 10 <"&\x00\ud800>'.encode(errors="replace").decode()
  for frame in _frames([(wrong, True), ("M0 10L10 0", True)]):
    picture.observe(frame)
  root = ElementTree.fromstring(picture.svg())
  paths = list(root)
  assert "where a command was due" in paths[0].get("data-malformed")
  assert paths[0].get("stroke") != paths[1].get("stroke")
  assert paths[1].get("data-malformed") is None


def test_pixels():
  from matplotlib import image

  picture = drawing.Drawing(ByteTokenizer(), grid=clock.TICKS)
  for frame in _frames([("M0 0H10V5H0Z", True)]):
    picture.observe(frame)
  pixels = image.imread(io.BytesIO(picture.png()))
  height, width = pixels.shape[:2]
  dark = pixels[..., :3].mean(axis=-1) < 0.5
  assert width > height  # 10 by 5, and a margin
  rows, columns = np.flatnonzero(dark.any(1)), np.flatnonzero(dark.any(0))
  ratio = (columns[-1] - columns[0]) / (rows[-1] - rows[0])
  assert ratio == pytest.approx(2, rel=0.05)
  assert not dark[height // 2, width // 2]  # an outline, not filled
  assert dark[rows[0] : rows[-1], columns[3]].mean() > 0.95  # closed


def test_nothing_drawn_is_a_picture_too():
  picture = drawing.Drawing(ByteTokenizer(), grid=clock.TICKS)
  for frame in _frames([("", True), ("?", True), ("M3 3", True)]):
    picture.observe(frame)
  ElementTree.fromstring(picture.svg())
  assert picture.png()[:4] == b"\x89PNG"


def _rounds(count, *, size=3):
  """Messages of `size` commands, in two windows each."""
  first, last = "M0 0" + "h1" * size, "v1" * size
  return _frames([(first, False), (last, True)] * count)


def test_the_file_grows_by_what_is_new(tmp_path):
  path, outside = tmp_path / "drawing.svg", tmp_path / "outside"
  outside.write_text("kept")
  path.symlink_to(outside)
  picture = drawing.Drawing(ByteTokenizer(), grid=clock.TICKS)
  file = drawing.GrowingFile(path)
  assert not path.exists()
  written = []
  for frame in [*_rounds(20), *_frames([("M-9 9e3", True), ("?", True)])]:
    picture.observe(frame)
    before = path.stat().st_size if path.exists() else 0
    file.update(picture)
    assert path.read_text() == picture.svg()
    ElementTree.fromstring(path.read_text())
    written.append(path.stat().st_size - before)
  file.close()
  assert outside.read_text() == "kept" and not path.is_symlink()
  assert max(written[1:]) < 200  # a message, its neighbours stay


def test_a_window_writes_no_message_but_its_own(tmp_path, monkeypatch):
  picture = drawing.Drawing(ByteTokenizer(), grid=clock.TICKS)
  file = drawing.GrowingFile(tmp_path / "drawing.svg")
  made, line = [], drawing.Message.line.fget
  counting = property(lambda message: made.append(message) or line(message))
  monkeypatch.setattr(drawing.Message, "line", counting)
  for frame in _rounds(300):
    picture.observe(frame)
    file.update(picture)
  file.close()
  assert len(made) == 600  # each in its two windows


def test_a_session_that_cannot_write_goes_on(tmp_path):
  picture = drawing.Drawing(ByteTokenizer(), grid=clock.TICKS)
  file = drawing.GrowingFile(tmp_path / "nowhere" / "drawing.svg")
  for frame in _rounds(2):
    picture.observe(frame)
    file.update(picture)
  file.close()
  ElementTree.fromstring(picture.svg())


def test_a_drawing_is_bounded(monkeypatch):
  picture = drawing.Drawing(ByteTokenizer(), grid=clock.TICKS)
  monkeypatch.setattr(drawing, "MOST_SEGMENTS", 100)
  drew = [picture.observe(frame) for frame in _rounds(40)]
  assert len(picture.messages) == 15  # of 7 commands each
  assert drew == [True] * 30 + [False] * 50
  monkeypatch.setattr(drawing, "MOST_SEGMENTS", 1 << 15)
  monkeypatch.setattr(drawing, "MOST_MESSAGES", 16)
  for frame in _frames([("", True)] * 9):
    picture.observe(frame)
  assert len(picture.messages) == 16


def test_a_message_without_end_stays_small():
  picture = drawing.Drawing(ByteTokenizer(), grid=clock.TICKS)
  for frame in _frames([("M0 0", False)] + [("h1 " * 300, False)] * 10):
    picture.observe(frame)
  assert len(picture.messages) == 1
  assert len(picture.messages[0].text) == 4096
