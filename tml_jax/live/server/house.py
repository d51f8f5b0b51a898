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

from tml_jax import errors
from tml_jax.live.conversation import Room
from tml_jax.live.pool import SessionPool
from tml_jax.live.server import operations
from tml_jax.live.server.attached import Attached
from tml_jax.live.server.beat import Beat, Round
from tml_jax.live.server.line import Line, Passed
from tml_jax.live.server.operations import Limits, Metrics
from tml_jax.live.server.recording import Recorder
from tml_jax.live.server.resting import Resting
from tml_jax.live.server.talk import Setting, Talk
from tml_jax.streams import clock
from tml_jax.streams.tokenizer import Tokenizer
from tml_jax.tools import background

_REMEMBERED = 50  # sessions, for how long one lasts
_SECONDS_TO_WAIT = (5, 300)
# Ticks of a pool are looked at when there are so many.
_LEAST_TICKS = 25


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


class Client(Protocol):
  """A connection, as the house knows it."""

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
    self._coming = 0
    self._lasted: list[float] = []
    setting.metrics.slots.set(rules.slots)

  # ------------------------------------------------------------ who comes in
  @property
  def free(self) -> int:
    """Slots."""
    return max(0, self.rules.slots - len(self.talks) - self._coming)

  def seconds_to_wait(self) -> int:
    """For a slot: by how long sessions last here, 0 where one is free."""
    if self.free:
      return 0
    typical = statistics.median(self._lasted or [60.0])
    least, most = _SECONDS_TO_WAIT
    return round(min(most, max(least, typical / self.rules.slots)))

  def check(self, *, resumes: str) -> None:
    """Refuses a client before its socket is opened.

    Raises:
      NoRoom: why, and how long to wait.
    """
    if self.is_draining:
      raise NoRoom("the server is going down", seconds=5, why="draining")
    if resumes in self.talks:
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
  ) -> tuple[Talk, bool]:
    """The session of a client, and whether it had rested.

    Raises:
      NoRoom: somebody was faster.
    """
    talk = self.talks.get(resumes)
    if talk is not None:  # a page that was loaded again, or a dead connection
      before = self._clients.get(talk.line)
      self._clients[talk.line] = client
      talk.reconnected()
      if before is not None:
        await before.close(1000, "the session goes on in another connection")
      self.setting.metrics.resumed.inc()
      return talk, True
    self.check(resumes=resumes)
    self._coming += 1
    try:
      talk = await self._resume(resumes) if resumes else None
      is_resumed = talk is not None
      if talk is None:
        talk = await self._begin(seed)
    finally:
      self._coming -= 1
    self.talks[talk.token] = talk
    self._clients[talk.line] = client
    metrics = self.setting.metrics
    (metrics.resumed if is_resumed else metrics.started).inc()
    self._count()
    return talk, is_resumed

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
    except errors.UserError as error:
      raise NoRoom(str(error), seconds=5, why="full") from error
    now = asyncio.get_running_loop().time()
    return Talk(
      line, token=secrets.token_urlsafe(24), setting=self.setting, now=now
    )

  async def _resume(self, token: str) -> Talk | None:
    """The session that rests under a token; None where there is none."""
    rested = self.resting.take(token)
    if rested is None:
      return None
    beat = self.setting.beat
    line = rested.line or self._line(rested.session_id, seed=0)
    try:
      await self.resting.written(rested)
      place = self.resting.place(rested)
      snapshot = await asyncio.to_thread(self._pool.read, place)
      await asyncio.wrap_future(
        beat.call(lambda: beat.come_back(line, snapshot))
      )
    except errors.UserError as error:
      operations.log("not resumed", session=rested.session_id, why=str(error))
      self.resting.forget(rested)
      return None
    self.resting.forget(rested)
    now = asyncio.get_running_loop().time()
    talk = Talk(line, token=token, setting=self.setting, now=now)
    talk.reconnected()
    return talk

  # ------------------------------------------------------------ who goes out
  async def rest(self, talk: Talk, *, client: Client) -> None:
    """A client has gone: its session rests, if it is still that client's."""
    if self._clients.get(talk.line) is not client:
      return
    self._remove(talk)
    beat, line = self.setting.beat, talk.line
    resting = beat.call(lambda: beat.rest(line))
    self.resting.put(
      talk.token, line=line, snapshot=asyncio.wrap_future(resting)
    )
    self._count()

  async def end(self, talk: Talk, *, client: Client) -> None:
    """A session is over for good."""
    if self._clients.get(talk.line) is not client:
      return
    self._remove(talk)
    beat, line = self.setting.beat, talk.line
    await asyncio.wrap_future(beat.call(lambda: beat.leave(line)))
    self._finish(line)
    self._count()

  def _remove(self, talk: Talk) -> None:
    del self._clients[talk.line]
    del self.talks[talk.token]
    now = asyncio.get_running_loop().time()
    self._lasted = [*self._lasted, now - talk.began][-_REMEMBERED:]

  def _finish(self, line: Line) -> None:
    """Nothing of a session goes on."""
    line.attached.close()
    if self.setting.recorder is not None:
      self.setting.recorder.end(line)

  async def look(self) -> None:
    """Once a second: whose time is over."""
    for rested in self.resting.expire():
      if rested.line is not None:
        self._finish(rested.line)
      operations.log("forgotten", session=rested.session_id)
    now = asyncio.get_running_loop().time()
    for talk in list(self.talks.values()):
      client = self._clients[talk.line]
      if now - talk.began > self.limits.seconds:
        await self.end(talk, client=client)
        await client.close(1000, "a session lasts no longer here")
      elif (
        talk.rests_since is not None
        and now - talk.rests_since > self.limits.idle_seconds
      ):
        await self.rest(talk, client=client)
        await client.close(
          1000, "it was paused for too long; it can be resumed"
        )
    self._count()

  async def drain(self) -> None:
    """Every session rests on disk, and nobody is let in."""
    self.is_draining = True
    for talk in list(self.talks.values()):
      client = self._clients[talk.line]
      await self.rest(talk, client=client)
      await client.close(1001, "the server is going down; it can be resumed")
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
