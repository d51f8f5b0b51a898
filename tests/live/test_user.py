"""What a user brings, and every way in which it can be unusable."""

import wave

import av
import numpy as np
import pytest

from tests.helpers import media_files, small_session
from tml_jax import errors
from tml_jax.live import session, user
from tml_jax.streams import clock, microphone
from tml_jax.streams.timeline import (
  Event,
  EventKind,
  Role,
  Timeline,
  Track,
  VideoFrame,
)

_STREAMS = small_session.config().streams


def _wav(path, *, rate=16000, channels=1, seconds=1.0):
  samples = np.zeros(int(rate * seconds) * channels, "<i2")
  samples[::7] = 1000
  with wave.open(str(path), "wb") as file:
    file.setnchannels(channels)
    file.setsampwidth(2)
    file.setframerate(rate)
    file.writeframes(samples.tobytes())
  return str(path)


def _clip(path, *, fps, count):
  with av.open(str(path), "w") as container:
    stream = container.add_stream("mpeg4", rate=fps)
    stream.width, stream.height = 320, 240
    container.start_encoding()  # writes the header, frames or not
    for i in range(count):
      image = np.full((240, 320, 3), 10 * i, np.uint8)
      frame = av.VideoFrame.from_ndarray(image, format="rgb24")
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
  return str(path)


def _from_files(audio, *, video="", lines=(), tail=0.5, fps=1.0):
  return user.from_files(
    audio,
    video_path=video,
    video_fps=fps,
    lines=list(lines),
    tail=tail,
    config=_STREAMS,
  )


def test_audio_that_cannot_be_used(tmp_path):
  good = _wav(tmp_path / "good.wav")
  assert user.read_audio(good).shape == (16000,)
  empty = tmp_path / "empty.wav"
  empty.write_bytes(b"")
  cut = tmp_path / "cut.wav"
  cut.write_bytes((tmp_path / "good.wav").read_bytes()[:9000])
  text = tmp_path / "text.wav"
  text.write_text("not a sound" * 40)
  scaled = tmp_path / "scaled.wav"
  media_files.write_floats(scaled, np.full(1600, 20_000.0))
  cases = [
    (scaled, "peak 20000, full scale is 1"),
    (tmp_path / "none.wav", "No such file"),
    (empty, "0 bytes"),
    (cut, "truncated"),
    (text, "cannot be read"),
    (_wav(tmp_path / "void.wav", seconds=0), "empty"),
  ]
  for path, words in cases:
    with pytest.raises(errors.UserError, match=words):
      user.read_audio(str(path))


def test_audio_of_other_rates_and_channels(tmp_path):
  for rate in (8_000, 22_050, 44_100):
    for channels in (1, 2):
      path = _wav(tmp_path / "a.wav", rate=rate, channels=channels)
      assert user.read_audio(path).shape == (16000,)


def test_one_file_is_both_sound_and_video(tmp_path):
  """They begin at one time, which the file calls 1.4 s."""
  kind = media_files.Kind("ts", "mpeg2video", "mp2")
  path = media_files.write(tmp_path / "a.ts", kind, pictures_from=0.48)
  timeline = _from_files(path, video=path, fps=5.0)
  (track,) = timeline.tracks
  click = np.argmax(np.abs(track.audio) > 0.3) / 16000
  (flash,) = [f.time for f in timeline.video if f.image.mean() > 128]
  assert click == pytest.approx(flash, abs=2e-3)
  assert timeline.video[0].time == pytest.approx(0.49, abs=0.01)


def test_video_is_sampled_by_capture_time_and_resized(tmp_path):
  clip = _clip(tmp_path / "clip.mp4", fps=5, count=12)
  timeline = _from_files(_wav(tmp_path / "a.wav"), video=clip, fps=2.0)
  times = [frame.time for frame in timeline.video]
  assert times == pytest.approx([0.0, 0.6, 1.0])  # 1.5 s are heard
  for frame in timeline.video:
    assert frame.image.shape == (40, 80, 3)
    # Frame i is 10 i grey, up to what the coder makes of it.
    assert frame.image.mean() == pytest.approx(50 * frame.time, abs=6)


def test_video_that_cannot_be_used(tmp_path):
  broken = tmp_path / "broken.mp4"
  broken.write_bytes(b"x" * 100)
  empty = tmp_path / "empty.mp4"
  empty.write_bytes(b"")
  void = _clip(tmp_path / "void.mkv", fps=5, count=0)
  audio = _wav(tmp_path / "a.wav")
  cases = [
    (tmp_path / "none.mp4", "No such file"),
    (broken, "cannot be read.*ffmpeg -i"),
    (empty, "0 bytes"),
    (void, "empty: void.mkv decodes to nothing"),
    (audio, "no video stream"),
  ]
  for path, words in cases:
    with pytest.raises(errors.UserError, match=words):
      _from_files(audio, video=str(path))


def test_typed_lines():
  assert user.parse_line("2.5:hello: you") == user.Line(2.5, "hello: you")
  for wrong in (
    "hello",
    "2.5",
    "x:hello",
    "-1:hello",
    "inf:a",
    "nan:a",
    "2:",
    "1:\udcff",
  ):
    with pytest.raises(errors.UserError, match="SECONDS:TEXT"):
      user.parse_line(wrong)


def test_typed_after_the_end(tmp_path):
  audio = _wav(tmp_path / "a.wav")
  with pytest.raises(errors.UserError, match="ends? at 1.5 s"):
    _from_files(audio, lines=[user.Line(1.5, "late")])
  timeline = _from_files(audio, lines=[user.Line(1.4, "in time")])
  assert timeline.duration == pytest.approx(1.5)


def test_typed_text_must_be_read_before_the_end(tmp_path):
  def part(text):  # three tokens and their marks are read in a window
    lines = [user.Line(0.5, text)]
    timeline = _from_files(_wav(tmp_path / "a.wav"), lines=lines)
    return user.UserPart(
      timeline, tokenizer=small_session.Letters(), grid=clock.TICKS
    )

  part("a" * 18).check_room(_STREAMS)  # windows 2 to 7
  with pytest.raises(errors.UserError, match="needs 0.4 s more than the"):
    part("a" * 22).check_room(_STREAMS)


def test_everything_lands_in_its_window():
  sound = np.repeat(np.arange(1, 6, dtype=np.float32) / 10, clock.TICKS.samples)
  image = np.full((40, 80, 3), 7, np.uint8)
  timeline = Timeline(
    id="test",
    duration=1.2,
    tracks=(
      Track(Role.USER, sound, (), (), "u"),
      Track(Role.ENVIRONMENT, sound[: 2 * 3200], (), (), "e"),
      Track(Role.AGENT, np.ones_like(sound), (), (), "a"),
    ),
    video=(VideoFrame(0.45, image), VideoFrame(0.55, image + 1)),
    events=(
      Event(0.6, EventKind.USER_TEXT, "abcde"),
      Event(0.6, EventKind.NOTE, "unseen"),
      Event(0.7, EventKind.RESULT, "f"),
    ),
  )
  np.testing.assert_allclose(
    microphone.hear(timeline, grid=clock.TICKS)[:, 0],
    [0.2, 0.4, 0.3, 0.4, 0.5, 0],
  )
  part = user.UserPart(
    timeline, tokenizer=small_session.Letters(), grid=clock.TICKS
  )
  assert len(part) == 6
  assert part.senses == set(session.Senses)
  live = session.Session(small_session.config(), seed=0)
  quiet = [_STREAMS.text_vocab_size + 13]
  frames = []
  for _ in range(6):
    frame = live.receive(part.window(live.window))
    frames.append(live.play(frame, tokens=quiet, mel=None))
  assert [len(frame.patches) for frame in frames] == [0, 0, 2, 0, 0, 0]
  assert frames[2].patches[0, :, 0, 0, 0].tolist() == [7, 8]  # a pair
  texts = [[b.tokens for b in frame.text_in] for frame in frames]
  # Five tokens a frame with their marks; the rest is carried on, in turns.
  assert texts == [[], [], [], [(0, 1, 2)], [(5,)], [(3, 4)]]
