"""Sessions in a pool: alike wherever they are, and never compiled again."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.helpers import small_session
from tml_jax import errors
from tml_jax.config import Numerics
from tml_jax.live import pool as pool_lib
from tml_jax.live import saved, session
from tml_jax.streams.frame import Control

_CONFIG = small_session.config(temperature=1.0, horizon=96, sinks=8)


def _talk(pool, users, *, windows, record):
  """Steps the sessions of `users`; appends frames to `record`."""
  for _ in range(windows):
    inputs = {live: user.speak_to(live) for live, user in users.items()}
    for live, frame in pool.tick(inputs).frames.items():
      record.setdefault(live, []).append(frame)


def _assert_same(first, second, *, atol=0.0):
  """Bit for bit, or with mel that differs by rounding."""
  for x, y in zip(first, second, strict=True):
    assert (x.window, x.say, x.text_out) == (y.window, y.say, y.text_out)
    assert (x.text_in, x.speak) == (y.text_in, y.speak)
    for part in ("user_dmel", "own_dmel", "target_mel"):
      a, b = getattr(x, part), getattr(y, part)
      assert (a is None) == (b is None), part
      if a is not None:
        allowed = atol if part == "target_mel" else 0
        np.testing.assert_allclose(
          a, b, rtol=allowed, atol=allowed, err_msg=part
        )


@pytest.mark.parametrize(
  "numerics, atol, alone",
  [
    (Numerics.DEFAULT, 1e-5, 0),
    pytest.param(Numerics.INVARIANT, 0.0, 1, marks=pytest.mark.slow),
  ],
)
def test_slot_and_neighbours_do_not_matter(numerics, atol, alone):
  cfg = dataclasses.replace(_CONFIG, numerics=numerics)
  recordings = []
  for before, after in ((0, 3), (2, 1), (0, 0))[: 2 + alone]:
    pool = small_session.pool(cfg, slots=1 + before + after)
    neighbours = [pool.join(seed=50 + n) for n in range(before)]
    live = pool.join(seed=5)
    neighbours += [pool.join(seed=60 + n) for n in range(after)]
    users = {n: small_session.User(cfg, seed=n.seed) for n in neighbours}
    users[live] = small_session.User(cfg, seed=0)
    record = {}
    _talk(pool, users, windows=30, record=record)
    recordings.append(record[live])
  for other in recordings[1:]:
    _assert_same(recordings[0], other, atol=atol)
  assert {frame.speak for frame in recordings[0]} == {True, False}


def test_seeds_differ():
  five, six = (_alone(seed=seed, windows=15) for seed in (5, 6))
  assert any(a.say != b.say for a, b in zip(five, six, strict=True))


def _alone(*, seed, windows):
  pool = small_session.pool(_CONFIG, slots=4)
  live, record = pool.join(seed=seed), {}
  users = {live: small_session.User(_CONFIG, seed=0)}
  _talk(pool, users, windows=windows, record=record)
  return record[live]


def test_a_slot_forgets_who_was_there():
  pool = small_session.pool(_CONFIG, slots=4)
  for _ in range(4):
    pool.join(seed=9)
  record = {}
  users = {live: small_session.User(_CONFIG, seed=7) for live in pool.sessions}
  _talk(pool, users, windows=20, record=record)
  pool.leave(pool.sessions[2])
  live = pool.join(seed=5)
  assert pool.slot(live) == 2
  _talk(
    pool, {live: small_session.User(_CONFIG, seed=0)}, windows=20, record=record
  )
  _assert_same(record[live], _alone(seed=5, windows=20))


def test_nothing_compiles_after_warm_up(tmp_path):
  pool = small_session.pool(_CONFIG, slots=4)
  pool.warm_up(set(session.Senses))
  before = pool_lib.tick_lib.compiled[_CONFIG.numerics]._cache_size()
  compiled = []

  def listen(event, *_, **__):
    if "compile" in event:
      compiled.append(event)

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    record, users = {}, {}
    for step in range(8):
      live = pool.join(seed=step)
      users[live] = small_session.User(_CONFIG, seed=step)
      if step == 3:
        pool.save(live, tmp_path)
      _talk(pool, users, windows=1 + 4 * step, record=record)
      if step == 4:
        gone = next(iter(users))
        del users[gone]
        pool.leave(gone)
        users[pool.fork(live, seed=99)] = small_session.User(_CONFIG, seed=1)
      if len(pool.sessions) == 4:
        gone = next(iter(users))
        del users[gone]
        pool.leave(gone)
    users[pool.restore(tmp_path)] = small_session.User(_CONFIG, seed=1)
    _talk(pool, users, windows=30, record=record)
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  frames = [frame for frames in record.values() for frame in frames]
  assert any(frame.text_in for frame in frames)
  assert any(len(frame.patches) for frame in frames)
  # Longer than all that is kept.
  positions = pool._cache.lengths_B.max()
  assert positions > 2 * max(ring.slots for ring in pool._cache.rings)
  assert compiled == []
  assert pool_lib.tick_lib.compiled[_CONFIG.numerics]._cache_size() == before


def test_saved_and_forked_sessions_go_on_bit_for_bit(tmp_path):
  pool = small_session.pool(_CONFIG, slots=4)
  live = pool.join(seed=5)
  other = pool.join(seed=6)
  record = {}
  users = {
    live: small_session.User(_CONFIG, seed=0),
    other: small_session.User(_CONFIG, seed=1),
  }
  _talk(pool, users, windows=20, record=record)
  live.type(Control.RESULT, list(range(12)))  # more than a window takes
  pool.save(live, tmp_path)
  twin = pool.fork(live, seed=5)
  stranger = pool.fork(live, seed=7)
  elsewhere = small_session.pool(_CONFIG, slots=4)
  for seed in (1, 2):
    elsewhere.join(seed=seed)
  restored = elsewhere.restore(tmp_path)
  assert elsewhere.slot(restored) == 2 and restored.window == 20
  futures = {}
  for where, who in (
    (pool, live),
    (pool, twin),
    (pool, stranger),
    (elsewhere, restored),
  ):
    one = {who: small_session.User(_CONFIG, seed=3)}
    _talk(where, one, windows=20, record=futures)
  _assert_same(futures[live], futures[twin])
  _assert_same(futures[live], futures[restored])
  assert any(
    a.say != b.say
    for a, b in zip(futures[live], futures[stranger], strict=True)
  )
  pool.save(live, tmp_path)
  elsewhere.save(restored, tmp_path / "again")
  assert (tmp_path / saved.FILE).read_bytes() == (
    tmp_path / "again" / saved.FILE
  ).read_bytes()


@pytest.mark.slow
def test_what_cannot_be_restored_is_refused(tmp_path):
  pool = small_session.pool(_CONFIG, slots=2)
  live = pool.join(seed=5)
  pool.save(live, tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == [saved.FILE]
  path = tmp_path / saved.FILE
  good = path.read_bytes()

  hotter = small_session.pool(small_session.config(temperature=0.5), slots=1)
  weights = jax.tree.map(np.array, small_session.variables(_CONFIG))
  weights["params"]["unembedding"][0, 0] += 1
  trained = small_session.pool(_CONFIG, slots=1, variables=weights)
  for other in (hotter, trained):
    with pytest.raises(errors.UserError, match="a session of another model"):
      other.restore(tmp_path)
    assert other.sessions == []
  middle = len(good) // 2
  for broken in (
    b"",
    good[:middle],
    good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :],
  ):
    path.write_bytes(broken)
    with pytest.raises(errors.UserError, match="is broken"):
      pool.restore(tmp_path)
  with pytest.raises(errors.UserError, match="no saved session"):
    pool.restore(tmp_path / "nowhere")
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.UserError, match="cannot be written"):
    pool.save(live, tmp_path / "file")
  path.write_bytes(good)
  pool.restore(tmp_path)
  with pytest.raises(errors.UserError, match="all 2 slots"):
    pool.restore(tmp_path)
  with pytest.raises(errors.UserError, match="all 2 slots"):
    pool.join(seed=1)
  pool.leave(live)
  with pytest.raises(errors.UserError, match="not in this pool"):
    pool.leave(live)


def test_bad_input_is_refused_and_changes_nothing():
  height, width = _CONFIG.streams.video_height, _CONFIG.streams.video_width
  good = np.zeros(3200, np.float32)
  image = np.zeros((height, width, 3), np.uint8)
  for samples, images, words in (
    (good[:-1], [], "give \\(3200,\\)"),
    (np.zeros(9600, np.float32), [], "at 48000 Hz"),
    (good.astype(np.int16), [], "samples are int16"),
    (np.where(np.arange(3200) < 2, np.nan, good), [], "2 samples are NaN"),
    (np.full(3200, np.inf, np.float32), [], "3200 samples are NaN"),
    (good, [image[:-1]], "video_height"),
    (good, [image, image.astype(np.float32)], "video_height"),
  ):
    pool = small_session.pool(_CONFIG, slots=4)
    live, other = pool.join(seed=5), pool.join(seed=6)
    live.type(Control.USER_TEXT, [1, 2, 3])
    before = live.state()
    with pytest.raises(errors.UserError, match=words):
      live.perceive(samples, images=images)
    assert live.state() == before
    frames = pool.tick({other: other.perceive(good)}).frames
    assert list(frames) == [other] and live.window == 0
  for tokens in ([_CONFIG.streams.text_vocab_size + 9], [1, -1]):
    with pytest.raises(errors.UserError, match="made of text tokens"):
      live.type(Control.RESULT, tokens)
  with pytest.raises(errors.UserError, match="SPEAK"):
    live.type(Control.SPEAK, [1])


def test_clipped_sound_is_cut_off_and_counted():
  loud = np.zeros(3200, np.float32)
  loud[:7], loud[7:10] = 3.0, -np.float32(1.5)
  cut = np.clip(loud, -1, 1)
  one, two = (session.Session(_CONFIG, seed=0) for _ in range(2))
  np.testing.assert_array_equal(
    one.perceive(loud).user_dmel, two.perceive(cut).user_dmel
  )
  assert (one.clipped, two.clipped) == (10, 0)


def test_a_lost_window_is_absent_and_time_goes_on():
  pool = small_session.pool(_CONFIG, slots=4)
  live = pool.join(seed=5)
  sound = np.random.default_rng(0).normal(size=3200).astype(np.float32) / 9
  frames = []
  for samples in (sound, None, sound):
    frame = live.perceive(samples)
    frames.append(pool.tick({live: frame}).frames[live])
  assert [frame.window for frame in frames] == [0, 1, 2]
  assert [frame.user_dmel is None for frame in frames] == [False, True, False]
  # Behind the gap the microphone starts as from silence.
  np.testing.assert_array_equal(frames[0].user_dmel, frames[2].user_dmel)


@pytest.mark.slow
def test_an_hour_takes_no_more_memory_and_no_more_time():
  from benchmarks import session as benchmark

  numbers = benchmark.long_session(benchmark.config(), windows=18_000)
  assert numbers["long_positions"] > 100_000
  assert numbers["rss_growth_mib"] < 16
  assert numbers["last_over_first_minute"] < 1.25  # other work on the machine


def test_who_is_kept_quiet_decides_nothing_and_disturbs_nobody():
  recordings = []
  for quiet in (False, True):
    pool = small_session.pool(_CONFIG, slots=4)
    live, other = pool.join(seed=5), pool.join(seed=6)
    users = {s: small_session.User(_CONFIG, seed=s.seed) for s in (live, other)}
    frames = {live: [], other: []}
    for k in range(20):
      ticked = pool.tick(
        {s: each.speak_to(s) for s, each in users.items()},
        quiet={other} if quiet and k < 12 else (),
      )
      for each, frame in ticked.frames.items():
        frames[each].append(frame)
      if quiet and k < 12:
        assert ticked.counts[pool.slot(other)] == 1
    recordings.append((frames[live], frames[other]))
  (live, free), (beside, kept) = recordings
  _assert_same(live, beside)
  assert any(frame.speak for frame in free[:12])
  assert not any(f.speak or f.say or f.text_out for f in kept[:12])
  assert any(frame.speak for frame in kept[12:])
