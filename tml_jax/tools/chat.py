"""A background model behind any OpenAI-compatible chat endpoint.

For: `<call> chat why is the sky blue`, answered by a larger model that reads
the whole conversation and streams its answer back. Not for: hosting a model.
Start reading at `Chat.run`; the wire is one POST to URL/chat/completions with
`stream`, read as server-sent events.

The server is not trusted: lines, headers and the whole answer are bounded, no
redirect is followed, and the key is taken out of whatever it says, because
that is kept in files and read by models.
"""

import asyncio
import contextlib
import json
import os
import socket
import urllib.parse
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from absl import flags

from tml_jax import errors, tools
from tml_jax.logs import transcript
from tml_jax.tools.background import Call, Failure

NAME = "chat"
SYSTEM = (
  "You are the background model of a spoken conversation. You are given the"
  " conversation so far, with times in seconds, and a request of the agent,"
  " who goes on talking while you work and will tell the user what you find."
  " Answer the request alone, in a few short sentences of plain text."
)
_LINE_BYTES = 1 << 18  # of an event
_ANSWER_BYTES = 1 << 22  # of all events, with what is no text
_ERROR_BYTES = 4096
_REASON_CHARS = 160
_BUFFER_BYTES = 1 << 16
_SOCKET_BYTES = 1 << 14
_CONNECT_SECONDS = 10.0
REDACTED = "[key]"
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
      errors.UserError: not an address of http or https, or one with more than
        a path; a key that cannot be sent.
    """
    try:
      parts = urllib.parse.urlsplit(url)
      _ = parts.port  # raises where it is none
    except ValueError:
      parts = urllib.parse.urlsplit("")
    place = parts.netloc.rpartition("@")[2]
    if parts.scheme not in ("http", "https") or not parts.hostname:
      raise errors.UserError(
        f"--chat_url={url.rpartition('@')[2]}: write the base of the API, for"
        " instance http://localhost:8000/v1"
      )
    if parts.username or parts.password or parts.query or parts.fragment:
      # Flags are written into files: nothing of it may be repeated here.
      raise errors.UserError(
        f"--chat_url=...{place}...: an address has no user, ? or # in it; the"
        " key goes into the variable that --chat_key_env names"
      )
    if not _is_word(url) or not _is_word(key):
      raise errors.UserError(
        f"--chat_url={url!r}: an address and its key have no spaces, and of"
        " letters those of ASCII"
      )
    self.timeout = timeout
    self._place = place
    self._url = url.rstrip("/") + "/chat/completions"
    self._model = model
    self._key = key

  async def run(self, call: Call) -> AsyncIterator[str]:
    secret = _Secret(self._key)
    try:
      async with contextlib.aclosing(self._answer(call)) as texts:
        async for text in texts:
          yield secret.take_out(text)
      yield secret.rest()
    except Failure as failure:
      secret = _Secret(self._key)
      reason = secret.take_out(f"{failure}") + secret.rest()
      raise Failure(reason[:_REASON_CHARS]) from None

  async def _answer(self, call: Call) -> AsyncIterator[str]:
    """What the server says, as it comes.

    Raises:
      Failure: it cannot be reached, refuses, or answers with nonsense.
    """
    headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
    if self._key:
      headers["Authorization"] = f"Bearer {self._key}"
    body = {"model": self._model, "stream": True, "messages": messages(call)}
    is_reached = False
    try:
      async with (
        _session(self.timeout) as session,
        session.post(
          self._url, json=body, headers=headers, allow_redirects=False
        ) as response,
      ):
        is_reached = True
        if response.status != 200:
          said = await _start_of_body(response)
          raise Failure(f"{self._place} answers {response.status}: {said}")
        if response.headers.get("Content-Encoding", "identity") != "identity":
          raise ValueError("a compressed answer")  # that may unpack to anything
        async for text in _texts(response):
          yield text
    except aiohttp.ClientConnectorError as error:
      raise Failure(f"no connection to {self._place}: {error}") from error
    except TimeoutError as error:
      if is_reached:
        raise Failure(f"{self._place} answers too slowly") from error
      raise Failure(f"no connection to {self._place} in time") from error
    except (aiohttp.ClientError, OSError, ValueError, RecursionError) as error:
      raise Failure(f"the answer of {self._place} broke off") from error


def _is_word(text: str) -> bool:
  """Whether `text` has neither spaces nor what HTTP cannot send."""
  return text.isascii() and text.isprintable() and " " not in text


def _session(timeout: float) -> aiohttp.ClientSession:
  """A client for one request. aiohttp bounds what it takes of headers."""
  return aiohttp.ClientSession(
    # A call ends by its own clock before this one does.
    timeout=aiohttp.ClientTimeout(
      total=2 * timeout, sock_connect=_CONNECT_SECONDS
    ),
    connector=aiohttp.TCPConnector(socket_factory=_socket),
    cookie_jar=aiohttp.DummyCookieJar(),
    auto_decompress=False,
    read_bufsize=_BUFFER_BYTES,
  )


def _socket(address: tuple[Any, ...]) -> socket.socket:
  """One that hands over little at a time.

  aiohttp parses all that has come before anybody else has the loop: half a
  second for the 256 KiB that asyncio reads, if they are thousands of answers.
  """
  family, kind, protocol, *_ = address
  made = socket.socket(family, kind, protocol)
  made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BYTES)
  return made


class _Secret:
  """Takes a secret out of a text that comes in parts."""

  def __init__(self, secret: str):
    self._secret = secret
    self._held = ""  # the end of the text so far, which may begin the secret

  def take_out(self, text: str) -> str:
    """All of the text so far that is certain and was not given out."""
    if not self._secret:
      return text
    text = (self._held + text).replace(self._secret, REDACTED)
    longest = min(len(text), len(self._secret) - 1)
    held = next(
      (n for n in range(longest, 0, -1) if self._secret.startswith(text[-n:])),
      0,
    )
    self._held = text[len(text) - held :]
    return text[: len(text) - held]

  def rest(self) -> str:
    """What was held back. Most of a secret counts as the whole."""
    held, self._held = self._held, ""
    return REDACTED if 2 * len(held) > len(self._secret) else held


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
  parts += [
    "",
    f"The request, at {call.time:.1f} s:",
    transcript.printable(asked),
  ]
  return [
    {"role": "system", "content": SYSTEM},
    {"role": "user", "content": "\n".join(parts)},
  ]


async def _texts(response: aiohttp.ClientResponse) -> AsyncIterator[str]:
  """Texts of a stream of events, or of one JSON object."""
  if "json" in response.headers.get("Content-Type", ""):
    body = b"".join([part async for part in _body(response)])
    yield _content(json.loads(body), part="message")
    return
  async for line in _lines(_body(response)):
    if not line.startswith(b"data:"):
      continue  # comments, event names and the empty line behind each
    data = line.removeprefix(b"data:").strip()
    if data == b"[DONE]":
      return
    event = json.loads(data)
    yield _content(event, part="delta")
  raise ValueError("no [DONE]")


async def _body(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
  """The body in parts, as they come; other calls run between them.

  Raises:
    ValueError: it is longer than any answer.
  """
  left = _ANSWER_BYTES
  async for part in response.content.iter_any():
    left -= len(part)
    if left < 0:
      raise ValueError(f"more than {_ANSWER_BYTES} bytes")
    yield part
    await asyncio.sleep(0)


async def _start_of_body(response: aiohttp.ClientResponse) -> str:
  """The first of it, on one line."""
  found = b""
  async for part in _body(response):
    found += part[:_ERROR_BYTES]
    if len(found) >= _ERROR_BYTES:
      break
  return " ".join(found[:_ERROR_BYTES].decode(errors="replace").split())


def _content(event: Any, *, part: str) -> str:
  """The text in an answer or in an event of it; "" where it has none.

  Raises:
    ValueError: it is none.
  """
  try:
    if "error" in event:
      raise Failure(str(event["error"]))
    texts = [(c.get(part) or {}).get("content") for c in event["choices"][:1]]
    return "".join(text for text in texts if text)
  except (AttributeError, KeyError, TypeError) as error:
    raise ValueError(f"no answer: {event!r:.100}") from error


async def _lines(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
  """Lines of a body, without their ends.

  Raises:
    ValueError: one is too long.
  """
  rest = bytearray()
  async for part in parts:
    first, *more = part.split(b"\n")
    rest += first
    for line in more:
      yield bytes(rest).rstrip(b"\r")
      rest[:] = line
    if len(rest) > _LINE_BYTES:
      raise ValueError(f"a line of more than {_LINE_BYTES} bytes")
  if rest:
    yield bytes(rest)
