"""Sessions: windows in, windows out; what the host remembers between ticks.

For: `Pool`, which runs B conversations in step, and `Conversation`, the host
side of one. Not for: the compiled tick (`tick`) or sound from mel
(`vocoder`). A 200 ms window goes: `Conversation.perceive` -> `Pool.step` ->
`tick` -> `Conversation.play`.
"""

import dataclasses
import enum
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tml_jax.config import Config
from tml_jax.models import cache as cache_lib
from tml_jax.models import interaction
from tml_jax.sampling import tick as tick_lib
from tml_jax.streams import clock, dmel
from tml_jax.streams import frame as frame_lib
from tml_jax.streams import patches as patches_lib
from tml_jax.streams.frame import Control, Frame

AUDIO_CHUNK = 1 + 2 * clock.AUDIO_TOKENS  # positions of a window of sound


def capacity(windows: int) -> int:
  """Positions to reserve for so many windows of talk.

  Room for the speaking side's usual two output tokens; a multiple of 256, as
  equal capacities share one compilation. A pool grows when that is not enough.
  """
  return -(-windows * (AUDIO_CHUNK + 2) // 256) * 256


class Senses(enum.Enum):
  """What a window may bring; each compiles a tick of its own size."""

  SOUND = "sound"
  ALL = "sound, typed text and video"


class Conversation:
  """The host side of one session: clock, microphone, own sound, typed text.

  Attributes:
    frames: finished frames, inputs and decisions, oldest first.
  """

  def __init__(self, config: Config, *, seed: int):
    self._config = config
    self._microphone = dmel.DmelStream()
    self._typed = frame_lib.TextQueue()
    self._own_mel: np.ndarray | None = None
    self.seed = seed
    self.frames: list[Frame] = []

  @property
  def window(self) -> int:
    """Index of the window that comes next."""
    return len(self.frames)

  def type(self, channel: Control, tokens: list[int]) -> None:
    """Queues typed text or a result for the coming windows."""
    self._typed.push(channel, tokens)

  def perceive(
    self, samples: np.ndarray, *, images: list[np.ndarray] = ()
  ) -> Frame:
    """The inputs of the next window.

    Args:
      samples: [3200] float32 from the microphone.
      images: video frames of the window, sized as the config says.
    """
    streams = self._config.streams
    own = self._own_mel
    return Frame(
      window=self.window,
      own_dmel=None if own is None else dmel.pool_fine(own),
      user_dmel=self._microphone.push(samples),
      patches=patches_lib.cut(
        list(images), height=streams.video_height, width=streams.video_width
      ),
      text_in=self._typed.take(streams.max_text_in),
    )

  def play(self, frame: Frame, *, tokens: list[int], mel: np.ndarray) -> Frame:
    """Takes the decision on `frame`; its sound is own audio from now on.

    Args:
      frame: what `perceive` gave.
      tokens: output tokens, the decision last.
      mel: [16, 80] log10 fine mel, used if the decision is `<speak>`.
    """
    outputs = frame_lib.parse_outputs(tokens, config=self._config.streams)
    self._own_mel = mel if outputs.speak else None
    done = dataclasses.replace(
      frame,
      say=outputs.say,
      text_out=outputs.text_out,
      speak=outputs.speak,
      target_mel=self._own_mel,
    )
    self.frames.append(done)
    return done


@dataclasses.dataclass(frozen=True)
class Ticked:
  """One window of a pool.

  Attributes:
    frames: the finished frames, None where a session rested.
    hidden: [B, N, D] on the device, the states that output tokens were drawn
      from.
    counts: [B] output tokens of each session.
    seconds: wall-clock time from perceived windows to decisions.
  """

  frames: list[Frame | None]
  hidden: jax.Array
  counts: np.ndarray
  seconds: float


class Pool:
  """B conversations that are stepped together."""

  def __init__(
    self,
    config: Config,
    *,
    model: interaction.InteractionModel,
    variables: dict[str, Any],
    conversations: list[Conversation],
    text_pieces: int,
    capacity: int,
  ):
    """Starts with empty caches.

    Args:
      config: of the run.
      model: the model.
      variables: its parameters and router biases.
      conversations: B new ones.
      text_pieces: `Tokenizer.num_pieces`; text rows after these are never
        emitted.
      capacity: positions the cache holds at first; it doubles when full.
    """
    self.config = config
    self._model = model
    self._variables = jax.tree.map(jnp.asarray, variables)
    self._seeds = np.array([c.seed for c in conversations], np.int32)
    self.conversations = conversations
    self._text_pieces = text_pieces
    self._cache = cache_lib.init_cache(
      config.model,
      batch_size=len(conversations),
      capacity=capacity,
      dtype=str(config.train.dtype),
    )
    self._used = np.zeros(len(conversations), np.int64)

  @property
  def capacity(self) -> int:
    """Positions that the cache has room for, per conversation."""
    return self._cache.capacity

  @property
  def used(self) -> int:
    """Positions of the longest conversation."""
    return int(self._used.max())

  def step(self, inputs: list[Frame | None]) -> Ticked:
    """One window of every conversation; None lets it rest.

    Args:
      inputs: what `Conversation.perceive` gave, one per conversation.
    """
    start = time.perf_counter()
    chunk = self._chunk(inputs)
    longest = chunk["tokens"].shape[1] + self.config.streams.max_text_out + 1
    self._reserve(self.used + longest)
    decided, self._cache = self._tick(chunk)
    tokens, counts, mel = jax.device_get(
      (decided.tokens_BN, decided.counts_B, decided.mel_BFM)
    )
    self._used += chunk["lengths"] + counts
    frames = []
    for row, (conversation, frame) in enumerate(
      zip(self.conversations, inputs, strict=True)
    ):
      if frame is None:
        frames.append(None)
        continue
      outputs = tokens[row, : counts[row]].tolist()
      frames.append(conversation.play(frame, tokens=outputs, mel=mel[row]))
    return Ticked(
      frames=frames,
      hidden=decided.hidden_BND,
      counts=counts,
      seconds=time.perf_counter() - start,
    )

  def warm_up(self, senses: set[Senses]) -> None:
    """Compiles `step` for windows of these kinds; nobody notices."""
    for kind in senses:
      decided, self._cache = self._tick(self._empty_chunk(kind))
      jax.block_until_ready(decided)

  def _tick(self, chunk):
    return tick_lib.tick(
      self._variables,
      cache=self._cache,
      chunk=chunk,
      seeds_B=self._seeds,
      text_pieces=self._text_pieces,
      model=self._model,
      config=self.config,
    )

  def _empty_chunk(self, senses: Senses) -> dict[str, np.ndarray]:
    size, patches = AUDIO_CHUNK, 0
    if senses is Senses.ALL:
      patches = self.config.streams.patches_per_frame
      size += patches + self.config.streams.max_text_in
    return tick_lib.empty_chunk(
      self.config,
      batch_size=len(self.conversations),
      size=size,
      audio=2 * clock.AUDIO_TOKENS,
      patches=patches,
    )

  def _chunk(self, inputs: list[Frame | None]) -> dict[str, np.ndarray]:
    """The smallest chunk that takes all `inputs`."""
    senses = Senses.SOUND
    for frame in inputs:
      if frame is not None and (frame.text_in or len(frame.patches)):
        senses = Senses.ALL
    chunk = self._empty_chunk(senses)
    for row, frame in enumerate(inputs):
      if frame is not None:
        tick_lib.write_inputs(chunk, frame, row=row, config=self.config)
    return chunk

  def _reserve(self, positions: int) -> None:
    """Doubles the cache until it holds `positions`."""
    capacity = self.capacity
    while capacity < positions:
      capacity *= 2
    if capacity > self.capacity:
      self._cache = cache_lib.grow(self._cache, capacity=capacity)
