"""Game-Time's time and tempo, by hand and by agents that hear nothing."""

import dataclasses

import numpy as np
import pytest

from tests.helpers import game_time as layout
from tml_jax.evals import agents
from tml_jax.evals.game_time import folders as bench
from tml_jax.evals.game_time import scores
from tml_jax.evals.game_time.folders import Family
from tml_jax.evals.metrics import panel
from tml_jax.logs import observe, ticks
from tml_jax.streams import clock

KEPT = (
  *("gt_fast", "gt_slow", "gt_silence", "gt_interval", "gt_adhere"),
  "gt_cue",
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
  root = tmp_path_factory.mktemp("game") / "time"
  layout.write(root)
  return {clip.family: clip for clip in bench.open_root(str(root)).clips}


def _values(clip, agent, *, text=None):
  """Numbers of an agent that sounds in [ticks] bool, by name."""
  log = observe.from_activity(clip.load(), agent=agent)
  if text:
    first = int(np.argmax(agent))
    made = list(log.ticks)
    made[first] = dataclasses.replace(made[first], agent_text=text)
    log = dataclasses.replace(log, ticks=tuple(made))
  return {
    name: sum(v for v, _ in series) / sum(w for _, w in series)
    for name, series in scores.measure(log, clip=clip).items()
  }


def _agent(clip, *runs):
  """[ticks] bool; runs are in ticks behind the end of the instruction."""
  result = np.zeros(clock.TICKS.num_windows(clip.duration), bool)
  end = clock.TICKS.num_windows(clip.end)
  for first, stop in runs:
    result[end + first : end + stop] = True
  return result


def test_a_basic_instruction(clips):
  clip = clips[Family.SEQUENCE]
  late = clock.TICKS.num_windows(clip.end) * 0.2 - clip.end
  found = _values(clip, _agent(clip, (2, 5)))
  assert found == {
    "gt_responds": 1,
    "gt_early": 0,
    "gt_latency": pytest.approx(0.4 + late),
  }
  assert _values(clip, _agent(clip)) == {"gt_responds": 0, "gt_early": 0}
  found = _values(clip, _agent(clip, (-4, -2), (2, 5)))
  assert found == {"gt_responds": 1, "gt_early": 1}


@pytest.mark.parametrize(
  ("family", "runs", "kept"),
  [
    (Family.TIME_FAST, [(0, 15)], 1),  # 3.0 s asked for
    (Family.TIME_FAST, [(0, 16)], 0),
    (Family.TIME_FAST, [(0, 2), (14, 16)], 0),
    (Family.TIME_FAST, [], 0),
    (Family.TIME_FAST, [(-3, -1), (0, 5)], 0),
    (Family.TIME_SLOW, [(0, 13)], 1),  # 2.5 s
    (Family.TIME_SLOW, [(0, 12)], 0),
    (Family.TIME_SILENCE, [(20, 24)], 1),  # 4.0 s
    (Family.TIME_SILENCE, [(18, 24)], 1),
    (Family.TIME_SILENCE, [(17, 24)], 0),
    (Family.TIME_SILENCE, [(22, 24)], 0),
    (Family.TIME_SILENCE, [(1, 2), (20, 24)], 0),
    (Family.TEMPO_INTERVAL, [(0, 2), (7, 8), (13, 14)], 1),  # 1.0 s
    (Family.TEMPO_INTERVAL, [(0, 2), (7, 8)], 0),
    (Family.TEMPO_INTERVAL, [(0, 2), (4, 5), (7, 8)], 0),
    (Family.TEMPO_ADHERE, [(0, 3), (6, 7), (13, 14)], 1),  # 1.3 s
    (Family.TEMPO_ADHERE, [(0, 3), (4, 5), (8, 9)], 0),
  ],
)
def test_what_keeps_the_time(clips, family, runs, kept):
  clip = clips[family]
  found = _values(clip, _agent(clip, *runs))
  (name,) = set(found) & set(KEPT)
  assert found[name] == kept


def test_how_far_it_is_off(clips):
  clip = clips[Family.TIME_SILENCE]
  late = clock.TICKS.num_windows(clip.end) * 0.2 - clip.end
  found = _values(clip, _agent(clip, (25, 30)))
  assert found["gt_silence_error"] == pytest.approx(1.0 + late)
  clip = clips[Family.TEMPO_INTERVAL]
  found = _values(clip, _agent(clip, (0, 1), (3, 4), (6, 7)))
  assert found["gt_interval_error"] == pytest.approx(0.6)


def test_shadow(clips):
  clip = clips[Family.SHADOW]
  log = observe.from_activity(
    clip.load(), agent=np.ones(len(_agent(clip)), bool)
  )
  speaks = np.flatnonzero(log.user)
  agent = np.zeros(len(log.ticks), bool)
  agent[speaks[-3:]] = True
  found = _values(clip, agent, text="red hot green blue")
  assert found == {"gt_shadow": 1, "gt_shadow_words": 0.75}
  agent[speaks[-2]] = False
  assert _values(clip, agent)["gt_shadow"] == pytest.approx(2 / 3)
  assert _values(clip, np.zeros_like(agent)) == {"gt_shadow": 0}


def test_cue(clips):
  clip = clips[Family.CUE]
  word = clip.words[-1]
  first = clock.TICKS.num_windows(word.start - scores.NEAR)
  last = clock.TICKS.num_windows(word.end) - 1
  for tick, hit in ((first - 1, 0), (first, 1), (last, 1), (last + 1, 0)):
    agent = np.zeros(len(_agent(clip)), bool)
    agent[tick : last + 2] = True
    assert _values(clip, agent) == {"gt_cue": hit}, tick
  agent[:] = False
  agent[first] = True  # over before the word begins
  assert _values(clip, agent) == {"gt_cue": 0}


def test_a_time_that_the_words_do_not_say(clips):
  clip = clips[Family.TIME_FAST]
  words = tuple(w for w in clip.words if w.text not in ("3", "seconds"))
  clip = dataclasses.replace(clip, words=words)
  found = _values(clip, _agent(clip, (0, 5)))
  assert found["gt_unread"] == 1
  assert "gt_fast" not in found


def test_the_ideal_keeps_every_time(clips):
  for clip in clips.values():
    timeline = clip.load()
    log = scores.ideal(timeline, clip=clip)
    series = scores.measure(log, clip=clip)
    for name in (*KEPT, "gt_responds", "gt_shadow"):
      assert all(value == 1 for value, _ in series.get(name, [])), name
    assert not sum(v for v, _ in series.get("gt_early", []))


@pytest.mark.parametrize("number", ["ten", "thirty"])
def test_the_ideal_has_room_for_a_slow_tempo(clips, number):
  clip = clips[Family.TEMPO_INTERVAL]
  said = [
    dataclasses.replace(
      word, text={"one": number, "second": "seconds"}.get(word.text, word.text)
    )
    for word in clip.words
  ]
  slow = dataclasses.replace(clip, words=tuple(said))
  assert slow.asked == {"ten": 10, "thirty": 30}[number]
  log = scores.ideal(slow.load(), clip=slow)
  found = scores.measure(log, clip=slow)
  assert found["gt_interval"] == [(1.0, 1)]
  onsets = np.flatnonzero(np.diff(log.agent.astype(int)) == 1)
  assert len(onsets) == bench.GAPS + 1


@pytest.mark.parametrize("name", ["silent", "always_talking", "blink_1_3"])
def test_who_hears_nothing_keeps_no_time(clips, name):
  """But for the user's last word, which a clock may hit."""
  for clip in clips.values():
    log = agents.AGENTS[name](clip.load())
    assert isinstance(log, ticks.Log)
    series = scores.measure(log, clip=clip)
    for kept in set(KEPT) - {"gt_cue"}:
      assert not sum(value for value, _ in series.get(kept, []))


def test_common():
  assert scores.common(list("abcd"), list("xaxcxd")) == 3
  assert scores.common([], list("a")) == 0


def test_every_series_is_a_row(clips):
  names = {metric.series for metric in scores.METRICS}
  seen = set()
  for clip in clips.values():
    log = scores.ideal(clip.load(), clip=clip)
    seen |= set(scores.measure(log, clip=clip))
  assert seen <= names
  assert names - seen == {"gt_shadow_words"}  # the ideal says no words
  assert len(scores.TABLE) == len(scores.METRICS) + len(panel.METRICS)
