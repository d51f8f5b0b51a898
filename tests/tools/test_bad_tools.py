"""Tools that do what no tool should: the session notices nothing."""

import asyncio
import contextlib
import json
import threading
import time

import pytest

from tests.helpers.tools import Tool, session
from tml_jax.streams.frame import Control
from tml_jax.tools import background, session_tools
from tml_jax.tools.background import Limits


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


class Exits:
  """Ends the process, or tries to."""

  timeout = 20.0

  def __init__(self, error: BaseException, *, where: str):
    self.error = error
    self.where = where

  async def run(self, call):
    if self.where == "task":
      asyncio.get_running_loop().create_task(self._raise())
    elif self.where == "callback":
      asyncio.get_running_loop().call_soon(self._raise_now)
    elif self.where == "stop":
      asyncio.get_running_loop().stop()
    elif self.where == "thread":
      await asyncio.to_thread(self._raise_now)
    else:
      try:
        if self.where == "run":
          self._raise_now()
        yield "before"
      finally:
        if self.where == "cleanup":
          self._raise_now()
    await asyncio.sleep(0.05)
    yield "after"

  async def _raise(self):
    self._raise_now()

  def _raise_now(self):
    raise self.error


class Speechless(Exception):
  """Cannot say what it is."""

  def __str__(self):
    raise RuntimeError("nor this")


@pytest.mark.parametrize(
  "where", ["run", "cleanup", "thread", "task", "callback", "stop"]
)
@pytest.mark.parametrize(
  "error",
  [SystemExit, KeyboardInterrupt, asyncio.InvalidStateError, Speechless],
)
def test_no_tool_ends_the_others(error, where):
  tools = {"bad": Exits(error(), where=where), "slow": Tool(0.3, "well")}
  with session(tools) as s:
    s.tick("slow", "bad")
    s.until(lambda: len(s.results()) == 2)
    assert s.results()[1] == "well"
    expected = f"failed: {error.__name__}"
    if where in ("run", "cleanup", "thread"):
      assert expected in s.results()[2]
    else:  # what a tool starts is no part of its call
      assert s.results()[2] == "after"
    s.tick("slow")
    s.until(lambda: 3 in s.results())
    assert s.results()[3] == "well"


@pytest.mark.parametrize("timeout", [None, "5", 0, -1.0, float("nan")])
def test_a_time_out_that_is_none_is_found_at_once(timeout):
  with pytest.raises(ValueError, match="tool 'tool' has the time-out"):
    background.Runner({"tool": Tool(timeout=timeout)})


def _kept(s) -> int:
  """Bytes of calls.jsonl."""
  return sum(len(json.dumps(record)) for record in s.tools.to_json())


def test_what_is_kept_of_calls_grows_with_the_conversation():
  """Twice as long a conversation, twice as much."""
  sizes = []
  with session(
    {"echo": Tool("x" * 100)}, arrival=session_tools.Stated(lambda call: 1)
  ) as s:
    for count in (100, 100):
      for _ in range(count):
        s.tick("echo " + "y" * 20, say="and so on")
        s.tick()
      sizes.append(_kept(s))
    last = s.tools.to_json()[-1]
  assert sizes[1] < 2.3 * sizes[0]
  assert len(last["conversation"]) < 10 and len(last["others"]) == 16


def test_a_call_is_told_the_end_of_a_long_conversation():
  tool = Tool("yes")
  with session({"ask": tool}, limits=Limits(lines=5, line_chars=30)) as s:
    for k in range(20):
      s.tick(say=f"line {k}")
      s.tick()
    s.tick("ask " + "why " * 40)
    s.until(lambda: 1 in s.results())
    (call,) = tool.calls
    assert len(call.conversation) == 5
    texts = [line.text for line in call.conversation]
    assert "line 19" in texts[-2] and texts[-1].startswith("... ")
    assert len(texts[-1]) == 34


def test_calls_without_end_are_bounded():
  limits = Limits(all_calls=20, unread_calls=10)
  with session({"echo": Tool("x")}, limits=limits) as s:
    for _ in range(30):
      s.tick(*["echo"] * 10)
    assert len(s.tools.to_json()) == 20
    assert len(s.tools._turns) <= 10
    assert len(s.queue.waiting.get(Control.RESULT, [])) < 60
    ends = {r["outcome"] for r in s.tools.to_json()[:20]}
    assert "running" not in ends or len(s.tools._turns)
    # The model is told, as soon as it has read what came before.
    s.until(lambda: not s.tools._turns)
    s.tick("echo")
    s.until(lambda: 301 in s.results())
    assert s.results()[301] == "failed: a session has 20 calls"
