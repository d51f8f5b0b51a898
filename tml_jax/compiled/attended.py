"""A compilation that says that it goes on, and ends when it is told to.

For: work of minutes inside one call of C++, where Python answers no signal.
Not for: work in Python. Start reading at `attended`.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator

from absl import logging

SECONDS = 30.0  # between two lines


@contextlib.contextmanager
def attended(
  what: str, *, scratch: pathlib.Path, seconds: float = SECONDS
) -> Iterator[None]:
  """Logs a line now and then; SIGTERM and Ctrl-C end the process in one line.

  Must be entered in the main thread.

  Args:
    what: is done inside, for the lines.
    scratch: a directory that is removed if the process is ended.
    seconds: between two lines.
  """
  reader, writer = socket.socketpair()
  writer.setblocking(False)
  watch = threading.Thread(
    target=_watch,
    args=(reader,),
    kwargs={"what": what, "scratch": scratch, "seconds": seconds},
    daemon=True,
  )
  # What is written to `writer` is written when the signal comes, while Python
  # waits; the handlers here would be called when it goes on.
  numbers = (signal.SIGTERM, signal.SIGINT)
  before = {number: signal.signal(number, _nothing) for number in numbers}
  old_writer = signal.set_wakeup_fd(writer.fileno())
  watch.start()
  try:
    yield
  finally:
    signal.set_wakeup_fd(old_writer)
    for number, handler in before.items():
      signal.signal(number, signal.SIG_DFL if handler is None else handler)
    writer.close()
    watch.join()
    reader.close()


def _nothing(number: int, frame: object) -> None:
  """`_watch` ends the process."""


def _watch(
  reader: socket.socket, *, what: str, scratch: pathlib.Path, seconds: float
) -> None:
  """Runs in a thread until the other end is closed."""
  start = time.monotonic()
  reader.settimeout(seconds)
  while True:
    try:
      data = reader.recv(1)
    except TimeoutError:
      logging.info("%s: %.0f s so far", what, time.monotonic() - start)
      continue
    if not data:
      return
    name = signal.Signals(data[0]).name
    print(f"ended by {name}: {what}", file=sys.stderr, flush=True)
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(128 + data[0])
