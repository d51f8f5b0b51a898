"""The routes of a server, and what stands before all of them.

For: `create`, an aiohttp application around a `House`. Not for: sessions
(`house`) or flags (`tml_jax.serve`). Start at `create`.
"""

import asyncio
import collections
import contextlib
import pathlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from absl import logging
from aiohttp import web

from tml_jax.live.server import house as house_lib
from tml_jax.live.server import operations
from tml_jax.live.server.connection import Connection
from tml_jax.live.server.house import House, NoRoom
from tml_jax.live.server.operations import Access

PAGE = pathlib.Path(__file__).parent / "page"
_POLICY = {
  "Content-Security-Policy": (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src"
    " 'self'; img-src 'self' blob: data:; media-src 'self' blob:; worker-src"
    " 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
  ),
  "X-Content-Type-Options": "nosniff",
  "Referrer-Policy": "no-referrer",
  "Permissions-Policy": "microphone=(self), camera=(self),"
  " display-capture=(self), speaker-selection=(self)",
  "Cache-Control": "no-cache",
}
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Routes:
  """What the server answers."""

  def __init__(self, house: House, *, access: Access, facts: dict[str, Any]):
    self._house = house
    self._access = access
    self._facts = facts
    self._connected: collections.Counter[str] = collections.Counter()

  async def realtime(self, request: web.Request) -> web.StreamResponse:
    """A conversation."""
    house, address = self._house, request.remote or ""
    try:
      resumes = operations.resumes(request)
      house.check(resumes=resumes)
      most = house.limits.sessions_per_client
      # A page that is loaded again takes the place of its own connection.
      if self._connected[address] >= most and not house.is_in(resumes):
        raise NoRoom(
          f"{most} sessions of one client are enough", seconds=60, why="client"
        )
    except NoRoom as error:
      house.setting.metrics.refused.labels(error.why).inc()
      status = 429 if error.why == "client" else 503
      return _refusal(status, str(error), seconds=error.seconds)
    self._connected[address] += 1
    try:
      connection = Connection(house, request=request, facts=self._facts)
      return await connection.run()
    finally:
      self._connected[address] -= 1
      if not self._connected[address]:
        del self._connected[address]

  async def session(self, request: web.Request) -> web.StreamResponse:
    """What a page wants to know before it begins."""
    return web.json_response(house_lib.about(self._house, facts=self._facts))

  async def health(self, request: web.Request) -> web.StreamResponse:
    """200 while sessions can be had."""
    if self._house.setting.beat.is_broken:
      return web.json_response({"status": "broken"}, status=503)
    if self._house.is_draining:
      return web.json_response({"status": "draining"}, status=503)
    return web.json_response({"status": "ok", "free": self._house.free})

  async def metrics(self, request: web.Request) -> web.StreamResponse:
    """For Prometheus."""
    return web.Response(
      body=self._house.setting.metrics.text(),
      content_type="text/plain",
      charset="utf-8",
    )

  async def page(self, request: web.Request) -> web.StreamResponse:
    """The page in the browser."""
    return web.FileResponse(PAGE / "index.html")

  @web.middleware
  async def guard(
    self, request: web.Request, handler: _Handler
  ) -> web.StreamResponse:
    """Stands before every route: who may, and the headers of answers."""
    why = self._access.refuses(request.headers)
    if why:
      self._house.setting.metrics.refused.labels("origin").inc()
      return _refusal(403, why)
    is_open = request.path in ("/", "/healthz") or request.path.startswith(
      "/static/"
    )
    if not is_open and not self._access.knows(request.headers):
      self._house.setting.metrics.refused.labels("token").inc()
      return _refusal(
        401, "name the token: Authorization: Bearer TOKEN, or its subprotocol"
      )
    return await handler(request)


def _refusal(status: int, message: str, *, seconds: int = 0) -> web.Response:
  headers = {"Retry-After": str(seconds)} if seconds else {}
  if status == 401:
    headers["WWW-Authenticate"] = "Bearer"
  error = {"type": "refused", "message": message, "seconds": seconds}
  return web.json_response({"error": error}, status=status, headers=headers)


async def _headers(request: web.Request, response: web.StreamResponse) -> None:
  for name, value in _POLICY.items():
    response.headers.setdefault(name, value)


def create(
  house: House, *, access: Access, facts: dict[str, Any]
) -> web.Application:
  """The application.

  Args:
    house: of its sessions.
    access: who may come in.
    facts: what tml.session says of the run and the server.
  """
  routes = _Routes(house, access=access, facts=facts)
  app = web.Application(
    middlewares=[routes.guard], client_max_size=house.limits.message_bytes
  )
  app.router.add_get("/v1/realtime", routes.realtime)
  app.router.add_get("/v1/session", routes.session)
  app.router.add_get("/healthz", routes.health)
  app.router.add_get("/metrics", routes.metrics)
  app.router.add_get("/", routes.page)
  app.router.add_static("/static/", PAGE)
  app.on_response_prepare.append(_headers)

  async def watch() -> None:
    while True:
      await asyncio.sleep(1.0)
      try:
        await house.look()
      except Exception:
        logging.exception("looking at sessions failed")

  async def background(app: web.Application) -> AsyncIterator[None]:
    task = asyncio.ensure_future(watch())
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
      await task

  app.cleanup_ctx.append(background)
  return app


def runner(
  application: web.Application, *, idle_seconds: float = 20.0
) -> web.AppRunner:
  """What listens for the application.

  A connection that asks for nothing for `idle_seconds`, or has not ended its
  first question by then, is closed.
  """
  return web.AppRunner(
    application, access_log=None, keepalive_timeout=idle_seconds
  )
