"""The sound of agents, heard by a recogniser and marked by a network."""

import dataclasses
import functools
import json
import pathlib
import sys

import numpy as np
import pytest

from tests.helpers import small_session, speech
from tml_jax import errors
from tml_jax.data import source
from tml_jax.data.voices import asterisk
from tml_jax.evals import from_sound, quality, report, run, suites
from tml_jax.evals import kept as kept_lib
from tml_jax.evals.metrics import heard, panel
from tml_jax.logs import observe, ticks
from tml_jax.streams import annotation, clock, framing
from tml_jax.streams.annotation import Annotation, Kind
from tml_jax.streams.timeline import Role, Span, Timeline, Track
from tml_jax.vocoder import griffin_lim

pytest.importorskip("pocketsphinx")
pytest.importorskip("speechmos")

_CONFIG = small_session.config(temperature=0.0)
_BOTH = from_sound.By("pocketsphinx", quality.Measure.DNSMOS)
_WORDS = from_sound.By("pocketsphinx")
_RENDER = functools.partial(
  griffin_lim.render, iterations=16, seed=0, grid=clock.TICKS
)
_START = 1.0


@functools.cache
def _prompts(count):
  """Recorded sentences of 2 to 4 s with their texts."""
  speech.clips(1)  # skips where they are not installed
  settings = source.Settings(root=pathlib.Path("/"))
  voice = asterisk.open_prompts("en", settings=settings)
  found = []
  for k in range(len(voice)):
    try:
      item = voice[k]
    except source.BadRecording:
      continue
    if 2 <= item.duration <= 4 and len(item.tracks[0].words) >= 5:
      found.append(item)
    if len(found) == count:
      return found
  raise AssertionError("too few prompts")


def _timeline(k, *, voice="asterisk:en", recorded=True):
  """The user hums; the agent says prompt k."""
  prompt = _prompts(3)[k]
  said = prompt.tracks[0]
  duration = _START + prompt.duration + 0.4
  sound = np.zeros(round(duration * 16_000), np.float32)
  first = round(_START * 16_000)
  sound[first : first + len(said.audio)] = said.audio
  words = tuple(
    dataclasses.replace(w, start=w.start + _START, end=w.end + _START)
    for w in said.words
  )
  hum = 0.1 * np.random.default_rng(k).normal(size=8_000).astype(np.float32)
  user = Track(Role.USER, hum, (), (Span(0.0, 0.5),), "user")
  spans = (Span(_START, _START + prompt.duration),)
  agent = Track(Role.AGENT, sound, words, spans, voice)
  due = Annotation(
    Kind.TURN, 0.0, 0.5, due=_START, text=prompt.metadata["text"]
  )
  return Timeline(
    id=f"says/{k}",
    duration=duration,
    tracks=(user, agent) if recorded else (user,),
    metadata={
      "family": "says",
      annotation.KEY: [annotation.to_json(due)],
    },
  )


class _Says(suites.Suite):
  def __init__(self, *timelines):
    self._timelines = timelines

  def items(self):
    return [
      suites.Item("says", seed=k, load=lambda t=t: t)
      for k, t in enumerate(self._timelines)
    ]


def _frames(timeline, *, mel=None):
  """Those of the recorded agent; with another mel where it is given."""
  agent = dataclasses.replace(timeline.track(Role.AGENT), words=())
  user = timeline.track(Role.USER)
  frames = framing.frames(
    dataclasses.replace(timeline, tracks=(user, agent)),
    config=_CONFIG.streams,
    tokenizer=small_session.Letters(),
  )
  if mel is None:
    return frames
  return [
    dataclasses.replace(frame, target_mel=mel(frame.target_mel))
    if frame.speak
    else frame
    for frame in frames
  ]


def _log(timeline, *, step=1):
  """Of an agent that writes and does what was recorded."""
  log = observe.from_activity(
    timeline,
    agent=observe.recorded_activity(timeline),
    says_recording=True,
  )
  return dataclasses.replace(log, provenance={"step": step})


def _report(suite, logs):
  return report.Report(
    scored=[
      report.Scored("says", log=log, series={panel.MODEL: suite.measure(log)})
      for log in logs
    ],
    sums={},
    skipped={},
    reused=0,
    tick_seconds=np.zeros(0),
    metrics=suite.metrics,
    agents=(),
  )


def _heard(tmp_path, *, by=_BOTH, mel=None, count=1):
  timelines = [_timeline(k) for k in range(count)]
  suite = from_sound.FromSound(
    _Says(*timelines), by=by, folder=tmp_path / "sound", render=_RENDER
  )
  logs = [_log(timeline) for timeline in timelines]
  for item in suite.items():
    item.load()
  for timeline, log in zip(timelines, logs, strict=True):
    suite.keep(
      timeline, frames=_frames(timeline, mel=mel), log=log, family="says"
    )
  return suite, logs


@pytest.mark.slow  # a recogniser takes its time for noise
def test_recorded_speech_is_better_than_noise(tmp_path):
  """Through the same mel and the same vocoder, and as it was recorded."""
  random = np.random.default_rng(0)
  suite, logs = _heard(tmp_path / "speech", count=2)
  found = from_sound.rows(_report(suite, logs), suite=suite)
  noisy, logs = _heard(
    tmp_path / "noise",
    mel=lambda mel: random.normal(mel.mean(), 0.3, mel.shape).astype("f"),
  )
  noise = from_sound.rows(_report(noisy, logs), suite=noisy)
  spoken, nonsense = found["says"].values, noise["says"].values
  assert spoken["recorded_word_error"] <= 0.5
  assert spoken["word_error"] <= 0.6
  assert nonsense["word_error"] >= 0.8
  assert spoken["recorded_ovrl"] > 2.4
  assert spoken["ovrl"] > nonsense["ovrl"] + 0.5
  assert spoken["sig"] > nonsense["sig"] + 0.5
  # What it writes is right in both; what it says is not.
  assert spoken["right_text"] == nonsense["right_text"] == 1
  assert nonsense["right_sound"] == 0
  assert found["says"].conversations == 2
  table = from_sound.text(found)
  assert "says" in table
  assert f"{100 * spoken['word_error']:.1f}" in table
  json.dumps(from_sound.as_json(found), allow_nan=False)


def test_what_was_heard_is_kept_with_its_log(tmp_path):
  suite, (log,) = _heard(tmp_path, by=_WORDS)
  assert suite.is_kept(log, family="says")
  again = dataclasses.replace(log, provenance={"step": 2})
  assert not suite.is_kept(again, family="says")
  other = from_sound.FromSound(
    _Says(), by=_BOTH, folder=tmp_path / "sound", render=_RENDER
  )
  assert not other.is_kept(log, family="says")
  (path,) = (tmp_path / "sound").rglob("*.json")
  path.write_text(path.read_text()[:-20])
  assert not suite.is_kept(log, family="says")


def test_the_same_id_in_two_corpora(tmp_path):
  """Recordings know no family: neither is written over the other."""
  timelines = {family: _timeline(k) for k, family in enumerate("ab")}
  timelines = {
    family: dataclasses.replace(each, id="call/1", metadata={})
    for family, each in timelines.items()
  }

  class Calls(suites.Suite):
    def items(self):
      return [
        suites.Item(family, seed=0, load=lambda t=each: t)
        for family, each in timelines.items()
      ]

  suite = from_sound.FromSound(
    Calls(), by=from_sound.By(), folder=tmp_path, render=_RENDER
  )
  logs = {family: _log(each) for family, each in timelines.items()}
  for item in suite.items():
    item.load()
  for family, each in timelines.items():
    suite.keep(each, frames=[], log=logs[family], family=family)
  said = [
    suite.found(log, family=family)["recorded"]["said"]
    for family, log in logs.items()
  ]
  assert said == [
    " ".join(word.text for word in each.track(Role.AGENT).words)
    for each in timelines.values()
  ]
  assert said[0] != said[1]
  names = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.json"))
  assert names == ["a/call-1.json", "b/call-1.json"]
  # Beside their tick logs, by the same names.
  for family in timelines:
    log = kept_lib.log_file(tmp_path, family=family, identifier="call/1")
    assert str(log.relative_to(tmp_path / "ticks")) == f"{family}/call-1.jsonl"


def test_silence_and_other_languages(tmp_path):
  """Neither has words; the second is counted."""
  silent = _timeline(0)
  french = dataclasses.replace(_timeline(1, voice="asterisk:fr"), id="says/1")
  suite = from_sound.FromSound(
    _Says(silent, french), by=_BOTH, folder=tmp_path, render=_RENDER
  )
  nothing = np.zeros(clock.TICKS.num_windows(silent.duration), bool)
  quiet = observe.from_activity(silent, agent=nothing)
  frames = [
    dataclasses.replace(f, speak=False, target_mel=None)
    for f in _frames(silent)
  ]
  for item in suite.items():
    item.load()
  suite.keep(silent, frames=frames, log=quiet, family="says")
  log = _log(french)
  suite.keep(french, frames=_frames(french), log=log, family="says")
  found = from_sound.rows(_report(suite, [quiet, log]), suite=suite)["says"]
  assert (found.conversations, found.unknown, found.words) == (2, 1, 0)
  assert "word_error" not in found.values
  assert found.values["right_sound"] == 0
  text = from_sound.text({panel.ALL: found})
  assert "1 conversations in languages" in text


def test_who_only_marks_knows_nothing_of_languages(tmp_path):
  by = from_sound.By(measure=quality.Measure.DNSMOS)
  suite, logs = _heard(tmp_path, by=by)
  found = from_sound.rows(_report(suite, logs), suite=suite)
  assert [(row.conversations, row.unknown) for row in found.values()] == [
    (1, 0)
  ] * 2
  assert found["says"].values["ovrl"] > 1
  assert "learned" not in from_sound.text(found)


def test_the_recorded_agent_is_that_of_the_script(tmp_path):
  """Whatever became of it with a user who waits."""
  script = _timeline(0)
  suite = from_sound.FromSound(
    _Says(script), by=_WORDS, folder=tmp_path, render=_RENDER
  )
  (item,) = suite.items()
  item.load()
  held = dataclasses.replace(
    script, tracks=(script.track(Role.USER),), metadata={"family": "says"}
  )
  log = observe.from_activity(held, agent=np.zeros(12, bool))
  suite.keep(held, frames=[], log=log, family="says")
  found = suite.found(log, family="says")
  assert found["recorded"]["said"] == " ".join(
    word.text for word in script.track(Role.AGENT).words
  )
  assert len(found["recorded"]["series"]) == 1
  assert found["agent"]["words"] == []


def test_language():
  assert from_sound.language(_timeline(0)) == "en"
  assert from_sound.language(_timeline(0, voice="espeak:fr-fr+f3")) == "fr"
  assert from_sound.language(_timeline(0, voice="a call")) == ""
  assert from_sound.language(_timeline(0, recorded=False)) == "en"
  called = dataclasses.replace(_timeline(0), metadata={"language": "it"})
  assert from_sound.language(called) == "it"


def test_words_go_to_the_run_that_sounds():
  active = np.zeros(20, bool)
  active[2:4] = active[10:14] = True
  log = ticks.Log(
    id="x",
    family="",
    duration=4.0,
    annotations=(),
    recorded=(),
    ticks=tuple(
      ticks.Tick(agent=bool(on), user=False, agent_text="old") for on in active
    ),
  )
  words = [[0.3, 0.5, "one"], [1.0, 1.1, "two"], [2.1, 2.2, "three"]]
  words += [[3.3, 3.5, "four"]]
  runs = heard.sounds(from_sound.with_words(log, words=words))
  assert [run.text for run in runs] == ["one two", "three four"]
  (none,) = {t.agent_text for t in from_sound.with_words(log, words=[]).ticks}
  assert none == ""


@pytest.mark.parametrize(
  ("found", "said", "count"),
  [
    ("a b c", "a b c", 0),
    ("a c", "a b c", 1),
    ("a x c", "a b c", 1),
    ("x a b c", "a b c", 1),
    ("", "a b c", 3),
    ("a b", "", 2),
    ("b c a", "a b c", 2),
  ],
)
def test_word_errors(found, said, count):
  assert from_sound.word_errors(found.split(), said=said.split()) == count


def test_bad_input(monkeypatch):
  with pytest.raises(errors.UserError, match="pocketsphinx"):
    from_sound.By("pocketsphynx").check()
  from_sound._measure.cache_clear()
  monkeypatch.setitem(sys.modules, "speechmos", None)
  with pytest.raises(errors.UserError, match=r"speechmos.*tml_jax\[eval\]"):
    from_sound.By(measure=quality.Measure.DNSMOS).check()


def test_parts_of_speech():
  whole = round(quality.SECONDS * 16_000)
  for samples, lengths in (
    (whole, [whole]),
    (100, [100]),
    (whole + 100, [whole]),
    (2 * whole, [whole, whole]),
    (whole + 40_000, [whole, 40_000]),
  ):
    found = quality.parts(np.zeros(samples))
    assert [len(part) for part in found] == lengths


def test_marks_of_speech_and_noise():
  measure = quality.Dnsmos()
  clip = np.concatenate([p.tracks[0].audio for p in _prompts(3)])
  noise = np.random.default_rng(0).normal(0, clip.std(), len(clip))
  clean, noisy, alone = map(measure.marks, (clip, clip + noise, noise))
  assert clean.ovrl > noisy.ovrl + 0.8 > alone.ovrl + 0.8
  assert clean.bak > noisy.bak + 1
  assert clean.sig > alone.sig + 1
  assert measure.marks(np.zeros(16_000)) is None
  assert measure.marks(np.zeros(0)) is None


@pytest.mark.slow  # a session of a model
def test_a_model_with_random_weights_is_heard(tmp_path):
  suite = from_sound.FromSound(
    _Says(_timeline(0)), by=_BOTH, folder=tmp_path / "sound", render=_RENDER
  )

  def evaluate():
    return run.evaluate(
      suite,
      config=_CONFIG,
      model=small_session.model(_CONFIG),
      variables=small_session.variables(_CONFIG),
      tokenizer=small_session.Letters(),
      kept=kept_lib.Kept(tmp_path, provenance={"step": 1}),
    )

  found = from_sound.rows(evaluate(), suite=suite)["says"]
  assert found.conversations == 1
  assert found.values["right_sound"] == 0
  assert found.values["recorded_word_error"] <= 0.5
  if "ovrl" in found.values:
    assert found.values["ovrl"] < found.values["recorded_ovrl"] - 0.5
  again = evaluate()
  assert again.reused == 1
  assert from_sound.rows(again, suite=suite)["says"] == found
