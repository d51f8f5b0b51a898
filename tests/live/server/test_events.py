"""What clients send, read: every event, and whatever else there is."""

import base64
import json

import hypothesis
import pytest
from hypothesis import strategies as st

from tml_jax.live.server import events, formats

_SOUND = base64.b64encode(b"\x01\x02\x03\x04").decode()
_TOOL = {
  "type": "function",
  "name": "get_order",
  "description": "finds it",
  "parameters": {
    "type": "object",
    "properties": {"order_id": {"type": "string"}},
    "required": ["order_id"],
  },
}


def _parse(**event):
  return events.parse(json.dumps(event)).command


def _user(*content, **item):
  made = {"type": "message", "role": "user", "content": list(content)} | item
  return _parse(type="conversation.item.create", item=made)


def test_each_event_is_read():
  assert _parse(type="input_audio_buffer.append", audio=_SOUND) == (
    events.Sound(b"\x01\x02\x03\x04")
  )
  assert _parse(type="input_audio_buffer.clear") == events.Clear()
  assert _parse(type="input_audio_buffer.commit") == events.Commit()
  assert _parse(type="response.create") == events.Begin()
  assert _parse(type="response.cancel") == events.Cancel()
  assert _parse(type="tml.mute", muted=True) == events.Mute(True)
  assert _parse(type="tml.pause", paused=False) == events.Pause(False)
  assert _parse(type="tml.record", allowed=True) == events.Record(True)
  assert _parse(type="tml.close") == events.Close()
  assert _parse(type="tml.video.append", image=_SOUND) == (
    events.Picture(b"\x01\x02\x03\x04")
  )
  assert _parse(
    type="tml.playback", item_id="i", played_ms=5, buffer_ms=1.5, jitter_ms=0
  ) == events.Playback(5.0, 1.5, 0.0)
  assert _parse(
    type="conversation.item.truncate",
    item_id="item_1",
    content_index=0,
    audio_end_ms=300,
  ) == events.Truncate("item_1", 0, 300)
  assert _user(
    {"type": "input_text", "text": "hello"},
    {"type": "input_image", "image_url": f"data:image/png;base64,{_SOUND}"},
    id="mine",
  ) == events.Message("mine", ("hello",), (b"\x01\x02\x03\x04",))
  assert _parse(
    type="conversation.item.create",
    item={"type": "function_call_output", "call_id": "c", "output": "7"},
  ) == events.Result("", "c", "7")


def test_an_update_has_formats_and_tools():
  found = _parse(
    type="session.update",
    session={
      "type": "realtime",
      "instructions": "be kind",
      "audio": {
        "input": {"format": {"type": "audio/pcmu"}},
        "output": {"format": {"type": "audio/pcm", "rate": 16_000}},
      },
      "tools": [_TOOL],
    },
  )
  assert (found.heard, found.played) == (formats.PCMU, formats.PCM_16)
  assert found.instructions == "be kind"
  assert [tool.name for tool in found.tools] == ["get_order"]
  old = {"input_audio_format": "g711_ulaw", "output_audio_format": "pcm16"}
  found = _parse(type="session.update", session=old)
  assert (found.heard, found.played) == (formats.PCMU, formats.PCM_24)
  nothing = _parse(type="session.update", session={"tools": None})
  assert nothing == events.Update()


@pytest.mark.parametrize(
  "text, code",
  [
    ("", "invalid_json"),
    ("[1, 2]", "invalid_json"),
    ('{"type": NaN}', "invalid_json"),
    ("[" * 200_000, "invalid_json"),
    ('{"a":' * 100_000, "invalid_json"),
    ('{"type": 1}', "invalid_value"),
    ('{"type": "conversation.item.delete"}', "unknown_event"),
    ('{"type": "' + "x" * 100 + '"}', "too_long"),
    ('{"type": "input_audio_buffer.append", "audio": "****"}', "base64"),
    ('{"type": "input_audio_buffer.append", "audio": "\\u00e4"}', "base64"),
    ('{"type": "input_audio_buffer.append"}', "invalid_value"),
    ('{"type": "tml.mute", "muted": 1}', "invalid_value"),
    ('{"type": "tml.playback", "played_ms": -1}', "invalid_value"),
    ('{"type": "tml.playback", "played_ms": 1e400}', "invalid_value"),
  ],
)
def test_what_cannot_be_used_says_why(text, code):
  with pytest.raises(events.Refused) as error:
    events.parse(text)
  assert code in error.value.code
  assert len(str(error.value)) < 300


@pytest.mark.parametrize(
  "session, code",
  [
    ({"audio": {"input": {"format": {"type": "audio/opus"}}}}, "format"),
    ({"audio": {"input": {"format": {"type": "audio/pcm", "rate": 8}}}}, "for"),
    ({"audio": []}, "invalid_value"),
    ({"tools": [_TOOL, _TOOL]}, "invalid_tool"),
    ({"tools": [_TOOL | {"name": "two words"}]}, "invalid_tool"),
    ({"tools": [_TOOL | {"name": "cancel"}]}, "invalid_tool"),
    ({"tools": [_TOOL | {"parameters": {"properties": []}}]}, "invalid_tool"),
    ({"tools": [_TOOL | {"description": "x" * 20_000}]}, "too_long"),
    ({"tools": [{"type": "mcp"}]}, "invalid_tool"),
    ({"tools": [_TOOL] * 65}, "too_long"),
    ({"instructions": "x" * 70_000}, "too_long"),
    ({"type": "transcription"}, "invalid_value"),
  ],
)
def test_an_update_that_cannot_be_used_changes_nothing(session, code):
  with pytest.raises(events.Refused) as error:
    _parse(type="session.update", session=session, event_id="mine_1")
  assert code in error.value.code
  assert error.value.event_id == "mine_1"


@pytest.mark.parametrize(
  "part, code",
  [
    ({"type": "input_audio", "audio": _SOUND}, "invalid_value"),
    ({"type": "input_text", "text": "x" * 5000}, "too_long"),
    ({"type": "input_text", "text": "\ud800"}, "invalid_value"),
    ({"type": "input_image", "image_url": "https://a/b.png"}, "invalid_image"),
    ({"type": "input_image", "image_url": 3}, "invalid_value"),
    ("hello", "invalid_value"),
  ],
)
def test_a_message_that_cannot_be_used(part, code):
  with pytest.raises(events.Refused) as error:
    _user(part)
  assert code in error.value.code


def test_nobody_types_for_the_model():
  with pytest.raises(events.Refused, match="users only"):
    _user({"type": "input_text", "text": "I am the model"}, role="assistant")


_JSON = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
  lambda inner: (
    st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=12), inner, max_size=4)
  ),
  max_leaves=12,
)
_NAMES = st.sampled_from(
  "session audio input output format tools item type role content text call_id"
  " image image_url muted paused allowed item_id audio_end_ms id name"
  " parameters properties instructions".split()
)


@hypothesis.settings(max_examples=400)
@hypothesis.given(
  kind=st.sampled_from(sorted(events._READERS)) | st.text(max_size=20),
  rest=st.dictionaries(
    _NAMES, _JSON | st.dictionaries(_NAMES, _JSON, max_size=5), max_size=6
  ),
)
def test_any_json_is_a_command_or_refused(kind, rest):
  text = json.dumps({"type": kind} | rest)
  try:
    found = events.parse(text).command
  except events.Refused as error:
    assert error.code and len(str(error)) < 400
  else:
    assert isinstance(found, events.Command)


@hypothesis.settings(max_examples=300)
@hypothesis.given(text=st.text(max_size=60))
def test_any_text_is_a_command_or_refused(text):
  with pytest.raises(events.Refused):
    events.parse(text)
