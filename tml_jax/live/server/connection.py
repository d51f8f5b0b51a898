"""One WebSocket of a client: frames in, frames out, and how it ends.

For: `Connection.run`, from the handshake to the close code. Not for: what
commands do (`talk`) or who is let in (`house`). Start there. The session
outlives the socket: it rests when that ends, whatever ended it.
"""

import asyncio
import collections
import functools
import json
from typing import Any

from absl import logging
from aiohttp import WSMsgType, web

from tml_jax.live.server import answers, events, operations
from tml_jax.live.server import talk as talk_lib
from tml_jax.live.server.beat import Ended
from tml_jax.live.server.house import House, NoRoom
from tml_jax.live.server.line import Passed
from tml_jax.live.server.operations import Pace
from tml_jax.live.server.talk import Over, Talk

_HEARTBEAT = 15.0  # seconds after which a dead connection is known to be
_MOST_ERRORS = 500  # of one connection
_MOST_REPLIES = 2000  # events that wait for a client who does not read
_PATIENCE = 2.0  # seconds for a client to take its close code
Event = dict[str, Any]


class Connection:
  """A client."""

  def __init__(self, house: House, *, request: web.Request, facts: Event):
    """`facts` is what tml.session says of the run and the server."""
    self.address = request.remote or ""
    self._house = house
    self._request = request
    self._facts = facts
    self._socket = web.WebSocketResponse(
      protocols=("realtime",),
      max_msg_size=house.limits.message_bytes,
      heartbeat=_HEARTBEAT,
      compress=False,
    )
    self._outgoing: collections.deque[Passed | list[Event]] = (
      collections.deque()
    )
    self._windows = 0  # that wait
    self._replies = 0
    self._has_outgoing = asyncio.Event()
    self._teller: answers.Teller | None = None
    self._is_resumed = False
    self._errors = 0
    self._count = 0  # events sent
    self._closing: asyncio.Task[None] | None = None

  # ------------------------------------------------------ from the house
  def greet(self, talk: Talk, *, is_resumed: bool) -> None:
    """The first that the client is told: what session it has."""
    self._is_resumed = is_resumed
    operations.log(
      "connected", session=talk.line.session_id, resumed=is_resumed
    )
    self._teller = talk_lib.teller(talk, setting=self._house.setting)
    self._reply(self._greeting(talk, is_resumed=is_resumed))

  def put(self, passed: Passed) -> None:
    """A window to be told; who does not read is dropped."""
    self._outgoing.append(passed)
    self._windows += 1
    self._has_outgoing.set()
    if self._windows > self._house.limits.unsent:
      self._drop("you do not read what you are sent")

  async def close(self, code: int, reason: str) -> None:
    """Ends the connection, whether the client takes the code or not."""
    if self._socket.closed:
      return
    self._house.setting.metrics.dropped.labels(str(code)).inc()
    transport = self._request.transport
    try:
      message = reason.encode()[:120]
      await asyncio.wait_for(
        self._socket.close(code=code, message=message), _PATIENCE
      )
    except (TimeoutError, ConnectionError):
      pass
    if transport is not None and not transport.is_closing():
      transport.abort()

  def _drop(self, reason: str, *, code: int = 1008) -> None:
    if self._closing is None:
      self._closing = asyncio.ensure_future(self.close(code, reason))

  # ---------------------------------------------------------------- its life
  async def run(self) -> web.WebSocketResponse:
    """From the handshake to the end."""
    query = self._request.query
    given = query.get("seed", "")
    seed = int(given) if given.isdecimal() and len(given) < 10 else None
    await self._socket.prepare(self._request)
    try:
      made = await self._house.admit(
        self, resumes=operations.resumes(self._request), seed=seed
      )
    except NoRoom as error:  # somebody was faster
      self._house.setting.metrics.refused.labels(error.why).inc()
      await self.close(1013, str(error))
      return self._socket
    session_id = made.line.session_id
    writer = asyncio.ensure_future(self._write())
    is_over = False
    try:
      if self._is_resumed:
        await made.go_on()
      is_over = await self._read(made)
    except Ended as error:
      self._drop(str(error), code=1011)
    finally:
      writer.cancel()
      if self._closing is not None:  # else the socket ends with its own code
        await self._closing
      if is_over:
        await self._house.end(made, client=self)
        await self.close(1000, "")
      else:
        await self._house.rest(made, client=self)
      code = self._socket.close_code or 1006
      operations.log(
        "disconnected", session=session_id, code=code, over=is_over
      )
    return self._socket

  async def _read(self, made: Talk) -> bool:
    """Obeys until the client goes; whether the session is over."""
    metrics, limits = self._house.setting.metrics, self._house.limits
    loop = asyncio.get_running_loop()
    pace = Pace(limits.messages, now=loop.time())
    async for message in self._socket:
      if not pace.allows(now=loop.time()):
        self._drop(f"over {limits.messages:g} messages a second")
        break
      if message.type != WSMsgType.TEXT:
        self._refuse(
          events.Refused("invalid_json", "an event is a text frame of JSON")
        )
        continue
      metrics.bytes_in.inc(len(message.data))
      event_id = ""
      try:
        parsed = events.parse(message.data)
        command, event_id = parsed.command, parsed.event_id
        made.refuse = functools.partial(self._refuse_later, event_id=event_id)
        replies = await made.obey(command)
      except events.Refused as error:
        error.event_id = error.event_id or event_id
        self._refuse(error)
        continue
      except Over:
        return True
      if isinstance(command, events.Update):
        assert self._teller is not None
        self._teller.played = made.played
        session = self._session(made)
        replies = [
          reply | ({"session": session} if reply["type"] != "error" else {})
          for reply in replies
        ]
      self._reply(replies)
    return False

  def _refuse(self, error: events.Refused) -> None:
    self._house.setting.metrics.errors.labels(error.code).inc()
    self._errors += 1
    if self._errors > _MOST_ERRORS:
      self._drop(f"over {_MOST_ERRORS} events that cannot be used")
    self._reply(
      [answers.error(error.code, str(error), event_id=error.event_id)]
    )

  def _refuse_later(self, error: events.Refused, *, event_id: str) -> None:
    error.event_id = error.event_id or event_id
    self._refuse(error)

  def _reply(self, replies: list[Event]) -> None:
    if replies:
      self._outgoing.append(replies)
      self._replies += len(replies)
      self._has_outgoing.set()
      if self._replies > _MOST_REPLIES:
        self._drop("you do not read what you are sent")

  async def _write(self) -> None:
    """Sends what waits, in order; the socket tells when to wait."""
    try:
      await self._write_on()
    except ConnectionError:  # the reader finds that out, too
      pass
    except Exception:
      logging.exception("telling a client failed")
      self._drop("this server has a fault", code=1011)

  async def _write_on(self) -> None:
    while True:
      await self._has_outgoing.wait()
      if not self._outgoing:
        self._has_outgoing.clear()
        continue
      item = self._outgoing.popleft()
      if isinstance(item, Passed):
        self._windows -= 1
        assert self._teller is not None
        told = self._teller.tell(item)
      else:
        self._replies -= len(item)
        told = item
      for event in told:
        self._count += 1
        text = json.dumps({"event_id": f"event_{self._count}"} | event)
        self._house.setting.metrics.bytes_out.inc(len(text))
        await self._socket.send_str(text)

  # ------------------------------------------------------------- what it says
  def _session(self, made: Talk) -> Event:
    """Of session.created and session.updated."""
    return {
      "id": made.line.session_id,
      "object": "realtime.session",
      "type": "realtime",
      "model": self._facts["run"]["name"],
      "output_modalities": ["audio"],
    } | made.settings()

  def _greeting(self, made: Talk, *, is_resumed: bool) -> list[Event]:
    house = self._house
    tools = [
      {"name": t.name, "description": t.description, "where": "client"}
      for t in made.line.attached.declared
    ]
    return [
      {"type": "session.created", "session": self._session(made)},
      {
        "type": "tml.session",
        "session_id": made.line.session_id,
        "resume_token": made.token,
        "rests_seconds": house.resting.seconds,
        "resumed": is_resumed,
      }
      | self._facts
      | {"tools": [*self._facts["tools"], *tools]},
      {
        "type": "rate_limits.updated",
        "rate_limits": [
          {
            "name": "messages",
            "limit": house.limits.messages,
            "remaining": house.limits.messages,
            "reset_seconds": 1.0,
          },
        ],
      },
    ]
