"""Tools and drawing of one session that somebody follows live.

For: what happens between two windows beside the model: calls go to tools of
the server or of the client, results come in, strokes are drawn. Not for: tools
themselves (`tools`), or telling a client (`answers`). Start at
`Attached.step`; `made` has what is to be told.
"""

import dataclasses
import json
import secrets
import threading
from typing import Any, TypeAlias

from absl import logging

from tml_jax.config import StreamsConfig
from tml_jax.streams import calls as calls_lib
from tml_jax.streams import clock
from tml_jax.streams.frame import Frame
from tml_jax.streams.tokenizer import Tokenizer
from tml_jax.tools import background, drawing, session_tools
from tml_jax.tools.background import Call, Limits, Ticket
from tml_jax.tools.client_tools import ClientTool, Declared
from tml_jax.tools.svg_path import Point, Segment

CLIENT, SERVER = "client", "server"  # where a call runs
_MOST_OPEN = 64  # calls whose results a client may still send


@dataclasses.dataclass(frozen=True)
class Called:
  """A call has left.

  Attributes:
    call_id: of the protocol.
    name: of the tool.
    arguments: JSON of an object for a client's tool, else as written.
    where: CLIENT or SERVER.
  """

  call_id: str
  name: str
  arguments: str
  where: str


@dataclasses.dataclass(frozen=True)
class Came:
  """A result, or a part of one, that the model reads next."""

  call_id: str
  text: str


@dataclasses.dataclass(frozen=True)
class Drawn:
  """New strokes.

  Attributes:
    drawing_id: of the message.
    path: SVG path data that stands for itself.
    is_done: nothing more comes.
    box: left, top, width, height of all that was drawn so far.
  """

  drawing_id: str
  path: str
  is_done: bool
  box: tuple[float, float, float, float]


Made: TypeAlias = Called | Came | Drawn


class Attached:
  """What runs beside one session."""

  def __init__(
    self,
    runner: background.Runner,
    *,
    tokenizer: Tokenizer,
    config: StreamsConfig,
    patience: float,
  ):
    """Starts with nothing.

    Args:
      runner: of the server's tools; sessions share it.
      tokenizer: of the run.
      config: of the frames.
      patience: seconds that a client's tool may take.
    """
    self._runner = runner
    self._tokenizer = tokenizer
    self._patience = patience
    self._lock = threading.Lock()  # of the two below
    self._declared: dict[str, Declared] = {}
    self._open: dict[str, ClientTool] = {}
    self._made: list[Made] = []
    self._ids: dict[int, str] = {}  # by the call's number
    self._tools = session_tools.SessionTools(
      self,
      tokenizer=tokenizer,
      config=config,
      arrival=session_tools.Live(),
      limits=Limits(),
      heard=lambda now: [],
    )
    self._drawing = drawing.Drawing(tokenizer, grid=clock.of(config))
    self._messages = 0  # that have ended
    self._strokes = 0  # of the one that has not

  # ------------------------------------------------ from the client's side
  def declare(self, tools: tuple[Declared, ...]) -> None:
    """The client's tools, instead of those before."""
    with self._lock:
      self._declared = {tool.name: tool for tool in tools}

  @property
  def declared(self) -> tuple[Declared, ...]:
    with self._lock:
      return tuple(self._declared.values())

  def answer(self, call_id: str, text: str) -> bool:
    """What a client's tool returned; False where nobody waits for it."""
    with self._lock:
      tool = self._open.pop(call_id, None)
    return tool is not None and tool.answer(text)

  # -------------------------------------------------- from the pool's side
  def step(self, frame: Frame) -> list[list[int]]:
    """Takes a finished frame; returns `<result>` messages to be queued."""
    try:
      return self._step(frame)
    except Exception:  # of one session: those that share the tick go on
      logging.exception("tools or drawing of a session failed")
      return []

  def _step(self, frame: Frame) -> list[list[int]]:
    results = self._tools.step(frame)
    for tokens in results:
      text = self._tokenizer.decode(tokens)
      number, text = calls_lib.parse_result(text)
      self._made.append(Came(self._ids.get(number, ""), text))
    if self._drawing.observe(frame):
      self._made += self._strokes_since()
    return results

  def start(
    self,
    call: Call,
    *,
    chars: int,
    clock: background.SessionClock | None = None,
  ) -> Ticket:
    """Runs a call where it belongs, for `session_tools`."""
    call_id = f"call_{secrets.token_hex(8)}"
    self._ids[call.number] = call_id
    with self._lock:
      declared = self._declared.get(call.name)
    if declared is None:
      self._made.append(Called(call_id, call.name, call.arguments, SERVER))
      return self._runner.start(call, chars=chars, clock=clock)
    arguments = json.dumps(
      declared.arguments(call.arguments), ensure_ascii=False
    )
    self._made.append(Called(call_id, call.name, arguments, CLIENT))
    tool = ClientTool(timeout=self._patience)
    with self._lock:
      self._open[call_id] = tool
      while len(self._open) > _MOST_OPEN:  # the oldest have timed out
        self._open.pop(next(iter(self._open)))
    return self._runner.run(tool, call, chars=chars, clock=clock)

  def made(self) -> tuple[Made, ...]:
    """What there is to tell since the last time."""
    made, self._made = tuple(self._made), []
    return made

  def to_json(self) -> list[dict[str, Any]]:
    """Every call and what became of it."""
    return self._tools.to_json()

  def state(self) -> dict[str, Any]:
    """What another server has to know of the calls, as JSON."""
    return self._tools.state()

  def restore(self, state: dict[str, Any]) -> list[list[int]]:
    """See `session_tools.SessionTools.restore`."""
    return self._tools.restore(state)

  def close(self) -> None:
    """Ends what runs."""
    self._tools.close()

  def _strokes_since(self) -> list[Drawn]:
    """What was drawn since the last time, message by message."""
    found = []
    for k in range(self._messages, len(self._drawing.messages)):
      message = self._drawing.messages[k]
      path = path_data(message.segments, first=self._strokes)
      self._strokes = len(message.segments)
      found.append(
        Drawn(f"drawing_{k}", path, message.complete, self._drawing.box)
      )
      if message.complete:
        self._messages, self._strokes = k + 1, 0
    return found


def path_data(segments: list[Segment], *, first: int) -> str:
  """SVG path data of the segments from `first` on, as a path of its own."""
  parts: list[str] = []
  for k in range(first, len(segments)):
    segment = segments[k]
    if not parts and segment.kind != "M":
      at = segments[k - 1].points[-1] if k else (0.0, 0.0)
      parts.append(f"M{_numbers((at,))}")
    # Closed with a line: the outline may have begun before.
    letter = "L" if segment.kind == "Z" else segment.kind
    parts.append(f"{letter}{_numbers(segment.points)}")
  return "".join(parts)


def _numbers(points: tuple[Point, ...]) -> str:
  return " ".join(f"{x:g} {y:g}" for x, y in points)
