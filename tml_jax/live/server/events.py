"""What clients send, as values: the JSON of the Realtime protocol, read.

For: `parse`, from the text of a frame to a `Command`. Not for: sockets
(`connection`) or what the server sends (`answers`). Start at `parse`. Pure:
whatever the text is, there comes a command or a `Refused`, and nothing else.

Names are those of the OpenAI Realtime API, general availability form; ours
begin with `tml.`. docs/serve.md has the table.
"""

import base64
import binascii
import dataclasses
import json
import re
from collections.abc import Callable
from typing import Any, TypeAlias

from tml_jax.live.server import formats
from tml_jax.live.server.formats import Format
from tml_jax.tools import client_tools
from tml_jax.tools.client_tools import Declared

MOST_CHARS = 4000  # of typed text: a window reads a few words
MOST_INSTRUCTIONS = 1 << 16  # of which the model is told what fits
MOST_RESULT = 1 << 18  # characters of a result that are looked at at all
_MOST_TOOLS, _MOST_TOOL = 64, 1 << 14  # of a session; bytes of one, as JSON
_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
_DATA_URL = re.compile(r"data:image/[a-z+]{1,16};base64,")


class Refused(Exception):
  """An event that changes nothing; the client is told why.

  Attributes:
    code: for programs.
    event_id: that the client gave it, or "".
  """

  def __init__(self, code: str, message: str, *, event_id: str = ""):
    super().__init__(message)
    self.code = code
    self.event_id = event_id


@dataclasses.dataclass(frozen=True)
class Update:
  """session.update. None leaves what was.

  Attributes:
    heard: format of the client's sound.
    played: format of the agent's.
    tools: that the client runs.
    instructions: typed to the model once.
  """

  heard: Format | None = None
  played: Format | None = None
  tools: tuple[Declared, ...] | None = None
  instructions: str | None = None


@dataclasses.dataclass(frozen=True)
class Sound:
  """input_audio_buffer.append, in the session's format."""

  data: bytes


@dataclasses.dataclass(frozen=True)
class Clear:
  """input_audio_buffer.clear: sound that was sent ahead is not heard."""


@dataclasses.dataclass(frozen=True)
class Commit:
  """input_audio_buffer.commit: nothing waits for turns."""


@dataclasses.dataclass(frozen=True)
class Message:
  """conversation.item.create of a user's message.

  Attributes:
    item_id: of the client, or "".
    texts: typed.
    images: coded pictures.
  """

  item_id: str
  texts: tuple[str, ...]
  images: tuple[bytes, ...]


@dataclasses.dataclass(frozen=True)
class Result:
  """conversation.item.create of what a client's tool returned."""

  item_id: str
  call_id: str
  text: str


@dataclasses.dataclass(frozen=True)
class Truncate:
  """conversation.item.truncate: what the loudspeaker did not play."""

  item_id: str
  content_index: int
  audio_end_ms: int


@dataclasses.dataclass(frozen=True)
class Begin:
  """response.create: the clock starts, if it has not."""


@dataclasses.dataclass(frozen=True)
class Cancel:
  """response.cancel: the model is quiet in the next window."""


@dataclasses.dataclass(frozen=True)
class Picture:
  """tml.video.append: one coded frame, now."""

  data: bytes


@dataclasses.dataclass(frozen=True)
class Mute:
  """tml.mute."""

  muted: bool


@dataclasses.dataclass(frozen=True)
class Pause:
  """tml.pause."""

  paused: bool


@dataclasses.dataclass(frozen=True)
class Record:
  """tml.record: what the person answered."""

  allowed: bool


@dataclasses.dataclass(frozen=True)
class Playback:
  """tml.playback: what the loudspeaker did."""

  played_ms: float
  buffer_ms: float
  jitter_ms: float


@dataclasses.dataclass(frozen=True)
class Ping:
  """tml.ping: answered at once; browsers cannot send WebSocket pings."""

  sent: float


@dataclasses.dataclass(frozen=True)
class Close:
  """tml.close: the session is over for good."""


Command: TypeAlias = (
  Update
  | Sound
  | Clear
  | Commit
  | Message
  | Result
  | Truncate
  | Begin
  | Cancel
  | Picture
  | Mute
  | Pause
  | Record
  | Playback
  | Ping
  | Close
)


@dataclasses.dataclass(frozen=True)
class Parsed:
  """An event of a client.

  Attributes:
    command: what it asks for.
    event_id: that the client gave it, or "".
  """

  command: Command
  event_id: str


def parse(text: str) -> Parsed:
  """The command in a text frame.

  Raises:
    Refused: anything else.
  """
  try:
    event = json.loads(text, parse_constant=_no_number)
  except (ValueError, RecursionError) as error:
    raise Refused("invalid_json", f"no JSON: {error!s:.120}") from error
  if not isinstance(event, dict):
    raise Refused("invalid_json", "an event is a JSON object with a type")
  given = event.get("event_id")
  event_id = given if isinstance(given, str) and _ID.fullmatch(given) else ""
  try:
    kind = _text(event, "type", most=64)
    read = _READERS.get(kind)
    if read is None:
      raise Refused("unknown_event", f"there is no event {kind!r:.80}")
    return Parsed(read(event), event_id)
  except Refused as error:
    error.event_id = event_id
    raise


def _no_number(name: str) -> float:
  raise ValueError(f"{name} is no JSON")


def _text(
  at: dict[str, Any], name: str, *, most: int, default: str | None = None
) -> str:
  """A text of at most so many characters that can be written."""
  value = at.get(name, default)
  if value is None and default is not None:
    value = default
  if not isinstance(value, str):
    raise Refused("invalid_value", f"{name} is {value!r:.40} and no text")
  if len(value) > most:
    raise Refused(
      "too_long", f"{name} has {len(value)} characters; at most {most}"
    )
  try:
    value.encode()
  except UnicodeEncodeError as error:  # half of a surrogate pair
    raise Refused("invalid_value", f"{name} is no Unicode") from error
  return value


def _identifier(at: dict[str, Any], name: str, *, default: str = "") -> str:
  value = _text(at, name, most=128, default=default)
  if value and not _ID.fullmatch(value):
    raise Refused(
      "invalid_value", f"{name} is {value!r:.40}: letters, digits, _ . : -"
    )
  return value


def _object(at: dict[str, Any], name: str) -> dict[str, Any]:
  value = at.get(name)
  if value is None:
    return {}
  if not isinstance(value, dict):
    raise Refused("invalid_value", f"{name} is {value!r:.40} and no object")
  return value


def _list(at: dict[str, Any], name: str) -> list[Any]:
  value = at.get(name)
  if not isinstance(value, list):
    raise Refused("invalid_value", f"{name} is {value!r:.40} and no list")
  return value


def _bool(at: dict[str, Any], name: str) -> bool:
  value = at.get(name)
  if not isinstance(value, bool):
    raise Refused("invalid_value", f"{name} is {value!r:.40}: true or false")
  return value


def _number(at: dict[str, Any], name: str) -> float:
  """From 0 to 30 years of milliseconds."""
  value = at.get(name, 0)
  is_one = isinstance(value, int | float) and not isinstance(value, bool)
  if not is_one or not 0 <= value <= 1e12:
    raise Refused("invalid_value", f"{name} is {value!r:.40}: 0 or more")
  return float(value)


def _bytes(text: str, *, name: str) -> bytes:
  try:
    return base64.b64decode(text, validate=True)
  except (binascii.Error, ValueError) as error:
    raise Refused("invalid_base64", f"{name}: {error}") from error


def _coded(at: dict[str, Any], name: str) -> bytes:
  """Base64 of any length: the size of messages is bounded before."""
  value = at.get(name)
  if not isinstance(value, str):
    raise Refused("invalid_value", f"{name} is {value!r:.40}: base64")
  return _bytes(value, name=name)


# How the form before general availability calls formats; clients still do.
_OLD_NAMES = {
  "pcm16": "audio/pcm",
  "g711_ulaw": "audio/pcmu",
  "g711_alaw": "audio/pcma",
}


def _format(session: dict[str, Any], side: str) -> Format | None:
  """The format of a side, in either form."""
  given = _object(_object(session, "audio"), side).get("format")
  if given is None:
    given = session.get(f"{side}_audio_format")
  if given is None:
    return None
  if isinstance(given, str):
    given = {"type": _OLD_NAMES.get(given, given)}
  if not isinstance(given, dict):
    raise Refused("invalid_value", f"format is {given!r:.40}")
  for form in formats.FORMATS:
    if form.name == given.get("type"):
      if given.get("rate", form.rate) == form.rate:
        return form
  known = ", ".join(f"{f.name} at {f.rate}" for f in formats.FORMATS)
  raise Refused("invalid_format", f"format is {given!r:.80}; there are {known}")


def _update(event: dict[str, Any]) -> Update:
  session = _object(event, "session")
  if session.get("type", "realtime") != "realtime":
    raise Refused("invalid_value", "session.type is realtime")
  tools = None
  if session.get("tools") is not None:
    given = _list(session, "tools")
    if len(given) > _MOST_TOOLS:
      raise Refused("too_long", f"{len(given)} tools; at most {_MOST_TOOLS}")
    tools = tuple(_tool(tool) for tool in given)
    names = [tool.name for tool in tools]
    if len({*names}) < len(names):
      raise Refused("invalid_tool", "two tools have one name")
  instructions = None
  if session.get("instructions") is not None:
    instructions = _text(session, "instructions", most=MOST_INSTRUCTIONS)
  return Update(
    heard=_format(session, "input"),
    played=_format(session, "output"),
    tools=tools,
    instructions=instructions,
  )


def _tool(given: Any) -> Declared:
  if not isinstance(given, dict) or given.get("type") != "function":
    raise Refused("invalid_tool", f"{given!r:.60} is no tool of type function")
  if len(json.dumps(given)) > _MOST_TOOL:
    raise Refused("too_long", f"a tool has over {_MOST_TOOL} bytes")
  try:
    return client_tools.declared(
      name=_text(given, "name", most=64),
      description=_text(given, "description", most=MOST_CHARS, default=""),
      parameters=_object(given, "parameters"),
    )
  except ValueError as error:
    raise Refused("invalid_tool", str(error)) from error


def _sound(event: dict[str, Any]) -> Sound:
  return Sound(_coded(event, "audio"))


def _item(event: dict[str, Any]) -> Message | Result:
  item = _object(event, "item")
  item_id = _identifier(item, "id")
  kind = item.get("type")
  if kind == "function_call_output":
    text = item.get("output")
    if not isinstance(text, str):
      raise Refused("invalid_value", f"output is {text!r:.40} and no text")
    # What is cut off is more than a session reads.
    text = text[:MOST_RESULT].encode(errors="replace").decode()
    return Result(item_id, _identifier(item, "call_id", default=""), text)
  if kind != "message":
    raise Refused(
      "invalid_value",
      f"item.type is {kind!r:.40}; there are message, function_call_output",
    )
  if item.get("role") != "user":
    raise Refused(
      "invalid_value", f"role is {item.get('role')!r:.40}; users only can type"
    )
  texts, images = [], []
  for part in _list(item, "content"):
    if not isinstance(part, dict):
      raise Refused("invalid_value", f"content has {part!r:.40}")
    if part.get("type") == "input_text":
      texts.append(_text(part, "text", most=MOST_CHARS))
    elif part.get("type") == "input_image":
      images.append(_image(part.get("image_url")))
    else:
      raise Refused(
        "invalid_value",
        f"content of type {part.get('type')!r:.40}; there are input_text and"
        " input_image: sound goes into input_audio_buffer.append",
      )
  return Message(item_id, tuple(texts), tuple(images))


def _image(url: Any) -> bytes:
  if not isinstance(url, str):
    raise Refused("invalid_value", f"image_url is {url!r:.40} and no text")
  found = _DATA_URL.match(url)
  if found is None:
    raise Refused(
      "invalid_image",
      f"image_url is {url[:40]!r}: give data:image/jpeg;base64,... as nothing"
      " is fetched",
    )
  return _bytes(url[found.end() :], name="image_url")


def _truncate(event: dict[str, Any]) -> Truncate:
  return Truncate(
    item_id=_identifier(event, "item_id"),
    content_index=int(_number(event, "content_index")),
    audio_end_ms=int(_number(event, "audio_end_ms")),
  )


def _playback(event: dict[str, Any]) -> Playback:
  return Playback(
    played_ms=_number(event, "played_ms"),
    buffer_ms=_number(event, "buffer_ms"),
    jitter_ms=_number(event, "jitter_ms"),
  )


_READERS: dict[str, Callable[[dict[str, Any]], Command]] = {
  "session.update": _update,
  "input_audio_buffer.append": _sound,
  "input_audio_buffer.clear": lambda event: Clear(),
  "input_audio_buffer.commit": lambda event: Commit(),
  "conversation.item.create": _item,
  "conversation.item.truncate": _truncate,
  "response.create": lambda event: Begin(),
  "response.cancel": lambda event: Cancel(),
  "tml.video.append": lambda event: Picture(_coded(event, "image")),
  "tml.mute": lambda event: Mute(_bool(event, "muted")),
  "tml.pause": lambda event: Pause(_bool(event, "paused")),
  "tml.record": lambda event: Record(_bool(event, "allowed")),
  "tml.playback": _playback,
  "tml.ping": lambda event: Ping(sent=_number(event, "sent")),
  "tml.close": lambda event: Close(),
}
