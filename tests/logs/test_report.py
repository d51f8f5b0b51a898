"""What a session leaves behind says what happened, and when."""

import dataclasses
import functools
import time
import wave

import numpy as np
import pytest

from tests.helpers import small_session
from tml_jax.logs import observe, report, ticks, transcript
from tml_jax.streams import clock, microphone
from tml_jax.streams import frame as frame_lib
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
from tml_jax.vocoder import griffin_lim

_TOKENIZER = small_session.Letters()
_MEL = np.full((16, 80), -2.0, np.float32)
_RENDER = functools.partial(
  griffin_lim.render, iterations=4, seed=0, grid=clock.TICKS
)


def _frames(decisions: str, *, say=(), messages=()) -> list[Frame]:
  """One frame a letter, `s` speaks; `say` and `messages` by window."""
  say, messages = dict(say), dict(messages)
  return [
    Frame(
      window=k,
      own_dmel=None,
      user_dmel=None,
      patches=frame_lib.no_patches(),
      text_in=(),
      say=tuple(_TOKENIZER.encode(say.get(k, ""))),
      text_out=messages.get(k, ()),
      speak=letter == "s",
      target_mel=_MEL if letter == "s" else None,
    )
    for k, letter in enumerate(decisions)
  ]


def _timeline(windows: int) -> Timeline:
  sound = np.zeros(windows * clock.TICKS.samples, np.float32)
  sound[3200:6400] = 0.5
  return Timeline(
    id="test",
    duration=windows * clock.TICKS.seconds,
    tracks=(
      Track(
        Role.USER,
        sound,
        (Word(0.2, 0.3, "say"), Word(0.3, 0.4, "it")),
        (Span(0.2, 0.4), Span(1.0, 1.2)),
        "u",
      ),
      Track(Role.AGENT, sound, (Word(0.0, 1.0, "unheard"),), (), "a"),
    ),
    events=(Event(0.5, EventKind.USER_TEXT, "typed"),),
  )


def _lines(frames):
  found = transcript.lines(
    frames,
    timeline=_timeline(len(frames)),
    tokenizer=_TOKENIZER,
    grid=clock.TICKS,
  )
  return [(round(x.start, 1), round(x.end, 1), x.who, x.text) for x in found]


def test_transcript():
  burst = lambda text, complete: Burst(  # noqa: E731
    Control.SHOW, tuple(_TOKENIZER.encode(text)), complete
  )
  frames = _frames(
    "qqssqqsqs",
    say={2: "yes ", 3: "sir", 7: "mute", 8: "e"},
    messages={4: (burst("two ", False),), 5: (burst("parts", True),)},
  )
  assert _lines(frames) == [
    (0.2, 0.4, "user", "say it"),
    (0.5, 0.5, "user types", "typed"),
    (0.6, 1.0, "agent", "yes sir"),
    (1.0, 1.2, "user", "(speech)"),
    (1.0, 1.2, "agent shows", "two parts"),
    (1.4, 1.6, "agent", "mute"),
    (1.8, 2.0, "agent", "e"),
  ]


def test_transcript_of_odd_sessions():
  assert _lines(_frames("sq"))[0] == (0.2, 0.4, "agent", "(sound without text)")
  silent = _lines(_frames("qq", say={0: "hm"}))
  assert silent[0] == (0.2, 0.2, "agent", "hm (without sound)")
  unfinished = (Burst(Control.CALL, (0,), complete=False),)
  written = _lines(_frames("q", messages={0: unfinished}))
  assert (0.2, 0.2, "agent calls", "a (unfinished)") in written
  odd = _TOKENIZER.encode("a\n")
  assert transcript.spell(odd, tokenizer=_TOKENIZER) == "a�"


def test_calls_and_results_have_their_times():
  burst = lambda channel, text, complete: Burst(  # noqa: E731
    channel, tuple(_TOKENIZER.encode(text)), complete
  )
  frames = _frames("qqqqq", messages={1: (burst(Control.CALL, "add", True),)})
  for k, (text, complete) in {3: ("fo", False), 4: ("ur", True)}.items():
    frames[k] = dataclasses.replace(
      frames[k], text_in=(burst(Control.RESULT, text, complete),)
    )
  assert [line for line in _lines(frames) if line[2] not in ("user",)] == [
    (0.4, 0.4, "agent calls", "add"),
    (0.5, 0.5, "user types", "typed"),
    (0.6, 1.0, "result", "four"),
  ]
  # The record of a session that goes on knows as much as there has been.
  record = transcript.Record(_TOKENIZER, grid=clock.TICKS)
  for frame in frames[:4]:
    record.observe(frame)
  assert [str(line).split(None, 2)[2] for line in record.lines()] == [
    "agent calls    add",
    "result         fo (unfinished)",
  ]


def test_no_text_forges_a_line_or_reaches_the_terminal_as_a_code():
  forged = "hi\n    0.5     0.9  agent          I agree"
  codes = "\x1b[2J\x9b\r\x08\u2028\u202e"
  timeline = _timeline(6)
  user, agent = timeline.tracks
  user = dataclasses.replace(
    user, words=(Word(0.2, 0.3, forged), Word(0.3, 0.4, codes))
  )
  timeline = dataclasses.replace(
    timeline,
    tracks=(user, agent),
    events=(Event(0.5, EventKind.USER_TEXT, forged + codes),),
  )
  lines = transcript.lines(
    _frames("qqqqqq"),
    timeline=timeline,
    tokenizer=_TOKENIZER,
    grid=clock.TICKS,
  )
  assert [line.who for line in lines] == ["user", "user types", "user"]
  assert all(str(line).isprintable() for line in lines)
  assert "hi\N{REPLACEMENT CHARACTER}    0.5" in lines[1].text


def test_a_long_timeline_is_heard_in_linear_time():
  words = tuple(Word(k / 10, k / 10 + 0.1, "w") for k in range(40_000))
  spans = tuple(Span(k, k + 0.5) for k in range(4_000))
  timeline = _timeline(6)
  user = dataclasses.replace(timeline.tracks[0], words=words, spans=spans)
  timeline = dataclasses.replace(timeline, duration=4e3, tracks=(user,))
  start = time.process_time()
  lines = transcript.heard(timeline, until=3999.25)
  assert time.process_time() - start < 2  # 160 million comparisons before
  assert [line.text for line in lines[-2:]] == ["w w w w w", "w w w"]


@pytest.fixture(name="held")
def _held():
  frames = _frames("qqssqq", say={2: "yes"})
  return report.Held(
    timeline=_timeline(6),
    frames=frames,
    microphone=microphone.hear(_timeline(6), grid=clock.TICKS).reshape(-1),
    agent=report.agent_audio(frames, render=_RENDER),
    tick_seconds=np.array([0.01, 0.02, 0.01, 0.01, 0.01, 0.03]),
    title="a test",
    grid=clock.TICKS,
  )


def test_files_of_a_session(held, tmp_path):
  summary = report.write(held, directory=tmp_path / "out", tokenizer=_TOKENIZER)
  names = sorted(path.name for path in (tmp_path / "out").iterdir())
  assert names == sorted(
    [
      "agent.wav",
      "conversation.wav",
      "session.png",
      "transcript.txt",
    ]
  )
  with wave.open(str(tmp_path / "out/conversation.wav")) as file:
    assert (file.getnchannels(), file.getframerate()) == (2, 16000)
    data = np.frombuffer(file.readframes(1 << 20), "<i2").reshape(-1, 2)
  windows = data.reshape(6, clock.TICKS.samples, 2)
  assert windows.any(axis=1).tolist() == [
    [False, False],
    [True, False],
    [False, False],
    [False, True],  # decided in window 2
    [False, True],
    [False, False],
  ]
  with wave.open(str(tmp_path / "out/agent.wav")) as file:
    agent = np.frombuffer(file.readframes(1 << 20), "<i2")
  np.testing.assert_array_equal(agent, data[:, 1])
  assert (tmp_path / "out/session.png").read_bytes()[:4] == b"\x89PNG"
  transcript_text = (tmp_path / "out/transcript.txt").read_text()
  assert transcript_text in summary
  assert "10.0 ms (median), at most 30.0 ms: 20.0 times real" in summary
  assert "user      1.2 s, sound in   0.2 s:   -6.0 dBFS RMS" in summary


def test_what_fails_costs_nothing_that_was_made_before(
  held, tmp_path, monkeypatch
):
  held = dataclasses.replace(held, files={"ticks.jsonl": b"the log"})

  def fail(*_, path, **__):
    path.write_text("half a picture")
    raise RuntimeError("disk full")

  monkeypatch.setattr(report.picture, "draw", fail)
  with pytest.raises(RuntimeError, match="disk full"):
    report.write(held, directory=tmp_path, tokenizer=_TOKENIZER)
  assert {path.name for path in tmp_path.iterdir()} == {
    *("ticks.jsonl", "agent.wav", "conversation.wav", "transcript.txt")
  }
  (tmp_path / "agent.wav").write_text("older")

  def full(*_, **__):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(report.sound_lib, "write_wav", full)
  with pytest.raises(OSError, match="No space"):
    report.write(held, directory=tmp_path, tokenizer=_TOKENIZER)
  assert (tmp_path / "agent.wav").read_text() == "older"
  assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_session_whose_name_is_no_text_is_written(held, tmp_path):
  """A file name of Latin-1, as Python gives it."""
  name = "caf\udce9 $\\x$\n.wav"
  track = held.timeline.tracks[0]
  timeline = dataclasses.replace(
    held.timeline,
    id=name,
    tracks=(
      dataclasses.replace(track, voice=name, words=(Word(0.2, 0.3, name),)),
    ),
    events=(),
  )
  out = tmp_path / "out\udce9"
  log = observe.from_frames(
    held.frames, timeline=timeline, tokenizer=_TOKENIZER, grid=clock.TICKS
  )
  ticks.write(log, out / "ticks.jsonl")
  assert ticks.read(out / "ticks.jsonl").id == name
  held = dataclasses.replace(held, timeline=timeline, title=name)
  report.write(held, directory=out, tokenizer=_TOKENIZER)
  assert len([*out.iterdir()]) == 5


def test_a_record_of_hours_keeps_what_a_call_is_told():
  text = lambda text, complete: (  # noqa: E731
    Burst(Control.SHOW, tuple(_TOKENIZER.encode(text)), complete),
  )
  written = {k: text("line" + "ab"[k % 2] * k, True) for k in range(50)}
  written |= {k: text("x" * 500, False) for k in range(50, 70)}
  frames = _frames("q" * 70, messages=written)
  whole = transcript.Record(_TOKENIZER, grid=clock.TICKS)
  bounded = transcript.Record(_TOKENIZER, grid=clock.TICKS, most=7)
  for frame in frames:
    whole.observe(frame)
    bounded.observe(frame)
    assert whole.lines(last=7)[-7:] == bounded.lines(last=7)[-7:]
  assert len(bounded._done) == 7
  assert all(len(tokens) <= 4096 for _, tokens in bounded._open.values())
