"""Letters that are asked for, drawn and said."""

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.helpers import small_data
from tml_jax import errors, inspect
from tml_jax.data import corpus, splits
from tml_jax.data.scenarios import draw, family
from tml_jax.data.splits import Split
from tml_jax.evals import agents
from tml_jax.evals.metrics import panel
from tml_jax.streams import clock, timeline
from tml_jax.streams.timeline import EventKind, Role

SHARE = 0.1
_OPEN = {}


def scenario(data_dir, *, split=Split.TRAIN, share=SHARE):
  if (split, share) not in _OPEN:
    _OPEN[split, share] = draw.DrawScenario(
      {
        v: corpus.RecordSource(data_dir / v.replace(":", "-"))
        for v in small_data.VOICES
      },
      split=split,
      seed=0,
      heldout_share=share,
      length=10**6,
      video_size=family.VideoSize(120, 160),
    )
  return _OPEN[split, share]


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(st.integers(0, 10**6 - 1), st.sampled_from(list(Split)))
def test_invariants(data_dir, index, split):
  item = scenario(data_dir, split=split)[index]
  timeline.validate(item)
  assert 6 <= item.duration <= 20
  user, agent = item.track(Role.USER), item.track(Role.AGENT)
  drawn = [e for e in item.events if e.kind == EventKind.DRAW]
  for e in item.metadata["exchanges"]:
    start, end = e["user_start"] - 1e-6, e["user_end"] + 1e-6
    asked = [w.text for w in user.words if start <= w.start < end]
    assert asked == ["record", *e["letters"]]
    last = max(s.end for s in user.spans if s.end <= end)
    window = (round(last * clock.SAMPLE_RATE) - 1) // clock.TICKS.samples
    assert e["onset_window"] == window + 2
    onset = e["onset_window"] * clock.TICKS.seconds
    said = [w.text for w in agent.words if onset - 1e-6 <= w.start]
    assert said[: len(e["letters"])] == [*e["letters"]]
    # One message a letter, from the window before the agent is heard: the
    # first commands are decided together with the first sound.
    messages = [drawn.pop(0) for _ in e["letters"]]
    assert [m.text for m in messages] == e["drawn"]
    assert {clock.TICKS.window_of(m.time) for m in messages} == {
      e["onset_window"] - 1
    }
    heldout = splits.is_heldout(f"draw/{e['letters']}", share=SHARE)
    assert heldout == (split == Split.HELDOUT)
    for letter in e["letters"]:
      assert not splits.is_heldout(f"letters/{letter}", share=SHARE)
  assert not drawn
  scored = panel.measure(agents.recorded(item))
  assert all(0.2 <= latency <= 0.4 for latency, _ in scored["latency"])
  assert panel.score(scored) == 1
  assert {right for right, _ in scored["said_right"]} == {1}
  for name in ("overlap", "interruptions", "false_fires", "late"):
    assert {value for value, _ in scored[name]} == {0}, name


def test_letters_are_told_apart():
  paths = {draw.path(letter, x=0, y=0) for letter in draw._STROKES}
  assert len(paths) == 26
  assert draw.path("l", x=0, y=0) == "M0 0V6H4"
  assert draw.path("l", x=6, y=8) == "M6 8V14H10"
  assert draw.path("d", x=0, y=0) == "M0 0H3L4 2V4L3 6H0Z"


def test_the_picture(data_dir, tmp_path):
  """`inspect --timeline` shows the conversation, and what is drawn in it."""
  mixed = small_data.config(mixture=("draw:1.0",))
  inspect.draw_timeline(
    mixed, argument="train:0", data_dir=str(data_dir), out=tmp_path
  )
  names = sorted(path.name for path in tmp_path.iterdir())
  assert names == ["drawing.png", "timeline.png"]
  for path in tmp_path.iterdir():
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_a_share_that_holds_out_the_cue_is_refused(data_dir):
  with pytest.raises(errors.UserError, match="holds out the word"):
    scenario(data_dir, share=0.6)
