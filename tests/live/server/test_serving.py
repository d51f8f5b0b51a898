"""A server over loopback, with a real pool: sessions, resting, bad input."""

import asyncio
import base64
import io
import json
import re
import socket

import aiohttp
import numpy as np
import PIL.Image
import pytest

from tests.helpers import served
from tml_jax.live.server import operations
from tml_jax.live.server.operations import Access, Limits


@pytest.fixture(name="server")
def _server(pool, tmp_path):
  with served.serving(tmp_path / "rest", made_pool=pool) as made:
    yield made


async def _silence(client, *, windows):
  """Starts the clock and waits."""
  await client.send(type="response.create")
  return await client.windows(windows)


@served.run
async def test_a_conversation(server):
  async with served.client(server) as client:
    created, session = client.events[:2]
    assert created["type"] == "session.created"
    assert created["session"]["audio"]["input"]["format"]["rate"] == 24_000
    assert session["type"] == "tml.session" and not session["resumed"]
    assert session["run"]["is_tiny"] and session["window_ms"] == 200
    for k in range(30):
      await client.say(served.noise(k, seconds=0.2))
      await client.next("tml.tick")
    ticks = [e for e in client.events if e["type"] == "tml.tick"]
    assert [tick["window"] for tick in ticks] == list(range(30))
    assert {tick["user"] for tick in ticks} >= {"sound"}
    assert all(t["tick_ms"] > 0 and t["waited_ms"] >= 0 for t in ticks)
    kinds = [e["type"] for e in client.events]
    assert kinds.count("response.created") >= 1
    assert kinds.count("response.done") >= kinds.count("response.created") - 1
    # A window of sound, at 24 kHz, for each that was decided to be spoken.
    sound = np.frombuffer(served.sound_of(client.events), "<i2")
    spoken = sum(tick["is_speaking"] for tick in ticks)
    assert spoken and 4800 * (spoken - 1) < len(sound) < 4800 * (spoken + 8)
    assert np.abs(sound).max() > 30
    done = next(e for e in client.events if e["type"] == "response.done")
    said = done["response"]["output"][0]["content"][0]["transcript"]
    deltas = [
      e["delta"]
      for e in client.events
      if e["type"] == "response.output_audio_transcript.delta"
      and e["response_id"] == done["response"]["id"]
    ]
    assert said == "".join(deltas)
    await client.send(type="tml.close")
    with pytest.raises(ConnectionError):
      await client.next("none")
    assert client.socket.close_code == 1000
  assert not server.house.talks and not len(server.house.resting)


@served.run
async def test_typed_text_images_and_settings(server):
  async with served.client(server) as client:
    await client.send(
      type="session.update",
      session={
        "type": "realtime",
        "audio": {
          "input": {"format": {"type": "audio/pcmu"}},
          "output": {"format": {"type": "audio/pcma"}},
        },
      },
    )
    updated = await client.next("session.updated")
    assert updated["session"]["audio"]["output"]["format"] == {
      "type": "audio/pcma"
    }
    file = io.BytesIO()
    PIL.Image.new("RGB", (300, 200), "red").save(file, "PNG")
    image = base64.b64encode(file.getvalue()).decode()
    await client.send(
      type="conversation.item.create",
      item={
        "id": "item_mine",
        "type": "message",
        "role": "user",
        "content": [
          {"type": "input_text", "text": "<|speak|> <speak> hello"},
          {
            "type": "input_image",
            "image_url": f"data:image/png;base64,{image}",
          },
        ],
      },
    )
    added = await client.next("conversation.item.added")
    assert added["item"]["id"] == "item_mine"
    await client.send(type="tml.video.append", image=image)
    await client.windows(4)
    # u-law of 200 ms.
    for _ in range(3):
      data = base64.b64encode(bytes(range(200)) * 8).decode()
      await client.send(type="input_audio_buffer.append", audio=data)
      await client.next("tml.tick")
    for name, reply in (
      ("input_audio_buffer.commit", "input_audio_buffer.committed"),
      ("input_audio_buffer.clear", "input_audio_buffer.cleared"),
    ):
      await client.send(type=name)
      await client.next(reply)
    await client.send(
      type="conversation.item.truncate",
      item_id="item_1",
      content_index=0,
      audio_end_ms=100,
    )
    assert (await client.next("conversation.item.truncated"))[
      "audio_end_ms"
    ] == 100


@served.run
async def test_a_model_that_is_cancelled_is_quiet(server):
  async with served.client(server) as client:
    await _silence(client, windows=1)
    for _ in range(4):
      tick = await client.next("tml.tick")
      await client.send(type="response.cancel")
      # The next window may be in the works already.
      later = (await client.windows(2))[-1]
      del tick
      quiet = [
        e["is_speaking"]
        for e in client.events
        if e["type"] == "tml.tick" and e["window"] >= later["window"] - 1
      ]
      assert False in quiet


@served.run
async def test_no_windows_pass_in_a_pause(server):
  async with served.client(server) as client:
    await _silence(client, windows=2)
    await client.send(type="tml.pause", paused=True)
    await asyncio.sleep(1.0)
    await client.send(type="tml.pause", paused=False)
    ticks = await client.windows(4)
    times = [t["window"] for t in client.events if t["type"] == "tml.tick"]
    assert times == list(range(len(times)))
    assert ticks[-1]["window"] < 9


@served.run
async def test_bad_events_are_told_and_others_go_on(server):
  async with (
    served.client(server) as client,
    served.client(server) as other,
  ):
    await _silence(other, windows=1)
    await client.socket.send_str("{nonsense")
    await client.socket.send_bytes(b"\x00" * 100)
    await client.send(type="input_audio_buffer.append", audio="AAA")
    await client.send(type="input_audio_buffer.append", audio="AAAA")
    await client.send(type="conversation.item.create", item={"type": "x"})
    await client.send(type="tml.video.append", image="AAAA", event_id="e7")
    await client.send(type="tml.record", allowed=True)
    await client.send(
      type="conversation.item.create",
      item={"type": "function_call_output", "call_id": "c", "output": "7"},
    )
    errors = [await client.next("error") for _ in range(8)]
    # Of a picture it is told when that was looked at; all others go on.
    (picture,) = (e for e in errors if e["error"]["code"] == "invalid_image")
    assert picture["error"]["event_id"] == "e7"
    errors.remove(picture)
    assert [e["error"]["code"] for e in errors] == [
      "invalid_json",
      "invalid_json",
      "invalid_base64",
      "invalid_audio",
      "invalid_value",
      "not_offered",
      "unknown_call",
    ]
    assert len(await other.windows(3)) == 3


@served.run
async def test_an_image_of_100_megapixels_is_not_decoded(server):
  file = io.BytesIO()
  PIL.Image.new("1", (10_000, 10_000)).save(file, "PNG")
  async with served.client(server) as client:
    image = base64.b64encode(file.getvalue()).decode()
    await client.send(type="tml.video.append", image=image)
    error = await client.next("error")
    assert "10000 x 10000 pixels" in error["error"]["message"]


@served.run
async def test_a_full_server_says_how_long_to_wait(server):
  async with (
    served.client(server),
    served.client(server),
    aiohttp.ClientSession() as http,
  ):
    with pytest.raises(aiohttp.WSServerHandshakeError) as error:
      await http.ws_connect(server.socket)
    assert error.value.status == 503
    assert int(error.value.headers["Retry-After"]) >= 5
    async with http.get(f"{server.url}/v1/session") as answer:
      about = await answer.json()
    assert (about["slots"], about["slots_free"]) == (2, 0)
    assert about["seconds_to_wait"] >= 5


@served.run
async def test_nobody_is_let_in_where_ticks_are_too_slow(pool, tmp_path):
  """The first client is; its ticks, rehearsed ones too, are measured."""
  with served.serving(
    tmp_path, made_pool=pool, busy=0.5, rehearsed=[0.11] * 30
  ) as server:
    async with served.client(server), aiohttp.ClientSession() as http:
      with pytest.raises(aiohttp.WSServerHandshakeError) as error:
        await http.ws_connect(server.socket)
      assert error.value.status == 503
      async with http.get(f"{server.url}/v1/realtime") as answer:
        told = (await answer.json())["error"]
      assert "a tick takes 110 ms of 200" in told["message"]


@served.run
async def test_a_session_that_rested_goes_on_bit_for_bit(pool, tmp_path):
  """Its inputs are those of the clock alone: it hears nothing but text."""

  async def type_to(client, text):
    await client.send(
      type="conversation.item.create",
      item={
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": text}],
      },
    )

  def decided(client):
    return [
      (e["window"], e["decision"], e["is_speaking"])
      for e in client.events
      if e["type"] == "tml.tick"
    ], "".join(
      e["delta"]
      for e in client.events
      if e["type"] == "response.output_audio_transcript.delta"
    )

  rest = tmp_path / "rest"
  with served.serving(rest, made_pool=pool) as server:
    async with served.client(server, query="?seed=5") as whole:
      await type_to(whole, "hello")
      await whole.windows(24)
    async with served.client(server, query="?seed=5") as first:
      token = first.events[1]["resume_token"]
      await type_to(first, "hello")
      await first.windows(9)
    for _ in range(100):
      if len(server.house.resting) == 2:
        break
      await asyncio.sleep(0.05)
    async with served.client(server, query=f"?resume={token}") as second:
      assert second.events[1]["resumed"]
      await second.windows(5)
  # All sessions that were in rest on disk; another server has them.
  with served.serving(rest, made_pool=pool) as server:
    async with served.client(server, query=f"?resume={token}") as third:
      assert third.events[1]["resumed"]
      await third.windows(5)
    async with served.client(server, query="?resume=nonsense") as other:
      assert not other.events[1]["resumed"]
  expected, words = decided(whole)
  found = [decided(each) for each in (first, second, third)]
  ticks = [tick for each, _ in found for tick in each]
  # One may have passed between the last that was read and the end.
  windows = {tick[0]: tick for tick in ticks}
  assert len(windows) >= 19
  for tick in expected:
    assert windows.get(tick[0], tick) == tick
  assert words.startswith(found[0][1]) and found[0][1]


@served.run
async def test_a_page_that_is_loaded_again_is_resumed(server):
  """Also where the new connection comes before the old session rests."""
  async with aiohttp.ClientSession() as http:
    query, last = "", -1
    for k in range(4):
      async with served.client(server, http=http, query=query) as client:
        about = client.events[1]
        assert about["resumed"] == (k > 0)
        query = f"?resume={about['resume_token']}"
        await client.send(type="response.create")
        for tick in await client.windows(2):
          assert tick["window"] > last
          last = tick["window"]
    assert len(server.house.talks) + len(server.house.resting) == 1


@served.run
async def test_a_second_connection_takes_the_session_over(server):
  async with served.client(server) as first:
    await _silence(first, windows=2)
    token = first.events[1]["resume_token"]
    async with served.client(server, query=f"?resume={token}") as second:
      assert second.events[1]["resumed"]
      tick = await second.next("tml.tick")
      assert tick["window"] >= 2
      with pytest.raises(ConnectionError):
        await first.next("none")
      assert len(server.house.talks) == 1


@served.run
async def test_who_may_talk(pool, tmp_path):
  access = Access(token="secret", origins=frozenset({"https://friend"}))
  with served.serving(tmp_path, made_pool=pool, access=access) as server:
    async with aiohttp.ClientSession() as http:

      async def status(path, **headers):
        async with http.get(server.url + path, headers=headers) as answer:
          assert (
            "default-src 'none'" in answer.headers["Content-Security-Policy"]
          )
          return answer.status

      bearer = {"Authorization": "Bearer secret"}
      assert await status("/healthz") == 200
      assert await status("/v1/session") == 401
      assert await status("/v1/session", **bearer) == 200
      assert await status("/v1/session", Authorization="Bearer x") == 401
      assert await status("/metrics", **bearer) == 200
      assert await status("/v1/session", **bearer, Origin="https://x") == 403
      friend = {"Origin": "https://friend"}
      assert await status("/v1/session", **bearer, **friend) == 200
      for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/nowhere"):
        assert await status(path, **bearer) in (403, 404)
      with pytest.raises(aiohttp.WSServerHandshakeError) as error:
        await http.ws_connect(server.socket)
      assert error.value.status == 401
      async with served.client(
        server,
        http=http,
        protocols=("realtime", "openai-insecure-api-key.secret"),
      ) as client:
        assert client.socket.protocol == "realtime"


def test_a_name_that_somebody_gave_our_address_is_refused():
  access = Access(token="", hosts=frozenset({"localhost", "127.0.0.1"}))
  assert not access.refuses({"Host": "localhost:8765"})
  assert "evil.example" in access.refuses(
    {"Host": "evil.example:8765", "Origin": "http://evil.example:8765"}
  )
  assert access.refuses({"Host": "localhost:1", "Origin": "http://localhost:2"})
  assert access.refuses({"Host": "[::"}) and access.refuses({})


def test_messages_have_a_pace():
  pace = operations.Pace(10.0, now=0.0)
  assert [pace.allows(now=0.0) for _ in range(41)] == [True] * 40 + [False]
  assert [pace.allows(now=0.2) for _ in range(3)] == [True, True, False]


@served.run
async def test_limits_have_close_codes(pool, tmp_path):
  limits = Limits(message_bytes=4096, messages=20.0, sessions_per_client=1)
  with served.serving(tmp_path, made_pool=pool, limits=limits) as server:
    async with aiohttp.ClientSession() as http:
      async with served.client(server, http=http) as client:
        with pytest.raises(aiohttp.WSServerHandshakeError) as error:
          await http.ws_connect(server.socket)
        assert error.value.status == 429
        await client.send(type="x" * 5000)
        with pytest.raises(ConnectionError):
          await client.next("none")
        assert client.socket.close_code == 1009
      while server.house.talks:
        await asyncio.sleep(0.05)
      await asyncio.sleep(0.2)
      async with served.client(server, http=http) as client:
        with pytest.raises(ConnectionError):
          for _ in range(200):
            await client.send(type="response.create")
          await client.next("none")
        assert client.socket.close_code == 1008


@pytest.mark.slow
@served.run
async def test_a_client_that_never_reads_is_dropped(pool, tmp_path):
  """Its window of TCP is small, and nobody reads it."""
  limits = Limits(unsent=5)
  with served.serving(tmp_path, made_pool=pool, limits=limits) as server:
    async with served.client(server) as other:
      await _silence(other, windows=1)
      deaf = await _deaf(server)
      while len(server.house.talks) < 2:  # its session begins behind the 101
        await asyncio.sleep(0.05)
      # Its replies are more than sockets hold.
      item = {"type": "message", "role": "user", "content": []}
      part = {"type": "input_text", "text": " " * 3900}
      message = {
        "type": "conversation.item.create",
        "item": item | {"content": [part] * 60},
      }
      end = asyncio.get_running_loop().time() + 90
      while len(server.house.talks) == 2:
        assert asyncio.get_running_loop().time() < end
        try:
          deaf.write(_frame(json.dumps(message)))
          await asyncio.wait_for(deaf.drain(), 0.05)
        except (TimeoutError, ConnectionError):
          pass
        await asyncio.sleep(0.05)
      deaf.close()
      ticks = await other.windows(8)
      assert [tick["window"] for tick in ticks] == list(range(1, 9))


async def _deaf(server):
  """The writing end of a socket that was opened and is not read."""
  port = int(server.url.rsplit(":", 1)[1])
  small = socket.socket()
  small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
  small.connect(("127.0.0.1", port))
  reader, writer = await asyncio.open_connection(sock=small, limit=1024)
  writer.write(
    b"GET /v1/realtime HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
  )
  head = await reader.readuntil(b"\r\n\r\n")
  assert b" 101 " in head or b" 503 " in head  # those before may still be in
  writer.transport.pause_reading()
  return writer


def _frame(text):
  """A masked text frame; the mask is zero."""
  data = text.encode()
  return b"\x81\xff" + len(data).to_bytes(8, "big") + bytes(4) + data


@served.run
async def test_garbage_on_the_socket_disturbs_nobody(server):
  port = int(server.url.rsplit(":", 1)[1])
  random = np.random.default_rng(0)
  async with served.client(server) as client:
    await _silence(client, windows=1)
    for k in range(20):
      reader, writer = await asyncio.open_connection("127.0.0.1", port)
      if k % 2:
        writer.close()
        writer = await _deaf(server)
      writer.write(random.bytes(int(random.integers(1, 3000))))
      await asyncio.sleep(0.02)
      writer.close()
    assert len(await client.windows(3)) == 3


@served.run
async def test_a_connection_that_asks_for_nothing_is_closed(pool, tmp_path):
  with served.serving(tmp_path, made_pool=pool, idle_seconds=1.0) as server:
    port = int(server.url.rsplit(":", 1)[1])
    for start in (b"", b"GET / HTTP/1.1\r\nHost:"):
      reader, writer = await asyncio.open_connection("127.0.0.1", port)
      writer.write(start)
      assert not (await asyncio.wait_for(reader.read(), 30)).startswith(
        b"HTTP/1.1 200"
      )
      writer.close()


@served.run
async def test_figures_are_there(server):
  async with served.client(server) as client:
    await _silence(client, windows=5)
    await client.send(
      type="tml.playback", item_id="i", played_ms=1, buffer_ms=40, jitter_ms=3
    )
    await client.windows(2)
    async with aiohttp.ClientSession() as http:
      async with http.get(f"{server.url}/metrics") as answer:
        text = await answer.text()
  values = dict(re.findall(r"^(\w+)(?:\{.*?\})? ([\d.e+-]+)$", text, re.M))
  assert float(values["tml_windows_total"]) >= 5
  assert float(values["tml_tick_seconds_count"]) >= 5
  assert float(values["tml_sessions"]) == 1
  assert float(values["tml_client_jitter_seconds_count"]) == 1


def test_the_log_is_json(capsys):
  operations.log("connected", session="s", resumed=False)
  line = json.loads(capsys.readouterr().out)
  assert (line["event"], line["session"]) == ("connected", "s")


@served.run
async def test_a_page_at_the_limit_may_be_loaded_again(pool, tmp_path):
  """Its token goes as a subprotocol, which no log of addresses has."""
  limits = Limits(sessions_per_client=1)
  with served.serving(tmp_path, made_pool=pool, limits=limits) as server:
    async with served.client(server) as first:
      await _silence(first, windows=1)
      token = first.events[1]["resume_token"]
      async with served.client(
        server, protocols=("realtime", f"tml-resume.{token}")
      ) as again:
        assert again.socket.protocol == "realtime"
        assert again.events[1]["resumed"]
        assert len(server.house.talks) == 1
