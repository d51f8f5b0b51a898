"""Tools that somebody at the other end of a socket runs.

For: declarations as JSON schema, and their calls in our grammar: `NAME
ARGUMENTS` as the model writes it becomes a JSON object, and a line that shows
the model how to write it is made of the schema. Not for: the protocol they
come in (`live.server.events`). Start at `Declared`.

A model that writes a JSON object is taken at its word. Else ARGUMENTS are
words, in the order of the schema's required properties and then the others;
`name=value` puts a word where it belongs, quotes hold words together, and the
last text that is required takes the rest.
"""

import asyncio
import concurrent.futures
import dataclasses
import json
import math
import re
import shlex
from collections.abc import AsyncIterator
from typing import Any

from tml_jax.streams import calls as calls_lib
from tml_jax.tools.background import Call

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_PROPERTY = re.compile(r"[\w.-]{1,64}")


@dataclasses.dataclass(frozen=True)
class Declared:
  """A function of a client.

  Attributes:
    name: that calls begin with.
    description: for people, and for the model if it is told.
    parameters: JSON schema of an object, as it was given.
    kinds: JSON type of each property, required ones first.
    required: how many of them are.
  """

  name: str
  description: str
  parameters: dict[str, Any]
  kinds: tuple[tuple[str, str], ...]
  required: int

  @property
  def usage(self) -> str:
    """One line: how a call is written, and what it is for."""
    words = [
      f"{name.upper()}" if i < self.required else f"[{name}={kind}]"
      for i, (name, kind) in enumerate(self.kinds)
    ]
    line = " ".join([self.name, *words])
    return f"{line}: {self.description}" if self.description else line

  def to_json(self) -> dict[str, Any]:
    """As the client declared it."""
    return {
      "type": "function",
      "name": self.name,
      "description": self.description,
      "parameters": self.parameters,
    }

  def arguments(self, text: str) -> dict[str, Any]:
    """The JSON object that a call's text means; nothing is refused.

    A value that is not of its property's type stays text: whoever runs the
    tool knows what to say of it.
    """
    if text.startswith("{"):
      try:
        found = _json(text)
      except (ValueError, RecursionError):
        found = None
      if isinstance(found, dict):
        return found
    kinds = dict(self.kinds)
    if len(kinds) == 1:
      ((name, kind),) = kinds.items()
      value = text.removeprefix(f"{name}=")
      return {name: _value(value, kind)} if text else {}
    result: dict[str, Any] = {}
    free = []
    for word in _words(text):
      name, is_named, value = word.partition("=")
      if is_named and name in kinds and name not in result:
        result[name] = _value(value, kinds[name])
      else:
        free.append(word)
    missing = [name for name, _ in self.kinds if name not in result]
    needed = sum(name not in result for name, _ in self.kinds[: self.required])
    for i, name in enumerate(missing):
      takes_rest = i + 1 == len(missing) or (
        i + 1 == needed and kinds[name] == "string"
      )
      words, free = (free, []) if takes_rest else (free[:1], free[1:])
      if words:
        result[name] = _value(" ".join(words), kinds[name])
    return result

  def call_text(self, arguments: dict[str, Any]) -> str:
    """The text of a call with these arguments; `arguments` reads it."""
    text = json.dumps(arguments, ensure_ascii=False) if arguments else ""
    return calls_lib.call_text(calls_lib.Request(self.name, text))


def declared(
  *, name: str, description: str, parameters: dict[str, Any]
) -> Declared:
  """A function as a client declares it.

  Raises:
    ValueError: a name that no call can begin with, or no schema of an object.
  """
  if not _NAME.fullmatch(name) or name == calls_lib.CANCEL:
    raise ValueError(
      f"a tool's name is letters, digits, _ . - and not cancel: {name!r:.80}"
    )
  properties = parameters.get("properties", {})
  required = parameters.get("required", [])
  if parameters.get("type", "object") != "object":
    raise ValueError(f"{name}: parameters are of type object")
  if not isinstance(properties, dict) or not isinstance(required, list):
    raise ValueError(f"{name}: properties is an object, required is a list")
  for each in properties:
    if not _PROPERTY.fullmatch(each):
      raise ValueError(f"{name}: {each!r:.80} is no name of a property")
  first = [
    each for each in dict.fromkeys(map(str, required)) if each in properties
  ]
  order = [*first, *(each for each in properties if each not in first)]
  return Declared(
    name=name,
    description=" ".join(description.split()),
    parameters=parameters,
    kinds=tuple((each, _kind(properties[each])) for each in order),
    required=len(first),
  )


def _kind(schema: Any) -> str:
  """The JSON type of a property; of several the first that is not null."""
  kind = schema.get("type") if isinstance(schema, dict) else None
  if isinstance(kind, list):
    kind = next((each for each in kind if each != "null"), None)
  return kind if isinstance(kind, str) else "string"


def _json(text: str) -> Any:
  """The value of a JSON text that any client can read.

  Raises:
    ValueError: no JSON; NaN and what is infinite are none.
    RecursionError: too deep.
  """
  return json.loads(text, parse_constant=_finite, parse_float=_finite)


def _finite(text: str) -> float:
  number = float(text)
  if not math.isfinite(number):
    raise ValueError(f"{text} is no JSON")
  return number


def _words(text: str) -> list[str]:
  """Words of a call, quoted ones together."""
  try:
    return shlex.split(text)
  except ValueError:  # a quotation that does not end
    return text.split()


def _value(text: str, kind: str) -> Any:
  """A word as a JSON type; as it is where it is none of that."""
  if kind == "string":
    return text
  try:
    found = _json(text.lower() if kind == "boolean" else text)
  except (ValueError, RecursionError):
    return text
  types: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
  }
  fits = isinstance(found, types.get(kind, (object,)))
  if isinstance(found, bool) and kind != "boolean":
    fits = False
  return found if fits else text


class ClientTool:
  """One call of a client's function, as a tool: waits for what it returns.

  Whoever makes it tells the client of the call.

  Attributes:
    timeout: seconds after which the call is given up.
  """

  def __init__(self, *, timeout: float):
    self.timeout = timeout
    self._answer: concurrent.futures.Future[str] = concurrent.futures.Future()

  def answer(self, text: str) -> bool:
    """Takes what came back, from any thread; False where it is too late."""
    if self._answer.done():
      return False
    try:
      self._answer.set_result(text)
    except concurrent.futures.InvalidStateError:
      return False
    return True

  async def run(self, call: Call) -> AsyncIterator[str]:
    text = await asyncio.wrap_future(self._answer)
    yield text
