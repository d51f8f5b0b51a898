"""Flags of tools, and what `sample` attaches to the session it runs.

For: `python -m tml_jax.sample --tools=calculator,search --corpus=DIR`. Not for:
the tools, whose flags stand in their own files, or when results are read
(`session_tools`). Start reading at `runner`, then `Attached`.
"""

import dataclasses
import json
import pathlib

from absl import flags

from tml_jax import errors, registry, tools
from tml_jax.config import Config
from tml_jax.logs import transcript
from tml_jax.streams import clock
from tml_jax.streams.frame import Frame
from tml_jax.streams.timeline import EventKind, Timeline
from tml_jax.streams.tokenizer import Tokenizer
from tml_jax.tools import background, chat, drawing, session_tools
from tml_jax.tools.background import Call, Ticket

CALLS = "calls.jsonl"
TOOLS = flags.DEFINE_list(
  "tools",
  [],
  f"What calls may name: {', '.join(tools.TOOLS)}, and what --plugins add. See"
  " docs/tools.md.",
)
_TOOL_TIME = flags.DEFINE_enum(
  "tool_time",
  "session",
  ["session", "wall"],
  "session: a result comes in --tool_delay after its call on the session's"
  " clock, which waits for it. wall: when it is there, at any speed.",
)
_TOOL_DELAY = flags.DEFINE_float(
  "tool_delay",
  1.0,
  "Seconds between a call and its result.",
  lower_bound=clock.TOKEN_MS / 1000,
  upper_bound=3600,
)


def runner() -> background.Runner | None:
  """What runs the tools of --tools; None where it names none.

  A call of no tool's name goes to the background model, if there is one.

  Raises:
    errors.UserError: a tool that cannot be used as the flags say.
  """
  for name in TOOLS.value:
    if name not in tools.TOOLS:
      raise errors.UserError(
        f"--tools={name}: no such tool; there are {', '.join(tools.TOOLS)}"
        f" {registry.HINT}"
      )
  _check_unused()
  if not TOOLS.value:
    return None
  opened = {name: tools.TOOLS[name]() for name in TOOLS.value}
  return background.Runner(
    opened, otherwise=chat.NAME if chat.NAME in opened else ""
  )


def _check_unused() -> None:
  """Refuses flags of tools that --tools does not name."""
  names: dict[str, list[str]] = {}  # by the module that has their flags
  for name in tools.TOOLS:
    names.setdefault(tools.TOOLS[name].__module__, []).append(name)
  flags_of = flags.FLAGS.flags_by_module_dict()
  for module, named in names.items():
    for flag in flags_of.get(module, ()):
      if flag.value != flag.default and not {*named} & {*TOOLS.value}:
        raise errors.UserError(
          f"--{flag.name}={flag.value} is for the tool {', '.join(named)}: add"
          " it to --tools"
        )


def without_results(timeline: Timeline) -> Timeline:
  """A scenario without its own results, where tools make new ones."""
  return dataclasses.replace(
    timeline,
    events=tuple(e for e in timeline.events if e.kind != EventKind.RESULT),
  )


class _Nobody:
  """Takes calls of a session without tools: they are written down."""

  def start(self, call: Call, **_) -> Ticket:
    return Ticket.failed(call, "nobody was there to answer: --tools is empty")


class Attached:
  """Calls and drawing of one session, between its ticks.

  The drawing's SVG lies in `out` as it grows.
  """

  def __init__(
    self,
    runner: background.Runner | None,
    *,
    timeline: Timeline,
    tokenizer: Tokenizer,
    config: Config,
    out: pathlib.Path,
  ):
    grid = clock.of(config.streams)
    windows = grid.num_windows(_TOOL_DELAY.value)
    arrival = session_tools.Live()
    if _TOOL_TIME.value == "session":
      arrival = session_tools.Stated(lambda call: windows)
    self._runner = runner
    self._tools = session_tools.SessionTools(
      runner or _Nobody(),
      tokenizer=tokenizer,
      config=config.streams,
      arrival=arrival,
      limits=background.Limits(),
      heard=lambda now: [
        line
        for line in transcript.heard(timeline, until=now)
        if line.who != transcript.TYPED  # the session has read it itself
      ],
    )
    self._drawing = drawing.Drawing(tokenizer, grid=grid)
    for name in (CALLS, drawing.PNG):  # of an earlier session
      (out / name).unlink(missing_ok=True)
    self._growing = drawing.GrowingFile(out / drawing.SVG)

  @property
  def is_answered(self) -> bool:
    """Whether results come in, as text that the model reads."""
    return self._runner is not None

  def step(self, frame: Frame) -> list[list[int]]:
    """Takes a finished frame; returns `<result>` messages to be queued."""
    results = self._tools.step(frame)
    if self._drawing.observe(frame):
      self._growing.update(self._drawing)
    return [] if self._runner is None else results

  def close(self) -> dict[str, bytes]:
    """Ends what runs; returns the files of this session."""
    self._tools.close()
    if self._runner is not None:
      self._runner.close()
    calls = self._tools.to_json()
    files = {}
    if calls:
      texts = [json.dumps(call, ensure_ascii=False) for call in calls]
      files[CALLS] = "".join(f"{errors.escaped(t)}\n" for t in texts).encode()
    self._growing.close()
    if self._drawing.messages:
      files[drawing.SVG] = self._drawing.svg().encode()
      files[drawing.PNG] = self._drawing.png()
    return files
