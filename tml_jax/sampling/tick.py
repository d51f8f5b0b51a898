"""One micro-turn of B sessions in one compiled call.

For: perceive 200 ms, decide, and make the sound of the next 200 ms. Not for:
what a session remembers on the host (`session`). Start reading at `create`.

Legend: B sessions, C positions of a chunk, N output tokens, V vocabulary,
D d_model, F fine frames, M mel channels.
"""

from collections.abc import Callable

import flax
import jax
import jax.numpy as jnp
import numpy as np

from tml_jax.config import Config
from tml_jax.models import cache as cache_lib
from tml_jax.models import flow_head
from tml_jax.models import interaction
from tml_jax.sampling import decode
from tml_jax.streams import clock
from tml_jax.streams import dmel
from tml_jax.streams import frame as frame_lib
from tml_jax.streams import packing
from tml_jax.streams import patches as patches_lib
from tml_jax.streams.frame import Frame, State

_FLOW_STREAM = 1 << 20  # fold_in constant, away from token indices


@flax.struct.dataclass
class Decided:
  """What B sessions decided in one window.

  Attributes:
    tokens_BN: output tokens, N = max_text_out + 1.
    counts_B: how many of them count; 0 for a resting session.
    logits_BNV: the logits each token was drawn from, before the grammar.
    mel_BFM: log10 fine mel of the next window; only where the last token is
      `<speak>`.
  """

  tokens_BN: jax.Array
  counts_B: jax.Array
  logits_BNV: jax.Array
  mel_BFM: jax.Array


TickFn = Callable[..., tuple[Decided, cache_lib.Cache]]


def create(config: Config, *, model: interaction.InteractionModel) -> TickFn:
  """The jitted tick: (variables, cache, chunk, keys_B) -> (Decided, cache).

  The cache is donated. Compiles once per chunk size and cache capacity.
  """
  grammar = decode.Grammar.create(
    config.streams, vocab_size=config.model.vocab_size
  )
  steps = config.streams.max_text_out + 1
  pad = decode.pad_id(config.streams)

  def tick(variables, cache, chunk, keys_B):
    bound = model.bind(variables)
    hidden_BCD, cache = bound.extend(chunk, cache)
    active_B = chunk["lengths"] > 0
    last_B = jnp.maximum(chunk["lengths"] - 1, 0)
    size = last_B.shape[0]
    logits_shape = jax.eval_shape(bound.logits, hidden_BCD[:, 0])

    def is_deciding(carry):
      return carry["active_B"].any()

    def emit(carry):
      logits_BV = bound.logits(carry["hidden_BD"])
      count_B = carry["count_B"]
      token_B = decode.choose(
        logits_BV,
        allowed_BV=grammar.allowed(carry["state_B"], used_B=count_B),
        keys_B=jax.vmap(jax.random.fold_in)(keys_B, count_B),
        text_vocab_size=config.streams.text_vocab_size,
        config=config.sample,
      )
      active_B = carry["active_B"]
      hidden_B1D, cache = bound.extend(
        _token_chunk(token_B, active_B, chunk=chunk, config=config),
        carry["cache"],
      )
      state_B = jnp.asarray(grammar.next_state)[carry["state_B"], token_B]
      state_B = jnp.where(active_B, state_B, carry["state_B"])
      slot_BN = (jnp.arange(steps) == count_B[:, None]) & active_B[:, None]
      return {
        "cache": cache,
        "hidden_BD": jnp.where(
          active_B[:, None], hidden_B1D[:, 0], carry["hidden_BD"]
        ),
        "tokens_BN": jnp.where(slot_BN, token_B[:, None], carry["tokens_BN"]),
        "logits_BNV": jnp.where(
          slot_BN[..., None], logits_BV[:, None], carry["logits_BNV"]
        ),
        "count_B": count_B + active_B,
        # A decided session keeps a state whose row of the table exists.
        "state_B": jnp.where(state_B >= State.QUIET, State.SAY, state_B),
        "active_B": active_B & (state_B < State.QUIET),
      }

    carry = jax.lax.while_loop(
      is_deciding,
      emit,
      {
        "cache": cache,
        "hidden_BD": jnp.take_along_axis(
          hidden_BCD, last_B[:, None, None], axis=1
        )[:, 0],
        "tokens_BN": jnp.full((size, steps), pad, jnp.int32),
        "logits_BNV": jnp.zeros(
          (size, steps, logits_shape.shape[-1]), jnp.float32
        ),
        "count_B": jnp.zeros(size, jnp.int32),
        "state_B": jnp.full(size, int(State.SAY), jnp.int32),
        "active_B": active_B,
      },
    )
    speak = frame_lib.token_id(frame_lib.Control.SPEAK, config=config.streams)
    mel_BFM = jax.lax.cond(
      (carry["tokens_BN"] == speak).any(),
      lambda: _sound(bound, carry["hidden_BD"], keys_B, config=config),
      lambda: jnp.full(
        (size, clock.FINE_FRAMES, clock.MEL_CHANNELS),
        dmel.LOG_MIN,
        jnp.float32,
      ),
    )
    return Decided(
      tokens_BN=carry["tokens_BN"],
      counts_B=carry["count_B"],
      logits_BNV=carry["logits_BNV"],
      mel_BFM=mel_BFM,
    ), carry["cache"]

  return jax.jit(tick, donate_argnums=1)


def _sound(bound, hidden_BD, keys_B, *, config: Config) -> jax.Array:
  """Fine mel of the next window of every session."""
  keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, _FLOW_STREAM)
  mel_BFM = flow_head.sample(
    bound.velocity,
    cond_D=hidden_BD,
    null_D=bound.null_condition(),
    noise_FC=flow_head.noise(
      keys_B,
      channels=config.model.dmel_channels,
      temperature=config.sample.flow_temperature,
    ),
    config=config.model.flow,
  )
  return jnp.clip(mel_BFM, dmel.LOG_MIN, dmel.LOG_MAX)


def _token_chunk(token_B, active_B, *, chunk, config: Config):
  """The chunk of one output token."""
  empty = empty_chunk(
    config, batch_size=len(token_B), size=1, audio=0, patches=0
  )
  return jax.tree.map(jnp.asarray, empty) | {
    "tokens": token_B[:, None],
    "windows": chunk["windows"][:, :1],
    "lengths": active_B.astype(jnp.int32),
  }


def empty_chunk(
  config: Config, *, batch_size: int, size: int, audio: int, patches: int
) -> dict[str, np.ndarray]:
  """A chunk in which every session rests.

  Args:
    config: for the id of padding.
    batch_size: B.
    size: C positions.
    audio: slots for dMel tokens.
    patches: slots for patches.
  """
  patch = (patches_lib.PAIR, patches_lib.PATCH, patches_lib.PATCH, 3)
  b = batch_size
  return {
    "tokens": np.full((b, size), decode.pad_id(config.streams), np.int32),
    "windows": np.zeros((b, size), np.int32),
    "audio_dmel": np.zeros((b, audio, clock.MEL_CHANNELS), np.uint8),
    "audio_positions": np.full((b, audio), size, np.int32),
    "audio_streams": np.zeros((b, audio), np.int32),
    "patches": np.zeros((b, patches, *patch), np.uint8),
    "patch_positions": np.full((b, patches), size, np.int32),
    "lengths": np.zeros(b, np.int32),
  }


def write_inputs(
  chunk: dict[str, np.ndarray], frame: Frame, *, row: int, config: Config
) -> None:
  """Lays the perceived part of `frame` into row `row` of a chunk."""
  tokens = frame_lib.layout_inputs(frame, config=config.streams)
  chunk["tokens"][row, : len(tokens)] = tokens
  chunk["windows"][row] = frame.window
  chunk["lengths"][row] = len(tokens)
  cursor, slot = 1, 0
  for stream, levels in (
    (packing.OWN, frame.own_dmel),
    (packing.USER, frame.user_dmel),
  ):
    if levels is not None:
      slots = slice(slot, slot + len(levels))
      chunk["audio_dmel"][row, slots] = levels
      chunk["audio_streams"][row, slots] = stream
      positions = np.arange(cursor, cursor + len(levels))
      chunk["audio_positions"][row, slots] = positions
      cursor, slot = cursor + len(levels), slots.stop
  count = len(frame.patches)
  chunk["patches"][row, :count] = frame.patches
  positions = np.arange(cursor, cursor + count)
  chunk["patch_positions"][row, :count] = positions
