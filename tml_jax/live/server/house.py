"""Who is in: sessions with a client, sessions that rest, and who comes in.

For: `House`, on the loop of asyncio. Not for: sockets (`connection`) or routes
(`app`). Start at `open_house`, then `House.admit`.
"""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import secrets
import statistics
from collections.abc import Sequence
from typing import Any, Protocol

from absl import logging

from tml_jax import errors
from tml_jax.live.conversation import Room
from tml_jax.live.pool import SessionPool
from tml_jax.live.server import operations
from tml_jax.live.server.attached import Attached
from tml_jax.live.server.beat import Beat, Ended, Round
from tml_jax.live.server.line import Line, Passed
from tml_jax.live.server.operations import Limits, Metrics
from tml_jax.live.server.recording import Recorder
from tml_jax.live.server.resting import Rested, Resting
from tml_jax.live.server.talk import Setting, Talk
from tml_jax.streams import clock
from tml_jax.streams.tokenizer import Tokenizer
from tml_jax.tools import background

_REMEMBERED = 50  # sessions, for how long one lasts
_SECONDS_TO_WAIT = (5, 300)
# Ticks of a pool are looked at when there are so many.
_LEAST_TICKS = 25
# Close code: the session rests, and its token is still good (RFC 6455 leaves
# 4000 to 4999 to applications).
RESTS = 4000


class NoRoom(Exception):
  """A session that is not let in.

  Attributes:
    seconds: to wait.
    why: for metrics.
  """

  def __init__(self, message: str, *, seconds: int, why: str):
    super().__init__(message)
    self.seconds = seconds
    self.why = why


def _draining() -> NoRoom:
  return NoRoom("the server is going down", seconds=5, why="draining")


class Client(Protocol):
  """A connection, as the house knows it.

  Attributes:
    address: of the other end.
  """

  address: str

  def greet(self, talk: Talk, *, is_resumed: bool) -> None:
    """Takes the session that it gets; does not wait."""

  def put(self, passed: Passed) -> None:
    """Takes a window to be told; does not wait."""

  async def close(self, code: int, reason: str) -> None:
    """Ends the connection; its session is the house's business."""


@dataclasses.dataclass(frozen=True)
class Rules:
  """Who is let in.

  Attributes:
    slots: of the pool.
    busy: share of a window that ticks may take (their 90th percentile) where
      one more session is let in.
    patience: seconds that a client's tool may take.
  """

  slots: int
  busy: float
  patience: float


class House:
  """All sessions of a server.

  Attributes:
    talks: those with a client, by token.
    is_draining: nobody is let in.
  """

  def __init__(
    self,
    setting: Setting,
    *,
    pool: SessionPool,
    runner: background.Runner,
    resting: Resting,
    limits: Limits,
    rules: Rules,
  ):
    self.setting = setting
    self.limits = limits
    self.rules = rules
    self.resting = resting
    self.talks: dict[str, Talk] = {}
    self.is_draining = False
    self._pool = pool
    self._runner = runner
    self._clients: dict[Line, Client] = {}
    # Those that come in, by the token of their session if it rested.
    self._coming: dict[str, asyncio.Task[tuple[Talk, bool]]] = {}
    self._closing: set[asyncio.Task[None]] = set()
    self._lasted: list[float] = []
    setting.metrics.slots.set(rules.slots)

  # ------------------------------------------------------------ who comes in
  @property
  def free(self) -> int:
    """Slots."""
    return max(0, self.rules.slots - len(self.talks) - len(self._coming))

  def seconds_to_wait(self) -> int:
    """For a slot: by how long sessions last here, 0 where one is free."""
    if self.free:
      return 0
    typical = statistics.median(self._lasted or [60.0])
    least, most = _SECONDS_TO_WAIT
    return round(min(most, max(least, typical / self.rules.slots)))

  def is_in(self, token: str) -> bool:
    """Whether a token's session has a slot, or is just getting one."""
    return token in self.talks or token in self._coming

  def check(self, *, resumes: str) -> None:
    """Refuses a client before its socket is opened.

    Raises:
      NoRoom: why, and how long to wait.
    """
    if self.is_draining:
      raise _draining()
    if self.setting.beat.is_broken:
      raise NoRoom(
        "the model of this server has failed", seconds=30, why="broken"
      )
    if self.is_in(resumes):
      return  # it takes the place of its own connection
    beat = self.setting.beat
    if not self.free:
      seconds = self.seconds_to_wait()
      raise NoRoom(
        f"all {self.rules.slots} slots are taken: come back in {seconds}"
        " seconds",
        seconds=seconds,
        why="full",
      )
    usual = beat.tick_seconds(0.9)
    most = self.rules.busy * self.setting.grid.seconds
    if self.talks and beat.ticks >= _LEAST_TICKS and usual > most:
      raise NoRoom(
        f"a tick takes {1000 * usual:.0f} ms of"
        f" {self.setting.grid.ms}: one more session would make all of them"
        " late; come back in 30 seconds",
        seconds=30,
        why="busy",
      )

  async def admit(
    self, client: Client, *, resumes: str, seed: int | None
  ) -> Talk:
    """The session of a client, who has been greeted with it.

    One who asks for a session that is just brought back for somebody waits
    for that, and takes it over.

    Raises:
      NoRoom: somebody was faster.
    """
    found: tuple[Talk, bool] | None = None
    if resumes not in self.talks:
      found = await self._come_in(resumes, seed=seed)
    talk = found[0] if found else self.talks[resumes]
    if self.is_draining:  # since we asked; it lets all of them rest
      raise _draining()
    is_resumed = found is None or found[1]
    # A page that was loaded again, or a dead connection.
    before = self._clients.get(talk.line)
    if is_resumed:
      talk.reconnected()
    client.greet(talk, is_resumed=is_resumed)  # before its first window
    self._clients[talk.line] = client
    if before is not None:
      self._dismiss(before, 1000, "the session goes on in another connection")
    metrics = self.setting.metrics
    (metrics.resumed if is_resumed else metrics.started).inc()
    self._count()
    return talk

  async def _come_in(
    self, resumes: str, *, seed: int | None
  ) -> tuple[Talk, bool]:
    """A session that is not in the pool, and whether it had rested."""
    task = self._coming.get(resumes)
    if task is None:
      self.check(resumes=resumes)
      rested = self.resting.take(resumes) if resumes else None
      # Of those with a token that is none, each has a session of its own.
      key = resumes if rested else secrets.token_hex(8)
      task = asyncio.ensure_future(
        self._enter(key, token=resumes, rested=rested, seed=seed)
      )
      self._coming[key] = task
    return await asyncio.shield(task)

  async def _enter(
    self, key: str, *, token: str, rested: Rested | None, seed: int | None
  ) -> tuple[Talk, bool]:
    """Finds a slot; from then on the session is one of `talks`."""
    try:
      talk = await self._resume(token, rested) if rested else None
      is_resumed = talk is not None
      if talk is None:
        talk = await self._begin(seed)
      self.talks[talk.token] = talk
      return talk, is_resumed
    finally:
      del self._coming[key]

  def _dismiss(self, client: Client, code: int, reason: str) -> None:
    """Closes a connection; nobody waits for that."""
    task = asyncio.ensure_future(client.close(code, reason))
    self._closing.add(task)
    task.add_done_callback(self._closing.discard)

  def _line(self, session_id: str, *, seed: int) -> Line:
    setting = self.setting
    return Line(
      session_id=session_id,
      seed=seed,
      grid=setting.grid,
      attached=Attached(
        self._runner,
        tokenizer=setting.tokenizer,
        config=self._pool.config.streams,
        patience=self.rules.patience,
      ),
    )

  async def _begin(self, seed: int | None) -> Talk:
    line = self._line(
      f"sess_{secrets.token_hex(8)}",
      seed=secrets.randbelow(2**31) if seed is None else seed,
    )
    beat = self.setting.beat
    try:
      await asyncio.wrap_future(beat.call(lambda: beat.join(line)))
    except Ended as error:
      raise NoRoom(str(error), seconds=30, why="broken") from error
    except errors.UserError as error:
      raise NoRoom(str(error), seconds=5, why="full") from error
    now = asyncio.get_running_loop().time()
    return Talk(
      line, token=secrets.token_urlsafe(24), setting=self.setting, now=now
    )

  async def _resume(self, token: str, rested: Rested) -> Talk | None:
    """A session that rested; None where it cannot go on."""
    beat = self.setting.beat
    line = rested.line or self._line(rested.session_id, seed=0)
    try:
      await self.resting.written(rested)
      place = self.resting.place(rested)
      snapshot = await asyncio.to_thread(self._pool.read, place)
      await asyncio.wrap_future(
        beat.call(lambda: beat.come_back(line, snapshot))
      )
    except Exception as error:
      operations.log("not resumed", session=rested.session_id, why=str(error))
      if not isinstance(error, errors.UserError):
        logging.exception("%s is not resumed", rested.session_id)
      self._finish(line)
      if not isinstance(error, Ended):  # else the next server may have it
        self.resting.forget(rested)
      return None
    self.resting.forget(rested)
    now = asyncio.get_running_loop().time()
    return Talk(line, token=token, setting=self.setting, now=now)

  # ------------------------------------------------------------ who goes out
  async def rest(self, talk: Talk, *, client: Client) -> None:
    """A client has gone: its session rests, if it is still that client's.

    One in which nothing has happened ends.
    """
    if self._clients.get(talk.line) is not client:
      return
    if talk.line.is_untouched:
      await self.end(talk, client=client)
    else:
      self._rest(talk)

  def _rest(self, talk: Talk) -> None:
    client = self._remove(talk)
    beat, line = self.setting.beat, talk.line
    try:
      resting = beat.call(lambda: beat.rest(line))
    except Ended as error:
      operations.log("lost", session=line.session_id, why=str(error))
      self._finish(line)
      return
    gone = self.resting.put(
      talk.token,
      line=line,
      snapshot=asyncio.wrap_future(resting),
      address=client.address if client else "",
    )
    self._forgotten(gone)
    self._count()

  async def end(self, talk: Talk, *, client: Client) -> None:
    """A session is over for good."""
    if self._clients.get(talk.line) is not client:
      return
    self._remove(talk)
    beat, line = self.setting.beat, talk.line
    with contextlib.suppress(Ended):
      await asyncio.wrap_future(beat.call(lambda: beat.leave(line)))
    self._finish(line)
    self._count()

  def _remove(self, talk: Talk) -> Client | None:
    """Takes a session from the table; returns its client, if it has one."""
    del self.talks[talk.token]
    now = asyncio.get_running_loop().time()
    self._lasted = [*self._lasted, now - talk.began][-_REMEMBERED:]
    return self._clients.pop(talk.line, None)

  def _finish(self, line: Line) -> None:
    """Nothing of a session goes on."""
    line.attached.close()
    if self.setting.recorder is not None:
      self.setting.recorder.end(line)

  def _forgotten(self, gone: Sequence[Rested]) -> None:
    for rested in gone:
      if rested.line is not None:
        self._finish(rested.line)
      operations.log("forgotten", session=rested.session_id)

  async def look(self) -> None:
    """Once a second: whose time is over."""
    self._forgotten(self.resting.expire())
    if self.setting.beat.is_broken:
      self._give_up()
    now = asyncio.get_running_loop().time()
    for talk in list(self.talks.values()):
      client = self._clients.get(talk.line)
      if client is None or talk.token not in self.talks:
        continue  # it comes in just now, or has gone meanwhile
      # Of a session that was resumed the windows tell.
      lasted = max(now - talk.began, talk.line.seconds)
      if lasted > self.limits.seconds:
        await self.end(talk, client=client)
        self._dismiss(client, 1000, "a session lasts no longer here")
      elif (
        talk.rests_since is not None
        and now - talk.rests_since > self.limits.idle_seconds
      ):
        is_untouched = talk.line.is_untouched
        await self.rest(talk, client=client)
        if is_untouched:
          self._dismiss(client, 1000, "nothing happened in it for too long")
        else:
          self._dismiss(client, RESTS, "it was paused for too long; it rests")
    self._count()

  def _give_up(self) -> None:
    """The pool has failed for good: everybody is told."""
    for talk in list(self.talks.values()):
      if talk.token not in self.talks:
        continue
      client = self._remove(talk)
      if client is not None:
        self._dismiss(client, 1011, "the model of this server has failed")
      self._finish(talk.line)

  async def drain(self) -> None:
    """Every session rests on disk, and nobody is let in."""
    self.is_draining = True
    if self._coming:  # those are in the table then, or have failed
      await asyncio.wait(list(self._coming.values()))
    clients = dict(self._clients)
    for talk in list(self.talks.values()):
      if talk.token in self.talks:
        self._rest(talk)
    await asyncio.gather(
      *(
        client.close(1001, "the server is going down; it can be resumed")
        for client in clients.values()
      ),
      *self._closing,
      return_exceptions=True,
    )
    await self.resting.settle()
    if self.setting.recorder is not None:
      await asyncio.to_thread(self.setting.recorder.close)

  # ----------------------------------------------------------------- windows
  def deliver(self, made: Round) -> None:
    """Hands windows to those whose they are, and counts them."""
    metrics = self.setting.metrics
    metrics.tick.observe(made.ticked)
    metrics.waited.observe(made.waited)
    metrics.windows.inc(len(made.passed))
    metrics.stood_still.inc(made.stood_still)
    if made.missed:
      metrics.missed.inc(len(made.passed))
    for line, passed in made.passed:
      metrics.absent.inc(passed.newly_lost)
      client = self._clients.get(line)
      if client is not None:
        client.put(passed)

  def _count(self) -> None:
    metrics, beat = self.setting.metrics, self.setting.beat
    metrics.sessions.set(len(self.talks))
    metrics.resting.set(len(self.resting))
    for share in (0.5, 0.99):
      metrics.quantile.labels(str(share)).set(beat.tick_seconds(share))


def open_house(
  pool: SessionPool,
  *,
  tokenizer: Tokenizer,
  runner: background.Runner,
  resting: Resting,
  recorder: Recorder | None,
  limits: Limits,
  rules: Rules,
  rehearsed: Sequence[float] = (),
) -> House:
  """A house with its clock, on the running loop.

  Args:
    pool: warmed up; its thread alone touches it from now on.
    tokenizer: of the run.
    runner: of the server's tools.
    resting: sessions of those who have gone.
    recorder: of sessions; None records nothing.
    limits: of a client.
    rules: who is let in.
    rehearsed: see `beat.rehearse`.
  """
  # Named now: it reads all weights, for which no tick is to wait.
  _ = pool.fingerprint
  loop, streams = asyncio.get_running_loop(), pool.config.streams
  grid = clock.of(streams)

  def deliver(made: Round) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended
      loop.call_soon_threadsafe(house.deliver, made)

  setting = Setting(
    beat=Beat(
      Room(pool, tokenizer=tokenizer),
      grid=grid,
      deliver=deliver,
      rehearsed=rehearsed,
    ),
    tokenizer=tokenizer,
    grid=grid,
    height=streams.video_height,
    width=streams.video_width,
    eyes=concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="eyes"),
    recorder=recorder,
    metrics=Metrics(),
  )
  house = House(
    setting,
    pool=pool,
    runner=runner,
    resting=resting,
    limits=limits,
    rules=rules,
  )
  return house


def about(house: House, *, facts: dict[str, Any]) -> dict[str, Any]:
  """What /v1/session says."""
  return facts | {
    "slots": house.rules.slots,
    "slots_free": house.free,
    "seconds_to_wait": house.seconds_to_wait(),
    "is_draining": house.is_draining,
  }
