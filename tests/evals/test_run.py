"""Evaluation of a model: live conversations and forced predictions."""

import numpy as np
import pytest

from tests.sampling import small
from tml_jax.data.splits import Split
from tml_jax.evals import dummies, reply, run, show
from tml_jax.sampling import tick
from tml_jax.streams import clock, framing, packing
from tml_jax.streams.timeline import Role, Span, Timeline, Track, Word

_TOKENIZER = small.Letters()
_CONFIG = small.config(temperature=0.0)


def _timeline(seed: int) -> Timeline:
  """The user hums, the agent hums back."""
  random = np.random.default_rng(seed)
  windows = int(random.integers(8, 14))

  def track(role, first, last, words):
    sound = np.zeros(windows * clock.TURN_SAMPLES, np.float32)
    part = slice(first * clock.TURN_SAMPLES, last * clock.TURN_SAMPLES)
    sound[part] = 0.1 * random.normal(size=part.stop - part.start)
    span = Span(first * clock.TURN_SECONDS, last * clock.TURN_SECONDS)
    return Track(role, sound, words, (span,), str(role))

  due = 5
  return Timeline(
    id=f"test/{seed}",
    duration=windows * clock.TURN_SECONDS,
    tracks=(
      track(Role.USER, 1, 4, ()),
      track(Role.AGENT, due, due + 2, (Word(1.0, 1.4, "hum"),)),
    ),
    metadata={
      "exchanges": [
        {
          "user_start": 0.2,
          "user_end": 0.8,
          "onset_window": due,
          "instruction": False,
        }
      ]
    },
  )


def _converse(timelines):
  live = run.converse(
    _CONFIG,
    model=small.model(_CONFIG),
    variables=small.variables(_CONFIG),
    timelines=timelines,
    tokenizer=_TOKENIZER,
    title="test",
  )
  return [
    [(f.say, f.text_out, f.speak) for f in frames] for frames in live.recordings
  ]


def test_live_conversations_keep_their_order_and_their_numbers():
  timelines = [_timeline(seed) for seed in range(18)]  # 16 at a time
  results = _converse(timelines)
  assert [len(r) for r in results] == [
    clock.num_windows(t.duration) for t in timelines
  ]
  # Conversation 0 with no one else in the batch.
  assert _converse(timelines[:1]) == results[:1]


def test_forced_numbers_by_hand():
  recordings = [
    framing.frames(
      _timeline(seed), config=_CONFIG.streams, tokenizer=_TOKENIZER
    )
    for seed in range(3)
  ]
  numbers = run.forced(
    _CONFIG,
    model=small.model(_CONFIG),
    variables=small.variables(_CONFIG),
    recordings=recordings,
    title="test",
  )
  (sequence,) = packing.pack(recordings, config=_CONFIG.streams)
  hidden = small.hidden(_CONFIG, sequence)
  right, nats = [], []
  used = sequence["target_positions"] < _CONFIG.streams.seq_len
  for position, target, kind in zip(
    sequence["target_positions"][used],
    sequence["targets"][used],
    sequence["target_kinds"][used],
    strict=True,
  ):
    if kind == 0:  # say-text
      logits = small.logits(_CONFIG, hidden[position])
      right.append(int(np.argmax(logits)) == target)
      nats.append(np.log(np.exp(logits).sum()) - logits[target])
  assert len(right) == 3 * len("hum")
  assert numbers["text_accuracy"] == pytest.approx(np.mean(right))
  assert numbers["text_loss"] == pytest.approx(np.mean(nats), rel=1e-4)
  targets = np.stack(
    [f.target_mel for frames in recordings for f in frames if f.speak]
  )
  assert len(targets) == 3 * 2
  spread = 20 * np.sqrt(targets.var(axis=(0, 1)).mean())
  assert numbers["mel_mean_db"] == pytest.approx(spread, rel=1e-4)
  assert numbers["mel_db"] > 0 and numbers["mel_expected_db"] > 0


def test_dummies():
  summaries = dummies.summaries([_timeline(seed) for seed in range(4)])
  recorded = summaries["recorded"]
  assert recorded["response_rate"] == recorded["timing_within_1"] == 1
  assert recorded["latency_median"] == 2
  assert recorded["false_starts_per_minute"] == recorded["overlap"] == 0
  assert summaries["silent"]["response_rate"] == 0
  assert summaries["always talking"]["response_rate"] == 0
  assert summaries["always talking"]["overlap"] == 1


def test_table_and_picture(tmp_path):
  timeline = _timeline(0)
  scores = [
    reply.score(
      dummies.recorded(timeline), exchanges=timeline.metadata["exchanges"]
    )
  ]
  scalars = reply.summarise(scores)
  text = show.table({"heldout": scalars, "fresh": {}})
  head, _, *rows = text.splitlines()
  assert head.split() == ["heldout", "fresh"]
  assert "answered" in rows[0] and "100.0" in rows[0] and " - " in rows[0]
  report = run.Report(
    split=Split.HELDOUT,
    scalars=scalars,
    scores=scores,
    tick_seconds=np.ones(1),
    sessions=1,
  )
  show.picture([report], path=tmp_path / "picture.png")
  assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"


def test_sessions_do_not_compile_again_for_the_next_batch():
  timelines = [_timeline(seed) for seed in range(2)]
  _converse(timelines)
  before = tick.compiled[_CONFIG.numerics]._cache_size()
  _converse(timelines)
  assert tick.compiled[_CONFIG.numerics]._cache_size() == before > 0
