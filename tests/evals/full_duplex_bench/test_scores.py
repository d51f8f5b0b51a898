"""Full-Duplex-Bench's numbers against clips worked out by hand."""

import pathlib

import numpy as np
import pytest
from scipy.spatial import distance

from tests.helpers import drawn
from tml_jax.evals.full_duplex_bench import scores
from tml_jax.evals.full_duplex_bench.folders import Clip, Task
from tml_jax.evals.metrics import panel, statistics
from tml_jax.streams.timeline import Span


def _clip(task, drawing, *events, spans=()):
  return Clip(
    task=task,
    id="1",
    folder=pathlib.PurePath("1"),
    path=pathlib.Path("none"),
    num_samples=len(drawing) * 3200,
    digest="",
    events=tuple(Span(s, e) for s, e in events),
    spans=tuple(Span(s, e) for s, e in spans),
  )


def _values(task, drawing, *events, spans=(), says=(), human=None):
  """By the name without its beginning, values alone."""
  clip = _clip(task, drawing, *events, spans=spans)
  found = scores.measure(drawn.log(drawing, says=says), clip=clip, human=human)
  assert found.keys() <= {metric.series for metric in scores.METRICS}
  names = ("fdb_pause_", "fdb_turn_", "fdb_interruption_", "fdb_backchannel_")
  result = {}
  for name, series in found.items():
    assert all(weight == 1 for _, weight in series)
    for start in (*names, "fdb_"):
      if name.startswith(start):
        name = name.removeprefix(start)
        break
    result[name] = [value for value, _ in series]
  return result


def test_words_share_the_time_of_their_sound():
  #               0123456789
  log = drawn.log("..aaaa.aa.", says={2: "ab cd", 4: "ef gh", 6: "x", 9: "y"})
  first, second = scores.sounds(log)
  assert (first.start, first.end) == pytest.approx((0.4, 1.2))
  # "ab", "cdef" and "gh": the text of a run is one text.
  assert [w.text for w in first.words] == ["ab", "cdef", "gh"]
  assert [w.start for w in first.words] == pytest.approx([0.4, 0.6, 1.0])
  assert [w.end for w in first.words] == pytest.approx([0.6, 1.0, 1.2])
  assert [w.text for w in second.words] == ["x"]  # "y" never sounds
  assert scores.words(log) == [*first.words, *second.words]


@pytest.mark.parametrize(
  "drawing, says, taken",
  [
    ("..........", {}, 0),
    ("..aaaa....", {2: "one two three"}, 0),
    ("..aaaa....", {2: "one two three four"}, 1),
    ("..aaaaa...", {}, 1),  # 1 s; a recogniser of nothing would say 0
    ("..a...a...", {}, 1),  # 1 s from the first onset to the last end
    ("..a..a....", {2: "one", 5: "two"}, 0),
  ],
)
def test_take_over_rate(drawing, says, taken):
  found = _values(Task.TURN, drawing, (1.0, 1.4), says=says)
  assert found["tor"] == [taken]
  assert ("latency" in found) == bool(taken)


def test_pauses():
  task = Task.CANDOR_PAUSE
  #                     01234567890123456789
  found = _values(task, "uuu...uuu...uuu..aaaaa", (0.6, 1.2), (1.8, 2.4))
  # The reply behind all pauses counts as published, and in none of them.
  assert found == {"tor": [1], "tor_inside": [0, 0]}
  found = _values(task, "uuu...uuu..abbbba.....", (0.6, 1.2), (1.8, 2.4))
  assert found == {"tor": [1], "tor_inside": [0, 1]}
  found = _values(task, "uuu.aauuu.............", (0.6, 1.2), (1.8, 2.4))
  assert found == {"tor": [0], "tor_inside": [0, 0]}  # 0.4 s, no words
  # Ends where the pause begins: it touches nothing.
  found = _values(task, "bbbbb..uuu............", (1.0, 1.4))
  assert found == {"tor": [1], "tor_inside": [0]}


def test_turns():
  found = _values(Task.TURN, "uuuuu..aaaaa", (1.1, 1.5))
  assert found["latency"] == pytest.approx([0.3])
  assert found["latency_clipped"] == pytest.approx([0.3])
  assert found["early"] == [0]
  found = _values(Task.TURN, ".bbbb.......", (1.0, 1.5), says={1: "a b c d"})
  assert found["latency"] == pytest.approx([-0.8])
  assert found["latency_clipped"] == [0] and found["early"] == [1]


def test_interruptions():
  task = Task.INTERRUPTION
  #                     0123456789012345678
  found = _values(task, "uu.aabbuu..aaaaa...", (1.0, 1.8))
  assert found["tor"] == [1]
  assert found["latency"] == pytest.approx([0.4])
  # Talks through: the recording that is cut has latency 0.
  found = _values(task, "uu.aabbbbaaaaaa....", (1.0, 1.8))
  assert found["tor"] == [1] and found["early"] == [1]
  assert found["latency"] == pytest.approx([-1.2])
  assert found["latency_clipped"] == [0]
  # What is left behind the end is too short, with one word of six.
  says = {3: "one two three four five six"}
  found = _values(task, "uu.aabbbba.........", (1.0, 1.8), says=says)
  assert found == {"tor": [0]}
  found = _values(task, "uu.aabb............", (1.0, 1.8))
  assert found == {"tor": [0]}


def test_backchannels():
  task = Task.BACKCHANNEL
  found = _values(task, "uuuu" * 5)
  assert found == {"tor": [0], "tor_published": [0], "rate": [0], "none": [1]}
  found = _values(task, "uubbuuuuubuuuuuuuuuu", says={2: "mm hm"})
  assert found == {"tor": [0], "tor_published": [0], "rate": [0.5], "none": [0]}
  # 1.2 s take the turn; as published the last sound decides.
  found = _values(task, "uubbbbbbuubuuuuuuuuu")
  assert found == {"tor": [1], "tor_published": [0], "rate": [0.5], "none": [0]}
  # 0.4 s with three words do.
  found = _values(task, "uubbuuuuuuuuuuuuuuuu", says={2: "one two three"})
  assert found["tor"] == found["tor_published"] == [1]
  # Behind a sound of more than 3 s nothing counts.
  found = _values(task, "uub" + "u" + "b" * 16 + "uubu" + "u" * 6)
  assert found["tor"] == found["tor_published"] == [1]
  assert found["rate"] == pytest.approx([1 / 6])


def test_distance_to_humans_by_scipy():
  human = np.random.default_rng(0).random(34)
  drawing = "uubbuuuuubuuuuuuuuuu"
  found = _values(Task.BACKCHANNEL, drawing, human=human)
  counts = np.array([c == "b" for c in drawing + "."], float)
  resized = np.interp(
    np.linspace(0, 1, 21), np.linspace(0, 1, len(human)), human
  )
  expected = distance.jensenshannon(counts + 1e-10, resized)
  assert found["jsd"] == found["jsd_published"] == pytest.approx([expected])
  none = _values(Task.BACKCHANNEL, "u" * 20, human=human)
  assert "jsd" not in none and none["jsd_published"] == [1]
  # Two that have nothing in common: the most there is.
  apart = scores.jsd(np.array([1.0, 1, 0, 0]), np.array([0.0, 0, 0.5, 0.5]))
  assert apart == pytest.approx(np.sqrt(np.log(2)), abs=1e-4)


def test_intervals_of_overlaps():
  spans = [Span(0, 1), Span(1.5, 2), Span(2.7, 3)]
  user = scores.joined(spans, gap=scores.USER_GAP)
  assert user == [Span(0, 2), Span(2.7, 3)]
  model = [Span(0.5, 1.2), Span(1.8, 2.8), Span(3.4, 4)]
  assert scores.stop_intervals(user, model) == [
    Span(0.5, 1.2),
    Span(1.8, 2),
    Span(2.7, 2.8),
  ]
  assert scores.response_intervals(user, model) == [Span(3, 3.4)]
  assert scores.response_intervals(user, [Span(2.1, 9)]) == [Span(2, 2.1)]
  assert scores.response_intervals(user, []) == []
  # Two ends of the user before one onset: the later one.
  late = scores.response_intervals(user, [Span(5, 6)])
  assert late == [Span(3, 5)]


@pytest.mark.parametrize("seed", range(20))
def test_intervals_against_a_grid_of_10_ms(seed):
  random = np.random.default_rng(seed)
  grids, spans = [], []
  for _ in range(2):
    edges = np.sort(random.choice(np.arange(1, 300), size=10, replace=False))
    grid = np.zeros(300, bool)
    for start, end in edges.reshape(-1, 2):
      grid[start:end] = True
    grids.append(grid)
    pairs = edges.reshape(-1, 2) / 100
    spans.append([Span(float(s), float(e)) for s, e in pairs])
  user, model = spans
  both = np.zeros(300, bool)
  for span in scores.stop_intervals(user, model):
    both[round(100 * span.start) : round(100 * span.end)] = True
  np.testing.assert_array_equal(both, grids[0] & grids[1])
  for span in scores.response_intervals(user, model):
    start, end = round(100 * span.start), round(100 * span.end)
    assert grids[0][start - 1] and not grids[0][start]  # the user ends
    assert grids[1][end] and not grids[1][end - 1]  # the model begins
    onsets = np.flatnonzero(np.diff(grids[1].astype(int)) == 1) + 1
    assert not any(start < onset < end for onset in onsets)
    ends = np.flatnonzero(np.diff(grids[0].astype(int)) == -1) + 1
    assert not any(start < other < end for other in ends)


def test_stop_and_response():
  context, event = (0.0, 0.6), (1.6, 2.6)
  rest = dict(spans=(context, event))
  task = Task.USER_INTERRUPTION
  #                      012345678901234567890
  found = _values(task, "uuu.aaaabbuuu..aaaaaa", event, **rest)
  assert found["stop_latency"] == pytest.approx([0.4])
  assert found["stopped"] == [1]
  assert found["response_latency"] == pytest.approx([0.4])
  # Never stops: the interval is as long as the interruption.
  found = _values(task, "uuu.aaaabbbbbaaaaaaaa", event, **rest)
  assert found["stop_latency"] == pytest.approx([1.0])
  assert found["stopped"] == [0] and "response_latency" not in found
  # A gap of two ticks is none (0.5 s); one of three is a stop.
  found = _values(
    task, "uuu.aaaab..bbaaaaaaaa".replace("..", "uu"), event, **rest
  )
  assert found["stopped"] == [0]
  # Quiet from the beginning: nothing to stop, and the first answer is that to
  # the event and not to the context.
  found = _values(task, "uuu.a...uuuuu.aaaaaaa", event, **rest)
  assert found == {"response_latency": pytest.approx([0.2])}


def test_metrics_are_rows_of_a_table():
  names = [metric.name for metric in scores.TABLE]
  assert len(set(names)) == len(names)
  assert {m.name for m in panel.METRICS} < set(names)
  items = [
    scores.measure(drawn.log(d), clip=_clip(Task.TURN, d, (1.0, 1.4)))
    for d in ("uuuuu..aaaaa", "uuuuu.......", "uuuuu....aaa")
  ]
  found = statistics.summarise(items, metrics=scores.METRICS)
  assert found["fdb_turn_tor"].value == pytest.approx(1 / 3)
  assert found["fdb_turn_tor"].events == 3
  assert found["fdb_turn_latency"].value == pytest.approx(0.4)
  assert found["fdb_turn_latency"].events == 1
  low, high = found["fdb_turn_tor"].low, found["fdb_turn_tor"].high
  assert 0 <= low < 1 / 3 < high <= 1
