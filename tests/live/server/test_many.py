"""Many clients on bad networks, and one that must not notice them."""

import asyncio
import resource
import sys

import aiohttp
import numpy as np
import pytest

from tests.helpers import served
from tml_jax.config import Numerics
from tml_jax.live.server.operations import Limits


def _outputs(client):
  """What was decided and said, window by window, and the sound."""
  ticks = [
    (e["window"], e["decision"], e["is_speaking"], e["user"])
    for e in client.events
    if e["type"] == "tml.tick"
  ]
  words = "".join(
    e["delta"]
    for e in client.events
    if e["type"] == "response.output_audio_transcript.delta"
  )
  return ticks, words, served.sound_of(client.events)


async def _listen(server, *, windows, started=None):
  """A session whose input is text and the clock alone: the same each time."""
  async with served.client(server, query="?seed=3") as client:
    await client.send(
      type="conversation.item.create",
      item={
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "count to ten"}],
      },
    )
    if started is not None:
      started.set()
    await client.windows(windows)
    await client.send(type="tml.pause", paused=True)
    return client


async def _noisy(server, *, number, seconds, http):
  """Packets with jitter, bursts, loss and wrong order, and other events."""
  random = np.random.default_rng(number)
  async with served.client(server, http=http) as client:
    sound = served.noise(number, seconds=seconds)

    async def speak():
      loop = asyncio.get_running_loop()
      start, packets = loop.time(), []
      for k in range(len(sound) // 480):
        packets.append(sound[480 * k : 480 * (k + 1)])
        await asyncio.sleep(max(0.0, start + 0.02 * (k + 1) - loop.time()))
        if random.random() < 0.02:
          await asyncio.sleep(float(random.exponential(0.3)))  # a burst follows
        if random.random() < 0.05:
          packets.pop(0)
        if random.random() < 0.1:
          continue  # two in one go, the later one first
        for packet in reversed(packets):
          await client.say(packet)
        packets = []
        if random.random() < 0.01:
          await client.send(
            type="tml.video.append", image=served.picture("blue")
          )
        if random.random() < 0.01:
          await client.socket.send_str("{" * int(random.integers(1, 900)))

    speaking = asyncio.ensure_future(speak())
    while not speaking.done():
      await client.next(seconds=60)
    await speaking
    return [e for e in client.events if e["type"] == "tml.tick"]


def _among_noisy(pool, path, *, seconds, windows):
  """A session alone, the same among 15 noisy ones, and what these saw."""

  async def go():
    limits = Limits(sessions_per_client=16)
    with served.serving(
      path, slots=16, limits=limits, made_pool=pool
    ) as server:
      alone = await _listen(server, windows=windows)
      async with aiohttp.ClientSession() as http:
        noisy = [
          asyncio.ensure_future(
            _noisy(server, number=k, seconds=seconds, http=http)
          )
          for k in range(15)
        ]
        await asyncio.sleep(seconds / 12)
        among = await _listen(server, windows=windows)
        return alone, among, await asyncio.gather(*noisy)

  return asyncio.run(asyncio.wait_for(go(), 1800))


@pytest.mark.slow
def test_sixteen_clients_on_a_bad_network_for_five_minutes(tmp_path):
  """No window is missing, in order, whatever the network did."""
  *_, ticks = _among_noisy(
    served.pool(16), tmp_path, seconds=300.0, windows=100
  )
  for each in ticks:
    windows = [tick["window"] for tick in each]
    assert windows == list(range(len(windows)))
    assert len(windows) > 250
    assert {"sound", "absent"} <= {tick["user"] for tick in each}


@pytest.mark.slow
def test_a_session_is_the_same_alone_and_among_15_noisy_ones(tmp_path):
  """To the bit of its sound, with numerics that do not depend on neighbours."""
  pool = served.pool(16, numerics=Numerics.INVARIANT)
  alone, among, _ = _among_noisy(pool, tmp_path, seconds=20.0, windows=40)
  (ticks, words, sound), (more, again, heard) = map(_outputs, (alone, among))
  count = min(len(ticks), len(more))
  assert count >= 40 and ticks[:count] == more[:count]
  assert len({tick[1] for tick in ticks}) > 1
  for one, two in ((words, again), (sound, heard)):
    shorter = min(len(one), len(two))
    assert shorter and one[:shorter] == two[:shorter]


@pytest.mark.slow
def test_a_thousand_connections_and_no_slot(pool, tmp_path):
  """Each is told to wait, and who is in goes on."""

  async def go():
    with served.serving(tmp_path, made_pool=pool) as server:
      async with (
        served.client(server) as one,
        served.client(server),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
      ):
        await one.send(type="response.create")
        await one.windows(2)

        async def come():
          with pytest.raises(aiohttp.WSServerHandshakeError) as error:
            await http.ws_connect(server.socket)
          return error.value.status

        found = await asyncio.gather(*(come() for _ in range(1000)))
        assert {*found} == {503}
        ticks = await one.windows(10)
        assert [t["window"] for t in ticks] == list(range(2, 12))

  asyncio.run(asyncio.wait_for(go(), 600))


_IDLE = """
import asyncio, sys

async def go(port, count):
  opened = []
  for start in range(0, count, 500):
    opened += await asyncio.gather(
      *(asyncio.open_connection("127.0.0.1", port) for _ in range(500))
    )
  for number, (_, writer) in enumerate(opened):
    if number % 2:  # half of a request
      writer.write(b"GET /v1/realtime HTTP/1.1\\r\\nHost: loc")
  print(len(opened), flush=True)
  sys.stdin.read()

asyncio.run(go(int(sys.argv[1]), int(sys.argv[2])))
"""


@pytest.mark.slow
def test_ten_thousand_connections_that_say_nothing(pool, tmp_path):
  """Or half of a request: who is in goes on, and a new one comes in."""
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  if hard < 12_000:
    pytest.skip(f"a process may have {hard} files open: 12,000 are needed")
  resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 12_000), hard))

  async def go():
    with served.serving(tmp_path, made_pool=pool) as server:
      async with served.client(server) as one:
        await one.send(type="response.create")
        await one.windows(2)
        port = server.socket.rpartition(":")[2].partition("/")[0]
        others = await asyncio.create_subprocess_exec(
          *(sys.executable, "-c", _IDLE, port, "10000"),
          stdin=asyncio.subprocess.PIPE,
          stdout=asyncio.subprocess.PIPE,
        )
        assert int(await others.stdout.readline()) == 10_000
        await one.windows(10)
        async with served.client(server) as two:
          await two.send(type="response.create")
          await two.windows(2)
        others.stdin.close()
        await others.wait()
        ticks = await one.windows(5)
        windows = [t["window"] for t in ticks]
        assert windows == list(range(windows[0], windows[0] + 5))

  asyncio.run(asyncio.wait_for(go(), 300))
