"""What a server needs to be left alone: who may talk, how much, and figures.

For: `Access`, `Limits`, `Pace`, `Metrics` and the log. Not for: sessions.
Start at `Access`. The log and the figures have nothing that anybody said.
"""

import dataclasses
import hmac
import json
import time
import urllib.parse
from collections.abc import Mapping

import prometheus_client as prometheus
from aiohttp import web

_SUBPROTOCOL = "openai-insecure-api-key."  # how browsers send a token
_RESUMES = "tml-resume."  # and that of a session: addresses are written down
_MS = (5, 10, 20, 40, 60, 80, 100, 120, 150, 200, 300, 500, 1000, 2000)
_BUCKETS = tuple(ms / 1000 for ms in _MS)


@dataclasses.dataclass(frozen=True)
class Limits:
  """What a client may do.

  Attributes:
    message_bytes: of one message.
    messages: a second, on average over a few.
    sessions_per_client: of one address, at a time.
    seconds: of a session.
    idle_seconds: that a session may take to begin, or pause.
    unsent: windows that wait for a client who does not read.
  """

  message_bytes: int = 1 << 20
  messages: float = 200.0
  sessions_per_client: int = 4
  seconds: float = 3600.0
  idle_seconds: float = 300.0
  unsent: int = 50


@dataclasses.dataclass(frozen=True)
class Access:
  """Who may talk.

  Attributes:
    token: that clients name; "" lets in everybody.
    origins: of pages beside our own, as browsers name them.
    hosts: names that we are reached by, where there is no token: a page of
      somebody else may have given its own name our address.
  """

  token: str
  origins: frozenset[str] = frozenset()
  hosts: frozenset[str] = frozenset()

  def refuses(self, headers: Mapping[str, str]) -> str:
    """What is wrong with a request, or ""."""
    host, origin = headers.get("Host", ""), headers.get("Origin")
    try:
      name = urllib.parse.urlsplit(f"//{host}").hostname or ""
      page = urllib.parse.urlsplit(origin or "").netloc
    except ValueError:
      return f"host {host!r:.80} or origin {origin!r:.80} is no address"
    if not self.token and self.hosts and name not in self.hosts:
      return f"host {host!r:.80} is not one of {', '.join(sorted(self.hosts))}"
    if origin is not None and origin not in self.origins and page != host:
      return f"origin {origin!r:.80} is not allowed: name it in --origins"
    return ""

  def knows(self, headers: Mapping[str, str]) -> bool:
    """Whether a request has the token."""
    if not self.token:
      return True
    given = headers.get("Authorization", "").removeprefix("Bearer ")
    given = _protocol(headers, _SUBPROTOCOL) or given
    return hmac.compare_digest(
      given.encode(errors="replace"), self.token.encode()
    )


def resumes(request: web.BaseRequest) -> str:
  """The token of the session that a client asks for, or ""."""
  given = _protocol(request.headers, _RESUMES)
  return given or request.query.get("resume", "")


def _protocol(headers: Mapping[str, str], prefix: str) -> str:
  """The rest of the subprotocol that begins so, or ""."""
  for each in headers.get("Sec-WebSocket-Protocol", "").split(","):
    if each.strip().startswith(prefix):
      return each.strip().removeprefix(prefix)
  return ""


class Pace:
  """How many messages a client may send: so many a second, and a burst."""

  def __init__(self, rate: float, *, now: float):
    self._rate, self._most = rate, 4 * rate
    self._left, self._since = self._most, now

  def allows(self, *, now: float) -> bool:
    """Counts one message."""
    self._left = min(self._most, self._left + (now - self._since) * self._rate)
    self._since = now
    if self._left < 1:
      return False
    self._left -= 1
    return True


class Metrics:
  """Figures for Prometheus."""

  def __init__(self) -> None:
    self.registry = prometheus.CollectorRegistry()
    r = self.registry
    self.tick = prometheus.Histogram(
      "tml_tick_seconds",
      "From perceived windows to decisions and sound, a round of the pool.",
      buckets=_BUCKETS,
      registry=r,
    )
    self.waited = prometheus.Histogram(
      "tml_waited_seconds",
      "From the end of a window to the beginning of its tick.",
      buckets=_BUCKETS,
      registry=r,
    )
    self.quantile = prometheus.Gauge(
      "tml_tick_recent_seconds",
      "Quantiles of the last 200 ticks.",
      ["quantile"],
      registry=r,
    )
    self.jitter = prometheus.Histogram(
      "tml_client_jitter_seconds",
      "Jitter of playout, as clients report it.",
      buckets=_BUCKETS,
      registry=r,
    )
    self.buffered = prometheus.Histogram(
      "tml_client_buffer_seconds",
      "Sound that waits at a client's loudspeaker, as clients report it.",
      buckets=_BUCKETS,
      registry=r,
    )
    self.windows = _counter("windows", "Windows of sessions.", r)
    self.missed = _counter(
      "deadlines_missed", "Windows whose sound came after it was due.", r
    )
    self.absent = _counter(
      "inputs_lost", "Windows without their sound, lost or late.", r
    )
    self.stood_still = _counter(
      "clock_stood_still_seconds", "By which the pool's clock was put back.", r
    )
    self.started = _counter("sessions_started", "New sessions.", r)
    self.resumed = _counter("sessions_resumed", "That had rested.", r)
    self.refused = prometheus.Counter(
      "tml_refused", "Connections.", ["why"], registry=r
    )
    self.dropped = prometheus.Counter(
      "tml_closed", "Connections, by close code.", ["code"], registry=r
    )
    self.errors = prometheus.Counter(
      "tml_client_errors", "Events refused, by code.", ["code"], registry=r
    )
    self.bytes_in = _counter("bytes_in", "Of messages of clients.", r)
    self.bytes_out = _counter("bytes_out", "Of messages to clients.", r)
    self.sessions = _gauge("sessions", "In the pool.", r)
    self.resting = _gauge("sessions_resting", "That may be resumed.", r)
    self.slots = _gauge("slots", "Of the pool.", r)
    self.voice = prometheus.Info("tml_voice", "What makes sound.", registry=r)

  def text(self) -> bytes:
    return prometheus.generate_latest(self.registry)


def _counter(
  name: str, what: str, registry: prometheus.CollectorRegistry
) -> prometheus.Counter:
  return prometheus.Counter(f"tml_{name}", what, registry=registry)


def _gauge(
  name: str, what: str, registry: prometheus.CollectorRegistry
) -> prometheus.Gauge:
  return prometheus.Gauge(f"tml_{name}", what, registry=registry)


def log(event: str, **fields: str | int | float | bool) -> None:
  """A line of JSON on stdout: what happened, to which session, when."""
  line = {"event": event, "time": round(time.time(), 3)} | fields
  print(json.dumps(line), flush=True)
