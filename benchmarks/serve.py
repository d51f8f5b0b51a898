"""Clients of a live server: `python -m benchmarks.serve --clients=16`.

From the first sample of a click in a microphone to the first sample that
answers, over loopback, with its parts; deadlines, memory, bytes. Not for: ticks
alone (`session`). Start at `main`.

The server is a process of its own: `tiny` with random weights, a tick and a
voice for every session in every window, the real socket. One thing is not the
model's: where a window has a click, it decides to speak and sounds a click,
which lies where the vocoder's delay ends; else it is quiet (`Answering`). The
clients are another process, with packets of 20 ms on their own clocks.
`--light` has a model of one narrow layer instead, for what the server itself
costs and keeps: an hour of it shows a leak on a machine that is not idle.
"""

import array
import asyncio
import base64
import contextlib
import dataclasses
import json
import multiprocessing
import pathlib
import statistics
import sys
import tempfile
import time

if not __package__:  # run as a file
  sys.path[0] = str(pathlib.Path(__file__).parents[1])

import aiohttp
import numpy as np
from absl import app, flags

from benchmarks import session as session_benchmark
from benchmarks import timing
from tml_jax.config import Config
from tml_jax.streams import clock

RATE = 24_000
_PACKET = 0.02  # seconds
_EVERY = 2.0  # seconds between clicks of a client
_WINDOW = clock.TICKS.seconds
_PLAYOUT_MS = 40.0  # a client's jitter buffer
_CLICK = 0.9
_ROUND = ("at", "waited", "ticked", "missed", "sessions", "stood_still")


def _light(cfg: Config) -> Config:
  """One layer, a quarter as wide; everything that a session keeps is there."""
  return dataclasses.replace(
    cfg,
    name="light",
    model=dataclasses.replace(
      cfg.model,
      d_model=32,
      num_layers=1,
      attention_pattern="G",
      num_experts=2,
      d_ff=64,
      expert_d_ff=32,
      flow=dataclasses.replace(cfg.model.flow, width=64, depth=1),
    ),
  )


def _server(pipe, *, clients: int, light: bool) -> None:
  """Serves until the pipe says so; then tells of every window."""
  from aiohttp import web

  from tml_jax.live import pool as pool_lib
  from tml_jax.live import program as program_lib
  from tml_jax.live import session as session_lib
  from tml_jax.live.server import app as app_lib
  from tml_jax.live.server import beat as beat_lib
  from tml_jax.live.server import house as house_lib
  from tml_jax.live.server import operations, resting
  from tml_jax.tools import background
  from tml_jax.training import state as state_lib
  from tml_jax.vocoder import stream

  class Answering(pool_lib.SessionPool):
    """Speaks where a click was heard; costs what the real one does."""

    def tick(self, inputs, *, quiet=()):
      ticked = super().tick(inputs, quiet=quiet)
      for session, frame in ticked.frames.items():
        heard = frame.user_dmel
        # Levels of all channels: 160 in silence, over 600 with a click.
        answers = heard is not None and int(heard.sum(axis=1).max()) > 400
        ticked.frames[session] = dataclasses.replace(
          frame, speak=answers, say=(), text_out=()
        )
        sound = np.zeros_like(ticked.sounds[session])
        if answers:
          sound[stream.DELAY : stream.DELAY + 40] = _CLICK
        ticked.sounds[session] = sound
      return ticked

  cfg = session_benchmark.config()
  if light:
    cfg = _light(cfg)
  pool = Answering(
    program_lib.on_device(
      cfg,
      model=state_lib.create_sampler(cfg),
      sessions=clients,
      text_pieces=1,
    ),
    variables=session_benchmark.variables(cfg),
    voice=session_benchmark.voice(),
  )
  pool.warm_up({session_lib.Senses.SOUND})
  rehearsed = beat_lib.rehearse(pool, windows=25)
  rounds = array.array("d")  # of `_ROUND`; a list would grow as a leak does
  facts = {"run": {"name": cfg.name}, "tools": []}

  async def serve() -> None:
    house = house_lib.open_house(
      pool,
      tokenizer=session_benchmark.Letters(),
      runner=background.Runner({}),
      resting=resting.Resting(
        pathlib.Path(tempfile.mkdtemp(prefix="serve")), seconds=60.0
      ),
      recorder=None,
      # A session that is over before its client would be one that was cut.
      limits=operations.Limits(sessions_per_client=clients, seconds=1e6),
      rules=house_lib.Rules(slots=clients, busy=100.0, patience=60.0),
      rehearsed=rehearsed,
    )
    told = house.deliver

    def deliver(made) -> None:
      rounds.extend(
        (
          time.monotonic() - made.ticked,
          made.waited,
          made.ticked,
          float(made.missed),
          len(made.passed),
          made.stood_still,
        )
      )
      told(made)

    house.deliver = deliver
    runner = app_lib.runner(
      app_lib.create(house, access=operations.Access(token=""), facts=facts)
    )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    pipe.send(runner.addresses[0][1])
    while not pipe.poll():
      await asyncio.sleep(0.1)
    while (word := pipe.recv()) != "end":
      metrics = house.setting.metrics
      pipe.send(
        {
          "rehearsed_ms": 1000 * statistics.median(rehearsed),
          "rss_mib": session_benchmark.resident_mib(),
          "rounds": len(rounds) // len(_ROUND),
          "bytes_in": metrics.bytes_in._value.get(),
          "bytes_out": metrics.bytes_out._value.get(),
          "word": word,
        }
      )
      while not pipe.poll():
        await asyncio.sleep(0.1)
    width = len(_ROUND)
    pipe.send(
      [
        dict(zip(_ROUND, rounds[i : i + width], strict=True))
        for i in range(0, len(rounds), width)
      ]
    )
    house.setting.beat.close()

  asyncio.run(serve())


@dataclasses.dataclass(frozen=True)
class Answered:
  """A click and what became of it, in milliseconds.

  Attributes:
    total: from its first sample to the first that answers.
    waited: from its window's end to its tick.
    tick: perceived window to sound.
  """

  total: float
  waited: float
  tick: float


@dataclasses.dataclass(frozen=True)
class Client:
  """What one client saw.

  Attributes:
    answered: its clicks.
    drift: milliseconds by which the server's windows fell behind this
      client's clock between the earliest of the first minute's windows and the
      earliest of the last's, as the others came over a wire that varies.
  """

  answered: list[Answered]
  drift: float


def _drift(behind: array.array) -> float:
  """By how much the least of the last minute lies above the first's."""
  minute = min(len(behind) // 2, round(60 / _WINDOW))
  return 1000 * (min(behind[-minute:]) - min(behind[:minute]))


async def _client(url: str, *, number: int, seconds: float) -> Client:
  """One client: clicks into silence, on its own clock."""
  found: list[Answered] = []
  behind = array.array("d")  # arrival of each window less its place in time
  clicks: list[float] = []
  random = np.random.default_rng(number)
  async with (
    aiohttp.ClientSession() as http,
    http.ws_connect(url, max_msg_size=0) as socket,
  ):
    start = time.monotonic() + 0.2 * random.random()

    async def speak() -> None:
      size = round(RATE * _PACKET)
      next_click = 1.0 + _EVERY * random.random()
      for k in range(round(seconds / _PACKET)):
        samples = np.zeros(size, "<i2")
        if k * _PACKET >= next_click:
          at = int(random.integers(size))
          samples[at : at + 60] = 30_000
          clicks.append(start + k * _PACKET + at / RATE)
          # Anywhere in a window.
          next_click += _EVERY + 0.2 * random.random()
        # A packet leaves when its last sample was heard.
        await asyncio.sleep(
          max(0.0, start + (k + 1) * _PACKET - time.monotonic())
        )
        await socket.send_json(
          {
            "type": "input_audio_buffer.append",
            "audio": base64.b64encode(samples.tobytes()).decode(),
          }
        )

    speaking = asyncio.ensure_future(speak())
    heard_at = None
    async for message in socket:
      event = json.loads(message.data)
      now = time.monotonic()
      if event["type"] == "response.output_audio.delta":
        sound = np.frombuffer(base64.b64decode(event["delta"]), "<i2")
        loud = np.flatnonzero(np.abs(sound) > 8000)
        if len(loud):
          heard_at = now + _PLAYOUT_MS / 1000 + loud[0] / RATE
      elif event["type"] == "tml.tick":
        behind.append(now - start - _WINDOW * event["window"])
        # A click at a window's end is heard in the next one, too.
        if heard_at is not None and clicks and heard_at > clicks[0]:
          click = clicks.pop(0)
          while clicks and heard_at > clicks[0]:  # that before was lost
            click = clicks.pop(0)
          found.append(
            Answered(
              1000 * (heard_at - click), event["waited_ms"], event["tick_ms"]
            )
          )
        heard_at = None
      if speaking.done():
        break
    with contextlib.suppress(ConnectionError):  # the server was faster
      await socket.send_json({"type": "tml.close"})
  return Client(answered=found, drift=_drift(behind))


async def _clients(url: str, *, count: int, seconds: float, pipe):
  """All of them, and figures of the server at `_look_at`."""
  tasks = [
    asyncio.ensure_future(_client(url, number=k, seconds=seconds))
    for k in range(count)
  ]
  looks = []
  start = time.monotonic()
  for at in _look_at(seconds):
    await asyncio.sleep(max(0.0, start + at - time.monotonic()))
    pipe.send("look")
    looks.append(await asyncio.to_thread(pipe.recv))
  return await asyncio.gather(*tasks), looks


def _look_at(seconds: float) -> list[float]:
  """After ten seconds, every five minutes, and just before the end."""
  between = np.arange(300.0, seconds - 60.0, 300.0)
  return [min(10.0, seconds / 2), *between, seconds - 2.0]


def measure(*, clients: int, seconds: float, light: bool = False) -> dict:
  """One server and so many clients."""
  from tml_jax.vocoder import stream

  context = multiprocessing.get_context("spawn")
  here, there = context.Pipe()
  process = context.Process(
    target=_server, args=(there,), kwargs={"clients": clients, "light": light}
  )
  process.start()
  port = here.recv()
  url = f"ws://127.0.0.1:{port}/v1/realtime"
  seen, looks = asyncio.run(
    _clients(url, count=clients, seconds=seconds, pipe=here)
  )
  early, late = looks[0], looks[-1]
  answered = [each for client in seen for each in client.answered]
  here.send("end")
  rounds = here.recv()
  process.join(30)
  first = early["rounds"]
  rounds = rounds[min(first, len(rounds) - 1) :]
  totals = [each.total for each in answered]
  windows = sum(r["sessions"] for r in rounds)
  missed = sum(r["missed"] * r["sessions"] for r in rounds)
  waited = [1000 * r["waited"] for r in rounds]
  tick = [1000 * r["ticked"] for r in rounds]
  voice = 1000 * stream.DELAY / 16_000
  known = [each.waited + each.tick + voice + _PLAYOUT_MS for each in answered]
  rest = [t - k for t, k in zip(totals, known, strict=True)]
  first_look, *_, last_look = _look_at(seconds)
  minutes = (last_look - first_look) / 60

  def quantile(values, share):
    return float(np.quantile(values, share)) if values else float("nan")

  return {
    "clients": clients,
    "seconds": seconds,
    "answers": len(answered),
    "mouth_to_ear_ms_p50": quantile(totals, 0.5),
    "mouth_to_ear_ms_p99": quantile(totals, 0.99),
    "neighbour_wait_ms_p50": quantile(waited, 0.5),
    "neighbour_wait_ms_p99": quantile(waited, 0.99),
    "rehearsed_tick_ms_p50": late["rehearsed_ms"],
    "tick_ms_p50": quantile(tick, 0.5),
    "tick_ms_p99": quantile(tick, 0.99),
    "deadlines_missed_share": missed / max(1, windows),
    "clock_stood_still_s": sum(r["stood_still"] for r in rounds),
    "clock_drift_ms": max((client.drift for client in seen), key=abs),
    "rss_growth_mib": late["rss_mib"] - early["rss_mib"],
    "rss_mib_every_5_minutes": [round(x["rss_mib"], 1) for x in looks],
    "kib_per_minute_up": (late["bytes_in"] - early["bytes_in"])
    / clients
    / minutes
    / 1024,
    "kib_per_minute_down": (late["bytes_out"] - early["bytes_out"])
    / clients
    / minutes
    / 1024,
    "parts_ms_p50": {
      "window_encoding_wire": quantile(rest, 0.5),
      "neighbours": statistics.median(e.waited for e in answered)
      if answered
      else float("nan"),
      "tick_and_voice": statistics.median(e.tick for e in answered)
      if answered
      else float("nan"),
      "voice_lag": voice,
      "playout": _PLAYOUT_MS,
    },
    "load": list(pathlib.Path("/proc/loadavg").read_text().split()[:3]),
  }


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f"unknown argument {argv[1]!r}; flags only")
  print(timing.made())
  numbers = measure(
    clients=_CLIENTS.value, seconds=_SECONDS.value, light=_LIGHT.value
  )
  text = json.dumps(numbers, indent=1)
  print(text)
  if _JSON.value:
    pathlib.Path(_JSON.value).write_text(text + "\n")


if __name__ == "__main__":
  _JSON = flags.DEFINE_string("json", "", "Also write the numbers to it.")
  _CLIENTS = flags.DEFINE_integer("clients", 16, "At a time.", 1)
  _SECONDS = flags.DEFINE_float("seconds", 60.0, "Of conversation.", 12.0)
  _LIGHT = flags.DEFINE_bool("light", False, "A model of one narrow layer.")
  app.run(main)
