"""Full-Duplex-Bench from its folders to its tables, by a small model."""

import dataclasses
import functools
import json
import shutil
import wave

import numpy as np
import pytest

from tests.helpers import full_duplex_bench as layout
from tests.helpers import small_session
from tml_jax import errors
from tml_jax.data import media
from tml_jax.evals import agents, run, show
from tml_jax.evals import kept as kept_lib
from tml_jax.evals.full_duplex_bench import folders as bench
from tml_jax.evals.full_duplex_bench import scores
from tml_jax.evals.full_duplex_bench import suite as suite_lib
from tml_jax.evals.metrics import panel
from tml_jax.logs import observe
from tml_jax.streams import clock, framing
from tml_jax.streams.timeline import Role, Span, Track, Word
from tml_jax.vocoder import griffin_lim

_CONFIG = small_session.config(temperature=0.0)
_RENDER = functools.partial(
  griffin_lim.render, iterations=2, seed=0, grid=clock.TICKS
)


@pytest.fixture
def root(tmp_path):
  layout.write(tmp_path / "fdb")
  return tmp_path / "fdb"


def _suite(root, **options):
  return suite_lib.FullDuplexBench(str(root), render=_RENDER, **options)


def _evaluate(suite, directory, *, step=1):
  return run.evaluate(
    suite,
    config=_CONFIG,
    model=small_session.model(_CONFIG),
    variables=small_session.variables(_CONFIG),
    tokenizer=small_session.Letters(),
    kept=kept_lib.Kept(directory, provenance={"step": step}),
  )


def _outputs(root):
  return {path: path.read_bytes() for path in root.glob("*/*/*/output.*")}


def _held(clip, *, speaks, words=()):
  """Frames and log of an agent that hums in the windows `speaks`."""
  timeline = clip.load()
  sound = np.zeros(clip.num_samples, np.float32)
  noise = np.random.default_rng(0).normal(size=clip.num_samples)
  spans = []
  for first, stop in speaks:
    part = slice(first * 3200, stop * 3200)
    sound[part] = 0.1 * noise[part]
    spans.append(Span(first * 0.2, min(stop * 0.2, clip.duration)))
  agent = Track(Role.AGENT, sound, tuple(words), tuple(spans), "agent")
  frames = framing.frames(
    dataclasses.replace(timeline, tracks=(*timeline.tracks, agent)),
    config=_CONFIG.streams,
    tokenizer=small_session.Letters(),
  )
  log = observe.from_frames(
    frames,
    timeline=timeline,
    tokenizer=small_session.Letters(),
    grid=clock.TICKS,
    provenance={"step": 1},
  )
  return {"timeline": timeline, "frames": frames, "log": log}


def test_outputs_are_in_time_with_the_input(root):
  suite = _suite(root)
  clips = {clip.name: clip for clip in bench.open_root(str(root)).clips}
  clip = clips["candor_pause_handling/1"]  # 48 kHz
  folder = root / clip.folder
  words = [Word(0.6, 0.9, "ab"), Word(0.9, 1.2, " cd")]
  held = _held(clip, speaks=[(3, 6), (9, 10)], words=words)
  assert not suite.is_kept(held["log"], family=clip.task)
  suite.keep(
    held["timeline"], frames=held["frames"], log=held["log"], family=clip.task
  )
  assert suite.is_kept(held["log"], family=clip.task)
  assert not suite.is_kept(
    dataclasses.replace(held["log"], provenance={"step": 2}), family=clip.task
  )
  (sound,) = media.sound(folder / bench.OUTPUT)
  assert len(sound) == clip.num_samples
  by_window = sound[: len(sound) // 3200 * 3200].reshape(-1, 3200)
  power = np.square(by_window).mean(axis=1)
  loud = np.flatnonzero(power > 1e-4).tolist()
  assert loud == [3, 4, 5, 9] and not power[[0, 1, 2, 7, 8]].any()
  found = json.loads((folder / bench.WORDS).read_text())
  assert found["chunks"] == [
    {"text": "ab", "timestamp": [0.6, 0.9]},
    {"text": "cd", "timestamp": [0.9, 1.2]},
  ]
  # Cut in the middle of writing: it is not taken for finished.
  with open(folder / bench.OUTPUT, "r+b") as file:
    file.truncate(1000)
  assert not suite.is_kept(held["log"], family=clip.task)
  # A silent agent has an output, too.
  clip = clips["icc_backchannel/0"]
  held = _held(clip, speaks=[])
  suite.keep(
    held["timeline"], frames=held["frames"], log=held["log"], family=clip.task
  )
  (sound,) = media.sound(root / clip.folder / bench.OUTPUT)
  assert len(sound) == clip.num_samples and not sound.any()
  found = json.loads((root / clip.folder / bench.WORDS).read_text())
  assert (found["text"], found["chunks"]) == ("", [])
  assert not list(root.rglob("*.partial"))


def test_outputs_are_not_written_through_links(root, tmp_path):
  suite = _suite(root)
  (clip,) = (c for c in bench.open_root(str(root)).clips if c.events == ())
  folder = root / clip.folder
  held = _held(clip, speaks=[(1, 2)])
  outside = tmp_path / "outside"
  outside.write_text("kept")
  sound = (folder / bench.INPUT).read_bytes()
  for name in (bench.OUTPUT, bench.WORDS):
    (folder / name).symlink_to(outside)
    (folder / f"{name}.partial").symlink_to(
      bench.INPUT if name == bench.OUTPUT else outside
    )
  assert not suite.is_kept(held["log"], family=clip.task)
  suite.keep(
    held["timeline"], frames=held["frames"], log=held["log"], family=clip.task
  )
  assert suite.is_kept(held["log"], family=clip.task)
  assert outside.read_text() == "kept"
  assert (folder / bench.INPUT).read_bytes() == sound
  # A link to outputs that somebody else wrote is not taken for ours.
  (folder / bench.OUTPUT).rename(tmp_path / "sound")
  (folder / bench.OUTPUT).symlink_to(tmp_path / "sound")
  assert not suite.is_kept(held["log"], family=clip.task)
  # Nor are folders links out of where outputs go, before anything is held.
  out = tmp_path / "out"
  (out / clip.folder.parent).mkdir(parents=True)
  (out / clip.folder).symlink_to(tmp_path)
  with pytest.raises(errors.UserError, match="leads out of --out="):
    _suite(root, out=str(out))


@pytest.mark.slow
def test_end_to_end(root, tmp_path):
  (root / bench.HUMAN).write_text(json.dumps({"0": [0.1] * 9}))
  report = _evaluate(_suite(root), tmp_path / "ticks")
  assert len(report.scored) == 9 and report.reused == 0
  first = _outputs(root)
  assert len(first) == 18
  sounds = 0
  for clip in bench.open_root(str(root)).clips:
    folder = root / clip.folder
    with wave.open(str(folder / bench.OUTPUT)) as file:
      assert (file.getframerate(), file.getnchannels()) == (16_000, 1)
      assert file.getnframes() == clip.num_samples
      data = np.frombuffer(file.readframes(10**9), "<i2")
    found = json.loads((folder / bench.WORDS).read_text())
    assert found["text"] == " ".join(c["text"] for c in found["chunks"])
    # The sound is where the log has it.
    (log,) = (s.log for s in report.scored if s.log.id == clip.name)
    heard = np.repeat(log.agent, 3200)[: len(data)]
    assert not data[~heard].any()
    sounds += bool(data.any())
    for chunk in found["chunks"]:
      start, end = chunk["timestamp"]
      assert 0 <= start < end <= clip.duration
  assert sounds  # random weights do speak
  # Nothing is held again, nothing is written again.
  again = _evaluate(_suite(root), tmp_path / "ticks")
  assert again.reused == 9
  assert show.table(again, panel.ALL) == show.table(report, panel.ALL)
  assert _outputs(root) == first
  # What was lost, or is another model's, is made again: alone.
  lost = root / "v1.0/icc_backchannel/0/output.wav"
  lost.unlink()
  other = root / "v1.5/talking_to_other/6/output.json"
  other.write_text(json.dumps({"text": "", "chunks": []}))
  again = _evaluate(_suite(root), tmp_path / "ticks")
  assert again.reused == 7 and _outputs(root) == first
  # So is a clip whose input has changed.
  path = root / "v1.0/candor_turn_taking/3/input.wav"
  layout.write_wav(path, np.zeros(9000), rate=16_000, channels=1)
  turn = root / "v1.0/candor_turn_taking/3/turn_taking.json"
  turn.write_text('[{"timestamp": [0.1, 0.2]}]')
  again = _evaluate(_suite(root), tmp_path / "ticks")
  assert again.reused == 8
  _check_tables(report)


def _check_tables(report):
  table = show.table(report, "candor_turn_taking")
  head, _, *rows = table.splitlines()
  agents = head.split()[3:]
  assert agents[:3] == ["oracle", "silent", "always_talking"]
  assert not any(name.startswith("recorded") for name in agents)

  def cells(title, unit):
    (row,) = [row for row in rows if row.startswith(title)]
    assert row.endswith(unit)
    found = row.removesuffix(unit).split()[-len(agents) :]
    return dict(zip(agents, found, strict=True))

  takes = cells("FDB turn: takes over", "%")
  assert takes["oracle"] == takes["always_talking"] == "100.0*"
  assert takes["silent"] == "0.0*"
  # Who always talks has the best latency as published.
  latency = cells("FDB turn: latency, published", "s, mean")
  assert (latency["silent"], latency["always_talking"]) == ("-", "0.00*")
  assert "turns answered" in table
  assert "FDB" in show.html(report, title="fdb")
  assert all(np.isnan(v) for v in report.content[panel.ALL].values())


@pytest.mark.slow
def test_another_directory_for_outputs(root, tmp_path):
  tasks = ("user_backchannel", "icc_backchannel")
  out = tmp_path / "out"
  suite = _suite(root, out=str(out), tasks=tasks)
  _evaluate(suite, tmp_path / "ticks")
  assert _outputs(root) == {}
  assert {path.relative_to(out).as_posix() for path in _outputs(out)} == {
    f"v1.{version}/{name}/output.{kind}"
    for version, name in ((0, "icc_backchannel/0"), (5, "user_backchannel/5"))
    for kind in ("wav", "json")
  }


def test_bad_input(root):
  (root / "v1.0/icc_backchannel/0/input.wav").unlink()
  suite = _suite(root)
  assert list(suite.left_out) == ["icc_backchannel/0"]
  assert len(suite.items()) == 8
  shutil.copytree(
    root / "v1.5/user_backchannel/5", root / "v1.5/user_backchannel/15"
  )
  assert [
    item.load().id
    for item in _suite(root, tasks=("user_backchannel",), count=1).items()
  ] == ["user_backchannel/5"]
  with pytest.raises(errors.UserError, match="--out=/proc/x cannot be written"):
    _suite(root, out="/proc/x")


def test_the_oracle_does_what_is_asked(root):
  suite = _suite(root)
  found = {
    item.load().id: suite.measure(agents.oracle(item.load()))
    for item in suite.items()
  }
  values = {k: v for series in found.values() for k, v in series.items()}
  for name in ("fdb_turn_tor", "fdb_interruption_tor", "yielded"):
    assert values[name] == [(1, 1)]
  assert (
    values["fdb_turn_early"] == values["fdb_interruption_early"] == [(0, 1)]
  )
  for name in ("backchannel", "side_talk", "background"):
    assert values[f"selectivity_{name}"] == [(1, 1)]
  assert values["fdb_pause_tor_inside"] == [(0, 1)]
  for series in found.values():
    assert all(value == 0 for value, _ in series["false_fires"])
    assert all(value == 1 for value, _ in series.get("responded", []))
  interrupted = found["user_interruption/4"]
  assert interrupted["fdb_stopped"] == [(1, 1)]
  ((latency, _),) = interrupted["fdb_stop_latency"]
  assert 0 < latency <= 0.4 + 1e-6
  assert scores.TABLE[0] in suite.metrics
