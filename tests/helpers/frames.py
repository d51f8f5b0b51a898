"""Frames without a model: narrow bounds, and a tokenizer of bytes."""

from tml_jax.config import StreamsConfig

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
