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
from tml_jax.streams import annotation, clock, timeline, tokenizer
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
      dev_share=0.2 if split == Split.DEV else 0.0,
      length=10**6,
      video_size=family.VideoSize(120, 160),
    )
  return _OPEN[split, share]


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(st.integers(0, 10**6 - 1), st.sampled_from(list(Split)))
@hypothesis.example(1185, Split.FRESH)  # the question ends with its window
def test_invariants(data_dir, index, split):
  item = scenario(data_dir, split=split)[index]
  timeline.validate(item)
  assert 6 <= item.duration <= 20
  user, agent = item.track(Role.USER), item.track(Role.AGENT)
  drawn = [e for e in item.events if e.kind == EventKind.DRAW]
  questions = item.metadata["asked"]
  for line, a in enumerate(annotation.of(item)):
    word, *letters = [
      w.text for w in user.words if a.start - 1e-6 <= w.start < a.end
    ]
    assert word == "record"
    last = max(s.end for s in user.spans if s.end <= a.end + 1e-6)
    window = (round(last * clock.SAMPLE_RATE) - 1) // clock.TICKS.samples
    onset = clock.TICKS.window_of(a.due)
    assert onset == window + 2
    said = [w.text for w in agent.words if a.due - 1e-6 <= w.start]
    assert said[: len(letters)] == letters
    # One message a letter, from the window before the agent is heard: the
    # first commands are decided together with the first sound.
    messages = [drawn.pop(0) for _ in letters]
    assert [m.text for m in messages] == [
      draw.path(letter, x=draw.ADVANCE * i, y=draw.LINE * line)
      for i, letter in enumerate(letters)
    ]
    assert {clock.TICKS.window_of(m.time) for m in messages} == {onset - 1}
    assert questions[line] == f"draw/{''.join(letters)}"
    heldout = splits.is_heldout(questions[line], share=SHARE)
    assert heldout == (split == Split.HELDOUT)
    for letter in letters:
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
    mixed,
    argument="train:0",
    data_dir=str(data_dir),
    tokenizer_file=tokenizer.path(str(data_dir)),
    out=tmp_path,
  )
  names = sorted(path.name for path in tmp_path.iterdir())
  assert names == ["drawing.png", "timeline.png"]
  for path in tmp_path.iterdir():
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_a_share_that_holds_out_the_cue_is_refused(data_dir):
  with pytest.raises(errors.UserError, match="holds out the word"):
    scenario(data_dir, share=0.6)
