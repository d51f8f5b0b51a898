"""Coded sound against FFmpeg, and streams that are cut anywhere."""

import fractions

import av
import numpy as np
import pytest

from tml_jax.live.server import formats

_EVERY = np.arange(-32768, 32768).astype(np.int16)


def _ffmpeg(codec, mode):
  context = av.CodecContext.create(codec, mode)
  context.sample_rate, context.layout = 8000, "mono"
  if mode == "w":
    context.format, context.time_base = "s16", fractions.Fraction(1, 8000)
  return context


@pytest.mark.parametrize(
  "form, codec", [(formats.PCMU, "pcm_mulaw"), (formats.PCMA, "pcm_alaw")]
)
def test_g711_is_that_of_ffmpeg(form, codec):
  data = bytes(range(256))
  (frame,) = _ffmpeg(codec, "r").decode(av.Packet(data))
  table = formats._TABLES[form.name]
  np.testing.assert_array_equal(table, frame.to_ndarray().reshape(-1))
  frame = av.AudioFrame.from_ndarray(_EVERY[None], format="s16", layout="mono")
  frame.sample_rate = 8000
  theirs = b"".join(map(bytes, _ffmpeg(codec, "w").encode(frame)))
  ours = formats._INVERSES[form.name][_EVERY.view(np.uint16)]
  theirs = np.frombuffer(theirs, np.uint8)

  def off(codes):
    return np.abs(table[codes].astype(int) - _EVERY)

  # FFmpeg takes the other of two levels where a sample is half-way or so.
  assert (off(ours) <= off(theirs)).all()
  assert (ours == theirs).mean() > 0.99


@pytest.mark.parametrize("form", formats.FORMATS)
def test_a_stream_may_be_cut_anywhere(form):
  random = np.random.default_rng(0)
  data = random.integers(256, size=form.width * form.rate, dtype=np.uint8)
  data = data.tobytes()
  whole = formats.Decoder(form).push(data)
  decoder, parts, at = formats.Decoder(form), [], 0
  while at < len(data):
    size = form.width * int(random.integers(1, form.rate // 4))
    parts.append(decoder.push(data[at : at + size]))
    at += size
  np.testing.assert_array_equal(np.concatenate(parts), whole)
  # What a filter holds back is under 3 ms.
  assert 16_000 - 48 <= len(whole) <= 16_000


@pytest.mark.parametrize("form", formats.FORMATS)
def test_a_tone_comes_back(form):
  tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000)
  encoder, decoder = formats.Encoder(form), formats.Decoder(form)
  data = encoder.push(tone.astype(np.float32)) + encoder.flush()
  assert len(data) == pytest.approx(2 * form.rate * form.width, abs=4)
  heard = formats.to_float(decoder.push(data))
  error = heard[400:-400] - tone[400 : len(heard) - 400]
  # G.711 has 38 dB of noise at this level; two resamplings far less.
  assert np.sqrt(np.mean(error**2)) < (0.006 if form.width == 1 else 3e-4)


def test_half_a_sample_is_refused():
  with pytest.raises(ValueError, match="3 bytes are no whole samples"):
    formats.Decoder(formats.PCM_24).push(b"abc")


def test_sixteen_bits_come_back_exactly():
  np.testing.assert_array_equal(
    formats.to_pcm(formats.to_float(_EVERY)), _EVERY
  )
