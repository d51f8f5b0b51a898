"""Game-Time as a suite: its items, its outputs, agents beside a model."""

import dataclasses
import functools
import json

import numpy as np
import pytest

from tests.helpers import game_time as layout
from tests.helpers import small_session
from tml_jax import errors
from tml_jax.data import media
from tml_jax.evals import kept as kept_lib
from tml_jax.evals import run
from tml_jax.evals.game_time import folders as bench
from tml_jax.evals.game_time import scores
from tml_jax.evals.game_time import suite as suite_lib
from tml_jax.evals.metrics import panel
from tml_jax.logs import observe
from tml_jax.streams import clock, framing
from tml_jax.streams.timeline import Role, Span, Track
from tml_jax.vocoder import griffin_lim

_CONFIG = small_session.config(temperature=0.0)
_RENDER = functools.partial(
  griffin_lim.render, iterations=2, seed=0, grid=clock.TICKS
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  root = tmp_path_factory.mktemp("game") / "time"
  layout.write(root)
  return root


def _suite(root, **options):
  return suite_lib.GameTime(str(root), render=_RENDER, **options)


def _keep(suite, *, first, stop):
  """An agent hums in windows [first, stop) of the first item."""
  timeline = suite.items()[0].load()
  sound = np.zeros(round(timeline.duration * 16_000), np.float32)
  part = slice(first * 3200, stop * 3200)
  sound[part] = 0.1 * np.random.default_rng(0).normal(size=len(sound))[part]
  spans = (Span(first * 0.2, stop * 0.2),)
  agent = Track(Role.AGENT, sound, (), spans, "agent")
  user = dataclasses.replace(timeline.track(Role.USER), words=())
  frames = framing.frames(
    dataclasses.replace(timeline, tracks=(user, agent)),
    config=_CONFIG.streams,
    tokenizer=small_session.Letters(),
  )
  log = observe.from_activity(
    timeline, agent=np.array([f.own_dmel is not None for f in frames])
  )
  made = list(log.ticks)
  made[first] = dataclasses.replace(made[first], agent_text=" one two")
  log = dataclasses.replace(log, ticks=tuple(made), provenance={"step": 1})
  suite.keep(timeline, frames=frames, log=log, family="sequence")
  return timeline, log


def test_items_are_families(root):
  suite = _suite(root)
  families = [item.family for item in suite.items()]
  assert len(set(families)) == len(layout.TEXTS)
  assert families[0] == "sequence"
  assert all(suite.asks(item.load()) for item in suite.items())
  chosen = _suite(root, tasks=("cue",), count=1)
  assert [item.family for item in chosen.items()] == ["cue"]


def test_outputs_are_in_time_with_the_input(root, tmp_path):
  suite = _suite(root, out=str(tmp_path / "out"), tasks=("sequence",))
  timeline, log = _keep(suite, first=20, stop=30)
  base = tmp_path / "out" / "basic_instructions"
  task = "1-a-Sequence-Number/test/0"
  user, agent = media.sound(base / "audios" / f"{task}.wav")
  assert len(user) == round(timeline.duration * 16_000)
  theirs = timeline.track(Role.USER).audio
  np.testing.assert_allclose(user, theirs, atol=1e-4)
  loud = np.flatnonzero(np.abs(agent) > 0.01) / 16_000
  assert 3.9 < loud[0] < 4.3
  assert 5.7 < loud[-1] < 6.3
  lines = (base / "alignments" / f"{task}.jsonl").read_text().splitlines()
  told, said = map(json.loads, lines)
  assert [word for word, _, _ in told] == "count from one to three".split()
  assert [(word, who) for word, _, who in said] == [
    ("one", "AGENT"),
    ("two", "AGENT"),
  ]
  assert said[0][1][0] == pytest.approx(4.0)
  assert said[1][1][1] == pytest.approx(6.0)
  # What was written is read as an alignment, too.
  words = bench.read_words(base / "alignments" / f"{task}.jsonl")
  assert len(words) == 7
  assert suite.is_kept(log, family="sequence")
  (base / "audios" / f"{task}.wav").unlink()
  assert not suite.is_kept(log, family="sequence")


def test_outputs_of_another_run_are_made_again(root, tmp_path):
  """Two runs with one folder: the judge reads what the last one said."""
  suite = _suite(root, out=str(tmp_path / "out"), tasks=("sequence",))
  _, first = _keep(suite, first=20, stop=30)
  second = dataclasses.replace(first, provenance={"step": 2})
  assert suite.is_kept(first, family="sequence")
  assert not suite.is_kept(second, family="sequence")
  (of,) = (tmp_path / "out").glob("*/provenance/*/test/0.json")
  of.write_text(json.dumps({"provenance": second.provenance}))
  assert not suite.is_kept(first, family="sequence")
  of.unlink()
  assert not suite.is_kept(first, family="sequence")


def test_without_a_folder_nothing_is_written(root, tmp_path):
  before = sorted(root.rglob("*"))
  suite = _suite(root)
  _, log = _keep(suite, first=20, stop=22)
  assert suite.is_kept(log, family="sequence")
  assert sorted(root.rglob("*")) == before


def test_outputs_are_not_written_through_links(root, tmp_path):
  out, outside = tmp_path / "out", tmp_path / "outside"
  outside.mkdir()
  out.mkdir()
  (out / "basic_instructions").symlink_to(outside)
  suite = _suite(root, out=str(out), tasks=("sequence",))
  with pytest.raises(errors.UserError, match="out"):
    _keep(suite, first=20, stop=22)
  assert not [*outside.iterdir()]


def test_the_ideal_stands_beside_a_model(root):
  suite = _suite(root)
  assert not {"recorded", "recorded_late"} & set(suite.agents)
  for item in suite.items():
    timeline = item.load()
    found = suite.measure(suite.agents["ideal"](timeline))
    assert any(name.startswith("gt_") for name in found)
  assert suite.metrics == scores.TABLE


@pytest.mark.slow  # sessions of a model
def test_a_model_is_scored(root, tmp_path):
  suite = _suite(root, out=str(tmp_path / "out"), tasks=("cue", "sequence"))
  found = run.evaluate(
    suite,
    config=_CONFIG,
    model=small_session.model(_CONFIG),
    variables=small_session.variables(_CONFIG),
    tokenizer=small_session.Letters(),
    kept=kept_lib.Kept(tmp_path, provenance={"step": 1}),
  )
  assert found.families == ["sequence", "cue"]
  values = found.columns[panel.ALL]
  assert values["ideal"]["gt_cue"].value == 1
  assert values["ideal"]["gt_responds"].value == 1
  assert values[panel.MODEL]["gt_cue"].events == 1
  assert len([*(tmp_path / "out").rglob("*.wav")]) == 2
