"""A chat server that is out to harm: bounded memory, other tools go on."""

import asyncio
import gc
import itertools
import json
import pathlib
import resource
import socket
import threading
import time

import pytest

from tml_jax.tools import background, chat
from tml_jax.tools.background import Call, Outcome

OK = b"HTTP/1.1 200 OK\r\n"
STREAM = OK + b"Content-Type: text/event-stream\r\n"
JSON = OK + b"Content-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
CLOSE = b"Connection: close\r\n\r\n"
BLOCK = 1 << 16
MOST = 256 << 20  # bytes that a server sends at most


def _one_byte_chunks(text: bytes) -> bytes:
  return b"".join(b"1\r\n%c\r\n" % byte for byte in text)


ATTACKS = {
  "json without end": [JSON + CLOSE + b'{"a": "', b"x" * BLOCK],
  "json of a stated length": [
    JSON + b"Content-Length: 1099511627776\r\n\r\n",
    b"[" * BLOCK,
  ],
  "deep json": [JSON + CLOSE + b"[" * 200_000, None],
  "deep event": [STREAM + CLOSE + b"data: " + b"[" * 200_000 + b"\n", None],
  "large number": [JSON + CLOSE + b"1" * 100_000, None],
  "negative length": [JSON + b"Content-Length: -1\r\n\r\n", b"x" * BLOCK],
  "two lengths": [
    JSON + b"Content-Length: 1\r\nContent-Length: 9\r\n\r\n",
    b"x" * BLOCK,
  ],
  "negative chunk": [STREAM + CHUNKED + b"-5\r\n", b"x" * BLOCK],
  "huge chunk": [STREAM + CHUNKED + b"f" * 15 + b"\r\n", b"x" * BLOCK],
  "chunk size without end": [STREAM + CHUNKED, b"0" * BLOCK],
  "headers without end": [OK, b"A: b\r\n" * (BLOCK // 6)],
  "header without end": [OK + b"A: ", b"x" * BLOCK],
  "status without end": [b"HTTP/1.1 200 ", b"x" * BLOCK],
  "other answers before it": [b"HTTP/1.1 103 Early\r\n\r\n" * (BLOCK // 26)],
  "line without end": [STREAM + CLOSE + b"data: ", b"x" * BLOCK],
  "comments without end": [STREAM + CLOSE, b":\n" * (BLOCK // 2)],
  "empty events without end": [
    STREAM + CLOSE,
    b'data: {"choices": []}\n' * (BLOCK // 22),
  ],
  "chunks of one byte": [STREAM + CHUNKED, _one_byte_chunks(b":" * 10_000)],
  "compressed": [
    STREAM + b"Content-Encoding: gzip\r\n" + CLOSE + b"\x1f\x8b\x08",
    b"\0" * BLOCK,
  ],
  "not http": [b"\x16\x03\x01" + b"x" * BLOCK],
  "error without end": [
    b"HTTP/1.1 500 No\r\n" + CLOSE,
    b"x" * BLOCK,
  ],
}


class Hostile:
  """Sends the first part once and the last one until the client is gone."""

  def __init__(self, parts: list[bytes | None]):
    self._parts = parts
    self.sent = 0
    self._socket = socket.create_server(("127.0.0.1", 0))
    self.port = self._socket.getsockname()[1]
    self._thread = threading.Thread(target=self._serve, daemon=True)
    self._thread.start()

  def _serve(self) -> None:
    connection, _ = self._socket.accept()
    with connection:
      connection.settimeout(10)
      try:
        connection.recv(1 << 20)
        first, *rest = self._parts
        for part in itertools.chain([first], itertools.cycle(rest or [first])):
          if part is None or self.sent > MOST:
            return
          connection.sendall(part)
          self.sent += len(part)
      except OSError:
        pass

  def close(self) -> None:
    self._thread.join(15)
    self._socket.close()


def _memory() -> int:
  """Bytes that this process has."""
  pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
  return pages * resource.getpagesize()


class Steps:
  """A tool that wants the loop every 10 ms.

  Attributes:
    longest: seconds that the loop computed for others without a break: of its
      thread, so that a busy machine does not count.
    most: bytes that the process had.
  """

  timeout = 60.0

  def __init__(self):
    self.longest, self.most = 0.0, _memory()

  async def run(self, call):
    while True:
      start = time.thread_time()
      await asyncio.sleep(0.01)
      self.longest = max(self.longest, time.thread_time() - start)
      self.most = max(self.most, _memory())
      if False:
        yield ""


@pytest.fixture
def _own_garbage():
  """What the tests before left is not searched while a loop is timed.

  The collector walks all of a process's objects in whichever thread asks for
  one more: seconds after a thousand tests.
  """
  gc.collect()
  gc.freeze()
  yield
  gc.unfreeze()


@pytest.mark.usefixtures("_own_garbage")
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_ends_in_one_failed_call(name):
  server, steps = Hostile(ATTACKS[name]), Steps()
  tool = chat.Chat(
    f"http://127.0.0.1:{server.port}", model="m", key="", timeout=3.0
  )
  with background.Runner({"chat": tool, "steps": steps}) as runner:
    call = Call(number=1, time=0.0, name="steps", arguments="")
    runner.start(call, chars=1000)
    call = Call(number=2, time=0.0, name="chat", arguments="q")
    before = _memory()
    ticket = runner.start(call, chars=1000)
    ticket.settle()
    text, after = ticket.take(), _memory()
  server.close()
  # What is refused nowhere, and takes no memory, takes its time.
  assert text == "" and len(ticket.reason) <= 200
  if ticket.outcome != Outcome.TIMED_OUT:
    assert ticket.outcome == Outcome.FAILED
    assert f"127.0.0.1:{server.port}" in ticket.reason
  assert max(steps.most, after) - before < 48 << 20
  assert steps.longest < 0.5


def test_a_redirect_is_not_followed():
  """The key would go where it was not meant for."""
  other = Hostile([STREAM + CLOSE + b"data: [DONE]\n\n", None])
  there = f"http://127.0.0.1:{other.port}/".encode()
  server = Hostile(
    [
      b"HTTP/1.1 307 Go\r\nContent-Length: 0\r\nLocation: %s\r\n\r\n" % there,
      None,
    ]
  )
  tool = chat.Chat(f"http://127.0.0.1:{server.port}", model="m", key="secret")
  with background.Runner({"chat": tool}) as runner:
    call = Call(number=1, time=0.0, name="chat", arguments="q")
    ticket = runner.start(call, chars=1000)
    ticket.settle()
    ticket.take()
  assert "answers 307" in ticket.reason and other.sent == 0
  server.close()
  socket.create_connection(("127.0.0.1", other.port)).close()
  other.close()


def test_parts_of_any_size_make_the_same_lines():
  text = b"\n".join(
    b"data: " + json.dumps({"n": n, "x": "y" * (n % 50)}).encode()
    for n in range(200)
  )
  text += b"\r\n\nend"

  async def lines(size):
    async def parts():
      for at in range(0, len(text), size):
        yield text[at : at + size]

    return [line async for line in chat._lines(parts())]

  wanted = [line.rstrip(b"\r") for line in text.split(b"\n")]
  for size in (1, 7, 1000, len(text)):
    assert asyncio.run(lines(size)) == wanted
