"""Sessions whose client has gone, until it comes back or their time is over.

For: `Resting`, on the loop of asyncio. Not for: how a session is written
(`live.saved`). Start at `Resting.put`. A session rests on disk, so that it
survives the server; what runs beside it (tools, a drawing) rests in memory and
does not. Tokens are written as their hashes.
"""

import asyncio
import dataclasses
import hashlib
import json
import pathlib
import shutil
import time
from collections.abc import Awaitable

from absl import logging

from tml_jax import errors, files
from tml_jax.live import saved
from tml_jax.live.saved import Snapshot
from tml_jax.live.server.line import Line

_NOTE = "rest.json"


@dataclasses.dataclass
class Rested:
  """A session that rests.

  Attributes:
    session_id: of it.
    until: seconds since 1970; then it is gone.
    line: its other end; None after a restart of the server.
    written: done when it lies on disk.
  """

  session_id: str
  until: float
  line: Line | None
  written: "asyncio.Future[None] | None" = None


def hash_of(token: str) -> str:
  return hashlib.sha256(token.encode(errors="replace")).hexdigest()


class Resting:
  """All sessions that rest, by token."""

  def __init__(self, directory: pathlib.Path, *, seconds: float):
    """Finds those that a server before has left."""
    directory.mkdir(parents=True, exist_ok=True)
    self._directory = directory
    self._seconds = seconds
    self._rested: dict[str, Rested] = {}
    for note in sorted(directory.glob(f"*/{_NOTE}")):
      found = files.read_json(note)
      try:
        assert found is not None
        key, until = str(found["token_sha256"]), float(found["until"])
        session_id = str(found["session_id"])
      except (AssertionError, KeyError, TypeError, ValueError):
        logging.warning("%s is no session that rests: left alone", note)
        continue
      if session_id == note.parent.name:
        self._rested[key] = Rested(session_id, until, None)

  def __len__(self) -> int:
    return len(self._rested)

  @property
  def seconds(self) -> float:
    """That a session rests."""
    return self._seconds

  def put(
    self, token: str, *, line: Line, snapshot: Awaitable[Snapshot]
  ) -> None:
    """A session rests from now on; it is written when its snapshot is there.

    A client that comes back at once waits for that.
    """
    key, until = hash_of(token), time.time() + self._seconds
    rested = Rested(line.session_id, until, line)
    self._rested[key] = rested
    directory = self._directory / line.session_id
    note = {
      "session_id": line.session_id,
      "token_sha256": key,
      "until": until,
    }

    def write(found: Snapshot) -> None:
      saved.write(directory, snapshot=found)
      files.write_atomically(directory / _NOTE, content=json.dumps(note))

    async def rest() -> None:
      await asyncio.to_thread(write, await snapshot)

    rested.written = asyncio.ensure_future(rest())

  def take(self, token: str) -> Rested | None:
    """Whose token it is; it rests no more."""
    return self._rested.pop(hash_of(token), None)

  def place(self, rested: Rested) -> pathlib.Path:
    """Where it lies."""
    return self._directory / rested.session_id

  async def written(self, rested: Rested) -> None:
    """Waits until it lies there.

    Raises:
      errors.UserError: it could not be written.
    """
    if rested.written is not None:
      await rested.written

  def forget(self, rested: Rested) -> None:
    """Removes what lies on disk."""
    shutil.rmtree(self.place(rested), ignore_errors=True)

  def expire(self) -> list[Rested]:
    """Those whose time is over, which are gone."""
    over = {k: r for k, r in self._rested.items() if r.until < time.time()}
    for key, rested in over.items():
      if rested.written is None or rested.written.done():
        del self._rested[key]
        self.forget(rested)
    return [r for k, r in over.items() if k not in self._rested]

  async def settle(self) -> None:
    """Waits until all lie on disk."""
    for rested in list(self._rested.values()):
      try:
        await self.written(rested)
      except errors.UserError as error:
        logging.warning("a session does not survive: %s", error)
