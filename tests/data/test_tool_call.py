"""Sums whose answers come later: timing measured on the audio."""

import dataclasses
import pickle

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from tests.helpers import small_data
from tml_jax import errors
from tml_jax.data import corpus, mixture, splits
from tml_jax.data.corpus import coding
from tml_jax.data.scenarios import family, tool_call
from tml_jax.data.splits import Split
from tml_jax.evals import agents
from tml_jax.evals.metrics import panel
from tml_jax.streams import (
  annotation,
  calls,
  clock,
  framing,
  timeline,
  tokenizer,
)
from tml_jax.streams.frame import Control
from tml_jax.streams.timeline import EventKind, Role

SHARE = 0.1
COUNT = 60


def scenario(data_dir, *, split=Split.TRAIN, seed=0):
  return tool_call.ToolCallScenario(
    {
      v: corpus.RecordSource(data_dir / v.replace(":", "-"))
      for v in small_data.VOICES
    },
    split=split,
    seed=seed,
    heldout_share=SHARE,
    dev_share=0.2 if split == Split.DEV else 0.0,
    length=10**6,
    video_size=family.VideoSize(120, 160),
  )


@pytest.fixture(scope="module", name="sums")
def _sums(data_dir):
  return scenario(data_dir)


@pytest.fixture(scope="module", name="items")
def _items(sums):
  return [sums[i] for i in range(COUNT)]


def _windows(spans) -> set[int]:
  """Windows that any of `spans` touches."""
  return {
    w
    for span in spans
    for w in range(
      clock.TICKS.window_of(span.start), clock.TICKS.num_windows(span.end)
    )
  }


def check(item):
  """What every item must be, by its tracks and events alone."""
  timeline.validate(item)
  assert 6 <= item.duration <= 20
  user, agent = item.track(Role.USER), item.track(Role.AGENT)
  busy = _windows(user.spans) | _windows(agent.spans)
  asked = [e for e in item.events if e.kind == EventKind.CALL]
  answered = [e for e in item.events if e.kind == EventKind.RESULT]
  answers = annotation.of(item)  # in the order of the questions
  assert len(asked) == len(answered) == len(answers) >= 1
  arrivals = {}
  for number, call in enumerate(asked, start=1):
    (result,) = [e for e in answered if calls.parse_result(e.text)[0] == number]
    request = calls.parse_call(call.text)
    assert request.name == "calculator"
    text = calls.parse_result(result.text)[1]
    if not text.startswith(calls.FAILED):
      assert eval(request.arguments) == int(text)
    arrivals[number] = clock.TICKS.window_of(result.time)
    assert 4 <= arrivals[number] - clock.TICKS.window_of(call.time) <= 24
    # Written when the last word of the question has been heard.
    last = max(s.end for s in user.spans if s.end <= call.time)
    assert call.time - last == pytest.approx(clock.TICKS.seconds, abs=0.02)
  assert arrivals == {
    number: clock.TICKS.window_of(a.end)
    for number, a in enumerate(answers, start=1)
  }
  # An agent without other knowledge than the past, window by window.
  waiting, onsets = dict(arrivals), {}
  for window in range(clock.TICKS.num_windows(item.duration)):
    there = [n for n, w in waiting.items() if w + 1 <= window]
    if window not in busy and there:
      number = min(there, key=arrivals.get)
      del waiting[number]
      onsets[number] = window + 1
      said = [s for s in agent.spans if s.start >= (window + 1) * 0.2 - 1e-6]
      assert said and clock.TICKS.window_of(said[0].start) == window + 1
  assert not waiting
  assert onsets == {
    number: clock.TICKS.window_of(a.due)
    for number, a in enumerate(answers, start=1)
  }
  # Nobody speaks over the other.
  assert not _windows(user.spans) & _windows(agent.spans)


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(st.integers(0, 10**6 - 1), st.sampled_from(list(Split)))
def test_invariants(data_dir, index, split):
  check(_scenario_of(data_dir, split)[index])


_OPEN = {}


def _scenario_of(data_dir, split):
  if split not in _OPEN:
    _OPEN[split] = scenario(data_dir, split=split)
  return _OPEN[split]


@dataclasses.dataclass(frozen=True)
class _Sum:
  """A question of an item; windows."""

  call: str
  called: int
  result: str
  arrival: int
  onset: int
  said: str


def _sums_of(item) -> dict[int, _Sum]:
  """By number."""
  results = dict(
    calls.parse_result(e.text)
    for e in item.events
    if e.kind == EventKind.RESULT
  )
  asked = [e for e in item.events if e.kind == EventKind.CALL]
  return {
    number: _Sum(
      call=call.text,
      called=clock.TICKS.window_of(call.time),
      result=results[number],
      arrival=clock.TICKS.window_of(a.end),
      onset=clock.TICKS.window_of(a.due),
      said=a.text,
    )
    for number, (call, a) in enumerate(
      zip(asked, annotation.of(item), strict=True), start=1
    )
  }


def test_the_agent_says_the_answer(items):
  names = tool_call_names()
  for item in items:
    for each in _sums_of(item).values():
      failed = each.result.startswith(calls.FAILED)
      assert each.said == ("i am sorry" if failed else names[int(each.result)])


def tool_call_names():
  from tml_jax.data.voices import phrases

  return [phrases.PHRASES[f"digits/{n}"] for n in tool_call.NUMBERS]


def test_everything_that_can_happen_happens(items):
  """Results in the middle of speech, in pauses, out of order, and failures."""
  found = [(i, e) for i in items for e in _sums_of(i).values()]
  during = [
    e.arrival in _windows(item.track(Role.USER).spans) for item, e in found
  ]
  assert 0.1 < np.mean(during) < 0.7
  failed = [e.result.startswith(calls.FAILED) for _, e in found]
  assert 0.02 < np.mean(failed) < 0.25
  onsets = [[e.onset for e in _sums_of(i).values()] for i in items]
  assert any(n != sorted(n) for n in onsets)
  # While a call runs the user goes on talking, in half of all cases at least.
  going_on = [
    any(e.called < w < e.onset for w in _windows(item.track(Role.USER).spans))
    for item, e in found
  ]
  assert np.mean(going_on) > 0.4
  assert len({e.arrival - e.called for _, e in found}) > 15


def test_the_recorded_agent_is_scored_best(items):
  """`evaluate` takes these scenarios as they are."""
  for item in items:
    scored = panel.measure(agents.recorded(item))
    count = len(annotation.of(item))
    assert scored["tool_answered"] == scored["said_right"] == [(1, 1)] * count
    assert len(scored["tool_latency"]) == len(scored["call_latency"]) == count
    assert scored["false_fires"][0][0] == scored["overlap"][0][0] == 0
    assert panel.score(scored) == 1


def test_questions_of_a_split_are_its_own(data_dir, items):
  def asked(items):
    return {e.call for i in items for e in _sums_of(i).values()}

  heldout = scenario(data_dir, split=Split.HELDOUT)
  tested = asked(heldout[i] for i in range(40))
  assert tested and not tested & asked(items)
  for item in [*items, *(heldout[i] for i in range(20))]:
    for e in _sums_of(item).values():
      # No number that the reply family keeps for its tests.
      numbers = [e.result, *e.call.split()[1].replace("-", "+").split("+")]
      for n in numbers:
        if n.isdigit():
          assert not splits.is_heldout(f"digits/{n}", share=SHARE)


def test_items_are_a_function_of_their_index(sums, items):
  again = pickle.loads(pickle.dumps(sums))
  for i in (40, 3, 3):
    assert coding.encode(again[i]) == coding.encode(items[i])


def test_frames(items, config, data_dir):
  """Calls and results are read back off the frames, in their windows."""
  pieces = tokenizer.load(tokenizer.path(data_dir), config=config.streams)
  for item in items[:10]:
    frames = framing.frames(item, config=config.streams, tokenizer=pieces)
    texts = {Control.CALL: {}, Control.RESULT: {}}
    tokens = []
    for frame in frames:
      for burst in (*frame.text_in, *frame.text_out):
        tokens += burst.tokens
        if burst.complete:
          texts[burst.channel][pieces.decode(tokens)] = frame.window
          tokens = []
    for number, e in _sums_of(item).items():
      assert e.called <= texts[Control.CALL][e.call] < e.arrival
      text = calls.result_text(number, e.result)
      assert e.arrival <= texts[Control.RESULT][text]


def test_it_is_an_entry_of_the_mixture(config, data_dir):
  mixed = small_data.config(mixture=("tool_call:1.0", "draw:1.0"))
  items = mixture.build(mixed, data_dir=data_dir, split=Split.HELDOUT)
  found = [items[i] for i in range(4)]
  assert {i.metadata["family"] for i in found} == {"tool_call", "draw"}


def test_a_voice_without_numbers_is_refused(data_dir):
  class Mute:
    def __init__(self, recordings):
      self._recordings = recordings

    def __len__(self):
      return 20

    def __getitem__(self, index):
      return self._recordings[index]

  voices = {"mute": Mute(corpus.RecordSource(data_dir / "procedural-low"))}
  with pytest.raises(errors.UserError, match="voice mute cannot ask for sums"):
    tool_call.ToolCallScenario(
      voices,
      split=Split.TRAIN,
      seed=0,
      heldout_share=SHARE,
      length=10,
      video_size=family.VideoSize(40, 40),
    )
