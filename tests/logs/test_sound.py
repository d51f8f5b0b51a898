"""Sound files that grow, and what a killed process leaves of them."""

import subprocess
import sys
import time
import wave

import numpy as np

from tests.helpers import commands
from tml_jax.logs import sound as sound_lib
from tml_jax.streams import clock

_DELAY = 1000
# A user on the wall clock, whose model answers with ones at once.
_SESSION = """
import sys, pathlib
import numpy as np
from tml_jax.live import realtime, user
from tml_jax.live.transport import Answer
from tml_jax.logs import sound
from tml_jax.streams import clock, frame
from tml_jax.streams.timeline import Role, Timeline, Track

silence = np.zeros(60 * 16000, np.float32)
timeline = Timeline(
  "t", 60.0, (Track(Role.USER, silence, (), (), "u"),)
)
part = user.UserPart(timeline, tokenizer=None, grid=clock.TICKS)
recorded = user.Recorded(part)
path = pathlib.Path(sys.argv[1])
recorded.play = sound.Track(path, grid=clock.TICKS, delay=1000).append
talk = realtime.Realtime(
  recorded, grid=clock.TICKS, pace=realtime.WallClock()
)
while talk.bring() is not None:
  heard = np.full(3200, 0.5, np.float32)
  talk.take(Answer(None, heard, (), False, None, 0.0))
"""


def _read(path):
  with wave.open(str(path)) as file:
    assert (file.getnchannels(), file.getframerate()) == (1, 16000)
    assert file.getsampwidth() == 2
    count = file.getnframes()
    samples = np.frombuffer(file.readframes(count), "<i2")
  assert len(samples) == count
  return samples


def test_a_track_is_whole_after_every_window_and_in_time(tmp_path):
  path = tmp_path / "agent.wav"
  path.write_text("older")
  track = sound_lib.Track(path, grid=clock.TICKS, delay=_DELAY)
  assert len(_read(path)) == 3200 - _DELAY
  sound = np.linspace(-1.2, 1.2, 4 * 3200, dtype=np.float32)
  for k in range(4):
    track.append(sound[3200 * k : 3200 * (k + 1)])
    assert len(_read(path)) == 3200 * (k + 2) - _DELAY
  whole = track.close(samples=5 * 3200 - _DELAY)
  np.testing.assert_array_equal(whole[3200 - _DELAY :], sound)
  again = tmp_path / "again.wav"
  sound_lib.write_wav(again, channels=[whole])
  assert path.read_bytes() == again.read_bytes()  # the header of `wave`, too


def test_windows_shorter_than_the_delay(tmp_path):
  grid = clock.Grid(50)
  track = sound_lib.Track(tmp_path / "a.wav", grid=grid, delay=_DELAY)
  assert len(_read(tmp_path / "a.wav")) == 0
  track.append(np.arange(800, dtype=np.float32) / 800)
  whole = track.close(samples=1600)
  assert whole[0] == np.float32(200 / 800)
  assert len(whole) == 1600 and not whole[600:].any()


def test_a_killed_session_leaves_what_was_said(tmp_path):
  path = tmp_path / "agent.wav"
  process = subprocess.Popen(
    [sys.executable, "-c", _SESSION, str(path)], cwd=commands.ROOT
  )
  try:
    deadline = time.monotonic() + 60
    while not (path.exists() and path.stat().st_size > 6 * 6400):
      assert process.poll() is None and time.monotonic() < deadline
      time.sleep(0.02)
  finally:
    process.kill()
    process.wait()
  samples = _read(path)
  # Whole windows behind the first, silent one.
  assert (len(samples) + _DELAY) % 3200 == 0 and len(samples) > 4 * 3200
  assert not samples[: 3200 - _DELAY].any()
  assert (samples[3200 - _DELAY :] == round(0.5 * 32767)).all()
