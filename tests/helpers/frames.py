"""Frames without a model: narrow bounds, a tokenizer of bytes, any frames."""

import numpy as np
from hypothesis import strategies as st

from tml_jax.config import StreamsConfig
from tml_jax.streams import frame as frame_lib
from tml_jax.streams.frame import Burst, Frame

CONFIG = StreamsConfig(
  text_vocab_size=300,
  max_text_in=5,
  max_text_out=6,
  say_lead=0,
  video_height=40,
  video_width=80,
  seq_len=64,
  max_audio=48,
  max_patches=6,
  max_speak=5,
  max_targets=40,
  message_weight=1.0,
  silence_weight=0.3,
  speak_weight=1.0,
  onset_weight=4.0,
  stop_weight=2.0,
)


class ByteTokenizer:
  """One token a byte: enough for layout tests, no training."""

  def encode(self, text):
    return list(text.encode())

  def decode(self, ids):
    return bytes(ids).decode(errors="replace")


def levels(rng):
  return rng.integers(0, 16, (4, 80)).astype(np.uint8)


@st.composite
def burst(draw, channels):
  tokens = draw(st.lists(st.integers(0, 299), max_size=3))
  return Burst(
    draw(st.sampled_from(channels)), tuple(tokens), draw(st.booleans())
  )


@st.composite
def recording(draw):
  rng = np.random.default_rng(draw(st.integers(0, 2**31)))
  first = draw(st.integers(0, 10_000))
  frames = []
  for k in range(draw(st.integers(1, 9))):
    speak = draw(st.booleans())
    pixels = (draw(st.sampled_from([0, 0, 2])), 2, 40, 40, 3)
    frames.append(
      Frame(
        window=first + k,
        own_dmel=levels(rng) if draw(st.booleans()) else None,
        user_dmel=levels(rng) if draw(st.booleans()) else None,
        patches=rng.integers(0, 256, pixels).astype(np.uint8),
        text_in=tuple(draw(st.lists(burst(frame_lib.CHANNELS_IN), max_size=2))),
        say=tuple(draw(st.lists(st.integers(0, 299), max_size=4))),
        text_out=tuple(
          draw(st.lists(burst(frame_lib.CHANNELS_OUT), max_size=1))
        ),
        speak=speak,
        target_mel=rng.normal(size=(16, 80)).astype(np.float32)
        if speak
        else None,
      )
    )
  return frames
