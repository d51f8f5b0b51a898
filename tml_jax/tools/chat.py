"""A background model behind any OpenAI-compatible chat endpoint.

For: `<call> chat why is the sky blue`, answered by a larger model that reads
the whole conversation and streams its answer back. Not for: hosting a model.
Start reading at `Chat.run`; the wire is one POST to URL/chat/completions with
`stream`, read as server-sent events. HTTP/1.1 is spoken here in a few lines on
asyncio's streams, because a call must end at once when it is cancelled, and
the standard library's client can only block.
"""

import asyncio
import json
import os
import ssl
import urllib.parse
from collections.abc import AsyncIterator
from typing import Any

from absl import flags

from tml_jax import errors, tools
from tml_jax.tools.background import Call, Failure

NAME = "chat"
SYSTEM = (
  "You are the background model of a spoken conversation. You are given the"
  " conversation so far, with times in seconds, and a request of the agent,"
  " who goes on talking while you work and will tell the user what you find."
  " Answer the request alone, in a few short sentences of plain text."
)
_LINE_BYTES = 1 << 20
_ERROR_BYTES = 4096
_URL = flags.DEFINE_string(
  "chat_url", "", "For the tool chat: base of an OpenAI-compatible API."
)
_MODEL = flags.DEFINE_string("chat_model", "", "The model's name there.")
_KEY_ENV = flags.DEFINE_string(
  "chat_key_env", "", "Environment variable with the key for --chat_url."
)


class Chat:
  """A tool."""

  def __init__(self, url: str, *, model: str, key: str, timeout: float = 60.0):
    """Checks the address; nothing is sent.

    Args:
      url: the API's base, for instance http://localhost:8000/v1.
      model: its name there.
      key: sent as bearer token; "" sends none.
      timeout: seconds for the whole answer.

    Raises:
      errors.UserError: not an address of http or https.
    """
    try:
      parts = urllib.parse.urlsplit(url)
      port = parts.port
    except ValueError:
      parts, port = urllib.parse.urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
      raise errors.UserError(
        f"--chat_url={url}: write the base of the API, for instance"
        " http://localhost:8000/v1"
      )
    if not url.isascii() or any(c.isspace() for c in url + key):
      raise errors.UserError(
        f"--chat_url={url}: an address and its key have no spaces"
      )
    self.timeout = timeout
    self._host = parts.hostname
    self._secure = parts.scheme == "https"
    self._port = port or (443 if self._secure else 80)
    self._netloc = parts.netloc.rpartition("@")[2]
    self._path = parts.path.rstrip("/") + "/chat/completions"
    self._model = model
    self._key = key

  async def run(self, call: Call) -> AsyncIterator[str]:
    try:
      reader, writer = await asyncio.open_connection(
        self._host,
        self._port,
        ssl=ssl.create_default_context() if self._secure else None,
        limit=_LINE_BYTES,
      )
    except OSError as error:
      raise Failure(f"no connection to {self._netloc}: {error}") from error
    try:
      writer.write(self._request(call))
      await writer.drain()
      response = await _Response.read(reader)
      if response.status != 200:
        body = await response.start_of_body(_ERROR_BYTES)
        raise Failure(f"{self._netloc} answers {response.status}: {body[:120]}")
      async for text in _answer(response):
        yield text
    except (
      OSError,
      asyncio.IncompleteReadError,
      asyncio.LimitOverrunError,
      ValueError,
    ) as error:
      raise Failure(f"the answer of {self._netloc} broke off") from error
    finally:
      writer.close()

  def _request(self, call: Call) -> bytes:
    """The whole HTTP request."""
    body = json.dumps(
      {"model": self._model, "stream": True, "messages": messages(call)}
    ).encode()
    lines = [
      f"POST {self._path} HTTP/1.1",
      f"Host: {self._netloc}",
      "Content-Type: application/json",
      "Accept: text/event-stream",
      f"Content-Length: {len(body)}",
      "Connection: close",
    ]
    if self._key:
      lines.append(f"Authorization: Bearer {self._key}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


@tools.register(NAME)
def open_chat() -> Chat:
  """The tool with its flags.

  Raises:
    errors.UserError: they do not say which model, or no key is there.
  """
  if not (_URL.value and _MODEL.value):
    raise errors.UserError("--tools=chat needs --chat_url and --chat_model")
  variable = _KEY_ENV.value
  if variable and not os.environ.get(variable):
    raise errors.UserError(f"--chat_key_env={variable}: the variable is empty")
  key = os.environ[variable] if variable else ""
  return Chat(_URL.value, model=_MODEL.value, key=key)


def messages(call: Call) -> list[dict[str, str]]:
  """What the background model is given: the conversation and the request."""
  lines = [
    f"[{line.start:.1f}-{line.end:.1f}] {line.who}: {line.text}"
    for line in call.conversation
  ]
  state = [json.dumps(other) for other in call.others]
  asked = call.arguments if call.name == NAME else call.text
  parts = ["The conversation so far:", *(lines or ["(nothing yet)"])]
  if state:
    parts += ["", "Earlier calls:", *state]
  parts += ["", f"The request, at {call.time:.1f} s:", asked]
  return [
    {"role": "system", "content": SYSTEM},
    {"role": "user", "content": "\n".join(parts)},
  ]


async def _answer(response: "_Response") -> AsyncIterator[str]:
  """Texts of a stream of events, or of one JSON object."""
  if "json" in response.headers.get("content-type", ""):
    body = b"".join([part async for part in response.body()])
    yield _content(json.loads(body), part="message")
    return
  async for line in _lines(response.body()):
    if not line.startswith(b"data:"):
      continue  # comments, event names and the empty line behind each
    data = line.removeprefix(b"data:").strip()
    if data == b"[DONE]":
      return
    event = json.loads(data)
    yield _content(event, part="delta")
  raise ValueError("no [DONE]")


def _content(event: Any, *, part: str) -> str:
  """The text in an answer or in an event of it; "" where it has none.

  Raises:
    ValueError: it is none.
  """
  try:
    if "error" in event:
      raise Failure(str(event["error"])[:120])
    texts = [(c.get(part) or {}).get("content") for c in event["choices"][:1]]
    return "".join(text for text in texts if text)
  except (AttributeError, KeyError, TypeError) as error:
    raise ValueError(f"no answer: {event!r:.100}") from error


async def _lines(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
  """Lines of a body, without their ends."""
  rest = b""
  async for part in parts:
    *lines, rest = (rest + part).split(b"\n")
    if len(rest) > _LINE_BYTES:
      raise ValueError(f"a line of more than {_LINE_BYTES} bytes")
    for line in lines:
      yield line.rstrip(b"\r")
  if rest:
    yield rest


class _Response:
  """Status, headers and body of HTTP/1.1 (RFC 9112)."""

  def __init__(
    self, reader: asyncio.StreamReader, status: int, headers: dict[str, str]
  ):
    self._reader = reader
    self.status = status
    self.headers = headers

  @classmethod
  async def read(cls, reader: asyncio.StreamReader) -> "_Response":
    while True:
      start = (await reader.readuntil(b"\n")).split(None, 2)
      if len(start) < 2 or not start[0].startswith(b"HTTP/1."):
        raise ValueError(f"not HTTP: {start!r:.100}")
      headers = {}
      while line := (await reader.readuntil(b"\n")).strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip().lower()
      status = int(start[1])
      if status >= 200:  # others go before the real one
        return cls(reader, status, headers)

  async def body(self) -> AsyncIterator[bytes]:
    """The body in parts, as they come."""
    if "chunked" in self.headers.get("transfer-encoding", ""):
      while True:
        line = await self._reader.readuntil(b"\n")
        size = int(line.split(b";")[0], 16)
        if not size:
          return
        left = size
        while left:
          part = await self._reader.read(min(left, _LINE_BYTES))
          if not part:
            raise asyncio.IncompleteReadError(b"", left)
          left -= len(part)
          yield part
        await self._reader.readuntil(b"\n")
    left = int(self.headers.get("content-length", 1 << 62))
    while left:
      part = await self._reader.read(min(left, _LINE_BYTES))
      if not part:
        if "content-length" in self.headers:
          raise asyncio.IncompleteReadError(b"", left)
        return
      left -= len(part)
      yield part

  async def start_of_body(self, count: int) -> str:
    """At most `count` bytes of it, on one line."""
    text = b""
    async for part in self.body():
      text += part
      if len(text) >= count:
        break
    return " ".join(text[:count].decode(errors="replace").split())
