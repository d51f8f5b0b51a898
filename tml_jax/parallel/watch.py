"""A thread that ends this process when another is dead or a step hangs.

For: `distributed.Processes`, which has one. A collective that waits for a
process that was killed would wait for ever, on CPUs as on TPUs. Not for: what
the processes tell one another on purpose. Start reading at `Watch`.
"""

import contextlib
import faulthandler
import itertools
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from tml_jax import errors

_PREFIX = "tml_jax"
# Of the heartbeat time-out. jax's own check, which aborts with a stack trace,
# is for what ours cannot see, such as the death of process 0. It hears of a
# process every half of its time-out and may find it dead after the other half:
# with twice ours that is never before us.
_OURS_BEFORE_JAX = 0.6
JAX_TIMES = 2
_BEATS = 20  # within a time-out
_MAX_INTERVAL_SECONDS = 10.0


def key(*parts: object) -> str:
  """A name in the key-value store of jax's coordination service."""
  return "/".join((_PREFIX, *map(str, parts)))


class Watch:
  """Keeps a counter moving for the others, and looks at theirs.

  A process whose counter stands still is dead, which ends this process with
  one line and `Status.FAILED`; one that ended by an error has left its reason
  and its status, with which this one ends too.

  Attributes:
    where: says where this process is, for that line.
    step_timeout: seconds a step may take.
  """

  def __init__(self, client: Any, *, index: int, heartbeat_timeout: float):
    self._client = client
    self._index = index
    self._silence = _OURS_BEFORE_JAX * heartbeat_timeout
    self._interval = min(_MAX_INTERVAL_SECONDS, heartbeat_timeout / _BEATS)
    self._stopped = threading.Event()
    self._seen: dict[str, tuple[str, float]] = {}
    self._last = time.monotonic()
    self.step_timeout = float("inf")
    self.where: Callable[[], str] = lambda: "before the first step"
    self._thread = threading.Thread(target=self._run, daemon=True)
    self._thread.start()

  def progress(self) -> None:
    """A step has ended."""
    self._last = time.monotonic()

  def stop(self) -> None:
    """Nothing is watched from here on."""
    self._stopped.set()
    if threading.current_thread() is not self._thread:
      self._thread.join(timeout=_MAX_INTERVAL_SECONDS)

  def await_reason(self) -> None:
    """Gives a dead process time to be found out; then this one has ended."""
    time.sleep(self._silence + 3 * self._interval)

  def leave(self, reason: str, *, status: errors.Status) -> None:
    """Ends this process now, after telling the others why; never returns."""
    self.stop()
    with contextlib.suppress(Exception):  # nobody may be there to hear it
      self._client.key_value_set(
        key("failed", self._index), f"{status:d} {reason}"
      )
      if self._index == 0:  # the service ends with it: let the others read
        time.sleep(3 * self._interval)
    os._exit(status)

  def _run(self) -> None:
    for beat in itertools.count():
      try:
        self._client.key_value_set(
          key("alive", self._index),
          f"{beat} {socket.gethostname()}",
          allow_overwrite=True,
        )
        failed = self._client.key_value_dir_get(key("failed"))
        alive = self._client.key_value_dir_get(key("alive"))
      except RuntimeError:  # process 0 is gone: jax aborts, in its words
        failed, alive = [], []
      for name, value in failed:
        status, reason = value.split(" ", 1)
        self._end(
          f"process {name.rsplit('/', 1)[1]} has ended ({reason})",
          status=errors.Status(int(status)),
        )
      self._check_alive(alive)
      self._check_step()
      if self._stopped.wait(self._interval):
        return

  def _check_alive(self, alive: list[tuple[str, str]]) -> None:
    now = time.monotonic()
    for name, value in alive:
      before, since = self._seen.get(name, ("", now))
      self._seen[name] = (value, since if value == before else now)
      silent = now - self._seen[name][1]
      if silent > self._silence:
        number, host = name.rsplit("/", 1)[1], value.split(" ", 1)[1]
        self._end(
          f"process {number} on {host} is dead, not heard of for {silent:.0f}"
          " s (--heartbeat_timeout)"
        )

  def _check_step(self) -> None:
    hanging = time.monotonic() - self._last
    if hanging > self.step_timeout:
      faulthandler.dump_traceback()
      self._end(
        f"no step ended for {hanging:.0f} s (--step_timeout; where every"
        " thread is stands above)"
      )

  def _end(
    self, reason: str, *, status: errors.Status = errors.Status.FAILED
  ) -> None:
    if self._stopped.is_set():
      return
    advice = ""
    if status is errors.Status.FAILED:
      advice = (
        ". Run the same command on all processes again, on fewer if need be"
      )
    print(
      f"error: {reason}; this process ends {self.where()}{advice}",
      file=sys.stderr,
      flush=True,
    )
    self.leave(reason, status=status)
