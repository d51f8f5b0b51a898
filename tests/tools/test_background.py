"""Calls out, results in: what a session sees of tools, good and bad ones."""

import asyncio
import dataclasses
import json
import time

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.helpers.frames import CONFIG
from tests.helpers.tools import TOKENIZER, Session, Tool, session
from tml_jax.streams import calls
from tml_jax.streams.frame import Burst, Control
from tml_jax.tools import background, session_tools
from tml_jax.tools.background import Failure, Limits, Outcome


def test_a_result_comes_back_while_the_session_goes_on():
  tool = Tool(0.05, "four ", "and more")
  with session({"add": tool}) as s:
    s.tick(say="hm")
    s.tick("add 2 2")
    s.until(lambda: 1 in s.results())
    assert s.results() == {1: "four and more"}
    (call,) = tool.calls
    assert (call.number, call.name, call.arguments) == (1, "add", "2 2")
    assert call.time == pytest.approx(0.4)
    spoken = [(line.who, line.text) for line in call.conversation]
    assert spoken == [
      ("agent", "hm (without sound)"),
      ("agent calls", "add 2 2"),
    ]
    (record,) = s.tools.to_json()
    assert json.loads(json.dumps(record)) == record
    assert record["outcome"] == "done" and record["result"] == "four and more"
    assert record["answered_s"] <= record["ended_s"] + 1e-9
    assert record["conversation"][0] == {
      "start_s": 0.2,
      "end_s": 0.2,
      "who": "agent",
      "text": "hm (without sound)",
    }


def test_a_call_may_span_frames_and_later_calls_know_earlier_ones():
  tool = Tool("yes")
  with session({"ask": tool}) as s:
    for text, complete in (("ask so", False), ("me thing", True)):
      s.tick(Burst(Control.CALL, tuple(text.encode()), complete))
    s.until(lambda: 1 in s.results())
    s.tick("ask again")
    s.until(lambda: 2 in s.results())
    assert [c.text for c in tool.calls] == ["ask some thing", "ask again"]
    assert [o["result"] for o in tool.calls[1].others] == ["yes"]


@pytest.mark.parametrize(
  "tool, outcome, text",
  [
    (Tool(Failure("no such town")), Outcome.FAILED, "failed: no such town"),
    (Tool(ValueError("oops")), Outcome.FAILED, "failed: ValueError: oops"),
    (Tool("a part", Failure("gone")), Outcome.FAILED, "a part failed: gone"),
    (
      Tool(30.0, timeout=0.1),
      Outcome.TIMED_OUT,
      "failed: timed out after 0.1 s",
    ),
    (Tool(), Outcome.DONE, "done"),
    (Tool(" \n "), Outcome.DONE, "done"),
    (Tool("half a pair \ud800"), Outcome.DONE, "half a pair ?"),
    (Tool("ab " * 30), Outcome.CUT, "ab ab ab ab a [cut]"),
  ],
)
def test_every_end_is_read(tool, outcome, text):
  with session({"tool": tool}, limits=Limits(result_chars=13)) as s:
    s.tick("tool")
    s.until(lambda: 1 in s.results())
    assert s.results()[1] == text
    assert s.tools.to_json()[0]["outcome"] == str(outcome)
    assert tool.closed.wait(5)


def test_a_result_streams_in():
  """Words go out before the result is complete, and its end is told."""
  tool = Tool("one", 0.5, "two", 0.5)
  with session({"tool": tool}) as s:
    s.tick("tool")
    s.until(lambda: 1 in s.results(), pause=0.01)
    assert s.read[Control.RESULT] == ["1: one ...", "1: two ...", "1: done"]


def test_an_unknown_tool_says_which_there_are():
  with session({"add": Tool("4"), "clock": Tool("noon")}) as s:
    s.tick("weather in Rome")
    s.tick("")
    s.until(lambda: len(s.results()) == 2)
    assert s.results()[1] == (
      "failed: there is no tool 'weather'; tools: add, clock"
    )
    assert s.results()[2].startswith("failed: there is no tool ''")


def test_what_no_tool_takes_goes_to_the_background_model():
  tool = Tool("done")
  with background.Runner({"chat": tool}, otherwise="chat") as runner:
    s = Session(runner)
    s.tick("weather in Rome")
    s.until(lambda: 1 in s.results())
    assert tool.calls[0].text == "weather in Rome"


def test_the_model_cancels():
  tools = {"slow": Tool(100.0), "quick": Tool(0.3, "well")}
  with session(tools) as s:
    s.tick("slow", "quick", "slow")
    s.tick("cancel 1")
    s.until(lambda: 1 in s.results())
    assert s.results()[1] == "cancelled"
    s.tick("cancel 9")  # nothing to cancel
    s.until(lambda: 2 in s.results())
    assert s.results()[2] == "well"
    s.tick("cancel")
    s.until(lambda: 3 in s.results())
    assert s.results()[3] == "cancelled"
    assert tools["slow"].closed.wait(5)
    assert [r["reason"] for r in s.tools.to_json()] == [
      "the model asked for it",
      "",
      "the model asked for it",
    ]


def test_the_user_cancels_and_a_session_leaves():
  tool = Tool(100.0)
  with background.Runner({"slow": tool}) as runner:
    first, second = Session(runner), Session(runner)
    for s in (first, second):
      s.tick("slow", "slow")
    first.tools.cancel(2, reason="the user asked for it")
    first.until(lambda: 2 in first.results())
    assert first.results() == {2: "cancelled"}
    first.tools.close()
    outcomes = [(r["outcome"], r["reason"]) for r in first.tools.to_json()]
    assert outcomes == [
      ("cancelled", "the session is over"),
      ("cancelled", "the user asked for it"),
    ]
    second.tick()  # goes on
    assert [r["outcome"] for r in second.tools.to_json()] == ["running"] * 2
  assert not runner._thread.is_alive()


def test_a_model_that_calls_all_the_time_is_refused():
  with session({"slow": Tool(100.0)}, limits=Limits(open_calls=3)) as s:
    for _ in range(5):
      s.tick("slow")
    s.until(lambda: 5 in s.results())
    assert s.results()[4] == "failed: 3 calls are running already"


def test_calls_and_typed_text_take_turns():
  long = " ".join(f"word{i}" for i in range(60))
  with session(
    {"long": Tool(long)}, arrival=session_tools.Stated(lambda call: 1)
  ) as s:
    s.tick("long", "long")
    s.queue.push(Control.USER_TEXT, TOKENIZER.encode("typed " * 30))
    seen = []
    for _ in range(150):
      for burst in s.tick().text_in:
        seen.append(burst.channel)
    typed = [i for i, c in enumerate(seen) if c == Control.USER_TEXT]
    assert len(typed) == 60  # three tokens a burst, to its end
    assert typed[-1] <= 2 * len(typed)  # every other burst, no later
    numbers = [calls.parse_result(t)[0] for t in s.read[Control.RESULT]]
    ones = [n == 1 for n in numbers]
    assert abs(2 * sum(ones) - len(ones)) <= 1
    assert all(a != b for a, b in zip(numbers, numbers[1:], strict=False))
    s.until(lambda: len(s.results()) == 2, pause=0)
    assert s.results() == {1: long, 2: long}  # nothing is lost


def test_stated_windows_give_the_same_session_at_any_speed():
  def run(pause):
    tools = {
      "quick": Tool("soon"),
      "slow": Tool(0.0, "late", " and later"),
      "timer": Tool(2.0, "over"),
    }
    arrival = session_tools.Stated(lambda c: 3 if c.name == "quick" else 5)
    with session(tools, arrival=arrival) as s:
      s.tick("timer")
      s.tick("slow", "quick")
      for _ in range(40):
        s.tick()
        time.sleep(pause)
      return [f.text_in for f in s.frames], s.results(), s.tools.to_json()

  first, again = run(0.0), run(0.01)
  assert first == again
  _, results, records = first
  assert results == {1: "over", 2: "late and later", 3: "soon"}
  # Called at the end of window 1, there for windows 4 and 6; two seconds.
  assert [round(r["ended_s"], 1) for r in records] == [2.2, 1.2, 0.8]
  assert records[2]["answered_s"] == pytest.approx(0.8)


def test_a_tool_that_never_returns_ends_at_stated_windows_too():
  arrival = session_tools.Stated(lambda call: 2)
  tool = Tool(timeout=0.2)

  async def wait(call):
    await asyncio.sleep(100)
    yield "never"

  tool.run = wait
  with session({"tool": tool}, arrival=arrival) as s:
    s.tick("tool")
    s.until(lambda: 1 in s.results(), pause=0)
    assert s.results()[1] == "failed: timed out after 0.2 s"


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(
  st.lists(st.text(max_size=120), min_size=1, max_size=3), st.integers(3, 12)
)
def test_whatever_tools_say_is_read_in_order(texts, room):
  """Word for word, whatever the room; and no control token gets in."""
  config = dataclasses.replace(CONFIG, max_text_in=room)
  tools = {f"t{i}": Tool(text) for i, text in enumerate(texts)}
  with session(
    tools, arrival=session_tools.Stated(lambda c: 1), config=config
  ) as s:
    s.tick(*tools)
    for _ in range(3000):
      s.tick()
      if len(s.results()) == len(texts):
        break
    for number, text in enumerate(texts, start=1):
      clean = text.encode(errors="replace").decode()
      wanted = "".join(clean.split()) or "done"
      got = "".join(s.results()[number].split())
      if wanted.endswith(calls.GOES_ON):
        wanted = wanted.removesuffix(calls.GOES_ON)
      assert got == wanted


def test_calls_go_on_counting_in_another_process():
  with background.Runner({"wait": Tool(30.0)}) as runner:
    before = Session(runner)
    before.tick("wait a")
    before.tick("wait b")
    state = json.loads(json.dumps(before.tools.state()))
    before.tools.close()
    after = Session(runner)
    for tokens in after.tools.restore(state):
      after.queue.push(Control.RESULT, tokens)
    after.until(lambda: len(after.read[Control.RESULT]) >= 2)
    assert after.read[Control.RESULT] == ["1: cancelled", "2: cancelled"]
    after.tick("wait c")
    after.tick()
    (call,) = after.tools.to_json()
    assert call["call"] == 3
    after.tools.close()
  for wrong in ({}, state | {"open": [9]}, state | {"count": "x"}):
    with pytest.raises((KeyError, ValueError)):
      Session(runner).tools.restore(wrong)


def test_a_call_that_has_ended_keeps_only_what_is_new():
  with background.Runner({"add": Tool("7")}) as runner:
    session = Session(runner)
    for k in range(6):
      session.tick(f"add {k}", say=f"word {k}")
      session.until(lambda k=k: len(session.read[Control.RESULT]) == k + 1)
    whole = session.tools.to_json()
    told = [line["text"] for call in whole for line in call["conversation"]]
    assert len(told) == len({*told}) >= 10
    kept = [
      len(entry.ticket.call.conversation) for entry in session.tools._entries
    ]
    assert max(kept) <= 4


def test_a_log_has_no_words_of_a_call(caplog):
  with background.Runner({"fail": Tool(ValueError("of the tool"))}) as runner:
    session = Session(runner)
    session.tick("fail with my secret")
    session.until(lambda: session.read[Control.RESULT])
  assert "'fail'" in caplog.text and "my secret" not in caplog.text
