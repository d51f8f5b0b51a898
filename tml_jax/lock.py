"""One command that writes into a directory at a time, also across hosts.

For: `train`, whose first process holds its workdir while it runs, and
`prepare`, which holds the folders of its corpora. Not for: commands that only
read. Start reading at `Lock.take`. File systems need not know locks.

The file says who holds it, and a thread rewrites it every few seconds. A dead
owner does not hold it: on the same host its process is not there any more; on
another one the file stands still for `PATIENCE_SECONDS`, by the clock of
whoever waits, so that no two clocks are compared. An owner that was only asleep
finds another's name in the file when it wakes, and ends. In a bucket the file
is an object, which one of several has written first: the bucket says who.
"""

import json
import os
import pathlib
import secrets
import socket
import sys
import threading
import time
from typing import Any

from absl import logging

from tml_jax import buckets, errors, files

FILE = "lock.json"
BEAT_SECONDS = 10.0
PATIENCE_SECONDS = 35.0  # three beats and the delay of a mounted bucket
_LOOK_SECONDS = 0.5
_SETTLE_SECONDS = 1.0  # in which others who saw the same dead owner write
_UNKNOWN = "unknown"


class Lock:
  """The right to write into a directory."""

  def __init__(self, directory: str, *, flag: str, does: str):
    """Takes nothing yet; makes the directory.

    Args:
      directory: what is held.
      flag: that named it, for messages: "--workdir".
      does: what its owner does there, for messages: "trains".
    """
    self._what = f"{flag}={directory}"
    self._flag, self._does = flag, does
    files.make(files.path(directory), what=self._what)
    self._file = files.path(directory) / FILE
    self._mine = _me()
    self._stopped = threading.Event()
    self._thread = threading.Thread(target=self._keep, daemon=True)

  def take(self) -> None:
    """Holds the directory from here on.

    Raises:
      errors.TransientError: another holds it, and it is said who.
    """
    try:
      while not self._create():
        dead = self._wait_for_the_dead()
        if dead is not None and self._read() == dead:
          self._write()
          time.sleep(_SETTLE_SECONDS)
          break
      found = self._read()
      if found.get("id") != self._mine["id"]:  # of several the last is in it
        raise self._refusal(found)
    except errors.UserError:
      raise
    except Exception as error:
      what = f"{self._file} cannot be written"
      raise files.fault(error, what=what) from error
    self._thread.start()

  def release(self) -> None:
    """Lets others in."""
    if not self._thread.is_alive():
      return
    self._stopped.set()
    self._thread.join()
    if self._read().get("id") == self._mine["id"]:
      self._file.unlink(missing_ok=True)

  def _create(self) -> bool:
    """Writes the file, unless there is one."""
    try:
      files.create(self._file, content=json.dumps(self._mine))
    except FileExistsError:
      return False
    return True

  def _wait_for_the_dead(self) -> dict[str, Any] | None:
    """What the owner wrote, once it is known to be dead; None if it let go."""
    seen, since = self._read(), time.monotonic()
    while True:
      found = self._read()
      if not self._file.exists():
        return None
      if _is_here(found):
        if _lives(found):
          raise self._refusal(found)
        break
      if found != seen:
        raise self._refusal(found)
      waited = time.monotonic() - since
      if waited > PATIENCE_SECONDS:
        break
      logging.log_first_n(
        logging.INFO,
        "%s is held by %s: waiting %.0f s for a sign of it",
        1,
        self._file,
        _named(found),
        PATIENCE_SECONDS,
      )
      time.sleep(_LOOK_SECONDS)
    logging.warning(
      "%s was held by %s, which is dead", self._file, _named(seen)
    )
    return seen

  def _refusal(self, found: dict[str, Any]) -> errors.TransientError:
    return errors.TransientError(
      f"{self._what} is in use: {_named(found)} {self._does} there; wait for"
      f" it, end it, or give another {self._flag}"
    )

  def _write(self) -> None:
    """Puts our name into the file, whole, whoever else tries to."""
    if buckets.is_url(self._file):
      buckets.put(self._file, content=json.dumps(self._mine).encode())
      return
    own = self._file.with_name(f"{self._file.name}.{self._mine['id']}")
    own.write_text(json.dumps(self._mine), encoding="utf-8")
    os.replace(own, self._file)

  def _read(self) -> dict[str, Any]:
    return _object(self._file)

  def _keep(self) -> None:
    """Beats until `release`; ends the process that has lost its lock."""
    while not self._stopped.wait(BEAT_SECONDS):
      try:
        found = self._read()
        if found and found.get("id") != self._mine["id"]:
          print(f"error: {self._refusal(found)}", file=sys.stderr, flush=True)
          os._exit(errors.Status.FAILED)
        self._mine["beat"] += 1
        self._write()
      except Exception as error:  # the next beat may come through
        if not files.is_fault(error):
          raise
        logging.warning("%s cannot be rewritten: %s", self._file, error)


def _object(path: pathlib.Path) -> dict[str, Any]:
  """The object in a file; {} where it is empty, cut or gone."""
  try:
    value = json.loads(path.read_bytes())
  except (FileNotFoundError, ValueError, RecursionError):
    return {}
  return value if isinstance(value, dict) else {}


def _me() -> dict[str, Any]:
  return {
    "id": secrets.token_hex(16),
    "host": socket.gethostname(),
    "machine": _machine(),
    "pid": os.getpid(),
    "process_start": _start_of(os.getpid()),
    "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    "beat": 0,
  }


def _machine() -> str:
  """Names what process numbers are unique in: a boot, and a container."""
  try:
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"
  except OSError:
    return _UNKNOWN


def _start_of(pid: int) -> str:
  """Clock ticks from boot to the start of a process; "" if there is none."""
  try:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1]
  except OSError:
    return ""
  state, *rest = fields.split()
  return "" if state in "ZX" else rest[18]


def _is_here(found: dict[str, Any]) -> bool:
  """Whether its process can be looked for on this host."""
  return found.get("machine") == _machine() != _UNKNOWN


def _lives(found: dict[str, Any]) -> bool:
  start = _start_of(found["pid"]) if type(found.get("pid")) is int else ""
  return bool(start) and start == found.get("process_start")


def _named(found: dict[str, Any]) -> str:
  if "pid" not in found:
    return "an unknown process"
  return (
    f"process {found['pid']} on {found.get('host')}, since {found.get('since')}"
  )
