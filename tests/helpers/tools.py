"""A tool that does as told, and the least that a session around tools is."""

import contextlib
import threading
import time

from tests.helpers.frames import CONFIG, ByteTokenizer
from tml_jax.streams import calls
from tml_jax.streams import frame as frame_lib
from tml_jax.streams.frame import Burst, Control, Frame
from tml_jax.tools import background, session_tools
from tml_jax.tools.background import Limits

TOKENIZER = ByteTokenizer()


class Tool:
  """Yields what it is told to; items that are numbers are seconds of sleep."""

  def __init__(self, *items, timeout=20.0):
    self.items = items
    self.timeout = timeout
    self.calls = []
    self.closed = threading.Event()

  async def run(self, call):
    self.calls.append(call)
    try:
      for item in self.items:
        if isinstance(item, str):
          yield item
        elif isinstance(item, BaseException):
          raise item
        else:
          await background.sleep(item)
    finally:
      self.closed.set()


class Session:
  """The least that a session is: a queue and frames, without a model."""

  def __init__(
    self, runner, *, arrival=None, limits=None, config=CONFIG, tokenizer=None
  ):
    self.config = config
    self.tokenizer = tokenizer or TOKENIZER
    self.tools = session_tools.SessionTools(
      runner,
      tokenizer=self.tokenizer,
      config=config,
      arrival=arrival or session_tools.Live(),
      limits=limits or Limits(),
      heard=lambda now: [],
    )
    self.queue = frame_lib.TextQueue()
    self.frames = []
    self.read = {Control.RESULT: [], Control.USER_TEXT: []}
    self._open = {}

  def tick(self, *written: str | Burst, say="") -> Frame:
    """One window in which the model writes these calls, or parts of them."""
    frame = Frame(
      window=len(self.frames),
      own_dmel=None,
      user_dmel=None,
      patches=frame_lib.no_patches(),
      text_in=self.queue.take(self.config.max_text_in),
      say=tuple(self.tokenizer.encode(say)),
      text_out=tuple(
        text if isinstance(text, Burst) else self._call(text, complete=True)
        for text in written
      ),
    )
    self.frames.append(frame)
    for burst in frame.text_in:
      tokens = self._open.setdefault(burst.channel, [])
      tokens += burst.tokens
      if burst.complete:
        text = self.tokenizer.decode(self._open.pop(burst.channel))
        self.read[burst.channel].append(text)
    for tokens in self.tools.step(frame):
      self.queue.push(Control.RESULT, tokens)
    return frame

  def _call(self, text: str, *, complete: bool) -> Burst:
    return Burst(Control.CALL, tuple(self.tokenizer.encode(text)), complete)

  def until(self, holds, *, seconds=10.0, pause=0.005):
    """Ticks until `holds()`, at most so long."""
    end = time.monotonic() + seconds
    while not holds():
      assert time.monotonic() < end, self.read
      self.tick()
      time.sleep(pause)

  def results(self) -> dict[int, str]:
    """What the model has read, by call, its parts put together."""
    whole = {}
    for text in self.read[Control.RESULT]:
      number, part = calls.parse_result(text)
      goes_on = part.endswith(calls.GOES_ON)
      part = part.removesuffix(calls.GOES_ON).strip()
      before, _ = whole.get(number, ("", False))
      whole[number] = (f"{before} {part}".strip(), goes_on)
    return {n: text for n, (text, goes_on) in whole.items() if not goes_on}


@contextlib.contextmanager
def session(tools, **arguments):
  with background.Runner(tools) as runner:
    made = Session(runner, **arguments)
    yield made
    made.tools.close()
