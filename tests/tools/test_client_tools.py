"""A client's functions in the grammar of calls."""

import asyncio
import json

import hypothesis
import pytest
from hypothesis import strategies as st

from tml_jax.streams import calls
from tml_jax.tools import client_tools
from tml_jax.tools.background import Call

_BOOK = client_tools.declared(
  name="book_flight",
  description="Books\n a flight.",
  parameters={
    "type": "object",
    "properties": {
      "cabin": {"type": ["null", "string"]},
      "flight": {"type": "string"},
      "seats": {"type": "integer"},
      "insured": {"type": "boolean"},
    },
    "required": ["flight", "seats"],
  },
)


@pytest.mark.parametrize(
  "text, arguments",
  [
    ("LH400 2", {"flight": "LH400", "seats": 2}),
    ("seats=2 LH400", {"flight": "LH400", "seats": 2}),
    (
      '"LH 400" 2 first true',
      dict(flight="LH 400", seats=2, cabin="first", insured=True),
    ),
    ("LH400 two", {"flight": "LH400", "seats": "two"}),
    ("LH400 2 cabin=first", dict(flight="LH400", seats=2, cabin="first")),
    ('{"flight": "LH400", "seats": 2}', {"flight": "LH400", "seats": 2}),
    ("{broken", {"flight": "{broken"}),
    ('"unended', {"flight": '"unended'}),
    ("", {}),
  ],
)
def test_words_become_arguments(text, arguments):
  assert _BOOK.arguments(text) == arguments


def test_the_last_text_that_is_required_takes_the_rest():
  say = client_tools.declared(
    name="tell",
    description="",
    parameters={
      "properties": {"who": {}, "what": {"type": "string"}, "loud": {}},
      "required": ["who", "what"],
    },
  )
  assert say.arguments("anna I am late loud=yes") == {
    "who": "anna",
    "what": "I am late",
    "loud": "yes",
  }
  one = client_tools.declared(
    name="search", description="", parameters={"properties": {"query": {}}}
  )
  assert one.arguments("tea and its price") == {"query": "tea and its price"}
  none = client_tools.declared(name="now", description="", parameters={})
  assert none.arguments("please") == {}


def test_the_usage_is_a_line():
  assert _BOOK.usage == (
    "book_flight FLIGHT SEATS [cabin=string] [insured=boolean]: Books a flight."
  )


_VALUES = st.text() | st.integers() | st.booleans() | st.none()


@hypothesis.given(st.dictionaries(st.text(), _VALUES, min_size=1))
def test_arguments_come_back(arguments):
  text = _BOOK.call_text(arguments)
  found = calls.parse_call(text)
  assert found.name == "book_flight"
  assert _BOOK.arguments(found.arguments) == arguments


@hypothesis.given(st.text(max_size=80))
def test_any_text_is_a_json_object(text):
  found = _BOOK.arguments(text)
  assert json.loads(json.dumps(found)) == found


def test_a_call_waits_for_its_client():
  tool = client_tools.ClientTool(timeout=5.0)

  async def run():
    found = [text async for text in tool.run(Call(1, 0.0, "now", ""))]
    return found

  assert tool.answer("noon") and not tool.answer("midnight")
  assert asyncio.run(run()) == ["noon"]


@pytest.mark.parametrize(
  "text", ['{"x": NaN}', '{"x": [1e999]}', '{"x": -Infinity}']
)
def test_what_no_client_can_read_is_no_json(text):
  tool = client_tools.declared(
    name="go",
    description="",
    parameters={
      "properties": {"x": {"type": "number"}, "y": {"type": "number"}}
    },
  )
  json.dumps(tool.arguments(text), allow_nan=False)
  given = tool.arguments("1e999 NaN")
  assert given == {"x": "1e999", "y": "NaN"}
