"""Sessions whose client has gone, until it comes back or their time is over.

For: `Resting`, on the loop of asyncio. Not for: how a session is written
(`live.saved`). Start at `Resting.put`. A session rests on disk, so that it
survives the server; what runs beside it (tools, a drawing) rests in memory and
does not. Tokens are written as their hashes. Only so many rest, in all and of
one address: the oldest give way.
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
MOST = 256  # that rest at a time


@dataclasses.dataclass
class Rested:
  """A session that rests.

  Attributes:
    session_id: of it.
    until: seconds since 1970; then it is gone.
    line: its other end; None after a restart of the server.
    address: of its client; "" where nobody knows.
    written: done when it lies on disk.
  """

  session_id: str
  until: float
  line: Line | None
  address: str = ""
  written: "asyncio.Future[None] | None" = None


def hash_of(token: str) -> str:
  return hashlib.sha256(token.encode(errors="replace")).hexdigest()


class Resting:
  """All sessions that rest, by token."""

  def __init__(
    self,
    directory: pathlib.Path,
    *,
    seconds: float,
    most: int = MOST,
    most_of_address: int = MOST,
  ):
    """Finds those that a server before has left.

    Args:
      directory: of all of them.
      seconds: that a session rests.
      most: that rest at a time.
      most_of_address: of these, of one client's address.
    """
    directory.mkdir(parents=True, exist_ok=True)
    self._directory = directory
    self._seconds = seconds
    self._most = most
    self._most_of_address = most_of_address
    self._rested: dict[str, Rested] = {}  # the oldest first
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
    self._rested = dict(
      sorted(self._rested.items(), key=lambda item: item[1].until)
    )
    self._sweep()

  def _sweep(self) -> None:
    """Removes what a server left that ended while it wrote."""
    known = {rested.session_id for rested in self._rested.values()}
    for path in self._directory.glob("sess_*"):
      try:
        names = {each.name.lstrip(".") for each in path.iterdir()}
        is_old = path.stat().st_mtime < time.time() - self._seconds
      except OSError:
        continue
      is_ours = all(name.startswith((saved.FILE, _NOTE)) for name in names)
      if path.name not in known and is_ours and is_old and _NOTE not in names:
        shutil.rmtree(path, ignore_errors=True)

  def __len__(self) -> int:
    return len(self._rested)

  @property
  def seconds(self) -> float:
    """That a session rests."""
    return self._seconds

  def put(
    self,
    token: str,
    *,
    line: Line,
    snapshot: Awaitable[Snapshot],
    address: str = "",
  ) -> list[Rested]:
    """A session rests from now on; it is written when its snapshot is there.

    A client that comes back at once waits for that.

    Returns:
      Those that rest no more, because too many did.
    """
    key, until = hash_of(token), time.time() + self._seconds
    rested = Rested(line.session_id, until, line, address)
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
      try:
        await asyncio.to_thread(write, await snapshot)
      except Exception as error:  # a full disk, a device that is gone
        logging.warning("%s does not rest: %s", directory, error)
        if isinstance(error, errors.UserError):
          raise
        raise errors.UserError(
          f"{directory} cannot be written ({error!r:.200}): begin another"
          " session"
        ) from error

    rested.written = asyncio.ensure_future(rest())
    # Logged above; whoever waits for it is told, too.
    rested.written.add_done_callback(lambda done: done.exception())
    return self._make_room(address)

  def _make_room(self, address: str) -> list[Rested]:
    """Forgets the oldest where there are too many, of all or of an address."""
    over: list[str] = []
    if address:
      of_one = [k for k, r in self._rested.items() if r.address == address]
      over += of_one[: max(0, len(of_one) - self._most_of_address)]
    rest = [key for key in self._rested if key not in over]
    over += rest[: max(0, len(rest) - self._most)]
    gone = [self._rested.pop(key) for key in over]
    for rested in gone:
      self.forget(rested)
    return gone

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
    """Removes what lies on disk, or will."""
    place = self.place(rested)
    if rested.written is not None and not rested.written.done():
      rested.written.add_done_callback(
        lambda _: shutil.rmtree(place, ignore_errors=True)
      )
    else:
      shutil.rmtree(place, ignore_errors=True)

  def expire(self) -> list[Rested]:
    """Those whose time is over, which are gone."""
    over = {k: r for k, r in self._rested.items() if r.until < time.time()}
    for key, rested in over.items():
      del self._rested[key]
      self.forget(rested)
    return list(over.values())

  async def settle(self) -> None:
    """Waits until all lie on disk."""
    for rested in list(self._rested.values()):
      try:
        await self.written(rested)
      except errors.UserError as error:
        logging.warning("a session does not survive: %s", error)
