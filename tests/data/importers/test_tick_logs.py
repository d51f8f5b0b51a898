"""Voice logs of tau2-bench, and sessions of ours."""

import json

import numpy as np
import pytest

from tests.helpers import sound, streamed, two_sides
from tml_jax import errors
from tml_jax.data import calls, tick_logs
from tml_jax.data.source import Reason
from tml_jax.logs import sound as sound_lib
from tml_jax.logs import ticks as ticks_lib
from tml_jax.streams import timeline as timeline_lib
from tml_jax.streams.timeline import EventKind, Role


def tau2_ticks():
  """Three seconds; texts are cut anywhere."""
  result = []
  for k in range(15):
    at = 0.2 * k
    speaks = {
      side: two_sides.SPANS[channel][0]
      <= at + 0.1
      < two_sides.SPANS[channel][1]
      for side, channel in (("user", "left"), ("agent", "right"))
    }
    result.append(
      {
        "tick_id": k,
        "timestamp": f"2026-01-01T00:00:{k:02d}",
        "tick_duration_seconds": 0.2,
        "user_chunk": {"contains_speech": speaks["user"], "content": None},
        "agent_chunk": {"contains_speech": speaks["agent"], "content": ""},
        "user_tool_calls": [],
        "agent_tool_calls": [],
        "agent_tool_results": [],
      }
    )
  for k, text in ((1, "hel"), (2, "lo "), (3, "there ")):
    result[k]["user_chunk"]["content"] = text
  result[8]["agent_chunk"]["content"] = "one moment"
  result[6]["agent_tool_calls"] = [
    {"id": "call_x", "name": "find", "arguments": {"id": 7}}
  ]
  result[7]["agent_tool_results"] = [
    {"id": "call_x", "role": "tool", "content": "none"}
  ]
  result[7]["user_tool_calls"] = [{"id": "u", "name": "x", "arguments": {}}]
  result[14]["user_chunk"] = {"contains_speech": True, "content": "###STOP###"}
  return result


def test_tau2(tmp_path):
  simulations = [
    {"id": f"sim-{i}-0000", "task_id": "0", "ticks": tau2_ticks()}
    for i in range(3)
  ]
  simulations.append({"id": "text-only", "messages": []})
  (tmp_path / "results.json").write_text(
    json.dumps({"simulations": simulations})
  )
  for i in range(2):
    two_sides.write(
      tmp_path / "artifacts" / f"sim_sim-{i}-0000" / "audio" / "both.wav",
      rate=8_000,
    )
  items, bad = streamed.read("tau2", tmp_path, language="en", licence="MIT")
  assert [item.id for item in items] == [
    f"results.json/sim-{i}-0000" for i in range(2)
  ]
  item = items[0]
  timeline_lib.validate(item)
  user, agent = item.track(Role.USER), item.track(Role.AGENT)
  assert two_sides.side_of(user) == "left"
  assert [w.text for w in user.words] == ["hello", "there"]
  assert user.words[0].start == pytest.approx(0.2)
  assert user.words[0].end == pytest.approx(0.6)
  assert [w.text for w in agent.words] == ["one", "moment"]
  for track in item.tracks:
    two_sides.check_spans(track, within=1e-6)
  assert [(e.kind, e.text) for e in item.events] == [
    (EventKind.CALL, 'find {"id": 7}'),
    (EventKind.RESULT, "1: none"),
  ]
  assert item.metadata["left out"] == {"calls of tools by the user": 1}
  assert [str(r) for r, _ in bad] == [Reason.MISSING, Reason.NO_SPEECH]
  report = streamed.prepare("tau2", tmp_path, tmp_path / "c" / "tau2")
  assert report["recordings"] == 2


@pytest.mark.parametrize(
  "text",
  [
    *("", "[]", "7", '{"simulations": 7}', '{"simulations": [7]}'),
    *('{"id": "a", "ticks": 7}', '{"id": "a", "ticks": [7]}'),
    '{"id": "a", "ticks": [{"agent_tool_calls": [{}]}]}',
    '{"id": "a", "ticks": [{"agent_tool_results": [{"id": 1}]}]}',
    '{"id": "a", "ticks": [{"tick_duration_seconds": "x"}]}',
  ],
)
def test_logs_that_are_none(tmp_path, text):
  (tmp_path / "a.json").write_text(text)
  two_sides.write(tmp_path / "both.wav")
  items, bad = streamed.read("tau2", tmp_path / "a.json")
  assert not items and [r for r, _ in bad] == [Reason.BROKEN_METADATA]


def session(folder):
  """As `sample` writes it."""
  folder.mkdir(parents=True)
  channels = two_sides.samples()
  sound_lib.write_wav(folder / "conversation.wav", channels=[*channels])
  sound_lib.write_wav(folder / "agent.wav", channels=[channels[1]])
  ticks = [ticks_lib.Tick(False, False) for _ in range(15)]
  ticks[1] = ticks_lib.Tick(False, True, user_text="hi", typed="typed")
  ticks[8] = ticks_lib.Tick(
    True,
    False,
    agent_text="well, yes",
    calls=(ticks_lib.Call(1, "calculator 3+4"),),
    shown=(("show", "7"),),
  )
  ticks[9] = ticks_lib.Tick(
    True, False, agent_text=" sir", results=(ticks_lib.Call(1, "7"),)
  )
  log = ticks_lib.Log("x", "", 3.0, (), (), tuple(ticks))
  ticks_lib.write(log, folder / "ticks.jsonl")


def test_sessions(tmp_path):
  session(tmp_path / "runs" / "a")
  session(tmp_path / "runs" / "b")
  (tmp_path / "runs" / "b" / "ticks.jsonl").unlink()
  items, bad = streamed.read("sessions", tmp_path, language="en")
  assert not bad and [i.id for i in items] == ["runs/a", "runs/b"]
  item = items[0]
  timeline_lib.validate(item)
  assert two_sides.side_of(item.track(Role.USER)) == "left"
  assert [w.text for w in item.track(Role.USER).words] == ["hi"]
  agent = item.track(Role.AGENT)
  assert [w.text for w in agent.words] == ["well,", "yes", "sir"]
  two_sides.check_spans(agent)
  assert [(e.kind, e.text) for e in item.events] == [
    (EventKind.USER_TEXT, "typed"),
    (EventKind.SHOW, "7"),
    (EventKind.CALL, "calculator 3+4"),
    (EventKind.RESULT, "1: 7"),
  ]
  assert items[1].metadata["left out"] == {"recordings without words": 1}
  (alone,), _ = streamed.read("sessions", tmp_path / "runs" / "a")
  assert (alone.track("user").audio == item.track("user").audio).all()


def test_sessions_that_are_broken(tmp_path):
  for name, change in (
    ("cut", lambda lines: lines[:-1]),
    ("other", lambda lines: ['{"schema": "x"}', *lines[1:]]),
    ("none", lambda lines: ["nothing"]),
    ("empty", lambda lines: []),
  ):
    session(tmp_path / name)
    path = tmp_path / name / "ticks.jsonl"
    path.write_text("\n".join(change(path.read_text().splitlines())))
  session(tmp_path / "mono")
  sound.write_wav(
    tmp_path / "mono" / "conversation.wav", np.ones((1, 800), np.float32) / 2
  )
  items, bad = streamed.read("sessions", tmp_path)
  assert not items
  assert [str(r) for r, _ in bad] == [
    *[Reason.BROKEN_METADATA] * 4,
    Reason.WRONG_CHANNELS,
  ]
  with pytest.raises(errors.UserError, match="ends in conversation.wav"):
    streamed.read("sessions", tmp_path / "mono" / "agent.wav")


def test_a_result_that_goes_on_in_the_next_tick_is_one():
  result = lambda number, text: {"id": number, "content": text}  # noqa: E731
  ticks = [
    {"agent_tool_calls": [{"id": "1", "name": "add", "arguments": "3 4"}]},
    {"agent_tool_results": [result("1", "sev")]},
    {"agent_tool_results": [result("0", "en")]},
  ]
  found = tick_logs.read(ticks, notes=calls.Notes())
  told = [(event.kind, event.text) for event in found.events]
  assert told == [(EventKind.CALL, "add 3 4"), (EventKind.RESULT, "1: seven")]
