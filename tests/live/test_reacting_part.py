"""The part of a user who reacts, played by a transport on any grid."""

import itertools

import numpy as np
import pytest

from tests.helpers import frames as frames_lib
from tests.helpers import scripts
from tests.helpers.drawn import asks
from tml_jax.live import reacting, user
from tml_jax.live.reacting_part import ReactingPart
from tml_jax.live.transport import Answer
from tml_jax.streams import annotation, clock, microphone
from tml_jax.streams.annotation import Kind
from tml_jax.streams.endpoint import Brings
from tml_jax.streams.frame import Control, Frame

_TOKENIZER = frames_lib.ByteTokenizer()
_OWN = np.zeros((4, 80), np.int8)
_SCRIPT = scripts.script(
  "..uu..aaa..uu..aaa..",
  asks(Kind.TURN, 2, 4, due=6, until=11),
  asks(Kind.TURN, 11, 13, due=15, until=20),
  typed={12: "hello"},
)


def _converse(grid, agent, *, script=_SCRIPT):
  """A part, and what arrived, where the agent sounds in windows `agent`."""
  part = ReactingPart(script, tokenizer=_TOKENIZER, grid=grid)
  talk, arrived = user.Recorded(part), []
  while (window := talk.bring()) is not None:
    k = len(arrived)
    arrived.append(window)
    frame = Frame(
      k,
      own_dmel=_OWN if k in agent else None,
      user_dmel=None,
      patches=np.zeros((0, 2, 40, 40, 3), np.uint8),
      text_in=(),
      speak=k + 1 in agent,
    )
    talk.take(
      Answer(
        frame=frame,
        sound=None,
        messages=(),
        is_reading=False,
        refused=None,
        seconds=0.0,
      )
    )
  return part, arrived


@pytest.mark.parametrize("ms", [200, 400, 100])
def test_what_the_recorded_agent_hears_is_the_script(ms):
  """On every grid on which it can begin and end where it did."""
  script = scripts.script(
    "..uu..aaaa..uu..aaaa....",
    asks(Kind.TURN, 2, 4, due=6, until=12),
    asks(Kind.TURN, 12, 14, due=16, until=23),
    typed={13: "hello"},
  )
  grid = clock.Grid(ms)
  sounding = {
    k
    for first, stop in ((1.2, 2.0), (3.2, 4.0))
    for k in range(grid.window_of(first), grid.window_of(stop))
  }
  part, arrived = _converse(grid, sounding, script=script)
  assert annotation.of(part.timeline) == annotation.of(script)
  scripted = user.UserPart(script, tokenizer=_TOKENIZER, grid=grid)
  assert len(arrived) == len(scripted)
  for k, window in enumerate(arrived):
    theirs = scripted.window(k)
    np.testing.assert_array_equal(window.samples, theirs.samples)
    assert window.typed == theirs.typed
    np.testing.assert_array_equal(window.images, theirs.images)


def test_sound_pictures_and_text_move_together():
  late = {9, 10, 11, 18, 19, 20}
  part, arrived = _converse(clock.TICKS, late)
  assert len(arrived) == 23
  held = part.timeline
  np.testing.assert_array_equal(
    [window.samples for window in arrived],
    microphone.hear(held, grid=clock.TICKS),
  )
  shown = [[int(image[0, 0, 0]) for image in w.images] for w in arrived]
  steps = part.user.steps
  assert shown == [[] if s.position is None else [s.position] for s in steps]
  assert shown[6:9] == [[], [], []]  # where the user waited
  typed = {k: w.typed for k, w in enumerate(arrived) if w.typed}
  assert typed == {15: [(Control.USER_TEXT, _TOKENIZER.encode("hello"))]}
  assert [round(e.time, 3) for e in held.events] == [3.1]
  assert [round(f.time, 3) for f in held.video[:7]] == [
    *(round(0.2 * k + 0.05, 3) for k in range(6)),
    1.85,
  ]
  assert part.brings(15) == Brings.TEXT and part.brings(7) == Brings.NOTHING
  assert part.brings(0) == Brings.PICTURES


def test_a_coarse_model_is_waited_for_and_asked_again():
  grid = clock.Grid(400)
  part, arrived = _converse(grid, set())
  waits = reacting.PATIENCE
  assert len(part.user.steps) == 20 + 2 * (4 + 2 * waits)
  assert len(arrived) == grid.num_windows(part.timeline.duration)
  starts = [a.start for a in annotation.of(part.timeline)]
  assert len(starts) == 4
  # A window that begins a tick early is heard in both.
  part, _ = _converse(grid, {4, 5})
  assert [s.sounds for s in part.user.steps[8:12]] == [True] * 4


def test_a_fine_model_may_begin_within_a_tick():
  grid = clock.Grid(100)
  part, _ = _converse(grid, set(range(13, 18)) | set(range(31, 36)))
  sounding = [k for k, s in enumerate(part.user.steps) if s.sounds]
  assert sounding[0] == 6  # its second half
  positions = [s.position for s in part.user.steps[:8]]
  assert positions == [0, 1, 2, 3, 4, 5, None, 6]


def test_windows_may_be_asked_for_again():
  """As the turn-based harness does, which delivers turns when they are over."""
  part, arrived = _converse(clock.TICKS, {9, 10, 11})
  for k, window in enumerate(arrived):
    again = part.window(k)
    np.testing.assert_array_equal(again.samples, window.samples)
    assert (again.typed, again.images) == (window.typed, window.images)
  assert not part.has(len(arrived))


def test_a_tool_knows_how_far_the_user_has_come():
  class Tool:
    def __init__(self):
      self.reached = []

    def take(self, window, frame, *, reached):
      self.reached.append(reached)
      return [(window + 2, [7])] if window == 3 else []

  tool = Tool()
  part = ReactingPart(
    _SCRIPT, tokenizer=_TOKENIZER, grid=clock.TICKS, tool=tool
  )
  nothing = np.zeros((0, 2, 40, 40, 3), np.uint8)
  for k in itertools.takewhile(part.has, itertools.count()):
    part.take(Frame(k, None, None, nothing, ()))
  assert part.window(5).typed == [(Control.RESULT, [7])]
  assert tool.reached[:9] == [0, 1, 2, 3, 4, 5, 5, 5, 5]
  # Who asks again has come no farther.
  assert max(np.diff(tool.reached)) == 1 and min(np.diff(tool.reached)) == 0
