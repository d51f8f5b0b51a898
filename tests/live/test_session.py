"""A live session computes what training computes, and minds its own talk."""

import dataclasses

import numpy as np
import pytest

from tests.helpers import small_session
from tml_jax.config import Position, SayText
from tml_jax.streams import packing

# Rests: windows in which a session is not ticked.
_WINDOWS = 40
_RESTS = ({}, {3, 4, 5, 20}, set(range(12, _WINDOWS)))


@pytest.mark.parametrize(
  "position, say_text, turn_ms",
  [
    (Position.RELATIVE_BIAS, SayText.WORDS, 200),
    pytest.param(Position.TIME_ROPE, SayText.NONE, 200, marks=pytest.mark.slow),
    pytest.param(
      Position.TIME_ROPE, SayText.WORDS, 400, marks=pytest.mark.slow
    ),
    pytest.param(
      Position.RELATIVE_BIAS, SayText.WORDS, 100, marks=pytest.mark.slow
    ),
  ],
)
def test_streamed_equals_teacher_forced(position, say_text, turn_ms):
  cfg = small_session.config(temperature=1.0)
  cfg = dataclasses.replace(
    cfg,
    streams=dataclasses.replace(
      cfg.streams, say_text=say_text, turn_ms=turn_ms
    ),
    model=dataclasses.replace(cfg.model, position=position),
  )
  pool = small_session.pool(cfg, slots=3)
  sessions = [pool.join(seed=seed) for seed in (1, 2, 3)]
  users = [small_session.User(cfg, seed=i) for i in range(3)]
  streamed, recordings = [[], [], []], [[], [], []]
  for k in range(_WINDOWS):
    inputs = {
      live: user.speak_to(live)
      for live, user, rest in zip(sessions, users, _RESTS, strict=True)
      if k not in rest
    }
    ticked = pool.tick(inputs)
    of_window = small_session.logits(cfg, ticked.hidden)
    for row, live in enumerate(sessions):
      if live in inputs:
        recordings[row].append(ticked.frames[live])
        streamed[row].append(of_window[row, : ticked.counts[row]])
  streamed = [np.concatenate(rows) for rows in streamed]
  assert [len(frames) for frames in recordings] == [40, 36, 12]
  for part in ("text_in", "say", "text_out", "speak", "target_mel"):
    values = [getattr(frame, part) for rec in recordings for frame in rec]
    is_used = part != "say" or say_text is SayText.WORDS
    assert any(v is not None and np.any(v) for v in values) == is_used, part
  assert any(len(f.patches) for rec in recordings for f in rec)
  # Many times round the ring of the sliding window.
  local, _ = pool._cache.rings
  assert pool._cache.lengths_B.max() > 8 * local.slots

  forced = []
  for sequence in packing.pack(recordings, config=cfg.streams):
    hidden = small_session.hidden(cfg, sequence)
    positions = sequence.targets.positions
    logits = small_session.logits(cfg, hidden[positions])
    segments = sequence.packed.segment_ids
    used = positions < len(segments)
    owner = segments[positions[used]]
    for segment in range(1, segments.max() + 1):
      forced.append(np.asarray(logits[used][owner == segment]))
  # Packing is first fit, in order: here no segment is cut or reordered.
  assert sorted(map(len, forced)) == sorted(map(len, streamed))
  for logits in streamed:
    twin = min(
      (f for f in forced if len(f) == len(logits)),
      key=lambda f: np.abs(f - logits).max(),
    )
    np.testing.assert_allclose(logits, twin, rtol=0, atol=1e-5)
  assert np.ptp(streamed[0], axis=0).max() > 0.5  # the logits say something
