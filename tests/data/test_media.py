"""Files of sound and video: their times, their limits, and attacks by them."""

import io
import os
import socket
import struct
import time
import wave

import av
import numpy as np
import pytest

from tests.helpers import clips, media_files
from tests.helpers.sound import tone, write_wav
from tml_jax.data import media, source

RATE = 16_000
_ids = [f"{k.extension}-{k.video}-{k.audio}" for k in media_files.KINDS]
kinds = pytest.mark.parametrize("kind", media_files.KINDS, ids=_ids)


def reason_of(call, *args, **kwargs):
  with pytest.raises(source.BadRecording) as caught:
    call(*args, **kwargs)
  return caught.value.reason


def pictures(path, *, fps=1000.0, seconds=99.0, height=48, width=64, **kwargs):
  return media.pictures(
    path, fps=fps, seconds=seconds, height=height, width=width, **kwargs
  )


def click_and_flash(path) -> tuple[float, float]:
  """Seconds at which the click is heard and the flash is seen."""
  (sound,) = media.sound(path)
  (flash,) = [f.time for f in pictures(path) if f.image.mean() > 128]
  return np.argmax(np.abs(sound) > 0.3) / RATE, flash


# Sound


def test_sound_is_what_was_written(tmp_path):
  samples = np.stack([tone(0.5), tone(0.5, frequency=9)])
  write_wav(tmp_path / "a.wav", samples)
  found = media.sound(tmp_path / "a.wav")
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, samples, atol=1e-4)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_rates_keep_pitch_length_and_place(tmp_path, rate, channels):
  path = tmp_path / "a.wav"
  samples = tone(1.7, frequency=440, rate=rate)
  samples[: rate // 2] = 0
  write_wav(path, np.stack([samples] * channels), rate=rate)
  found = media.sound(path)
  assert found.shape == (channels, round(len(samples) * RATE / rate))
  sound = found[-1]
  assert abs(np.argmax(np.abs(sound) > 0.05) - RATE // 2) < 16  # 1 ms
  sound = sound[RATE // 2 :]
  spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
  assert abs(np.argmax(spectrum) * RATE / len(sound) - 440) < 2
  assert np.abs(sound).max() == pytest.approx(0.3, rel=0.05)


def test_a_long_file_is_resampled_as_one_is(tmp_path):
  """Block by block as in one piece, with FFmpeg's resampler."""
  path, rate = tmp_path / "a.wav", 44_100
  random = np.random.default_rng(0)
  samples = 0.1 * random.standard_normal(5 * rate).astype(np.float32)
  write_wav(path, samples[None], rate=rate)
  resampler = av.AudioResampler(format="fltp", layout="mono", rate=RATE)
  frame = av.AudioFrame.from_ndarray(
    np.round(samples[None] * 32767).astype(np.float32) / 32768,
    format="fltp",
    layout="mono",
  )
  frame.sample_rate = rate
  frames = [*resampler.resample(frame), *resampler.resample(None)]
  whole = np.concatenate([f.to_ndarray()[0] for f in frames])
  (found,) = media.sound(path)
  np.testing.assert_array_equal(found, whole[: len(found)])


def test_broken_files_are_refused(tmp_path):
  path = tmp_path / "a.wav"
  path.write_bytes(b"")
  assert reason_of(media.sound, path) == source.Reason.EMPTY
  path.write_bytes(b"no audio at all" * 100)
  assert reason_of(media.sound, path) == source.Reason.UNREADABLE
  write_wav(path, tone(1.0)[None])
  whole = path.read_bytes()
  for size in (len(whole) // 2, len(whole) - 2, 60, 20):
    path.write_bytes(whole[:size])
    assert reason_of(media.sound, path) == source.Reason.TRUNCATED
  write_wav(path, np.zeros((1, 0)))
  assert reason_of(media.sound, path) == source.Reason.EMPTY
  coding = bytearray(whole)
  coding[20:22] = b"\xff\x7f"  # its number
  path.write_bytes(coding)
  assert reason_of(media.sound, path) == source.Reason.UNREADABLE
  assert reason_of(media.sound, tmp_path) == source.Reason.UNREADABLE
  missing = tmp_path / "b.wav"
  assert reason_of(media.sound, missing) == source.Reason.UNREADABLE


def test_names_that_are_no_text(tmp_path):
  path = os.fsencode(tmp_path) + b"/caf\xe9.wav"
  with open(path, "wb") as file:
    file.write(b"no audio")
  with pytest.raises(source.BadRecording) as caught:
    media.sound(path)
  str(caught.value).encode()
  write_wav(tmp_path / "a.wav", tone(0.1)[None])
  os.replace(tmp_path / "a.wav", path)
  assert media.sound(os.fsdecode(path)).shape == (1, RATE // 10)


def _headers(path, *, riff=None, data=None):
  content = bytearray(path.read_bytes())
  if riff is not None:
    content[4:8] = struct.pack("<I", riff)
  content[40:44] = struct.pack("<I", data)
  path.write_bytes(content)


@pytest.mark.parametrize(
  "riff, data",
  [
    (0x7FFFF024, 0x7FFFF000),  # espeak-ng and sox
    (0xFFFFFFFF, 0xFFFFFFFF),  # FFmpeg
    (0xFFFFFFFF, 0xFFFFFFFF - 36),
    (0x7FFFFFFF, 0x7FFFFFFF - 36),
    (0x80000000 - 8, 0x80000000 - 44),
    (0, 0),  # a recorder that was stopped
    (36, 0),
    (3200 + 36, 3200 + 44),  # a recorder that counts the header
    (3200 + 44, 3200 + 36),
  ],
)
def test_lengths_that_mean_to_the_end(tmp_path, riff, data):
  path = tmp_path / "a.wav"
  write_wav(path, tone(0.1)[None])
  _headers(path, riff=riff, data=data)
  (found,) = media.sound(path)
  np.testing.assert_allclose(found, tone(0.1), atol=1e-4)
  # The pipe was closed inside a sample.
  path.write_bytes(path.read_bytes()[:-1])
  if data in (0, 0x7FFFF000):
    assert media.sound(path).shape == (1, RATE // 10 - 1)


@pytest.mark.parametrize("data", [3202, 4000, 1 << 30, 3 << 30])
def test_lengths_that_mean_that_something_is_missing(tmp_path, data):
  path = tmp_path / "a.wav"
  write_wav(path, tone(0.1)[None])
  _headers(path, data=data)
  assert reason_of(media.sound, path) == source.Reason.TRUNCATED


def test_floats_must_be_sound(tmp_path):
  path = tmp_path / "a.wav"
  loud = 4 * tone(0.1)
  media_files.write_floats(path, loud)
  np.testing.assert_array_equal(media.sound(path)[0], loud)
  media_files.write_floats(path, np.round(32767 * tone(0.1)))
  with pytest.raises(source.BadRecording, match="peak 98.., full scale is 1"):
    media.sound(path)
  for value in (np.nan, np.inf):
    media_files.write_floats(path, np.where(np.arange(1600) == 7, value, loud))
    assert reason_of(media.sound, path) == source.Reason.NOT_FINITE


def test_rates_that_nobody_records_at(tmp_path):
  """The resampler's filter would take gigabytes."""
  path = tmp_path / "a.wav"
  for rate in (1, 999, 768_001, (1 << 31) - 1):
    write_wav(path, tone(0.1)[None], rate=RATE)
    content = bytearray(path.read_bytes())
    content[24:28] = struct.pack("<I", rate)
    path.write_bytes(content)
    assert reason_of(media.sound, path) == source.Reason.UNREADABLE


# Times


@kinds
@pytest.mark.parametrize(
  "when",
  [
    {},
    {"start": 10.0},
    {"sound_from": 0.5},
    {"pictures_from": 0.48},
    {"gap": (0.5, 1.5)},
  ],
  ids=lambda when: next(iter(when), "plain"),
)
def test_a_click_and_a_flash_stay_together(tmp_path, kind, when):
  if "gap" in when and kind.audio.startswith("pcm"):
    pytest.skip("a mov keeps no times of PCM but the sum")
  path = media_files.write(tmp_path / f"a.{kind.extension}", kind, **when)
  click, flash = click_and_flash(path)
  assert click == pytest.approx(flash, abs=2e-3)
  # Some muxers keep what the coder needs to start, one of its frames.
  assert click == pytest.approx(media_files.CLICK, abs=0.05)


def test_gaps_are_silent(tmp_path):
  kind = media_files.Kind("mkv", "mpeg4", "flac")
  path = media_files.write(tmp_path / "a.mkv", kind, gap=(0.5, 1.5))
  (sound,) = media.sound(path)
  assert len(sound) / RATE == pytest.approx(media_files.SECONDS, abs=0.05)


def test_an_edit_list_is_followed(tmp_path):
  """The file holds 3 s and says: shown from 1 s on."""
  kind = media_files.Kind("mp4", "mpeg4", "aac")
  path = media_files.write(tmp_path / "a.mp4", kind)
  data = bytearray(open(path, "rb").read())
  at, edits = 0, 0
  while (at := data.find(b"elst", at)) >= 0:
    length, start = struct.unpack_from(">Ii", data, at + 12)
    scale = struct.unpack_from(">I", data, data.index(b"mdhd", at) + 16)[0]
    (movie,) = struct.unpack_from(">I", data, data.index(b"mvhd") + 16)
    struct.pack_into(">Ii", data, at + 12, length - movie, start + scale)
    at, edits = at + 4, edits + 1
  assert edits == 2
  open(path, "wb").write(data)
  click, flash = click_and_flash(path)
  assert click == pytest.approx(flash, abs=2e-3)
  assert click == pytest.approx(media_files.CLICK - 1, abs=2e-3)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_pictures_are_upright(tmp_path, degrees):
  """The corner that is bright in the file goes round clockwise."""
  path = tmp_path / "a.mp4"
  with av.open(str(path), "w") as file:
    stream = file.add_stream("mpeg4", rate=5)
    stream.width, stream.height = 64, 48
    image = np.zeros((48, 64, 3), np.uint8)
    image[:16, :16] = 255
    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
    for packet in [*stream.encode(frame), *stream.encode(None)]:
      file.mux(packet)
  media_files.turn(path, degrees)
  (found,) = pictures(path)
  assert found.image.shape == (48, 64, 3)
  corners = [
    found.image[y, x].mean() > 128
    for y, x in ((4, 4), (4, -4), (-4, -4), (-4, 4))  # clockwise
  ]
  assert corners.index(True) == degrees // 90 and sum(corners) == 1


def _timed_clip(path, times):
  """A clip of pictures at these times, in seconds."""
  with av.open(str(path), "w") as file:
    stream = file.add_stream("mpeg4", rate=1000)
    stream.width, stream.height = 64, 48
    for at in times:
      image = np.zeros((48, 64, 3), np.uint8)
      frame = av.VideoFrame.from_ndarray(image, format="rgb24")
      frame.pts = round(at * 1000)
      file.mux(stream.encode(frame))
    file.mux(stream.encode(None))
  return path


def test_a_variable_frame_rate_brings_no_bursts(tmp_path):
  burst = [5 + i / 50 for i in range(100)]
  path = _timed_clip(tmp_path / "a.mkv", [0.0, 0.1, *burst])
  times = [frame.time for frame in pictures(path, fps=2.0)]
  assert times == pytest.approx([0.0, 5.0, 5.5, 6.0, 6.5], abs=2e-3)
  assert len(pictures(path, fps=2.0, seconds=5.6)) == 3


def test_sound_that_goes_back_is_refused(tmp_path):
  kind = media_files.Kind("ts", "mpeg2video", "mp2")
  once = open(media_files.write(tmp_path / "a.ts", kind), "rb").read()
  (tmp_path / "b.ts").write_bytes(once + once)
  with pytest.raises(source.BadRecording, match="goes back from 3.00 to 0.00"):
    media.sound(tmp_path / "b.ts")


def test_a_cover_is_no_clip(tmp_path):
  path = tmp_path / "a.mp3"
  with av.open(str(path), "w") as file:
    cover = file.add_stream("mjpeg", rate=1)
    cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
    cover.disposition = av.stream.Disposition.attached_pic
    sound = file.add_stream("mp3", rate=RATE, layout="mono")
    image = np.zeros((48, 64, 3), np.uint8)
    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
    file.mux(cover.encode(frame))
    file.mux(cover.encode(None))
    frame = av.AudioFrame.from_ndarray(
      tone(1.0)[None], format="fltp", layout="mono"
    )
    frame.sample_rate = RATE
    file.mux(sound.encode(frame))
    file.mux(sound.encode(None))
  assert media.sound(path).shape[1] == pytest.approx(RATE, abs=600)
  with pytest.raises(source.BadRecording, match="no video stream"):
    pictures(path)


# Strangers' files


@pytest.mark.parametrize("name", sorted(av.formats_available))
def test_other_demuxers_are_closed(name):
  """By every name that PyAV lists, data that would be opened at once."""
  try:
    av.ContainerFormat(name, "r")
  except ValueError:
    return  # a muxer
  # "mp4" is a name of "mov,mp4,m4a,3gp,3g2,mj2".
  names = {
    each
    for entry in av.formats_available
    if name in (entry, *entry.split(","))
    for each in entry.split(",")
  }
  is_refused = False
  try:
    av.open(
      io.BytesIO(b"ffconcat version 1.0\nfile a.wav\n" * 9),
      format=name,
      container_options=media.CONTAINER_OPTIONS,
    ).close()
  except av.error.ArgumentError:
    # EINVAL is what FFmpeg says of a format that is not on the list; it says so
    # before it reads, and of these data no other demuxer does.
    is_refused = True
  except av.error.FFmpegError:
    pass
  assert is_refused == names.isdisjoint(media.FORMATS)


_TEXTS = {
  "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
  "m=audio {port} RTP/AVP 0\n",
  "concat": "ffconcat version 1.0\nfile good.wav\n",
  "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\ngood.wav\n",
  "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011">'
  "<BaseURL>http://127.0.0.1:{port}/</BaseURL></MPD>",
  "rtsp": "rtsp://127.0.0.1:{port}/a",
  "ism": "<SmoothStreamingMedia></SmoothStreamingMedia>",
  "lavfi": "sine=1000",
}


@pytest.mark.parametrize("kind", _TEXTS)
@pytest.mark.parametrize("extension", ["wav", "mp4", "sdp", "m3u8", "g722"])
def test_text_opens_neither_network_nor_files(
  tmp_path, monkeypatch, kind, extension
):
  monkeypatch.chdir(tmp_path)
  write_wav("good.wav", tone(0.1)[None])
  with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
    taken.bind(("127.0.0.1", 0))
    port = taken.getsockname()[1]
  path = tmp_path / f"a.{extension}"
  path.write_text(_TEXTS[kind].format(port=port))
  started = time.monotonic()
  if extension == "g722":  # every file is one; it is not looked at
    media.sound(path)
  else:
    assert reason_of(media.sound, path) == source.Reason.UNREADABLE
  assert reason_of(pictures, path) == source.Reason.UNREADABLE
  assert time.monotonic() - started < 2


def test_pipes_and_devices_are_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / "a.wav")
  for path in (tmp_path / "a.wav", "/dev/zero"):
    with pytest.raises(source.BadRecording, match="not a regular file"):
      media.sound(path)
    with pytest.raises(source.BadRecording, match="not a regular file"):
      pictures(path)


@pytest.mark.parametrize("declared", [True, False])
def test_a_bomb_is_refused_while_it_is_decoded(tmp_path, declared):
  path = tmp_path / "a.flac"
  path.write_bytes(
    media_files.flac_of_silence(60, declared=declared, rate=8_000)
  )
  assert media.sound(path).shape[1] == pytest.approx(60 * RATE, rel=0.1)
  bomb = media_files.flac_of_silence(12 * 3600, declared=declared, rate=8_000)
  assert len(bomb) < 100_000
  path.write_bytes(bomb)
  started = time.monotonic()
  limits = media.Limits(seconds=60.0)
  with pytest.raises(source.BadRecording, match="s, over 60.0 s"):
    media.sound(path, limits=limits)
  limits = media.Limits(bytes=4 * RATE * 100)
  reason = reason_of(media.sound, path, limits=limits)
  assert reason == (
    source.Reason.TOO_LONG if declared else source.Reason.TOO_LARGE
  )
  assert time.monotonic() - started < 5


def test_patience_ends(tmp_path):
  path = tmp_path / "a.flac"
  path.write_bytes(media_files.flac_of_silence(600, declared=False, rate=8_000))
  limits = media.Limits(patience=0.0)
  assert reason_of(media.sound, path, limits=limits) == source.Reason.TIMED_OUT
  clip = media_files.write(tmp_path / "a.mp4", media_files.KINDS[0])
  assert reason_of(pictures, clip, limits=limits) == source.Reason.TIMED_OUT
  # Here it ends between two frames of a file that is open.
  limits = media.Limits(patience=0.05)
  path.write_bytes(
    media_files.flac_of_silence(7_000, declared=False, rate=48_000)
  )
  assert reason_of(media.sound, path, limits=limits) == source.Reason.TIMED_OUT


def test_want_of_memory_is_a_fault_of_the_file(tmp_path, monkeypatch):
  path = tmp_path / "a.wav"
  write_wav(path, tone(0.1)[None])

  def no_memory(*args, **kwargs):
    raise MemoryError

  monkeypatch.setattr(media.np, "zeros", no_memory)
  assert reason_of(media.sound, path) == source.Reason.TOO_LARGE


@pytest.mark.slow
def test_pictures_have_limits(tmp_path):
  path = _timed_clip(tmp_path / "a.mkv", [i / 50 for i in range(100)])
  limits = media.Limits(bytes=20 * 64 * 48 * 3)
  assert reason_of(pictures, path, limits=limits) == source.Reason.TOO_LARGE
  assert len(pictures(path, fps=5.0, limits=limits)) == 10
  huge = tmp_path / "huge.avi"
  with av.open(str(huge), "w") as file:
    stream = file.add_stream("ffv1", rate=1)
    stream.width, stream.height, stream.pix_fmt = 9000, 9000, "gray"
    image = np.zeros((9000, 9000), np.uint8)
    frame = av.VideoFrame.from_ndarray(image, format="gray")
    for packet in [*stream.encode(frame), *stream.encode(None)]:
      file.mux(packet)
  assert reason_of(pictures, huge) == source.Reason.UNREADABLE


def test_metadata_that_is_no_text(tmp_path):
  path = tmp_path / "a.wav"
  with wave.open(str(path), "wb") as file:
    file.setnchannels(1)
    file.setsampwidth(2)
    file.setframerate(RATE)
    file.writeframes(bytes(3200))
  title = b"LIST" + struct.pack("<I", 16) + b"INFOINAM" + b"\x04\0\0\0caf\xe9"
  path.write_bytes(path.read_bytes() + title)
  assert media.sound(path).shape == (1, 1600)


def test_pictures_in_a_coding_that_nobody_knows(tmp_path):
  path = tmp_path / "clip.mkv"
  clips.write(path)
  data = path.read_bytes()
  assert data.count(b"V_MPEG4/ISO/ASP") == 1
  path.write_bytes(data.replace(b"V_MPEG4/ISO/ASP", b"V_MPEG4/ISO/ZZZ"))
  with pytest.raises(source.BadRecording, match="nobody knows"):
    media.pictures(path, fps=1.0, seconds=3.0, height=40, width=80)
