"""The tool of an evaluation answers what was called, when it was."""

import itertools

import numpy as np
import pytest

from tests.helpers import frames as frames_lib
from tml_jax.evals import run, simulated_tool
from tml_jax.live import user
from tml_jax.live.reacting import Users
from tml_jax.live.transport import Answer
from tml_jax.streams import annotation, clock
from tml_jax.streams.annotation import Annotation, Kind
from tml_jax.streams.frame import Burst, Control, Frame
from tml_jax.streams.timeline import Event, EventKind, Timeline

_TOKENIZER = frames_lib.ByteTokenizer()


def _item(call="calculator 3+4", result="7", *, questions=1) -> Timeline:
  """Question k ends in window 5 + 20 k; call 2 later, its result 6 after."""
  events, asked = [], []
  for k in range(questions):
    at = 5 + 20 * k
    events += [
      Event((at + 2.5) * 0.2, EventKind.CALL, call),
      Event((at + 8.5) * 0.2, EventKind.RESULT, f"{k + 1}: {result}"),
    ]
    asked.append(
      Annotation(
        Kind.TOOL, start=at * 0.2, end=(at + 8.5) * 0.2, call=call, text="x"
      )
    )
  return Timeline(
    id="asks",
    duration=12.0,
    tracks=(),
    events=tuple(events),
    metadata={annotation.KEY: [annotation.to_json(a) for a in asked]},
  )


def _part(timeline) -> user.UserPart:
  options = dict(tokenizer=_TOKENIZER, grid=clock.TICKS)
  return user.UserPart(
    simulated_tool.without_results(timeline),
    tool=simulated_tool.SimulatedTool(timeline, **options),
    **options,
  )


def _results(timeline, *calls) -> dict[int, str]:
  """What is typed in which window, after calls (window, text)."""
  part, found = _part(timeline), {}
  for k in range(len(part)):
    for channel, tokens in part.window(k).typed:
      assert channel == Control.RESULT
      found[k] = _TOKENIZER.decode(tokens)
    bursts = tuple(
      Burst(Control.CALL, tuple(text.encode()), True)
      for window, text in calls
      if window == k
    )
    part.take(_frame(k, bursts))
  return found


def _frame(window, bursts=()) -> Frame:
  nothing = np.zeros((0, 2, 40, 40, 3), np.uint8)
  return Frame(window, None, None, nothing, (), text_out=bursts)


def test_the_right_call_is_answered_as_long_after_it_as_in_the_recording():
  item = _item()
  assert simulated_tool.answers(item)
  assert _results(item, (7, "calculator 3+4")) == {13: "1: 7"}
  assert _results(item, (20, "calculator  3+4")) == {26: "1: 7"}


def test_no_call_no_result():
  assert _results(_item()) == {}


def test_another_call_gets_what_it_asks_for():
  item = _item()
  assert _results(item, (7, "calculator 3+5")) == {13: "1: 8"}
  found = _results(item, (7, "calculator 3+5"), (9, "calculator 3+4"))
  assert found == {13: "1: 8", 15: "2: 7"}
  (text,) = _results(item, (7, "weather Rome")).values()
  assert text == "1: failed: there is no tool 'weather'"
  (text,) = _results(item, (7, "calculator 3+")).values()
  assert text.startswith("1: failed: ")


def test_what_fails_in_the_recording_fails_for_the_right_call_alone():
  item = _item(result="failed: timed out")
  # Asked for before its question has ended, it is nobody's answer.
  assert _results(item, (3, "calculator 3+4")) == {9: "1: 7"}
  found = _results(item, (7, "calculator 3+4"), (9, "calculator 3+4"))
  assert found == {13: "1: failed: timed out", 15: "2: 7"}


def test_every_question_has_its_own_answer():
  item = _item(questions=2)
  found = _results(item, (7, "calculator 3+4"), (27, "calculator 3+4"))
  assert found == {13: "1: 7", 33: "2: 7"}


def test_a_call_may_take_several_windows():
  part = _part(_item())
  for k, (text, complete) in enumerate((("calculator", False), (" 3+4", True))):
    burst = Burst(Control.CALL, tuple(text.encode()), complete)
    part.take(_frame(k, (burst,)))
  ((_, tokens),) = part.window(7).typed
  assert _TOKENIZER.decode(tokens) == "1: 7"


def test_other_items_keep_their_results():
  plain = Timeline(id="plain", duration=1.0, tracks=())
  assert not simulated_tool.answers(plain)
  scripted = _item(call="")
  assert not simulated_tool.answers(scripted)


@pytest.mark.parametrize("users", [*Users])
def test_an_evaluation_has_it_where_an_item_names_calls(users):
  for item, window in ((_item(), None), (_item(call=""), 13)):
    part = run._part(item, tokenizer=_TOKENIZER, grid=clock.TICKS, users=users)
    windows = itertools.takewhile(part.has, itertools.count())
    typed = [k for k in windows if part.window(k).typed]
    assert typed == ([] if window is None else [window])


@pytest.mark.parametrize("users", [*Users])
def test_the_transport_tells_it_what_was_decided(users):
  """The transport of a duplex model; results are typed like any other text."""
  call = Burst(Control.CALL, tuple(b"calculator 3+4"), True)
  part = run._part(_item(), tokenizer=_TOKENIZER, grid=clock.TICKS, users=users)
  talk = user.Recorded(part)
  results = {}
  while (arrived := talk.bring()) is not None:
    k = len(talk.frames)
    for _, tokens in arrived.typed:
      results[k] = tokens
    bursts = (call,) if k == 9 else ()
    talk.take(
      Answer(
        frame=_frame(k, bursts),
        sound=None,
        messages=(),
        is_reading=False,
        refused=None,
        seconds=0.0,
      )
    )
  assert {k: _TOKENIZER.decode(t) for k, t in results.items()} == {15: "1: 7"}
