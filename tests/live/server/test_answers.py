"""Windows as events: stretches of speech, giving way, texts, calls, strokes."""

import base64

import numpy as np
import pytest

from tests.helpers.frames import ByteTokenizer
from tml_jax.live.server import answers, attached, formats
from tml_jax.live.server.ear import ABSENT, Heard, Window
from tml_jax.live.server.line import Passed, Timing
from tml_jax.live.transport import Answer
from tml_jax.streams import clock
from tml_jax.streams import frame as frame_lib
from tml_jax.streams.frame import Burst, Control, Frame
from tml_jax.tools.svg_path import Pen, Reader
from tml_jax.vocoder import stream

_TOKENIZER = ByteTokenizer()
_LOUD = Window(np.full(3200, 9000, np.int16), Heard.SOUND, -11.0)
_SOUND = np.full(3200, 0.25, np.float32)


def _passed(
  window,
  *,
  speak=False,
  say="",
  bursts=(),
  heard=ABSENT,
  made=(),
  late=0.0,
  is_cancelled=False,
):
  frame = Frame(
    window=window,
    own_dmel=None,
    user_dmel=None,
    patches=frame_lib.no_patches(),
    text_in=(),
    say=tuple(_TOKENIZER.encode(say)),
    text_out=tuple(
      Burst(channel, tuple(_TOKENIZER.encode(text)), complete)
      for channel, text, complete in bursts
    ),
    speak=speak,
  )
  answer = Answer(
    frame=frame,
    sound=_SOUND,
    messages=(),
    is_reading=False,
    refused=None,
    seconds=0.01,
  )
  timing = Timing(
    ended=0.2 * (window + 1), wall=0.0, waited=0.001, ticked=0.05, late=late
  )
  return Passed(
    answer=answer,
    heard=heard,
    timing=timing,
    made=made,
    lost=0,
    newly_lost=0,
    is_cancelled=is_cancelled,
  )


def _teller():
  return answers.Teller(_TOKENIZER, grid=clock.TICKS)


def _kinds(events):
  return [event["type"].removeprefix("response.") for event in events]


def _samples(events):
  data = b"".join(
    base64.b64decode(e["delta"])
    for e in events
    if e["type"] == "response.output_audio.delta"
  )
  return np.frombuffer(data, "<i2")


def test_a_stretch_of_speech_is_a_response():
  teller = _teller()
  before = teller.tell(_passed(0, say="so "))  # words come before the sound
  assert _kinds(before) == ["tml.tick"]
  first = teller.tell(_passed(1, speak=True, say="it "))
  assert _kinds(first) == [
    "created",
    "output_item.added",
    "content_part.added",
    "output_audio_transcript.delta",
    "output_audio.delta",
    "tml.tick",
  ]
  assert first[3]["delta"] == "so it "
  second = teller.tell(_passed(2, speak=True, say="is"))
  last = teller.tell(_passed(3))
  assert _kinds(last) == [
    "output_audio.delta",
    "output_audio.done",
    "output_audio_transcript.done",
    "content_part.done",
    "output_item.done",
    "done",
    "tml.tick",
  ]
  response = last[5]["response"]
  assert response["status"] == "completed"
  (item,) = response["output"]
  assert item["content"][0]["transcript"] == "so it is"
  assert {e["response_id"] for e in second if "response_id" in e} == {
    response["id"]
  }
  # Two windows, and what the vocoder lags.
  heard = _samples(first + second + last)
  assert len(heard) == 3 * (2 * 3200 + stream.DELAY) // 2
  assert abs(int(heard[3000]) - 8192) < 4
  again = teller.tell(_passed(4, speak=True))
  assert again[0]["response"]["id"] != response["id"]


def test_a_model_that_gives_way_has_its_sound_flushed():
  teller = _teller()
  teller.tell(_passed(0, speak=True, say="and "))
  going_on = teller.tell(_passed(1, speak=True, heard=_LOUD))
  assert "input_audio_buffer.speech_started" not in _kinds(going_on)
  events = teller.tell(_passed(2, heard=_LOUD))
  assert _kinds(events)[0] == "input_audio_buffer.speech_started"
  assert events[0]["audio_start_ms"] == 400
  assert len(_samples(events)) == 0
  done = next(e for e in events if e["type"] == "response.done")
  assert done["response"]["status"] == "cancelled"
  assert done["response"]["output"][0]["status"] == "incomplete"
  assert _kinds(teller.tell(_passed(3, heard=_LOUD))) == ["tml.tick"]
  stopped = teller.tell(_passed(4))
  assert stopped[0]["type"] == "input_audio_buffer.speech_stopped"
  assert stopped[0]["audio_end_ms"] == 1000
  # Somebody who speaks to a quiet model makes nobody flush anything.
  assert _kinds(teller.tell(_passed(5, heard=_LOUD))) == ["tml.tick"]
  assert _kinds(teller.tell(_passed(6))) == ["tml.tick"]


def test_sound_is_coded_as_the_client_asked():
  teller = _teller()
  teller.played = formats.PCMU
  events = teller.tell(_passed(0, speak=True)) + teller.tell(_passed(1))
  data = b"".join(
    base64.b64decode(e["delta"])
    for e in events
    if e["type"] == "response.output_audio.delta"
  )
  assert len(data) == (3200 + stream.DELAY) // 2
  assert abs(int(formats._TABLES["audio/pcmu"][data[700]]) - 8192) < 300


def test_shown_text_comes_as_it_grows():
  teller = _teller()
  show = Control.SHOW
  one = teller.tell(_passed(0, bursts=[(show, "a b", False)]))
  two = teller.tell(_passed(1, bursts=[(show, "c", True), (show, "d", True)]))
  shown = [e for e in one + two if e["type"] == "tml.show"]
  assert [(e["delta"], e["done"]) for e in shown] == [
    ("a b", False),
    ("c", True),
    ("d", True),
  ]
  assert shown[0]["item_id"] == shown[1]["item_id"] != shown[2]["item_id"]
  assert one[-1]["decision"] == "show"


def test_a_clients_call_is_a_response_of_its_own_where_nobody_speaks():
  call = attached.Called("call_1", "find", '{"x": 1}', attached.CLIENT)
  teller = _teller()
  alone = teller.tell(_passed(0, made=(call,)))
  assert _kinds(alone) == [
    "tml.call",
    "created",
    "output_item.added",
    "function_call_arguments.done",
    "output_item.done",
    "done",
    "tml.tick",
  ]
  made = alone[3]
  assert (made["call_id"], made["name"], made["arguments"]) == (
    "call_1",
    "find",
    '{"x": 1}',
  )
  assert alone[5]["response"]["output"][0]["type"] == "function_call"
  teller.tell(_passed(1, speak=True))
  inside = teller.tell(_passed(2, speak=True, made=(call,)))
  assert "created" not in _kinds(inside)
  done = next(
    e for e in teller.tell(_passed(3)) if e["type"] == "response.done"
  )
  kinds = [item["type"] for item in done["response"]["output"]]
  assert kinds == ["message", "function_call"]


def test_a_servers_call_is_shown_only():
  call = attached.Called("call_1", "calculator", "3+4", attached.SERVER)
  came = attached.Came("call_1", "7")
  events = _teller().tell(_passed(0, made=(call, came)))
  assert _kinds(events) == ["tml.call", "tml.result", "tml.tick"]
  assert events[1] == {
    "type": "tml.result",
    "call_id": "call_1",
    "output": "7",
  }


def test_ticks_tell_of_their_time():
  (tick,) = _teller().tell(_passed(7, late=0.03, heard=_LOUD))
  assert tick == {
    "type": "tml.tick",
    "window": 7,
    "time": 1.6,
    "user": "sound",
    "decision": "quiet",
    "is_speaking": False,
    "tick_ms": 50.0,
    "waited_ms": 1.0,
    "late_ms": 30.0,
    "deadline_missed": True,
    "input_level_db": -11.0,
    "lost_inputs": 0,
  }


def test_strokes_stand_for_themselves():
  reader = Reader(Pen())
  reader.feed("M0 0 L10 0 L10 10 Z l5 5", complete=True)
  whole = attached.path_data(reader.segments, first=0)
  assert whole.startswith("M0 0L10 0L10 10L0 0")
  for first in range(1, len(reader.segments)):
    part = attached.path_data(reader.segments, first=first)
    assert part.startswith("M")
    x, y = reader.segments[first - 1].points[-1]
    assert (
      part.startswith(f"M{x:g} {y:g}") or reader.segments[first].kind == "M"
    )
  assert attached.path_data(reader.segments, first=99) == ""


def _done(events):
  return next(e["response"] for e in events if e["type"] == "response.done")


def test_why_a_response_was_cut():
  teller = _teller()
  teller.tell(_passed(0, speak=True))
  wanted = teller.tell(_passed(1, is_cancelled=True))
  assert _done(wanted)["status"] == "cancelled"
  assert _done(wanted)["status_details"] == {
    "type": "cancelled",
    "reason": "client_cancelled",
  }
  assert len(_samples(wanted)) == 0
  teller.tell(_passed(2, speak=True))
  gave_way = teller.tell(_passed(3, heard=_LOUD))
  assert _done(gave_way)["status_details"]["reason"] == "turn_detected"
  teller.tell(_passed(4, speak=True))
  assert "status_details" not in _done(teller.tell(_passed(5)))


def test_somebody_who_speaks_has_an_item_of_their_own():
  teller = _teller()
  begun = teller.tell(_passed(0, speak=True))
  started = teller.tell(_passed(1, heard=_LOUD))[0]
  stopped = teller.tell(_passed(2))[0]
  assert started["item_id"] == stopped["item_id"]
  assert started["item_id"] not in {e.get("item_id") for e in begun}
  teller.tell(_passed(3, speak=True))
  again = teller.tell(_passed(4, heard=_LOUD))[0]
  assert again["item_id"] != started["item_id"]


def test_parts_are_as_the_official_client_reads_them():
  realtime = pytest.importorskip("openai.types.realtime")
  teller = _teller()
  events = teller.tell(_passed(0, speak=True)) + teller.tell(_passed(1))
  for name in ("Added", "Done"):
    kind = getattr(realtime, f"ResponseContentPart{name}Event")
    (event,) = (
      e for e in events if e["type"] == f"response.content_part.{name.lower()}"
    )
    kind.model_validate(event | {"event_id": "e"}, strict=True)
