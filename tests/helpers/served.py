"""A server in this process, around a pool of random weights.

For: tests that talk to `tml_jax.live.server` over a socket. Not for: the
command (`tml_jax.serve`), which loads a run. Start at `serving`.
"""

import asyncio
import base64
import concurrent.futures
import contextlib
import functools
import io
import json
import threading

import aiohttp
import numpy as np
import PIL.Image
from aiohttp import web

from tests.helpers import small, small_session
from tests.helpers.frames import ByteTokenizer
from tml_jax.config import Numerics
from tml_jax.live import pool as pool_lib
from tml_jax.live import program as program_lib
from tml_jax.live import session
from tml_jax.live.server import app as app_lib
from tml_jax.live.server import house as house_lib
from tml_jax.live.server import operations, resting
from tml_jax.tools import background
from tml_jax.vocoder import stream

ROWS = 256  # of text: a byte each
TOKENIZER = ByteTokenizer()
FACTS = {
  "window_ms": 200,
  "sample_rate_in": 24_000,
  "sample_rate_out": 24_000,
  "video": {"width": 80, "height": 40, "frames_per_window": 2},
  "voice": "phases",
  "run": {
    "name": "small",
    "step": 0,
    "parameters": 1,
    "is_tiny": True,
    "says": "random",
  },
  "tools": [],
  "recording": {"offered": False},
  "limits": {"seconds": 3600, "max_message_bytes": 1 << 20},
}


@functools.cache
def config(numerics=Numerics.DEFAULT):
  """The small session's, with a row of text for each byte."""
  return small.config(
    small_session._FIELDS
    | {
      "streams.text_vocab_size": ROWS,
      "streams.max_text_in": 16,
      "model.vocab_size": ROWS + 64,
      "sample.temperature": 1.0,
      "sample.horizon": 96,
      "sample.sinks": 8,
      "numerics": numerics,
    }
  )


@functools.cache
def program(slots: int, numerics: Numerics) -> program_lib.Program:
  cfg = config(numerics)
  return program_lib.on_device(
    cfg,
    model=small_session.model(cfg),
    sessions=slots,
    text_pieces=ROWS,
  )


def pool(
  slots: int, *, numerics: Numerics = Numerics.DEFAULT
) -> pool_lib.SessionPool:
  made = pool_lib.SessionPool(
    program(slots, numerics),
    variables=small_session.variables(config(numerics)),
    voice=stream.Voice(network=None, variables={}),
  )
  made.warm_up({*session.Senses})
  return made


class Served:
  """A server that listens.

  Attributes:
    url: of its routes.
    house: of its sessions.
    beat: of its pool.
  """

  def __init__(self, *, url, house, beat):
    self.url, self.house, self.beat = url, house, beat

  @property
  def socket(self) -> str:
    return self.url.replace("http", "ws") + "/v1/realtime"


@contextlib.contextmanager
def serving(
  rest_dir,
  *,
  slots=2,
  limits=None,
  access=None,
  tools=None,
  recorder=None,
  made_pool=None,
  rest_seconds=60.0,
  patience=20.0,
  busy=100.0,
  rehearsed=(),
  idle_seconds=20.0,
):
  """A `Served`, whose loop has a thread of its own."""
  started = concurrent.futures.Future()
  made_pool = made_pool or pool(slots)
  runner = background.Runner(tools or {})

  async def run():
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    house = house_lib.open_house(
      made_pool,
      tokenizer=TOKENIZER,
      runner=runner,
      resting=resting.Resting(rest_dir, seconds=rest_seconds),
      recorder=recorder and recorder(made_pool),
      limits=limits or operations.Limits(),
      rules=house_lib.Rules(slots=slots, busy=busy, patience=patience),
      rehearsed=rehearsed,
    )
    beat = house.setting.beat
    application = app_lib.create(
      house, access=access or operations.Access(token=""), facts=FACTS
    )
    web_runner = app_lib.runner(application, idle_seconds=idle_seconds)
    await web_runner.setup()
    await web.TCPSite(web_runner, "127.0.0.1", 0).start()
    port = web_runner.addresses[0][1]
    served = Served(url=f"http://127.0.0.1:{port}", house=house, beat=beat)
    started.set_result((served, loop, stop))
    await stop.wait()
    await house.drain()
    await web_runner.cleanup()
    beat.close()

  thread = threading.Thread(target=lambda: _run(run, started), daemon=True)
  thread.start()
  served, loop, stop = started.result(60)
  try:
    yield served
  finally:
    loop.call_soon_threadsafe(stop.set)
    thread.join(30)
    runner.close()
    assert not thread.is_alive()


def _run(run, started):
  try:
    asyncio.run(run())
  except BaseException as error:
    if started.done():
      raise
    started.set_exception(error)


class Client:
  """The least that a client is: JSON there and back."""

  def __init__(self, socket):
    self.socket = socket
    self.events = []

  async def send(self, **event):
    await self.socket.send_str(json.dumps(event))

  async def say(self, samples, *, name="input_audio_buffer.append"):
    """[n] int16 in the session's format."""
    data = samples.astype("<i2").tobytes()
    await self.send(type=name, audio=base64.b64encode(data).decode())

  async def next(self, *kinds, seconds=30.0):
    """The next event, of these types if any are named."""

    async def wait():
      while True:
        message = await self.socket.receive()
        if message.type != aiohttp.WSMsgType.TEXT:
          raise ConnectionError(f"{message.type.name} {message.data}")
        event = json.loads(message.data)
        self.events.append(event)
        if not kinds or event["type"] in kinds:
          return event

    return await asyncio.wait_for(wait(), seconds)

  async def windows(self, count):
    """So many ticks more."""
    return [await self.next("tml.tick") for _ in range(count)]


@contextlib.asynccontextmanager
async def client(served, *, http=None, query="", headers=None, protocols=()):
  """A `Client` that is connected."""
  async with contextlib.AsyncExitStack() as stack:
    http = http or await stack.enter_async_context(aiohttp.ClientSession())
    socket = await stack.enter_async_context(
      http.ws_connect(
        served.socket + query,
        headers=headers,
        protocols=protocols,
        max_msg_size=0,
      )
    )
    made = Client(socket)
    await made.next("rate_limits.updated")
    yield made


def noise(seed, *, seconds, rate=24_000, size=0.1):
  """[n] int16."""
  random = np.random.default_rng(seed)
  samples = size * random.standard_normal(round(seconds * rate))
  return (32767 * np.clip(samples, -1, 1)).astype(np.int16)


def picture(colour) -> str:
  """A PNG in base64."""
  file = io.BytesIO()
  PIL.Image.new("RGB", (120, 90), colour).save(file, "PNG")
  return base64.b64encode(file.getvalue()).decode()


def sound_of(events) -> bytes:
  """All that was to be played."""
  return b"".join(
    base64.b64decode(event["delta"])
    for event in events
    if event["type"] == "response.output_audio.delta"
  )


def run(test):
  """A test that is a coroutine."""

  @functools.wraps(test)
  def wrapped(*args, **kwargs):
    asyncio.run(asyncio.wait_for(test(*args, **kwargs), 120))

  return wrapped
