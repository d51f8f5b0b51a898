"""A live session computes what training computes, and minds its own talk."""

import numpy as np

from tests.sampling import small
from tml_jax.streams import packing

# Rests: windows in which a session is not stepped.
_WINDOWS = 32
_RESTS = ({}, {3, 4, 5, 20}, set(range(12, _WINDOWS)))


def _talk(pool, users, *, rests):
  """Steps all windows; logits of each output token, by session."""
  logits = [[] for _ in users]
  for k in range(_WINDOWS):
    inputs = [
      None if k in rest else user.speak_to(conversation)
      for user, rest, conversation in zip(
        users, rests, pool.conversations, strict=True
      )
    ]
    ticked = pool.step(inputs)
    of_window = small.logits(pool.config, ticked.hidden)
    for row, count in enumerate(ticked.counts):
      logits[row].append(np.asarray(of_window[row, :count]))
  return [np.concatenate(rows) for rows in logits]


def test_streamed_equals_teacher_forced():
  cfg = small.config(temperature=1.0)
  pool = small.pool(cfg, seeds=[1, 2, 3], capacity=256)
  users = [small.User(cfg, seed=i) for i in range(3)]
  streamed = _talk(pool, users, rests=_RESTS)
  assert pool.capacity >= pool.used > 256  # it has grown
  recordings = [c.frames for c in pool.conversations]
  assert [len(frames) for frames in recordings] == [32, 28, 12]
  for part in ("text_in", "say", "text_out", "speak", "target_mel"):
    values = [getattr(frame, part) for rec in recordings for frame in rec]
    assert any(v is not None and np.any(v) for v in values), part
  assert any(len(f.patches) for rec in recordings for f in rec)

  forced = []
  for sequence in packing.pack(recordings, config=cfg.streams):
    hidden = small.hidden(cfg, sequence)
    logits = small.logits(cfg, hidden[sequence["target_positions"]])
    segments = sequence["segment_ids"]
    used = sequence["target_positions"] < len(segments)
    owner = segments[sequence["target_positions"][used]]
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


def test_growth_changes_nothing():
  cfg = small.config(temperature=1.0)
  results = []
  for capacity in (512, 256):
    pool = small.pool(cfg, seeds=[5, 6, 7], capacity=capacity)
    users = [small.User(cfg, seed=i) for i in range(3)]
    _talk(pool, users, rests=_RESTS)
    results.append([c.frames for c in pool.conversations])
  _assert_same(*results)


def test_neighbours_do_not_matter():
  cfg = small.config(temperature=1.0)
  results = []
  for others in ([11, 12], [13, 14]):
    pool = small.pool(cfg, seeds=[5, *others], capacity=512)
    users = [small.User(cfg, seed=s) for s in (0, *others)]
    rests = ({2}, {others[0]}, set(range(others[1], 20)))
    _talk(pool, users, rests=rests)
    results.append([pool.conversations[0].frames])
  _assert_same(*results)
  assert any(f.speak for f in results[0][0])


def test_seed_and_order_of_the_pool():
  cfg = small.config(temperature=1.0)
  frames = {}
  for seeds in ([5, 6, 7], [7, 6, 5]):
    pool = small.pool(cfg, seeds=seeds, capacity=512)
    users = [small.User(cfg, seed=0) for _ in seeds]
    _talk(pool, users, rests=(set(), set(), set()))
    for conversation in pool.conversations:
      frames.setdefault(conversation.seed, []).append(conversation.frames)
  for seed in (5, 6):
    _assert_same([frames[seed][0]], [frames[seed][1]])
  outputs = [[(f.say, f.speak) for f in frames[s][0]] for s in (5, 6)]
  assert outputs[0] != outputs[1]


def _assert_same(first, second):
  for a, b in zip(first, second, strict=True):
    for x, y in zip(a, b, strict=True):
      assert (x.say, x.text_out, x.speak) == (y.say, y.text_out, y.speak)
      assert (x.target_mel is None) == (y.target_mel is None)
      if x.target_mel is not None:
        np.testing.assert_allclose(x.target_mel, y.target_mel, atol=1e-5)
        np.testing.assert_array_equal(x.user_dmel, y.user_dmel)
