"""One micro-turn of B sessions in one compiled call.

For: perceive a window, decide, and make the sound of the next one. Not for:
what the host remembers between ticks (`session`, `pool`). Start at `tick`.

Legend: B sessions, C positions of a chunk, N output tokens, V vocabulary,
D d_model, F fine frames, M mel channels.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from tml_jax.config import Config, Numerics
from tml_jax.live import decode
from tml_jax.models import cache as cache_lib
from tml_jax.models import flow_head, interaction, invariant, norm
from tml_jax.streams import batch as batch_lib
from tml_jax.streams import clock, dmel
from tml_jax.streams import frame as frame_lib
from tml_jax.streams.batch import Chunk, Inputs
from tml_jax.streams.frame import Frame, State

_FLOW_STREAM = 1 << 20  # fold_in constant, away from token indices
_SOUND_ROWS = 16  # sessions whose sound is made at once if invariant


@flax.struct.dataclass
class Decided:
  """What B sessions decided in one window.

  Attributes:
    tokens_BN: output tokens, N = max_text_out + 1.
    counts_B: how many of them count; 0 for a resting session.
    hidden_BND: the state each token was drawn from; `model.logits` of it are
      the logits before the grammar.
    mel_BFM: log10 fine mel of the next window; only where the last token is
      `<speak>`.
    speaks_B: where it is.
    drafted_B: of the tokens, those that were drafted (`sample.draft_tokens`)
      and so took no step of their own.
  """

  tokens_BN: jax.Array
  counts_B: jax.Array
  hidden_BND: jax.Array
  mel_BFM: jax.Array
  speaks_B: jax.Array
  drafted_B: jax.Array


def tick(
  variables: dict[str, Any],
  *,
  cache: cache_lib.Cache,
  chunk: Chunk,
  seeds_B: jax.Array,
  quiet_B: jax.Array,
  text_pieces: int,
  model: interaction.InteractionModel,
  config: Config,
) -> tuple[Decided, cache_lib.Cache]:
  """Perceives a chunk, decides, and makes the sound of the next window.

  Compiles once per chunk size and number of sessions.

  Args:
    variables: of the model.
    cache: of the sessions, donated.
    chunk: inputs of one window, see `empty_chunk`.
    seeds_B: int32; with the index of the window they give the random numbers,
      so that a session does not depend on its neighbours.
    quiet_B: bool; whose frame ends with `<quiet>`, undecided by the model.
    text_pieces: of the tokenizer; static.
    model: static.
    config: static.
  """
  grammar = decode.Grammar.create(
    config.streams,
    vocab_size=config.model.vocab_size - config.model.vocab_padding,
    text_pieces=text_pieces,
  )
  bound = model.bind(variables)
  keys_B = jax.vmap(_key)(seeds_B, chunk.inputs.windows[:, 0])
  with jax.named_scope("perceive"):
    hidden_BCD, cache = bound.extend(chunk, cache)
  last_B11 = jnp.maximum(chunk.lengths - 1, 0)[:, None, None]
  carry = _Carry.create(
    cache,
    hidden_BD=jnp.take_along_axis(hidden_BCD, last_B11, axis=1)[:, 0],
    active_B=chunk.lengths > 0,
    config=config,
  )
  carry = jax.lax.while_loop(
    lambda carry: carry.active_B.any(),
    lambda carry: _emit(
      carry,
      bound=bound,
      chunk=chunk,
      keys_B=keys_B,
      quiet_B=quiet_B,
      grammar=grammar,
      config=config,
    ),
    carry,
  )
  speak = frame_lib.token_id(frame_lib.Control.SPEAK, config=config.streams)
  size = len(seeds_B)
  speaks_B = (carry.tokens_BN == speak).any(axis=1)
  mel_BFM = jax.lax.cond(
    speaks_B.any(),
    lambda: _in_groups(
      functools.partial(_sound, bound, config=config),
      (carry.hidden_BD, keys_B),
      size=_SOUND_ROWS,
      config=config,
    ),
    lambda: jnp.full((size, *_mel_shape(config)), dmel.LOG_MIN, jnp.float32),
  )
  return Decided(
    tokens_BN=carry.tokens_BN,
    counts_B=carry.counts_B,
    hidden_BND=carry.hidden_BND,
    mel_BFM=mel_BFM,
    speaks_B=speaks_B,
    drafted_B=carry.drafted_B,
  ), carry.cache


_jit = functools.partial(
  jax.jit,
  tick,
  static_argnames=("text_pieces", "model", "config"),
  donate_argnames="cache",
)
compiled = {
  numerics: _jit(compiler_options=numerics.compiler_options)
  for numerics in Numerics
}


def _in_groups(
  function: Callable[..., jax.Array],
  arrays: tuple[jax.Array, ...],
  *,
  size: int,
  config: Config,
) -> jax.Array:
  """`function` of rows of B sessions; in groups of `size` if invariant."""
  if config.numerics is Numerics.DEFAULT:
    return function(*arrays)
  return norm.in_tiles(function, *arrays, rows=size)


def _key(seed: jax.Array, window: jax.Array) -> jax.Array:
  return jax.random.fold_in(jax.random.key(seed), window)


@flax.struct.dataclass
class _Carry:
  """Between two output tokens of a window; as `Decided` where named alike."""

  cache: cache_lib.Cache
  hidden_BD: jax.Array  # of the last position of each session
  tokens_BN: jax.Array
  hidden_BND: jax.Array
  counts_B: jax.Array
  states_B: jax.Array  # of the grammar
  active_B: jax.Array  # has not decided yet
  drafted_B: jax.Array

  @classmethod
  def create(
    cls,
    cache: cache_lib.Cache,
    *,
    hidden_BD: jax.Array,
    active_B: jax.Array,
    config: Config,
  ) -> "_Carry":
    size, width = hidden_BD.shape
    steps = config.streams.max_text_out + 1
    pad = decode.pad_id(config.streams)
    return cls(
      cache=cache,
      hidden_BD=hidden_BD,
      tokens_BN=jnp.full((size, steps), pad, jnp.int32),
      hidden_BND=jnp.zeros((size, steps, width), hidden_BD.dtype),
      counts_B=jnp.zeros(size, jnp.int32),
      states_B=jnp.full(size, int(State.SAY), jnp.int32),
      active_B=active_B,
      drafted_B=jnp.zeros(size, jnp.int32),
    )


@jax.named_scope("token")
def _emit(
  carry: _Carry,
  *,
  bound: interaction.InteractionModel,
  chunk: Chunk,
  keys_B: jax.Array,
  quiet_B: jax.Array,
  grammar: decode.Grammar,
  config: Config,
) -> _Carry:
  """Draws the next output token of every undecided session and reads it.

  With `sample.draft_tokens` some that may follow are drafted and read in the
  same step. Those are kept that would have been drawn anyway: a draw depends on
  the state it is drawn from, the session's seed and its place in the frame.
  """
  active_B, counts_B = carry.active_B, carry.counts_B
  silent_B = ~_sounds(chunk.inputs)
  next_state = jnp.asarray(grammar.next_state)

  def draw(
    hidden_BD: jax.Array, *, states_B: jax.Array, used_B: jax.Array
  ) -> jax.Array:
    logits_BV = _in_groups(
      bound.logits, (hidden_BD,), size=norm.ROWS, config=config
    )
    if config.sample.onset_bias:
      logits_BV = decode.lean(
        logits_BV,
        states_B=states_B,
        silent_B=silent_B,
        streams=config.streams,
        bias=config.sample.onset_bias,
      )
    return _in_groups(
      functools.partial(
        decode.choose,
        text_vocab_size=config.streams.text_vocab_size,
        config=config.sample,
      ),
      (
        logits_BV,
        grammar.allowed(states_B, used_B=used_B),
        jax.vmap(jax.random.fold_in)(keys_B, used_B),
      ),
      size=1,
      config=config,
    )

  token_B = draw(carry.hidden_BD, states_B=carry.states_B, used_B=counts_B)
  quiet = frame_lib.token_id(frame_lib.Control.QUIET, config=config.streams)
  token_B = jnp.where(quiet_B, quiet, token_B)

  # Of the token, then of each draft: itself, the state of the grammar behind
  # it, and whether the frame goes on there.
  tokens, states = [token_B], [next_state[carry.states_B, token_B]]
  goes_on = [active_B & (states[0] < State.QUIET)]

  def draft(hidden_BD: jax.Array) -> jax.Array:
    tokens.append(
      draw(
        hidden_BD,
        states_B=jnp.where(goes_on[-1], states[-1], State.SAY),
        used_B=counts_B + len(tokens),
      )
    )
    states.append(next_state[states[-1], tokens[-1]])
    goes_on.append(goes_on[-1] & (states[-1] < State.QUIET))
    return tokens[-1]

  if config.sample.draft_tokens:
    bound.draft(token_B, cache=carry.cache, draw=draft)
  lengths_B = sum(goes_on[:-1], start=active_B.astype(jnp.int32))
  read_chunk = _token_chunk(tokens, lengths_B, chunk=chunk, config=config)
  hidden_BCD, read = bound.read(read_chunk, carry.cache)

  kept_B, right_B = active_B.astype(jnp.int32), active_B
  for k in range(1, len(tokens)):
    right_B &= goes_on[k - 1]
    right_B &= tokens[k] == draw(
      hidden_BCD[:, k - 1],
      states_B=jnp.where(right_B, states[k - 1], State.SAY),
      used_B=counts_B + k,
    )
    kept_B += right_B
  cache = bound.keep(
    read_chunk, hidden_BCD=hidden_BCD, read=read, lengths_B=kept_B
  )

  slots = jnp.arange(carry.tokens_BN.shape[1])
  tokens_BN, hidden_BND = carry.tokens_BN, carry.hidden_BND
  for k, each_B in enumerate(tokens):
    from_BD = hidden_BCD[:, k - 1] if k else carry.hidden_BD
    slot_BN = (slots == counts_B[:, None] + k) & (k < kept_B)[:, None]
    tokens_BN = jnp.where(slot_BN, each_B[:, None], tokens_BN)
    hidden_BND = jnp.where(slot_BN[..., None], from_BD[:, None], hidden_BND)
  last_B1 = jnp.maximum(kept_B - 1, 0)[:, None]
  last_BD = jnp.take_along_axis(hidden_BCD, last_B1[..., None], axis=1)[:, 0]
  state_B = jnp.take_along_axis(jnp.stack(states, axis=1), last_B1, axis=1)
  state_B = state_B[:, 0]
  is_decided_B = state_B >= State.QUIET
  return dataclasses.replace(
    carry,
    cache=cache,
    hidden_BD=jnp.where(active_B[:, None], last_BD, carry.hidden_BD),
    tokens_BN=tokens_BN,
    hidden_BND=hidden_BND,
    counts_B=counts_B + kept_B,
    # A session that has decided keeps a state that has a row in the table.
    states_B=jnp.where(active_B & ~is_decided_B, state_B, State.SAY),
    active_B=active_B & ~is_decided_B,
    drafted_B=carry.drafted_B + kept_B - active_B,
  )


def _sounds(inputs: Inputs) -> jax.Array:
  """[B] bool, who hears own sound in this window."""
  used_BA = inputs.audio_positions < inputs.tokens.shape[1]
  return (used_BA & (inputs.audio_streams == batch_lib.OWN)).any(axis=1)


def _mel_shape(config: Config) -> tuple[int, int]:
  return clock.of(config.streams).fine_frames, config.model.dmel_channels


@jax.named_scope("sound")
def _sound(
  bound: interaction.InteractionModel,
  hidden_BD: jax.Array,
  keys_B: jax.Array,
  *,
  config: Config,
) -> jax.Array:
  """Fine mel of the next window of every session."""
  keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, _FLOW_STREAM)
  mel_BFM = flow_head.sample(
    bound.velocity,
    cond_D=hidden_BD,
    null_D=bound.null_condition(),
    noise_FC=flow_head.noise(
      keys_B,
      shape=_mel_shape(config),
      temperature=config.sample.flow_temperature,
    ),
    config=config.model.flow,
  )
  return jnp.clip(mel_BFM, dmel.LOG_MIN, dmel.LOG_MAX)


def _token_chunk(
  tokens: list[jax.Array], lengths_B: jax.Array, *, chunk: Chunk, config: Config
) -> Chunk:
  """The chunk of an output token and those that are drafted behind it."""
  size = len(tokens)
  empty = empty_chunk(
    config, batch_size=len(lengths_B), size=size, audio=0, patches=0
  )
  inputs = jax.tree.map(jnp.asarray, empty.inputs)
  windows = chunk.inputs.windows[:, :1]
  return Chunk(
    inputs=inputs._replace(
      tokens=inputs.tokens.at[:, :size].set(jnp.stack(tokens, axis=1)),
      windows=jnp.broadcast_to(windows, inputs.tokens.shape),
    ),
    lengths=lengths_B,
  )


def empty_chunk(
  config: Config, *, batch_size: int, size: int, audio: int, patches: int
) -> Chunk:
  """A chunk in which every session rests.

  Args:
    config: for the id of padding.
    batch_size: B.
    size: C positions.
    audio: slots for dMel tokens.
    patches: slots for patches.

  With invariant numerics each of the three is the next size that makes whole
  tiles of rows.
  """
  if config.numerics is Numerics.INVARIANT:
    size, audio, patches = (
      invariant.rows(each, batch_size=batch_size)
      for each in (size, audio, patches)
    )
  return Chunk(
    inputs=batch_lib.empty_inputs(
      (batch_size, size),
      audio=audio,
      patches=patches,
      pad=decode.pad_id(config.streams),
    ),
    lengths=np.zeros(batch_size, np.int32),
  )


def write_inputs(
  chunk: Chunk, frame: Frame, *, row: int, config: Config
) -> None:
  """Lays the perceived part of `frame` into row `row` of a chunk."""
  tokens = frame_lib.layout_inputs(frame, config=config.streams)
  chunk.lengths[row] = len(tokens)
  views = Inputs(*(array[row] for array in chunk.inputs))
  batch_lib.place_frame(views, frame, tokens=tokens)
