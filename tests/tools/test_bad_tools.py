"""Tools that do what no tool should: the session notices nothing."""

import asyncio
import contextlib
import threading
import time

import pytest

from tests.helpers.tools import Tool, session
from tml_jax.streams.frame import Control


class Flood:
  """Never stops, and never waits."""

  timeout = 20.0

  def __init__(self):
    self.closed = threading.Event()

  async def run(self, call):
    try:
      while True:
        yield "x" * (1 << 20)
    finally:
      self.closed.set()


class Stubborn:
  """Blocks the loop of all calls, against the rules."""

  timeout = 1.0

  async def run(self, call):
    time.sleep(2.5)
    yield "late"


class Deaf:
  """Does not hear that it has been cancelled."""

  timeout = 1.0

  async def run(self, call):
    for _ in range(50):
      with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0.05)
    yield "late"


def test_megabytes_are_cut_and_the_tool_is_stopped():
  tool = Flood()
  with session({"flood": tool}) as s:
    s.tick("flood")
    s.until(lambda: s.tools.to_json()[0]["ended_s"] is not None)
    assert tool.closed.wait(5)
    (record,) = s.tools.to_json()
    assert record["outcome"] == "cut"
    assert record["result"] == "x" * 2000
    # What waits in the queue is little, not all of it.
    assert sum(map(len, s.queue.waiting.get(Control.RESULT, []))) < 60


@pytest.mark.parametrize("tool", [Stubborn(), Deaf(), Tool(1e6, timeout=1.0)])
def test_no_tool_holds_up_a_tick(tool):
  with session({"tool": tool, "other": Tool("here")}) as s:
    longest = 0.0
    end = time.monotonic() + 10
    s.tick("tool", "other")
    while len(s.results()) < 2 and time.monotonic() < end:
      start = time.monotonic()
      s.tick()
      longest = max(longest, time.monotonic() - start)
      time.sleep(0.01)
    assert s.results()[1] == "failed: timed out after 1 s"
    assert s.results()[2] == "here"
    assert longest < 0.8  # whoever waited for a tool waited a second
