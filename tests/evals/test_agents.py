"""Agents without a model: what they do, and that no metric rewards it."""

import dataclasses
import json

import numpy as np
import pytest

from tests.helpers import commands, drawn, small_data
from tests.helpers.drawn import asks
from tml_jax import errors
from tml_jax.data import scenarios
from tml_jax.data.splits import Split
from tml_jax.evals import agents, suites, without_model
from tml_jax.evals.metrics import panel, speech, statistics
from tml_jax.evals.metrics.panel import Better, Statistic
from tml_jax.live.reacting import Users
from tml_jax.logs import ticks
from tml_jax.streams import annotation, clock
from tml_jax.streams.annotation import Kind
from tml_jax.streams.timeline import Timeline

COUNT = 4  # conversations of a family
# Of unasked speech; the recorded agent has none, so no ratio says how much.
_MOST_UNASKED = 6.0  # seconds a minute, a tenth of the time


@pytest.fixture(scope="module", name="users", params=[*Users])
def _users(request):
  """Whom the agents meet."""
  return request.param


@pytest.fixture(scope="module", name="items")
def _items(config, data_dir):
  """(family, script) of every item."""
  suite = suites.Interactivity(
    config,
    data_dir=str(data_dir),
    split=Split.HELDOUT,
    count=COUNT,
    families=tuple(scenarios.FAMILIES),
  )
  return [(item.family, item.load()) for item in suite.items()]


@pytest.fixture(scope="module", name="held")
def _held(items, users):
  """Of every family, (log, series) of every item by agent."""
  found = {family: {} for family in scenarios.FAMILIES}
  for family, script in items:
    for name, agent in agents.among(users).items():
      log = agent(script)
      series = panel.measure(log)
      found[family].setdefault(name, []).append((log, series))
  return found


_SCRIPTED = pytest.mark.parametrize("users", [Users.SCRIPTED], indirect=True)
_REACTING = pytest.mark.parametrize("users", [Users.REACTING], indirect=True)


def _rows(items):
  """The headline of one agent."""
  rows = tuple(m for m in panel.metrics() if m.name in panel.HEADLINE)
  series = [series for _, series in items]
  return statistics.summarise(series, metrics=rows, resamples=0)


def _fails(values, best, metric) -> bool:
  """Whether a row is far from the recorded agent's, whose row has events."""
  ours, theirs = values[metric.name].value, best[metric.name].value
  if np.isnan(theirs):
    return False
  if metric.name == "unasked_seconds":
    return ours > _MOST_UNASKED
  if metric.statistic == Statistic.RATIO and metric.better is Better.HIGHER:
    return not ours >= theirs / 2
  return False


@pytest.mark.parametrize("family", list(scenarios.FAMILIES))
def test_each_but_the_recorded_fails_a_headline_row_of_each_family(
  held, family
):
  best = _rows(held[family]["recorded"])
  assert best["done"].events and best["done"].value == 1
  assert best["right"].value == 1 and best["summary_score"].value == 100
  assert best["unasked_seconds"].value == 0 == best["false_fires"].value
  for name in agents.AGENTS.keys() - {"recorded"}:
    values = _rows(held[family][name])
    failed = [
      m.name
      for m in panel.metrics()
      if m.name in panel.HEADLINE and _fails(values, best, m)
    ]
    assert failed, name
    assert values["summary_score"].value < 50, name


def test_none_but_the_recorded_comes_within_half_of_its_score(held):
  scores = {
    name: _rows([item for family in held.values() for item in family[name]])[
      "summary_score"
    ].value
    for name in agents.AGENTS
  }
  assert scores.pop("recorded") == 100
  assert max(scores.values()) < 50, scores


def test_nor_where_words_are_left_out_of_the_score(held):
  """So it is their timing, too, that is worth nothing."""
  for name in agents.AGENTS.keys() - {"recorded"}:
    items = [
      (log, {k: v for k, v in series.items() if not k.startswith("right_")})
      for family in held.values()
      for log, series in family[name]
    ]
    assert _rows(items)["summary_score"].value < 50, name


@_SCRIPTED
@pytest.mark.parametrize("on", [1, 2, 3, 5])
@pytest.mark.parametrize("off", [1, 2, 3, 4, 5, 7, 10, 15])
def test_no_clock_is_worth_much_even_without_words(held, on, off):
  """Duty cycles that nobody had in mind when the panel was made."""
  items = []
  for family in held.values():
    for log, _ in family["silent"]:
      sounds = np.arange(-1, len(log.ticks) - 1) % (on + off) < on
      blinks = dataclasses.replace(
        log,
        ticks=tuple(
          dataclasses.replace(tick, agent=bool(sound) and k > 0)
          for k, (tick, sound) in enumerate(zip(log.ticks, sounds, strict=True))
        ),
      )
      series = panel.measure(blinks).items()
      items.append(
        (log, {k: v for k, v in series if not k.startswith("right_")})
      )
  assert _rows(items)["summary_score"].value < 100 / 3


@pytest.mark.parametrize("on", [1, 2, 5])
@pytest.mark.parametrize("off", [3, 5, 10])
def test_nor_where_users_wait_for_it(items, on, off):
  """Users who wait make no clock right."""
  agent = dataclasses.replace(agents.blink(on, off), users=Users.REACTING)
  found = []
  for _, script in items:
    log = agent(script)
    series = panel.measure(log).items()
    found.append((log, {k: v for k, v in series if not k.startswith("right_")}))
  assert _rows(found)["summary_score"].value < 100 / 3


@_REACTING
def test_what_users_do_who_react(items, held):
  for family, by_agent in held.items():
    scripts = [script for name, script in items if name == family]
    for i, script in enumerate(scripts):
      # The recorded agent cannot tell them from those of the script.
      assert by_agent["recorded"][i][0] == agents.recorded(script)
      turns = {
        name: len(found[i][0].of_kind(Kind.TURN))
        for name, found in by_agent.items()
      }
      # Who says nothing is asked everything twice.
      assert turns["silent"] == 2 * turns["recorded"], script.id
      # Who answers late is waited for, and not asked again.
      assert turns["recorded_late"] == turns["recorded"]
      late = by_agent["recorded_late"][i][0]
      texts = [" ".join(t.agent_text.split()) for t in late.ticks]
      want = [
        " ".join(t.agent_text.split()) for t in agents.recorded(script).ticks
      ]
      assert " ".join(filter(None, texts)) == " ".join(filter(None, want))
  for name in ("recorded", "recorded_late", "blink_1_1"):
    for log, _ in held["barge_in"][name]:
      assert len(log.of_kind(Kind.BARGE_IN)) <= 1, name
  (again, series), *_ = held["barge_in"]["always_talking"]
  assert len(again.of_kind(Kind.BARGE_IN)) == 3
  assert [v for v, _ in series["yielded"]] == [0, 0, 0]


@pytest.mark.parametrize("family", list(scenarios.FAMILIES))
def test_without_words_a_clock_of_its_own_does_nothing(held, family):
  """The rows of words alone do not carry the panel: its timing does."""
  for name in ("silent", "always_talking", "blink_1_1", "blink_1_2"):
    values = _rows(held[family][name])
    assert values["done"].value == 0, name
  for name in ("always_talking", "blink_1_1", "blink_1_2", "blink_1_3"):
    values = _rows(held[family][name])
    is_quiet = values["unasked_seconds"].value <= _MOST_UNASKED
    assert not is_quiet or values["done"].value == 0, name


def test_every_series_of_every_agent_has_a_row(held):
  known = {m.series for m in panel.metrics()} | {"floor_transfer_recorded"}
  for family in held.values():
    for items in family.values():
      for _, series in items:
        assert series.keys() <= known


@_SCRIPTED
def test_what_each_does(held):
  for family, by_agent in held.items():
    for (log, _), (late, _), (other, _) in zip(
      *(by_agent[n] for n in ("recorded", "recorded_late", "random")),
      strict=True,
    ):
      shift = agents.LATE_TICKS
      np.testing.assert_array_equal(late.agent[shift:], log.agent[:-shift])
      assert not late.agent[:shift].any(), family
      lengths = sorted(b - a for a, b in speech.runs_of(log.agent))
      # Runs may come to lie side by side, and are one then.
      assert other.agent.sum() == sum(lengths)
      assert not any(t.agent_text or t.calls for t in other.ticks)
      assert other.annotations == log.annotations
    for name, on in (("blink_1_1", 1 / 2), ("blink_1_2", 1 / 3)):
      for log, _ in by_agent[name]:
        assert log.agent.mean() == pytest.approx(on, abs=0.03)


def test_random_is_everywhere_and_the_same_again():
  log = drawn.log("aa.a" + "." * 40)
  drawings = set()
  for i in range(200):
    script = Timeline(id=f"item {i}", duration=log.duration, tracks=())
    named = dataclasses.replace(log, id=script.id)
    made = agents.random_like(named, script=script)
    assert made.agent.sum() == 3
    assert agents.random_like(named, script=script) == made
    drawings.add(tuple(made.agent))
  sounding = np.array(list(drawings)).any(0)
  assert sounding.all() and len(drawings) > 150
  silent = drawn.log("u" * 20)
  script = Timeline(id="silent", duration=silent.duration, tracks=())
  assert not agents.random_like(silent, script=script).agent.any()


def test_an_echo_answers_when_it_is_over(held):
  echoes = [log for log, _ in held["reply"]["echo"]]
  assert any(log.agent.any() for log in echoes)
  replies = sum(
    s["responded"][0][0] for _, s in held["reply"]["echo"] if "responded" in s
  )
  assert replies  # what it does right; its words are none
  for log in echoes:
    first = speech.runs_of(log.agent)[0][0]
    assert log.user[:first].any()


def test_an_agent_that_begins_in_time_and_blinks_on():
  """Asked for once, a blinker is one run, and what it says later is late."""
  turns = [asks(Kind.TURN, 2, 6, due=7), asks(Kind.TURN, 24, 28, due=29)]
  users = [k in range(2, 6) or k in range(24, 28) for k in range(48)]
  agent = [k >= 7 and (k - 7) % 2 == 0 for k in range(48)]
  both = {(0, 0): ".", (0, 1): "a", (1, 0): "u", (1, 1): "b"}
  drawing = "".join(both[u, a] for u, a in zip(users, agent, strict=True))
  found = panel.measure(drawn.log(drawing, *turns))
  assert [v for v, _ in found["done_turn"]] == [1, 0]
  # From 2 s after the user asks for something else to the end.
  seconds = sum(v for v, _ in found["unasked_seconds"])
  assert seconds == pytest.approx(48 * 0.2 - 0.2 - 24 * 0.2 - 2.0, abs=0.21)


def test_evaluation_without_a_model(config, data_dir):
  suite = suites.Interactivity(
    config,
    data_dir=str(data_dir),
    split=Split.HELDOUT,
    count=2,
    families=("reply", "tool_call"),
  )
  kept = []
  report = without_model.evaluate(
    suite, name="echo", keep=lambda family, log: kept.append((family, log.id))
  )
  assert [family for family, _ in kept] == ["reply"] * 2 + ["tool_call"] * 2
  columns = report.columns[panel.ALL]
  assert columns[panel.MODEL]["done"].value == columns["echo"]["done"].value
  assert columns["recorded"]["summary_score"].value == 100
  less = report.differences
  assert less["echo"]["done"].value == 0 and less["echo"]["done"].p == 1
  assert less["recorded"]["right"].value == -1
  assert less["recorded"]["right"].p_holm >= less["recorded"]["right"].p
  with pytest.raises(errors.UserError, match="'echo'"):
    without_model.evaluate(suite, name="ecco")


def test_every_agent_hears_all_ticks(config, data_dir):
  (item,) = suites.Interactivity(
    config,
    data_dir=str(data_dir),
    split=Split.HELDOUT,
    count=1,
    families=("reply",),
  ).items()
  timeline = item.load()
  for name, agent in agents.AGENTS.items():
    log = agent(timeline)
    assert len(log.ticks) == clock.TICKS.num_windows(timeline.duration), name
    assert log.annotations == annotation.of(timeline), name


# The command, on a machine that has no jax.
_WITHOUT_JAX = """
import runpy, sys
sys.modules.update(jax=None, flax=None)
sys.argv = ["evaluate", *sys.argv[1:]]
runpy.run_module("tml_jax.evaluate", run_name="__main__", alter_sys=True)
"""


def _command(data_dir, *more):
  return commands.run(
    "-c",
    _WITHOUT_JAX,
    f"--data_dir={data_dir}",
    f"--config.data.voices={','.join(small_data.VOICES)}",
    "--families=reply",
    "--count=2",
    *more,
  )


def test_the_command_needs_no_run_and_no_jax(data_dir, tmp_path):
  file = tmp_path / "blinks.json"
  done = _command(data_dir, "--agent=blink_1_1", f"--json={file}")
  assert done.returncode == 0, done.stderr
  values = json.loads(file.read_text())
  assert values["agents"].keys() == {panel.MODEL, *agents.AGENTS}
  for name, found in values["agents"].items():
    assert 0 <= found["summary_score"] <= 100, name
    assert {"done", "unasked_seconds"} <= found["rows"].keys()
    assert found["families"].keys() == {"reply"}
  assert values["agents"]["recorded"]["summary_score"] == 100
  assert values["agents"]["recorded"]["less"]["done"]["value"] == -1
  blinks = [values["agents"][n]["rows"] for n in (panel.MODEL, "blink_1_1")]
  assert blinks[0] == blinks[1]
  assert values["step"] is None and values["agent"] == "blink_1_1"
  assert values["users"] == "reacting"
  # Its logs can be read and say the same.
  logs = [ticks.read(path) for path in (tmp_path / "blinks/ticks").rglob("*.*")]
  assert len(logs) == 2
  for log in logs:
    runs = speech.runs_of(log.agent)
    assert all(stop - first == 1 for first, stop in runs)
  assert "summary score" in done.stdout
  assert file.with_suffix(".html").exists()


@pytest.mark.slow
def test_what_the_command_refuses(data_dir, tmp_path):
  for more, error in (
    (["--agent=ecco"], "--agent=ecco: value should be one of"),
    (["--agent=echo", f"--workdir={tmp_path}"], "needs no --workdir"),
    (
      ["--agent=echo", "--split=dev", "--config.data.dev_share=0.0"],
      "split dev: data.dev_share = 0",
    ),
    (["--agent=echo", "--suite=fdb"], "--suite=fdb --agent=echo"),
    (["--agent=echo", "--json=x.txt"], "ends with .json"),
    (["--agent=echo", "--tuned=x.json"], "--agent=echo has no settings"),
    (["--agent=echo", "--users=kind"], "--users=kind: value should be one of"),
  ):
    done = _command(data_dir, *more)
    assert done.returncode != 0 and error in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
