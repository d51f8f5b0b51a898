"""Choosing the next output token under the frame grammar.

For: the masks and draws inside a compiled tick. Not for: the grammar itself
(`streams.frame.transitions`). Start reading at `Grammar`.

Legend: B sessions, V vocabulary.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from tml_jax.config import SampleConfig, StreamsConfig
from tml_jax.streams import frame
from tml_jax.streams.frame import Control, State


@dataclasses.dataclass(frozen=True)
class Grammar:
  """The frame grammar as constants of a compiled tick.

  Attributes:
    next_state: [3, V] int32, FORBIDDEN where a token may not follow.
    room_after: [V] int32, tokens of the frame's budget that must be left
      after this one: a burst that opens must be able to close.
    max_text_out: budget of a frame without its decision.
  """

  next_state: np.ndarray
  room_after: np.ndarray
  max_text_out: int

  @classmethod
  def create(
    cls, config: StreamsConfig, *, vocab_size: int, text_pieces: int
  ) -> "Grammar":
    """The grammar with the first `text_pieces` text rows.

    A small corpus gives the tokenizer fewer pieces than the vocabulary has
    text rows; the model was never trained on the others, which spell nothing.
    """
    next_state = frame.transitions(config, vocab_size=vocab_size)
    next_state[:, text_pieces : config.text_vocab_size] = frame.FORBIDDEN
    room = np.zeros(vocab_size, np.int32)
    for channel in frame.CHANNELS_OUT:
      room[config.text_vocab_size + channel] = 1
    return cls(
      next_state=next_state,
      room_after=room,
      max_text_out=config.max_text_out,
    )

  def allowed(self, state_B: jax.Array, *, used_B: jax.Array) -> jax.Array:
    """Tokens that may come next, [B, V] bool.

    Args:
      state_B: SAY, BURST or BETWEEN.
      used_B: text and message tokens already emitted in this frame.
    """
    next_BV = jnp.asarray(self.next_state)[state_B]
    left_B = self.max_text_out - used_B - 1  # after this token
    room_BV = jnp.asarray(self.room_after)[None]
    # Text inside a burst must leave room for what ends the burst.
    room_BV = jnp.where(next_BV == State.BURST, 1, room_BV)
    is_decision_BV = next_BV >= State.QUIET
    fits_BV = is_decision_BV | (left_B[:, None] >= room_BV)
    return (next_BV != frame.FORBIDDEN) & fits_BV


def lean(
  logits_BV: jax.Array,
  *,
  states_B: jax.Array,
  silent_B: jax.Array,
  streams: StreamsConfig,
  bias: float,
) -> jax.Array:
  """Logits with `bias` on what begins speech, [B, V].

  That is text and `<speak>`, outside messages, of an agent that is silent: its
  `<quiet>` and its messages become less likely by as much. Where it speaks, and
  inside messages, nothing changes.

  Args:
    logits_BV: of the model.
    states_B: SAY, BURST or BETWEEN.
    silent_B: bool; who hears no own sound in this window.
    streams: for the ids.
    bias: nats; `sample.onset_bias`.
  """
  tokens_V = jnp.arange(logits_BV.shape[-1])
  speak = frame.token_id(Control.SPEAK, config=streams)
  begins_V = (tokens_V < streams.text_vocab_size) | (tokens_V == speak)
  leans_B = silent_B & (states_B != State.BURST)
  return logits_BV + bias * (leans_B[:, None] & begins_V)


def choose(
  logits_BV: jax.Array,
  allowed_BV: jax.Array,
  keys_B: jax.Array,
  *,
  text_vocab_size: int,
  config: SampleConfig,
) -> jax.Array:
  """Draws a token per session, each with its own key; int32 [B].

  Temperature 0 is greedy in two steps: first whether to say text (the sum of
  its tokens) or one of the control tokens, then the most likely token of that
  choice. Plain argmax would stay quiet when it is sure to speak but not with
  which word. Top-p keeps the smallest set of tokens whose probability reaches
  `top_p` (arXiv 1904.09751).
  """
  logits_BV = jnp.where(allowed_BV, logits_BV, -jnp.inf)
  if config.temperature == 0:
    text_BV, control_BV = jnp.split(logits_BV, [text_vocab_size], axis=-1)
    says_B = jax.nn.logsumexp(text_BV, axis=-1) >= control_BV.max(axis=-1)
    token_B = jnp.where(
      says_B,
      jnp.argmax(text_BV, axis=-1),
      text_vocab_size + jnp.argmax(control_BV, axis=-1),
    )
    return token_B.astype(jnp.int32)
  logits_BV = logits_BV / config.temperature
  if config.top_p < 1:
    sorted_BV = jnp.sort(logits_BV, axis=-1)[:, ::-1]
    before_BV = jnp.cumsum(jax.nn.softmax(sorted_BV, axis=-1), axis=-1)
    before_BV = jnp.roll(before_BV, 1, axis=-1).at[:, 0].set(0.0)
    kept_BV = jnp.where(before_BV < config.top_p, sorted_BV, jnp.inf)
    logits_BV = jnp.where(
      logits_BV >= kept_BV.min(axis=-1, keepdims=True), logits_BV, -jnp.inf
    )
  return jax.vmap(jax.random.categorical)(keys_B, logits_BV).astype(jnp.int32)


def pad_id(config: StreamsConfig) -> int:
  return frame.token_id(Control.PAD, config=config)
