"""Conversations behind transports: sound, joining, lost and bad windows."""

import collections
import dataclasses

import numpy as np
import pytest

from tests.helpers import small_session
from tml_jax import errors
from tml_jax.live import conversation, session
from tml_jax.live.transport import Answer, Arrived, Past
from tml_jax.streams import clock
from tml_jax.streams.frame import Burst, Control
from tml_jax.vocoder import stream

_CONFIG = small_session.config(temperature=1.0, horizon=96, sinks=8)
_VOICE = stream.Voice(network=None, variables={})
_TOKENIZER = small_session.Letters()
_ANSWER = Answer(
  frame=None,
  sound=None,
  messages=(),
  is_reading=False,
  refused=None,
  seconds=0.0,
)


class Queue:
  """Stands for a socket: windows are put in, answers are taken out."""

  def __init__(self):
    self.coming = collections.deque()
    self.answers = []

  def bring(self):
    return self.coming.popleft() if self.coming else None

  def take(self, answer):
    self.answers.append(answer)

  @property
  def frames(self):
    return [answer.frame for answer in self.answers]

  @property
  def sound(self):
    return np.concatenate([answer.sound for answer in self.answers])


def _room(*, slots=2):
  pool = small_session.pool(_CONFIG, slots=slots, voice=_VOICE)
  return conversation.Room(pool, tokenizer=_TOKENIZER)


def _windows(count, *, seed):
  """Noise, now and then a line or a picture, and a window that is lost."""
  random, streams = np.random.default_rng(seed), _CONFIG.streams
  shape = (2, streams.video_height, streams.video_width, 3)
  for k in range(count):
    sound = 0.05 * random.normal(size=clock.TICKS.samples)
    image = random.integers(256, size=shape, dtype=np.uint8)
    typed = tuple(random.integers(_TOKENIZER.num_pieces, size=4).tolist())
    yield Arrived(
      samples=None if k == 5 else sound.astype(np.float32),
      images=list(image) if k % 4 == 2 else (),
      typed=[(Control.USER_TEXT, typed)] if k % 5 == 3 else (),
    )


def _alone(count, *, seed):
  """What a queue hears with nobody else in the room."""
  queue = Queue()
  queue.coming.extend(_windows(count, seed=seed))
  conversation.hold(_room(), [conversation.Guest(queue, seed=seed)])
  return queue


def _assert_same(queue, other):
  for one, two in zip(queue.frames, other.frames, strict=True):
    assert one.window == two.window
    assert (one.say, one.text_out) == (two.say, two.text_out)
    assert (one.text_in, one.speak) == (two.text_in, two.speak)
    assert (one.user_dmel is None) == (two.user_dmel is None)
    if one.speak:  # differs by rounding, see tests/live/test_pool.py
      np.testing.assert_allclose(one.target_mel, two.target_mel, atol=1e-5)


def _assert_sounds_as_its_mel(queue):
  mels = [f.target_mel if f.speak else None for f in queue.frames]
  assert {mel is None for mel in mels} == {True, False}
  whole = stream.render(mels, grid=clock.TICKS, network=None, variables={})
  streamed = queue.sound[stream.DELAY :]
  assert np.abs(streamed).max() > 1e-3
  # The last samples of a window wait for the one behind it.
  np.testing.assert_array_equal(streamed, whole[: len(streamed)])


def test_streamed_sound_is_that_of_the_mel():
  _assert_sounds_as_its_mel(_alone(12, seed=3))


def test_those_who_join_at_any_phase_do_not_disturb_each_other():
  room, queues = _room(), [Queue(), Queue()]
  for seed, queue in enumerate(queues):
    queue.coming.extend(_windows(16, seed=seed))
  first = room.join(conversation.Guest(queues[0], seed=0))
  second = None
  for step in range(64):
    if step == 5:
      second = room.join(conversation.Guest(queues[1], seed=1))
    # Each has its own clock: together, apart, or one more often.
    due = [first] if step % 3 != 1 else []
    due += [second] if second and step % 2 else []
    brought = {each: each.guest.transport.bring() for each in due}
    room.step({e: a for e, a in brought.items() if a is not None})
  for seed, queue in enumerate(queues):
    assert not queue.coming
    _assert_sounds_as_its_mel(queue)
    _assert_same(queue, _alone(16, seed=seed))
  assert queues[0].frames[5].user_dmel is None  # the one that was lost


def test_a_window_that_cannot_be_used_is_absent_and_disturbs_nobody():
  room, good, bad = _room(), Queue(), Queue()
  one = room.join(conversation.Guest(good, seed=0))
  two = room.join(conversation.Guest(bad, seed=1))
  (window,) = _windows(1, seed=0)
  room.step({one: window, two: Arrived(np.zeros(7, np.float32))})
  assert good.answers[0].refused is None
  refused = bad.answers[0].refused
  assert isinstance(refused, errors.UserError)
  assert "samples of shape (7,)" in str(refused)
  assert bad.frames[0].user_dmel is None
  room.step({two: window})
  assert bad.answers[1].refused is None
  assert [frame.window for frame in bad.frames] == [0, 1]


def test_a_conversation_goes_back_to_what_was_kept():
  before, after = [*_windows(7, seed=3)], [*_windows(6, seed=4)]
  plain = Queue()
  plain.coming.extend(before + after)
  conversation.hold(_room(), [conversation.Guest(plain, seed=3)])
  queue = Queue()
  lost = [*_windows(4, seed=5)]
  lost[0] = dataclasses.replace(lost[0], past=Past.KEPT)
  again = dataclasses.replace(after[0], past=Past.AS_KEPT)
  queue.coming.extend(before + lost + [again, *after[1:]])
  conversation.hold(_room(), [conversation.Guest(queue, seed=3)])
  del queue.answers[7:11]
  assert [frame.window for frame in queue.frames] == [*range(13)]
  _assert_same(queue, plain)
  assert any(frame.speak for frame in queue.frames[7:])


def test_nothing_was_kept():
  queue = Queue()
  queue.coming.append(Arrived(None, past=Past.AS_KEPT))
  with pytest.raises(errors.UserError, match="Past.KEPT first"):
    conversation.hold(_room(), [conversation.Guest(queue, seed=0)])


def test_a_forked_and_a_restored_session_sound_alike(tmp_path):
  pool = small_session.pool(_CONFIG, slots=2, voice=_VOICE)
  live, past = pool.join(seed=3), []
  for window in _windows(10, seed=3):
    past.append(pool.tick({live: live.receive(window)}).frames[live])
  pool.save(live, tmp_path)
  twin = pool.fork(live, seed=3)
  other = small_session.pool(_CONFIG, slots=2, voice=_VOICE)
  restored = other.restore(tmp_path)
  silent = small_session.pool(_CONFIG, slots=1)
  with pytest.raises(errors.UserError, match="a session of another model"):
    silent.restore(tmp_path)
  places = {live: pool, twin: pool, restored: other}
  queues = {who: Queue() for who in places}
  for window in _windows(8, seed=9):
    for who, where in places.items():
      ticked = where.tick({who: who.receive(window)})
      queues[who].answers.append(
        dataclasses.replace(
          _ANSWER, frame=ticked.frames[who], sound=ticked.sounds[who]
        )
      )
  begin = len(past) * clock.TICKS.samples - stream.DELAY
  for queue in queues.values():
    _assert_same(queue, queues[live])
    # Its own mel, as rounding of the mel is heard.
    mels = [f.target_mel if f.speak else None for f in past + queue.frames]
    whole = stream.render(mels, grid=clock.TICKS, network=None, variables={})
    assert np.abs(queue.sound).max() > 0
    np.testing.assert_array_equal(
      queue.sound, whole[begin : begin + len(queue.sound)]
    )


def test_messages_are_complete_texts():
  def burst(channel, text, complete):
    return Burst(channel, tuple(_TOKENIZER.encode(text)), complete)

  silence = np.zeros(clock.TICKS.samples, np.float32)
  live = session.Session(_CONFIG, seed=0)
  frame = live.receive(Arrived(silence))
  talk = conversation.Conversation(live, conversation.Guest(Queue(), seed=0))
  found = [
    talk.messages(
      dataclasses.replace(frame, text_out=bursts), tokenizer=_TOKENIZER
    )
    for bursts in (
      (burst(Control.SHOW, "one ", False), burst(Control.CALL, "add", True)),
      (burst(Control.DRAW, "M", True), burst(Control.SHOW, "message", True)),
      (burst(Control.SHOW, "b", True), burst(Control.SHOW, "c", True)),
    )
  ]
  assert found == [
    (),
    ((Control.DRAW, "M"), (Control.SHOW, "one message")),
    ((Control.SHOW, "b"), (Control.SHOW, "c")),
  ]
