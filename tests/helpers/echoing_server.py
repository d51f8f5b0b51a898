"""A server that speaks the page's protocol and answers by rule, not by model.

For: tests of the page that must be fast and always the same. Not for: what
the model's server does (`tml_jax.live.server`). Start at `Session._window`.

When the user begins to make sound the agent speaks a tone for some windows,
says a word in each, shows a text, draws, and calls a tool. When the user
begins again while it speaks, it gives way.
"""

import asyncio
import base64
import contextlib
import dataclasses
import json
import pathlib
import threading
import time

import numpy as np
from aiohttp import WSMsgType, web

import tml_jax

PAGE = pathlib.Path(tml_jax.__file__).parent / "live/server/page"
RATE, WINDOW_MS = 16_000, 200
SAMPLES = RATE * WINDOW_MS // 1000
FREQUENCY = 440.0
SPEAKING = 10  # windows
PAUSE = 2  # windows without sound, after which sound is a beginning
THRESHOLD_DB = -45.0
WORDS = tuple("Three plus four is seven, and this is a box.".split())
SHOWN = "3 + 4 <b>= 7"
STROKES = ("M0 0 L6 0", "L6 4", "L0 4 Z")
CSP = (
  "default-src 'none'; script-src 'self'; style-src 'self';"
  " connect-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:;"
  " worker-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)


@dataclasses.dataclass(frozen=True)
class Rules:
  """How the server behaves.

  Attributes:
    slots: conversations at once.
    token: that is asked for; "" asks for none.
    rests_seconds: how long a session rests.
    is_recording_offered: whether the page asks for consent.
    has_video: whether the run sees.
    tick_seconds: what a decision takes.
  """

  slots: int = 4
  token: str = ""
  rests_seconds: float = 20.0
  is_recording_offered: bool = True
  has_video: bool = True
  tick_seconds: float = 0.01


class Session:
  """One conversation.

  Attributes:
    received: events of the client, without their payloads.
    samples: [n] int16, all that was heard.
    images: bytes of each frame.
    gave_way: epoch seconds of each time that it gave way.
    windows: that have passed.
  """

  def __init__(self, number: int, *, rules: Rules):
    self.number = number
    self.received: list[dict] = []
    self.samples = np.zeros(0, np.int16)
    self.images: list[bytes] = []
    self.gave_way: list[float] = []
    self.windows = 0
    self.socket: web.WebSocketResponse | None = None
    self._rules = rules
    self._heard = np.zeros(0, np.int16)  # of this window
    self._quiet = PAUSE
    self._left = 0  # windows to speak
    self._item = 0
    self._is_paused = False

  def about(self, *, resumed: bool) -> dict:
    return {
      "type": "tml.session",
      "session_id": f"s{self.number}",
      "resume_token": f"t{self.number}",
      "rests_seconds": self._rules.rests_seconds,
      "resumed": resumed,
      "limits": {"seconds": 3600, "max_message_bytes": 1 << 20},
      **describe(self._rules),
    }

  async def take(self, event: dict) -> None:
    kind = event["type"]
    kept = {k: v for k, v in event.items() if k not in ("audio", "image")}
    self.received.append(kept)
    if kind == "input_audio_buffer.append":
      samples = np.frombuffer(base64.b64decode(event["audio"]), "<i2")
      self._heard = np.concatenate([self._heard, samples])
      self.samples = np.concatenate([self.samples, samples])
    elif kind == "tml.video.append":
      self.images.append(base64.b64decode(event["image"]))
    elif kind == "session.update":
      await self._send("session.updated", session=event["session"])
    elif kind == "tml.ping":
      await self._send("tml.pong", sent=event["sent"])
    elif kind == "tml.pause":
      self._is_paused = event["paused"]

  async def run(self) -> None:
    """A window every 200 ms while somebody is connected."""
    due = time.monotonic()
    while True:
      due += WINDOW_MS / 1000
      await asyncio.sleep(max(0.0, due - time.monotonic()))
      if not self._is_paused:
        await self._window()

  async def _window(self) -> None:
    heard, self._heard = self._heard, np.zeros(0, np.int16)
    level = _decibels(heard)
    user = "absent" if not len(heard) else "silent"
    if level > THRESHOLD_DB:
      user = "sound"
    begins = user == "sound" and self._quiet >= PAUSE
    self._quiet = 0 if user == "sound" else self._quiet + 1
    if begins and self._left:
      await self._give_way()
    elif begins:
      self._left = SPEAKING
      self._item += 1
      await self._send("response.created", response={"id": self._response})
    decision = await self._speak() if self._left else "quiet"
    await self._send(
      "tml.tick",
      window=self.windows,
      time=self.windows * WINDOW_MS / 1000,
      user=user,
      decision=decision,
      is_speaking=decision != "quiet",
      tick_ms=1000 * self._rules.tick_seconds,
      waited_ms=3.0,
      late_ms=40.0 if self.windows % 25 == 24 else 0.0,
      deadline_missed=self.windows % 25 == 24,
      input_level_db=level,
      lost_inputs=0,
    )
    self.windows += 1

  @property
  def _response(self) -> str:
    return f"r{self.number}_{self._item}"

  async def _speak(self) -> str:
    done = SPEAKING - self._left
    times = np.arange(done * SAMPLES, (done + 1) * SAMPLES) / RATE
    tone = 0.3 * np.sin(2 * np.pi * FREQUENCY * times)
    sound = base64.b64encode((32767 * tone).astype("<i2").tobytes()).decode()
    item = f"i{self.number}_{self._item}"
    place = dict(response_id=self._response, item_id=item)
    place |= dict(output_index=0, content_index=0)
    await self._send("response.output_audio.delta", delta=sound, **place)
    await self._send(
      "response.output_audio_transcript.delta", delta=f"{WORDS[done]} ", **place
    )
    decision = "speak"
    if done == 0:
      decision = "show"
      await self._send("tml.show", item_id=item, delta=SHOWN, done=True)
    if done < len(STROKES):
      decision = "draw" if done else decision
      await self._send(
        "tml.draw",
        drawing_id=item,
        path=STROKES[done],
        done=done == len(STROKES) - 1,
        box=[-0.5, -0.5, 7, 5],
      )
    call = dict(call_id=f"c{self._item}")
    if done == 3:
      decision = "call"
      asked = dict(name="calculator", arguments="3+4", where="server")
      await self._send("tml.call", **call, **asked)
    if done == 4:
      await self._send("tml.result", **call, output="7")
    self._left -= 1
    if not self._left:
      await self._end("completed")
    return decision

  async def _give_way(self) -> None:
    self._left = 0
    self.gave_way.append(time.time())
    await self._send(
      "input_audio_buffer.speech_started",
      audio_start_ms=self.windows * WINDOW_MS,
      item_id=f"u{self.windows}",
    )
    await self._end("cancelled")

  async def _end(self, status: str) -> None:
    item = f"i{self.number}_{self._item}"
    await self._send("response.output_audio.done", item_id=item)
    await self._send("response.output_audio_transcript.done", item_id=item)
    response = {"id": self._response, "status": status}
    await self._send("response.done", response=response)

  async def _send(self, kind: str, **fields) -> None:
    if self.socket is not None and not self.socket.closed:
      with contextlib.suppress(ConnectionError):
        await self.socket.send_json({"type": kind, **fields})


class Server:
  """Runs in a thread; `with Server(Rules()) as server`.

  Attributes:
    url: of the page.
    sessions: all that began, in order.
  """

  def __init__(self, rules: Rules):
    self._rules = rules
    self.sessions: list[Session] = []
    self._loop = asyncio.new_event_loop()
    self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

  def __enter__(self) -> "Server":
    self._thread.start()
    asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
    return self

  def stop(self) -> None:
    """Answers nobody any more."""
    asyncio.run_coroutine_threadsafe(
      self._runner.cleanup(), self._loop
    ).result()

  def __exit__(self, *_) -> None:
    self.stop()
    self._loop.call_soon_threadsafe(self._loop.stop)
    self._thread.join()
    self._loop.close()

  async def _start(self) -> None:
    app = web.Application()
    app.on_response_prepare.append(_policy)
    app.router.add_get("/", _index)
    app.router.add_static("/static", PAGE)
    app.router.add_get("/v1/session", self._about)
    app.router.add_get("/v1/realtime", self._hold)
    self._runner = web.AppRunner(app, shutdown_timeout=0.1)
    await self._runner.setup()
    site = web.TCPSite(self._runner, "127.0.0.1", 0)
    await site.start()
    self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/"

  @property
  def _free(self) -> int:
    held = sum(s.socket is not None for s in self.sessions)
    return self._rules.slots - held

  async def _about(self, request: web.Request) -> web.Response:
    wanted = self._rules.token
    given = request.headers.get("Authorization", "")
    if wanted and given != f"Bearer {wanted}":
      return web.json_response({}, status=401)
    return web.json_response(
      describe(self._rules)
      | {
        "slots": self._rules.slots,
        "slots_free": self._free,
        "seconds_to_wait": 0 if self._free else 30,
        "is_draining": False,
      }
    )

  async def _hold(self, request: web.Request) -> web.StreamResponse:
    protocols = request.headers.get("Sec-WebSocket-Protocol", "")
    wanted = self._rules.token
    if wanted and f"openai-insecure-api-key.{wanted}" not in protocols:
      return web.Response(status=401)
    known = {f"t{s.number}": s for s in self.sessions}
    given = [each.strip() for each in protocols.split(",")]
    tokens = [each.removeprefix("tml-resume.") for each in given]
    session = next((known[t] for t in tokens if t in known), None)
    if session is None and not self._free:
      return web.Response(status=503, headers={"Retry-After": "30"})
    resumed = session is not None
    if session is None:
      session = Session(len(self.sessions), rules=self._rules)
      self.sessions.append(session)
    socket = web.WebSocketResponse(
      protocols=("realtime",), max_msg_size=1 << 20
    )
    await socket.prepare(request)
    session.socket = socket
    await socket.send_json({"type": "session.created", "session": {}})
    await socket.send_json(session.about(resumed=resumed))
    ticking = asyncio.create_task(session.run())
    try:
      async for message in socket:
        if message.type != WSMsgType.TEXT:
          continue
        event = json.loads(message.data)
        await session.take(event)
        if event["type"] == "tml.close":
          await socket.close()
    finally:
      ticking.cancel()
      if session.socket is socket:
        session.socket = None
    return socket


def describe(rules: Rules) -> dict:
  """What `/v1/session` and `tml.session` have in common."""
  video = {"width": 80, "height": 40, "frames_per_window": 1}
  return {
    "window_ms": WINDOW_MS,
    "sample_rate_in": RATE,
    "sample_rate_out": RATE,
    "video": video if rules.has_video else None,
    "voice": "phases",
    "run": {
      "name": "echo",
      "step": 7,
      "parameters": 1234567,
      "is_tiny": True,
      "says": "It answers every sound with a tone.",
    },
    "tools": [{"name": "calculator", "description": "sums", "where": "server"}],
    "recording": {"offered": rules.is_recording_offered},
  }


def _decibels(samples: np.ndarray) -> float:
  power = np.mean(np.square(samples / 32768.0)) if len(samples) else 0.0
  return float(10 * np.log10(power)) if power > 1e-10 else -100.0


async def _policy(_, response) -> None:
  response.headers["Content-Security-Policy"] = CSP
  response.headers["Cache-Control"] = "no-store"


async def _index(_) -> web.FileResponse:
  return web.FileResponse(PAGE / "index.html")
