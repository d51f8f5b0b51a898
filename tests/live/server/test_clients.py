"""Clients that nobody here wrote: the official SDK, and a benchmark's adapter.

The second follows what tau2-bench's adapter sends and waits for, in the form
before general availability; its code is not here.
"""

import asyncio
import base64
import dataclasses
import json
import threading

import aiohttp
import numpy as np
import openai
import pytest

from tests.helpers import served
from tml_jax.live.server import formats
from tml_jax.streams.frame import Burst, Control

_TOOL = {
  "type": "function",
  "name": "get_order",
  "description": "Finds an order.",
  "parameters": {
    "type": "object",
    "properties": {
      "order_id": {"type": "string"},
      "with_items": {"type": "boolean"},
    },
    "required": ["order_id"],
  },
}


class _Calling:
  """A pool whose model writes a call when told to; all else is real."""

  def __init__(self, pool, text):
    self._pool, self._text = pool, text
    self._due = threading.Event()

  def __getattr__(self, name):
    return getattr(self._pool, name)

  def call(self):
    """In the next window: a client tells its tools first."""
    self._due.set()

  def tick(self, inputs, **more):
    ticked = self._pool.tick(inputs, **more)
    tokens = tuple(served.TOKENIZER.encode(self._text))
    for session, frame in ticked.frames.items():
      bursts = ()
      if self._due.is_set():
        self._due.clear()
        bursts = (Burst(Control.CALL, tokens, True),)
      ticked.frames[session] = dataclasses.replace(frame, text_out=bursts)
    return ticked


@served.run
async def test_the_official_client(pool, tmp_path):
  calling = _Calling(pool, "get_order W123 with_items=true")
  with served.serving(tmp_path, made_pool=calling) as server:
    client = openai.AsyncOpenAI(
      api_key="anything",
      base_url=f"{server.url}/v1",
      websocket_base_url=f"{server.url.replace('http', 'ws')}/v1",
    )
    async with client.realtime.connect(model="small") as connection:
      await connection.session.update(
        session={
          "type": "realtime",
          "audio": {
            "input": {"format": {"type": "audio/pcm", "rate": 24_000}},
            "output": {"format": {"type": "audio/pcm", "rate": 24_000}},
          },
          "tools": [_TOOL],
        }
      )

      async def speak():
        for k in range(200):
          data = served.noise(k, seconds=0.1).astype("<i2").tobytes()
          await connection.input_audio_buffer.append(
            audio=base64.b64encode(data).decode()
          )
          await asyncio.sleep(0.1)

      speaking = asyncio.ensure_future(speak())
      found, call, result = [], None, None
      async with asyncio.timeout(60):
        async for event in connection:
          found.append(event)
          if event.type == "session.updated":
            calling.call()
          if event.type == "response.function_call_arguments.done":
            call = event
            await connection.conversation.item.create(
              item={
                "type": "function_call_output",
                "call_id": event.call_id,
                "output": "<|end|> shipped",
              }
            )
            await connection.response.create()
          if event.type == "tml.result":
            result = event
          kinds = {each.type for each in found}
          if result and "response.output_audio.delta" in kinds:
            break
      speaking.cancel()
    assert [event.type for event in found[:1]] == ["session.created"]
    assert found[0].session.audio.input.format.rate == 24_000
    assert (call.name, json.loads(call.arguments)) == (
      "get_order",
      {"order_id": "W123", "with_items": True},
    )
    # The result is text to the letter; the model reads no control token.
    assert result.output == "<|end|> shipped"
    assert not [event for event in found if event.type == "error"]
    delta = next(e for e in found if e.type == "response.output_audio.delta")
    assert len(base64.b64decode(delta.delta)) % 2 == 0


@served.run
async def test_the_adapter_of_a_benchmark(pool, tmp_path):
  """Ticks of 200 ms of u-law each way, a tool, and what was not played."""
  calling = _Calling(pool, '{"order_id": "W9"}'.join(["get_order ", ""]))
  with served.serving(tmp_path, made_pool=calling) as server:
    async with aiohttp.ClientSession() as http:
      async with http.ws_connect(f"{server.socket}?model=any") as socket:

        async def event(kinds):
          while True:
            found = json.loads((await socket.receive(30)).data)
            if found["type"] in kinds:
              return found

        created = json.loads((await socket.receive(30)).data)
        assert created["type"] == "session.created"
        await socket.send_json(
          {
            "type": "session.update",
            "session": {
              "instructions": "You are an agent of a shop. " * 200,
              "modalities": ["text", "audio"],
              "tools": [_TOOL],
              "tool_choice": "auto",
              "turn_detection": {"type": "server_vad", "threshold": 0.5},
              "input_audio_format": "g711_ulaw",
              "output_audio_format": "g711_ulaw",
              "input_audio_transcription": {"model": "any"},
              "voice": "alloy",
            },
          }
        )
        updated = await event({"session.updated", "error"})
        assert updated["type"] == "session.updated"
        calling.call()
        assert updated["session"]["audio"]["input"]["format"] == {
          "type": "audio/pcmu"
        }
        # 27 characters, 200 times, and the tool: more than is kept at once.
        assert (await event({"error"}))["error"]["code"] == "instructions_cut"
        table = formats._INVERSES["audio/pcmu"]
        played, called, given, item = b"", None, False, ""
        for k in range(20):
          sound = served.noise(k, seconds=0.2, rate=8000).view(np.uint16)
          await socket.send_json(
            {
              "type": "input_audio_buffer.append",
              "audio": base64.b64encode(table[sound].tobytes()).decode(),
            }
          )
          while True:
            found = json.loads((await socket.receive(30)).data)
            if found["type"] == "response.output_audio.delta":
              played += base64.b64decode(found["delta"])
              item = found["item_id"]
            elif found["type"] == "response.function_call_arguments.done":
              called = found
              await socket.send_json(
                {
                  "type": "conversation.item.create",
                  "item": {
                    "type": "function_call_output",
                    "call_id": found["call_id"],
                    "output": "x" * 200_000,  # more than a model reads
                  },
                }
              )
              await socket.send_json({"type": "response.create"})
            elif found["type"] == "tml.result":
              given = True
            elif found["type"] == "tml.tick":
              break
        assert json.loads(called["arguments"]) == {"order_id": "W9"}
        assert given and len(played) > 1600
        await socket.send_json(
          {
            "type": "conversation.item.truncate",
            "item_id": item,
            "content_index": 0,
            "audio_end_ms": 120,
          }
        )
        truncated = await event({"conversation.item.truncated", "error"})
        assert truncated["item_id"] == item


@served.run
async def test_a_clients_tool_that_never_answers_fails(pool, tmp_path):
  calling = _Calling(pool, "get_order W1")
  with served.serving(tmp_path, made_pool=calling, patience=0.5) as server:
    async with served.client(server) as client:
      await client.send(type="session.update", session={"tools": [_TOOL]})
      await client.send(type="response.create")
      await client.next("session.updated")
      calling.call()
      call = await client.next("tml.call")
      assert call["where"] == "client"
      result = await client.next("tml.result")
      assert "timed out" in result["output"]
      await client.send(
        type="conversation.item.create",
        item={
          "type": "function_call_output",
          "call_id": call["call_id"],
          "output": "late",
        },
      )
      error = await client.next("error")
      assert error["error"]["code"] == "unknown_call"


@pytest.mark.parametrize("text", ["calculator 3+4", "nobody at all"])
def test_the_servers_tools(text, pool, tmp_path):
  from tml_jax import tools

  calculator = tools.TOOLS["calculator"]()

  async def go():
    calling = _Calling(pool, text)
    with served.serving(
      tmp_path, made_pool=calling, tools={"calculator": calculator}
    ) as server:
      async with served.client(server) as client:
        await client.send(type="response.create")
        calling.call()
        call = await client.next("tml.call")
        assert call["where"] == "server"
        result = await client.next("tml.result")
        assert result["call_id"] == call["call_id"]
        expected = "7" if "calc" in text else "there is no tool 'nobody'"
        assert expected in result["output"]
        kinds = {event["type"] for event in client.events}
        assert "response.function_call_arguments.done" not in kinds

  asyncio.run(asyncio.wait_for(go(), 120))
