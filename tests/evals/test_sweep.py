"""Several settings on the same users: the grid, the choice, its file."""

import functools
import json
import math

import numpy as np
import pytest

from tests.helpers import small_session
from tml_jax import errors
from tml_jax.config import SemanticEnd
from tml_jax.evals import as_json, suites, sweep, sweep_picture
from tml_jax.evals.metrics import panel, statistics
from tml_jax.evals.metrics.statistics import Value
from tml_jax.live.reacting import Users
from tml_jax.streams import annotation, clock
from tml_jax.streams.timeline import Role, Span, Timeline, Track

_CONFIG = small_session.config(temperature=0.0)
_TOKENIZER = small_session.Letters()


def test_a_grid_is_every_combination():
  found = sweep.points(
    _CONFIG,
    grid=["turns.endpoint_s=0.3,0.5", "turns.semantic_end=off,model"],
  )
  assert [
    (p.config.turns.endpoint_s, p.config.turns.semantic_end) for p in found
  ] == [(s, end) for s in (0.3, 0.5) for end in ("off", "model")]
  assert found[1].config.turns.semantic_end is SemanticEnd.MODEL
  assert found[0].name == "endpoint_s=0.3,semantic_end=off"
  # A harness is no reason to compile again.
  program = sweep.program_of(found[0], run_config=_CONFIG)
  assert program == _CONFIG != found[0].config


@pytest.mark.parametrize(
  "grid, problem",
  [
    (["model.d_model=8"], "only fields of sample. and turns."),
    (["turns.endpoint=0.3"], "no such field; one of .*turns.endpoint_s"),
    (["turns.endpoint_s=soon"], "'soon' is no float"),
    (["turns.endpoint_s=0.3,"], "'' is no float"),
    (["turns.endpoint_s=0.01"], "turns.endpoint_s = 0.01: at least 0.1"),
    (["turns.start=late"], "turns.start = 'late': it takes"),
    (["sample.onset_bias=nan"], "onset_bias = nan: it takes a finite number"),
    (["sample.onset_bias=200"], "at least -100.0, at most 100.0"),
    (["turns.endpoint_s=0.3"] * 2, "turns.endpoint_s is swept twice"),
    (["turns.endpoint_s=0.5,0.3,0.50"], "the value 0.5 is there twice"),
    (["turns.start=at_end,at_end"], "the value at_end is there twice"),
    (["turns.maximum_silence_s=0.2"], "at least turns.endpoint_s = 0.5"),
  ],
)
def test_a_grid_that_cannot_be(grid, problem):
  with pytest.raises(errors.UserError, match=problem):
    sweep.points(_CONFIG, grid=grid)


def _point(score, latency):
  return {
    "summary_score": Value(score, math.nan, math.nan, 3),
    "latency_p50": Value(latency, math.nan, math.nan, 3),
  }


def test_the_best_is_chosen_and_of_equals_the_quicker():
  by_score = functools.partial(sweep.choose, by="summary_score")
  assert by_score([_point(3, 0.1), _point(5, 0.9), _point(4, 0.2)]) == 1
  assert by_score([_point(5, 0.9), _point(5, 0.3), _point(5, 0.3)]) == 1
  assert by_score([_point(math.nan, 0.1), _point(0, math.nan)]) == 1
  lowest = [_point(3, 0.4), _point(1, 0.2)]
  assert sweep.choose(lowest, by="latency_p50") == 1
  with pytest.raises(errors.UserError, match="no conversation has an event"):
    by_score([_point(math.nan, 0.1)])
  for name in ("nonsense", "talk_share"):  # of which no side is better
    with pytest.raises(errors.UserError, match=f"--by={name}: no row"):
      sweep.check_by(name)


def _write(path, **changes):
  point = {"changes": {"turns.endpoint_s": 0.3}, "rows": {}}
  numbers = {
    "agent": "turns",
    "config": _CONFIG.name,
    "split": "dev",
    "points": [point],
    "choice": {"turns.endpoint_s": 0.3},
  }
  path.write_text(json.dumps(numbers | changes))
  return str(path)


def test_what_was_chosen_on_dev_is_used(tmp_path):
  path = tmp_path / "sweep.json"
  tuned = functools.partial(sweep.tuned, config=_CONFIG, agent="turns")
  assert tuned(_write(path)) == {"turns.endpoint_s": 0.3}
  digest = sweep.digest(str(path))
  assert digest != sweep.digest(_write(path, by="latency_p50"))
  assert digest == sweep.digest(_write(path))
  with pytest.raises(errors.UserError, match="chosen on dev: sweep with"):
    tuned(_write(path, split="heldout"))
  with pytest.raises(errors.UserError, match="the agent duplex, and this is t"):
    tuned(_write(path, agent="duplex"))
  with pytest.raises(errors.UserError, match="the config medium, and this is"):
    tuned(_write(path, config="medium"))
  with pytest.raises(errors.UserError, match="none of its points"):
    tuned(_write(path, choice={"turns.endpoint_s": 0.5}))
  for text in ("[]", "{", '{"points": []}'):
    path.write_text(text)
    with pytest.raises(errors.UserError, match="--tuned=.*sweep again"):
      tuned(str(path))
  with pytest.raises(errors.UserError, match="sweep again"):
    tuned(str(tmp_path / "nowhere.json"))


class _Hums(suites.Suite):
  """Somebody hums, should be answered, and else hums again."""

  users = Users.REACTING

  def items(self):
    return [
      suites.Item("hum", seed=s, load=functools.partial(self._load, s))
      for s in range(3)
    ]

  def _load(self, seed):
    random = np.random.default_rng(seed)
    sound = np.zeros(20 * clock.TICKS.samples, np.float32)
    sound[: 4 * clock.TICKS.samples] = 0.1 * random.normal(
      size=4 * clock.TICKS.samples
    )
    due = annotation.Annotation(
      annotation.Kind.TURN, start=0.0, end=0.8, due=1.2
    )
    return Timeline(
      id=f"hum/{seed}",
      duration=20 * clock.TICKS.seconds,
      tracks=(
        Track(Role.USER, sound, (), (Span(0.0, 0.8),), "user"),
        Track(Role.AGENT, 0 * sound, (), (Span(1.2, 2.0),), "agent"),
      ),
      metadata={"family": "hum", annotation.KEY: [annotation.to_json(due)]},
    )


@pytest.mark.slow  # compiles three ticks
def test_a_bias_moves_when_a_model_begins(tmp_path):
  found = []
  points = sweep.points(_CONFIG, grid=["sample.onset_bias=-100,0,100"])
  for point in points:
    options = dict(
      config=point.config,
      program=sweep.program_of(point, run_config=_CONFIG),
      model=small_session.model(_CONFIG),
      variables=small_session.variables(_CONFIG),
      tokenizer=_TOKENIZER,
      kept=sweep.kept_at(tmp_path, point, provenance={"of": "test"}),
    )
    report = sweep.hold(_Hums(), **options)
    series = [item.series[panel.MODEL] for item in report.scored]
    again = sweep.hold(_Hums(), **options)  # from its logs
    assert [item.series[panel.MODEL] for item in again.scored] == series
    assert (report.reused, again.reused) == (0, 3)
    if point.changes["sample.onset_bias"] == -100.0:
      assert {len(each["done"]) for each in series} == {2}  # asked twice
    found.append(statistics.summarise(series, resamples=0))
  never, _, always = (values["unasked_seconds"].value for values in found)
  assert never == 0.0 and always > 30.0
  arm = {
    "config": "small",
    "agent": "duplex",
    "points": [
      {"changes": dict(p.changes), "rows": as_json.rows(values)}
      for p, values in zip(points, found, strict=True)
    ],
  }
  path = tmp_path / "sweep.png"
  sweep_picture.draw(
    [sweep_picture.Arm.of(as_json.without_nan(arm))], path=path
  )
  assert path.read_bytes()[:4] == b"\x89PNG"
