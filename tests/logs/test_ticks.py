"""Tick logs: from sessions and recordings, to a file and back."""

import dataclasses
import json

import numpy as np
import pytest

from tests.helpers import drawn, small_session
from tml_jax import errors
from tml_jax.evals import agents
from tml_jax.logs import observe, ticks
from tml_jax.streams import annotation, clock
from tml_jax.streams import frame as frame_lib
from tml_jax.streams.annotation import Annotation, Kind
from tml_jax.streams.frame import Burst, Control, Frame
from tml_jax.streams.timeline import (
  Event,
  EventKind,
  Role,
  Span,
  Timeline,
  Track,
  Word,
)

_LETTERS = small_session.Letters()
_TURN = Annotation(Kind.TURN, start=0.2, end=0.5, due=0.8, text="yes sir")


def _timeline(windows: int = 8) -> Timeline:
  sound = np.zeros(windows * clock.TICKS.samples, np.float32)
  user = (Word(0.2, 0.3, "say"), Word(0.3, 0.5, "it"))
  agent = (Word(0.8, 1.0, "yes"), Word(1.0, 1.2, "sir"))
  return Timeline(
    id="reply/test/0",
    duration=windows * clock.TICKS.seconds,
    tracks=(
      Track(Role.USER, sound, user, (Span(0.2, 0.5),), "u"),
      Track(Role.AGENT, sound, agent, (Span(0.8, 1.2),), "a"),
    ),
    events=(Event(0.7, EventKind.CALL, "add 1 2"),),
    metadata={
      "family": "reply",
      annotation.KEY: [annotation.to_json(_TURN)],
    },
  )


def _burst(channel, text, complete=True):
  return Burst(channel, tuple(_LETTERS.encode(text)), complete)


def _frames() -> list[Frame]:
  """Says "yes sir" in windows 4 and 5, calls, shows, reads."""
  say = {3: "yes", 4: " sir"}
  text_in = {
    1: (_burst(Control.USER_TEXT, "typed"),),
    6: (_burst(Control.RESULT, "no number"),),
  }
  text_out = {
    1: (_burst(Control.CALL, "add ", False), _burst(Control.SHOW, "see")),
    2: (_burst(Control.CALL, "two"),),
    5: (_burst(Control.CALL, "unfinished", False),),
  }
  quiet = np.zeros((4, 80), np.uint8)
  return [
    Frame(
      window=k,
      own_dmel=quiet if k in (4, 5) else None,
      user_dmel=None,
      patches=frame_lib.no_patches(),
      text_in=text_in.get(k, ()),
      say=tuple(_LETTERS.encode(say.get(k, ""))),
      text_out=text_out.get(k, ()),
      speak=k in (3, 4),
    )
    for k in range(8)
  ]


def test_a_session_as_ticks():
  log = observe.from_frames(
    _frames(),
    timeline=_timeline(),
    tokenizer=_LETTERS,
    grid=clock.TICKS,
    seconds=np.full(8, 0.01),
  )
  assert log.id == "reply/test/0" and log.family == "reply"
  assert log.annotations == (_TURN,) and log.recorded == ((0.8, 1.2),)
  assert np.flatnonzero(log.agent).tolist() == [4, 5]
  assert np.flatnonzero(log.user).tolist() == [1, 2]
  assert [t.agent_text for t in log.ticks[4:6]] == ["yes", " sir"]
  assert [t.user_text for t in log.ticks[:3]] == ["", "say it", ""]
  assert log.ticks[1].typed == "typed"
  assert log.ticks[2].shown == (("show", "see"),)
  assert log.ticks[3].calls == (ticks.Call(1, "add two"),)
  assert log.ticks[6].results == (ticks.Call(0, "no number"),)
  assert sum(len(t.calls) for t in log.ticks) == 1
  assert {t.seconds for t in log.ticks} == {0.01}


def test_a_long_window_spreads_over_its_ticks():
  grid = clock.Grid(400)
  log = observe.from_frames(
    _frames()[:4],
    timeline=_timeline(),
    tokenizer=_LETTERS,
    grid=grid,
    seconds=np.arange(4) / 100,
  )
  one = observe.from_frames(
    _frames()[:4], timeline=_timeline(), tokenizer=_LETTERS, grid=clock.TICKS
  )
  assert len(log.ticks) == 8 and len(one.ticks) == 4
  for k, window in enumerate(one.ticks):
    heard, perceived = log.ticks[2 * k : 2 * k + 2]
    assert heard.agent == perceived.agent == window.agent
    assert heard.agent_text == window.agent_text
    assert (heard.calls, heard.shown) == (window.calls, window.shown)
    assert perceived.typed == window.typed
    assert perceived.results == window.results
    assert perceived.seconds == k / 100 and heard.seconds is None
    assert not perceived.agent_text and not heard.typed
  # The user's ticks are those of the recording.
  assert np.flatnonzero(log.user).tolist() == [1, 2]


def test_short_windows_share_a_tick():
  frames = [
    dataclasses.replace(f, window=2 * f.window + i)
    for f in _frames()
    for i in range(2)
  ]
  log = observe.from_frames(
    frames,
    timeline=_timeline(),
    tokenizer=_LETTERS,
    grid=clock.Grid(100),
    seconds=np.full(16, 0.01),
  )
  whole = observe.from_frames(
    _frames(), timeline=_timeline(), tokenizer=_LETTERS, grid=clock.TICKS
  )
  assert log.agent.tolist() == whole.agent.tolist()
  assert log.user.tolist() == whole.user.tolist()
  assert log.ticks[1].typed == 2 * whole.ticks[1].typed
  assert {tick.seconds for tick in log.ticks} == {0.02}


def test_sentencepiece_text_keeps_its_spaces():
  class Pieces:
    """Like sentencepiece: the first space is not decoded."""

    words = ("▁press", "▁one", "r", "▁hundred")

    def decode(self, ids):
      text = "".join(self.words[i] for i in ids)
      return text.replace("▁", " ").removeprefix(" ")

  frames = [
    dataclasses.replace(frame, say=say, text_out=(), text_in=())
    for frame, say in zip(
      _frames(), [(), (0,), (2, 1), (), *[(3,)] * 4], strict=True
    )
  ]
  log = observe.from_frames(
    frames, timeline=_timeline(), tokenizer=Pieces(), grid=clock.TICKS
  )
  text = "".join(tick.agent_text for tick in log.ticks)
  assert text == "pressr one hundred hundred hundred"


def test_a_recording_as_ticks():
  log = agents.recorded(_timeline())
  assert np.flatnonzero(log.agent).tolist() == [4, 5]
  assert log.ticks[4].agent_text.split() == ["yes"]
  assert log.ticks[3].calls == (ticks.Call(1, "add 1 2"),)
  assert not agents.silent(_timeline()).agent.any()
  assert (
    agents.always_talking(_timeline()).agent.tolist() == [False] + [True] * 7
  )


def test_there_and_back(tmp_path):
  log = observe.from_frames(
    _frames(),
    timeline=_timeline(),
    tokenizer=_LETTERS,
    grid=clock.TICKS,
    provenance={"step": 3},
  )
  log = dataclasses.replace(log, id="ein\u2028Ding")
  path = tmp_path / "reply" / "0.jsonl"
  ticks.write(log, path)
  assert ticks.read(path) == log
  assert [p.name for p in path.parent.iterdir()] == ["0.jsonl"]
  header, first, second, *_ = map(json.loads, open(path, encoding="utf-8"))
  assert (header["schema"], header["version"]) == ("tml_jax.ticks", 1)
  assert first["tick_id"] == 0 and first["tick_duration_seconds"] == 0.2
  assert second["timestamp"] == 0.2
  assert second["user_chunk"]["contains_speech"] is True
  assert second["user_chunk"]["labels"] == ["turn"]
  fourth = json.loads(open(path, encoding="utf-8").readlines()[4])
  assert fourth["agent_tool_calls"] == [
    {"id": 1, "name": "add", "arguments": "two"}
  ]


@pytest.mark.parametrize(
  "break_it, line, words",
  [
    (lambda lines: lines.pop(3), 4, "tick_id 3: tick 2 is missing"),
    (lambda lines: lines.insert(3, lines[2]), 4, "tick_id 1: it is there tw"),
    (lambda lines: lines.pop(), 1, "3 ticks follow, not 4"),
    (lambda lines: lines.__setitem__(2, lines[2][:20]), 3, "no JSON"),
    (lambda lines: lines.__setitem__(2, "[]"), 3, "no JSON object"),
    (lambda lines: lines.__setitem__(2, '{"tick_id": 1}'), 3, "no tick: "),
    (lambda lines: lines.__setitem__(1, lines[1].replace("false", "0")), 2, ""),
    (lambda lines: lines.pop(0), 1, "schema None version None"),
    (
      lambda lines: lines.__setitem__(0, lines[0].replace(".ticks", ".tocks")),
      1,
      "schema 'tml_jax.tocks'",
    ),
    (
      lambda lines: lines.__setitem__(0, lines[0].replace("turn", "burn")),
      1,
      "the header: .*not annotations: 'burn'",
    ),
    (lambda lines: lines.clear(), 1, "no JSON"),
  ],
)
def test_a_broken_log_is_one_clear_error(break_it, line, words, tmp_path):
  path = tmp_path / "log.jsonl"
  ticks.write(drawn.log("uu.a", drawn.asks(Kind.TURN, 0, 2)), path)
  lines = path.read_text().splitlines()
  break_it(lines)
  path.write_text("".join(f"{text}\n" for text in lines))
  with pytest.raises(
    errors.UserError, match=rf"log\.jsonl, line {line}: .*{words}"
  ):
    ticks.read(path)


def test_no_log_at_all(tmp_path):
  with pytest.raises(errors.UserError, match="is no tick log"):
    ticks.read(tmp_path / "none.jsonl")
  (tmp_path / "bytes").write_bytes(b"\xff\xfe")
  with pytest.raises(errors.UserError, match="is no tick log"):
    ticks.read(tmp_path / "bytes")


@pytest.mark.parametrize(
  "line, old, new",
  [
    (1, '"duration": ', '"duration": 1e400, "": '),
    (1, '"duration": ', '"duration": NaN, "": '),
    (1, '"duration": ', '"duration": true, "": '),
    (1, '"ticks": 4', '"ticks": 4e9'),
    (1, '"recorded_agent": []', '"recorded_agent": [[0, Infinity]]'),
    (1, '"recorded_agent": []', '"recorded_agent": [[-1, 2]]'),
    (1, '"recorded_agent": []', '"recorded_agent": [[0]]'),
    (1, '"end": 0.4', '"end": 1e300'),
    (1, '"provenance": {}', '"provenance": []'),
    (1, '"provenance": {}', f'"provenance": {"[" * 100_000}'),
    (3, '"content": ""', '"content": 5'),
    (3, '"content": ""', '"content": null'),
    (3, '"video_patches": 0', '"video_patches": 1e999'),
    (3, '"shown": []', '"shown": [["show"]]'),
    (3, '"shown": []', '"shown": {"show": "x"}'),
    (3, '"agent_tool_calls": []', '"agent_tool_calls": [{"id": "1"}]'),
    (3, '"agent_tool_results": []', '"agent_tool_results": ["x"]'),
    (3, '_seconds": null', f'_seconds": {"9" * 400}'),
    (
      3,
      '"agent_chunk": {',
      f'"agent_chunk": {"{" + chr(34) + "a" + chr(34) + ":"}',
    ),
  ],
)
def test_values_that_no_log_has_are_one_clear_error(line, old, new, tmp_path):
  path = tmp_path / "log.jsonl"
  ticks.write(drawn.log("uu.a", drawn.asks(Kind.TURN, 0, 2)), path)
  lines = path.read_text().splitlines()
  assert old in lines[line - 1], lines[line - 1]
  lines[line - 1] = lines[line - 1].replace(old, new, 1)
  path.write_text("".join(f"{text}\n" for text in lines))
  with pytest.raises(errors.UserError, match=rf"log\.jsonl, line {line}: "):
    ticks.read(path)
