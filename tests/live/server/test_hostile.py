"""Whatever a client sends, it is told, and who talks beside it goes on.

An hour of it: `pytest --hypothesis-profile=fuzz` with this file.
"""

import asyncio
import base64
import json
import logging

import aiohttp
import hypothesis
import pytest
from hypothesis import strategies as st

from tests.helpers import served
from tml_jax.live.server import events, operations

_NAMES = st.sampled_from(
  "session audio input output format rate tools item type role content text"
  " call_id image image_url muted paused allowed item_id audio_end_ms id name"
  " parameters properties instructions event_id sent played_ms".split()
)
_TYPES = st.sampled_from(
  "realtime message function_call_output function user input_text input_image"
  " audio/pcm audio/pcmu audio/pcma object string".split()
)
_LEAVES = (
  st.none()
  | st.booleans()
  | st.integers(-(2**70), 2**70)
  | st.floats(allow_nan=False)
  | st.text(max_size=30)
  | _TYPES
)
_JSON = st.recursive(
  _LEAVES,
  lambda inner: (
    st.lists(inner, max_size=3)
    | st.dictionaries(_NAMES | st.text(max_size=8), inner, max_size=4)
  ),
  max_leaves=10,
)


def _event(kind: str, rest) -> str:
  return json.dumps(rest | {"type": kind})


def _coded(kind: str, name: str, data: bytes) -> str:
  return json.dumps({"type": kind, name: base64.b64encode(data).decode()})


_TEXTS = st.one_of(
  st.builds(
    _event,
    st.sampled_from(sorted(events._READERS)),
    st.dictionaries(_NAMES, _JSON, max_size=5),
  ),
  st.builds(  # sound of any size, and bytes that are no image
    _coded,
    st.sampled_from(["input_audio_buffer.append", "tml.video.append"]),
    st.sampled_from(["audio", "image"]),
    st.binary(max_size=9000),
  ),
  st.text(max_size=80),
  st.sampled_from(["[" * 5000, '{"a":' * 3000, "1e999", "\x00", "\ud800"]),
)
_STEPS = st.lists(
  st.one_of(
    st.tuples(st.just("text"), _TEXTS),
    st.tuples(st.just("bytes"), st.binary(max_size=300)),
    st.tuples(st.just("raw"), st.binary(min_size=1, max_size=60)),
    st.tuples(st.just("wait"), st.just("")),
  ),
  max_size=8,
)


@pytest.fixture(name="server", scope="module")
def _server(pool, tmp_path_factory):
  limits = operations.Limits(sessions_per_client=4)
  with served.serving(
    tmp_path_factory.mktemp("rest"),
    made_pool=pool,
    limits=limits,
    rest_seconds=0.0,
  ) as made:
    yield made


async def _misbehave(served_, steps) -> int | None:
  """Plays the steps; the code that the server closed with, if it did."""
  async with aiohttp.ClientSession() as http:
    try:
      socket = await http.ws_connect(served_.socket, max_msg_size=0)
    except aiohttp.WSServerHandshakeError as error:
      assert error.status == 503  # the last one has not left yet
      return None
    for kind, what in steps:
      if socket.closed:
        break
      try:
        if kind == "text":
          await socket.send_str(what)
        elif kind == "bytes":
          await socket.send_bytes(what)
        elif kind == "raw":  # in the middle of the stream of frames
          socket._writer.transport.write(what)
        else:
          await asyncio.wait_for(socket.receive(), 0.3)
      except (ConnectionError, TimeoutError, UnicodeEncodeError):
        pass
    try:
      while not socket.closed:
        await asyncio.wait_for(socket.receive(), 0.05)
    except TimeoutError:
      pass
    code = socket.close_code
    await asyncio.wait_for(socket.close(), 20)
    return code


@hypothesis.settings(
  deadline=None,
  max_examples=max(20, hypothesis.settings.default.max_examples // 5),
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(steps=_STEPS)
def test_whatever_is_sent_the_neighbour_goes_on(server, caplog, steps):
  async def go():
    async with served.client(server) as neighbour:
      await neighbour.send(type="response.create")
      await neighbour.windows(1)
      code = await _misbehave(server, steps)
      await neighbour.windows(2)
      await neighbour.send(type="tml.close")
      windows = [
        each["window"]
        for each in neighbour.events
        if each["type"] == "tml.tick"
      ]
    assert windows == list(range(len(windows)))
    # 1011 is a fault of the server's own.
    assert code != 1011
    while server.house.talks:
      await asyncio.sleep(0.01)

  caplog.clear()
  with caplog.at_level(logging.ERROR):
    asyncio.run(asyncio.wait_for(go(), 60))
  assert not caplog.records
