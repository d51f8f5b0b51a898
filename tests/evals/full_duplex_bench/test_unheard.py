"""Clips in the benchmark's layout, of sentences of our own."""

import json

import numpy as np
import pytest

from tests.helpers import speech
from tml_jax import errors
from tml_jax.data import source
from tml_jax.data.importers import full_duplex_bench as importer
from tml_jax.evals.full_duplex_bench import folders as bench
from tml_jax.evals.full_duplex_bench import (
  mouth,
  published,
  scores,
  unheard,
)
from tml_jax.evals.full_duplex_bench import suite as suite_lib
from tml_jax.evals.full_duplex_bench.folders import Task
from tml_jax.streams import annotation
from tml_jax.streams.annotation import Kind
from tml_jax.streams.timeline import Role, Span, Timeline, Track, Word

CLIPS = 2


def _sentences(voice):
  """Recorded prompts of 1 to 3 s as prepared voices have them."""
  found = [c for c in speech.clips() if 16_000 <= len(c) <= 48_000][:8]
  result = []
  for k, sound in enumerate(found):
    lasts = len(sound) / 16_000
    words = tuple(
      Word(lasts * i / 4, lasts * (i + 1) / 4, f"w{i}") for i in range(4)
    )
    track = Track(Role.ENVIRONMENT, sound, words, (Span(0, lasts),), voice)
    about = {"prompt": f"p{k}", "text": "w0 w1 w2 w3", "language": "en"}
    result.append(Timeline(f"{voice}/{k}", lasts, (track,), metadata=about))
  return result


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  root = tmp_path_factory.mktemp("made") / "fdb"
  voices = {"a": _sentences("a"), "b": _sentences("b")}
  unheard.write(root, voices=voices, clips=CLIPS)
  return root


@pytest.fixture(scope="module")
def clips(written):
  found = bench.open_root(str(written))
  assert not found.left_out
  return found


def test_all_four_layouts_are_read(clips):
  counts = {task: 0 for task in unheard.LAYOUTS}
  for clip in clips.clips:
    counts[clip.task] += 1
  assert set(counts.values()) == {CLIPS}


def test_what_happens_is_where_it_is_said(clips):
  for clip in clips.clips:
    speech_end = clip.spans[-1].end
    if clip.task == Task.BACKCHANNEL:
      assert len(clip.spans) >= unheard.SENTENCES
      continue
    (event,) = clip.events
    if clip.task == Task.SYNTHETIC_PAUSE:
      inside = [s for s in clip.spans if s.start < event.start < s.end - 0.1]
      assert not inside  # nobody speaks in the pause
      assert any(s.end <= event.start + 0.1 for s in clip.spans)
      assert any(s.start >= event.end - 0.1 for s in clip.spans)
      assert clip.duration - speech_end < 0.6
    elif clip.task == Task.TURN:
      assert event.start == pytest.approx(speech_end, abs=0.5)
      room = clip.duration - event.start
      assert room == pytest.approx(unheard.ROOM, abs=1e-3)
    else:
      (spoken,) = [s for s in clip.spans if s.start > event.start - 0.1][:1]
      assert spoken.start == pytest.approx(event.start, abs=0.5)
      before = [s for s in clip.spans if s.end <= event.start]
      assert event.start - before[-1].end >= unheard.REPLY[0] - 0.01


def test_our_importer_reads_the_words(written):
  found = importer.open_folder(str(written), options={})
  timelines = [t for part in found.parts() for t in found.read(part)]
  assert len(timelines) == 4 * CLIPS
  assert not any(isinstance(t, source.BadRecording) for t in timelines)
  for timeline in timelines:
    words = timeline.track(Role.USER).words
    assert len(words) % 4 == 0
    assert len(words) >= 8


def test_the_same_seed_makes_the_same_clips(written, tmp_path):
  voices = {"a": _sentences("a"), "b": _sentences("b")}
  for seed, alike in ((0, True), (1, False)):
    other = tmp_path / str(seed)
    unheard.write(other, voices=voices, clips=CLIPS, seed=seed)
    files = [p for p in written.rglob("*") if p.suffix in (".wav", ".json")]
    files = [p for p in files if p.name != unheard.MADE]
    same = [
      p.read_bytes() == (other / p.relative_to(written)).read_bytes()
      for p in files
    ]
    assert all(same) if alike else not any(same)


def test_what_a_killed_command_left_is_made_anew(written, tmp_path):
  left = tmp_path / "fdb.part" / "v1.0" / str(Task.TURN) / "1"
  left.mkdir(parents=True)
  (left / "half").write_text("")
  voices = {"a": _sentences("a"), "b": _sentences("b")}
  unheard.write(tmp_path / "fdb", voices=voices, clips=CLIPS)
  names = [
    {str(p.relative_to(root)) for p in root.rglob("*")}
    for root in (written, tmp_path / "fdb")
  ]
  assert names[0] == names[1]
  assert not left.exists()


def test_a_voice_with_too_few_sentences(tmp_path):
  with pytest.raises(errors.UserError, match="the voice a has 5"):
    unheard.write(tmp_path / "x", voices={"a": _sentences("a")[:5]}, clips=1)
  assert not (tmp_path / "x").exists()
  with pytest.raises(errors.UserError, match="is there already"):
    unheard.write(tmp_path, voices={}, clips=1)
  with pytest.raises(errors.UserError, match="lacks the voice flite:awb"):
    unheard.open_voices(str(tmp_path), share=0.1)
  with pytest.raises(errors.UserError, match="flite:awb"):
    unheard.open_voices(str(tmp_path), share=0.1, names=("flite:abw",))


def _held(written, tmp_path, agent):
  out = str(tmp_path / agent)
  logs = mouth.write(
    str(written), agent=agent, sentences=_sentences("m"), out=out
  )
  rows = {row.task: row for row in published.measure(str(written), out=out)}
  return logs, rows


def test_agents_without_a_model_by_both_definitions(clips, written, tmp_path):
  """Who answers turns takes no pause; who always talks takes all."""
  logs, rows = _held(written, tmp_path, "oracle")
  assert rows[Task.SYNTHETIC_PAUSE].tor == 0
  assert rows[Task.TURN].tor == rows[Task.INTERRUPTION].tor == 1
  assert 0 <= rows[Task.TURN].latency < 0.5
  by_name = {clip.name: clip for clip in clips.clips}
  ours = {}
  for name, log in logs.items():
    for key, series in scores.measure(log, clip=by_name[name]).items():
      ours.setdefault(key, []).extend(value for value, _ in series)
  assert np.mean(ours["fdb_turn_tor"]) == 1
  assert rows[Task.TURN].latency == pytest.approx(
    np.mean(ours["fdb_turn_latency"]), abs=0.01
  )
  _, rows = _held(written, tmp_path, "silent")
  assert not any(row.tor for row in rows.values())
  assert rows[Task.TURN].latency is None
  assert rows[Task.BACKCHANNEL].jsd == 1.0
  _, rows = _held(written, tmp_path, "always_talking")
  assert all(row.tor == 1 for row in rows.values())
  assert rows[Task.TURN].latency == 0
  assert "always" not in published.table([*rows.values()])


def test_the_mouth_speaks_where_the_agent_sounds(clips, written, tmp_path):
  logs, _ = _held(written, tmp_path, "echo")
  for clip in clips.clips:
    folder = tmp_path / "echo" / clip.folder
    sound = bench.read(folder / bench.OUTPUT)
    assert len(sound) == clip.num_samples
    active = np.repeat(logs[clip.name].agent, 3200)[: len(sound)]
    assert not sound[~active[: len(sound)]].any()
    said = json.loads((folder / bench.WORDS).read_text())["chunks"]
    assert bool(said) <= bool(active.any())
    for chunk in said:
      start, end = chunk["timestamp"]
      assert active[int((start + end) / 2 * 16_000)]
  with pytest.raises(errors.UserError, match="--held_by=recorded"):
    mouth.write(str(written), agent="recorded", sentences=[], out="x")


@pytest.mark.parametrize(
  ("times", "taken"),
  [
    ([], False),
    ([(1.0, 1.2), (1.2, 1.9)], False),
    ([(1.0, 1.2), (1.2, 2.0)], True),
    ([(1.0, 1.1), (1.1, 1.2), (1.2, 1.3), (1.3, 1.4)], True),
    ([(1.0, 1.1), (1.1, 1.2), (1.2, 1.3)], False),
  ],
)
def test_take_over_of_chunks(times, taken):
  assert published.takes_over([Word(s, e, "x") for s, e in times]) == taken


def test_outputs_that_are_missing_or_broken(written, tmp_path):
  with pytest.raises(errors.UserError, match="is missing: hold the clips"):
    published.measure(str(written), out=str(tmp_path))
  _held(written, tmp_path, "silent")
  out = tmp_path / "silent"
  (path,) = out.glob("v1.0/candor_turn_taking/1/output.json")
  path.write_text("{}")
  with pytest.raises(errors.UserError, match="no chunks"):
    published.measure(str(written), out=str(out))


def test_annotations_of_the_clips(clips):
  kinds = {
    clip.task: {a.kind for a in annotation.of(clip.load())}
    for clip in clips.clips
  }
  assert Kind.PAUSE in kinds[Task.SYNTHETIC_PAUSE]
  assert kinds[Task.TURN] == {Kind.TURN}
  assert kinds[Task.INTERRUPTION] == {Kind.TURN, Kind.BARGE_IN}


def test_the_suite_takes_them(written):
  suite = suite_lib.FullDuplexBench(
    str(written), render=lambda mel: np.zeros(0, np.float32)
  )
  assert len(suite.items()) == 4 * CLIPS
