"""Many sessions in step: they join and leave between ticks.

For: `SessionPool`, N slots that one compiled call advances by a window. Not
for: the compiled tick (`tick`), the host side of a session (`session`), or
sound from mel (`vocoder`). Start at `SessionPool.tick`. Nothing has a size that
depends on what arrives or for how long: after `warm_up` nothing compiles.
"""

import dataclasses
import functools
import hashlib
import os
import time
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tml_jax import errors
from tml_jax.config import Config
from tml_jax.live import saved
from tml_jax.live import tick as tick_lib
from tml_jax.live.session import Senses, Session
from tml_jax.models import cache as cache_lib
from tml_jax.models import interaction
from tml_jax.streams import clock
from tml_jax.streams.batch import Chunk
from tml_jax.streams.frame import Frame

_take = jax.jit(cache_lib.Cache.take)
_put = jax.jit(cache_lib.Cache.put, donate_argnums=0)


@dataclasses.dataclass(frozen=True)
class Ticked:
  """One window of a pool.

  Attributes:
    frames: the finished frame of each session that was ticked.
    hidden: [slots, N, D] on the device, the states that output tokens were
      drawn from.
    counts: [slots] output tokens of each.
    seconds: wall-clock time from perceived windows to decisions.
  """

  frames: dict[Session, Frame]
  hidden: jax.Array
  counts: np.ndarray
  seconds: float


class SessionPool:
  """N slots for sessions. A session does not depend on who shares them."""

  def __init__(
    self,
    config: Config,
    *,
    model: interaction.InteractionModel,
    variables: dict[str, Any],
    slots: int,
    text_pieces: int,
  ):
    """Starts empty.

    Args:
      config: of the run; `config.sample` holds the options of sampling.
      model: the model.
      variables: its parameters and router biases.
      slots: N.
      text_pieces: `Tokenizer.num_pieces`; text rows after these are never
        emitted.
    """
    self.config = config
    self._model = model
    self._variables = jax.tree.map(jnp.asarray, variables)
    self._text_pieces = text_pieces
    self._sessions: list[Session | None] = [None] * slots
    self._cache = empty_cache(config, slots)

  @property
  def sessions(self) -> list[Session]:
    """Those in the pool."""
    return [session for session in self._sessions if session is not None]

  def slot(self, session: Session) -> int:
    """Where a session is.

    Raises:
      errors.UserError: not in this pool.
    """
    for slot, other in enumerate(self._sessions):
      if other is session:
        return slot
    raise errors.UserError(
      f"the session at window {session.window} is not in this pool: it has"
      " left, or it is another pool's"
    )

  def join(self, *, seed: int) -> Session:
    """A new session in a free slot.

    Raises:
      errors.UserError: no slot is free.
    """
    return self._enter(
      Session(self.config, seed=seed), empty_cache(self.config, 1)
    )

  def leave(self, session: Session) -> None:
    """Frees the slot of a session, which is over unless it was saved."""
    self._sessions[self.slot(session)] = None

  def fork(self, session: Session, *, seed: int) -> Session:
    """A second session with the same past and its own future.

    Raises:
      errors.UserError: no slot is free.
    """
    state = session.state() | {"seed": seed}
    twin = Session.of_state(self.config, state=state)
    return self._enter(twin, _take(self._cache, self.slot(session)))

  def save(self, session: Session, directory: str | os.PathLike[str]) -> None:
    """Writes a live session to a directory: all of it or nothing.

    Raises:
      errors.UserError: the directory cannot be written.
    """
    row = jax.device_get(_take(self._cache, self.slot(session)))
    saved.write(
      directory,
      arrays=jax.tree.leaves(row),
      state=session.state(),
      fingerprint=self.fingerprint,
    )

  def restore(self, directory: str | os.PathLike[str]) -> Session:
    """The session that `save` wrote, bit for bit, in a free slot.

    Raises:
      errors.UserError: no slot is free; there is nothing to read or it is
        broken; or it is of another model.
    """
    leaves, tree = jax.tree.flatten(empty_cache(self.config, 1))
    arrays, state = saved.read(
      directory, like=leaves, fingerprint=self.fingerprint
    )
    session = Session.of_state(self.config, state=state)
    return self._enter(session, jax.tree.unflatten(tree, arrays))

  @functools.cached_property
  def fingerprint(self) -> str:
    """Names the model, its weights and the options of sampling."""
    config = self.config
    parts = (config.model, config.streams, config.sample, config.numerics)
    digest = hashlib.sha256(repr((parts, config.train.dtype)).encode())
    digest.update(str(self._text_pieces).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(self._variables):
      digest.update(jax.tree_util.keystr(path).encode())
      digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]

  def _enter(self, session: Session, row: cache_lib.Cache) -> Session:
    if None not in self._sessions:
      raise errors.UserError(
        f"all {len(self._sessions)} slots of the pool are taken: let a session"
        " leave, or make the pool with more"
      )
    slot = self._sessions.index(None)
    self._cache = _put(self._cache, row, slot)
    self._sessions[slot] = session
    return session

  def tick(
    self, inputs: dict[Session, Frame], *, quiet: Collection[Session] = ()
  ) -> Ticked:
    """One window of the sessions in `inputs`; the others rest.

    Args:
      inputs: what `Session.perceive` gave.
      quiet: those whose model is not asked: their frame ends with `<quiet>`.
    """
    start = time.perf_counter()
    slots = {self.slot(session): session for session in inputs}
    senses = Senses.SOUND
    for frame in inputs.values():
      if frame.text_in or len(frame.patches):
        senses = Senses.ALL
    # The smallest that takes all.
    chunk = empty_chunk(self.config, senses, slots=len(self._sessions))
    for slot, session in slots.items():
      tick_lib.write_inputs(
        chunk, inputs[session], row=slot, config=self.config
      )
    decided = self._run(chunk, quiet=quiet)
    tokens, counts, mel = jax.device_get(
      (decided.tokens_BN, decided.counts_B, decided.mel_BFM)
    )
    frames = {
      session: session.play(
        inputs[session],
        tokens=tokens[slot, : counts[slot]].tolist(),
        mel=mel[slot].copy(),
      )
      for slot, session in slots.items()
    }
    return Ticked(
      frames=frames,
      hidden=decided.hidden_BND,
      counts=counts,
      seconds=time.perf_counter() - start,
    )

  def warm_up(self, senses: set[Senses]) -> None:
    """Compiles all that windows of these kinds need; nobody notices."""
    for kind in senses:
      chunk = empty_chunk(self.config, kind, slots=len(self._sessions))
      jax.block_until_ready(self._run(chunk))
    # A row put back where it was, as those who join and leave need it.
    self._cache = _put(self._cache, _take(self._cache, 0), 0)
    jax.block_until_ready(empty_cache(self.config, 1))

  def _run(
    self, chunk: Chunk, *, quiet: Collection[Session] = ()
  ) -> tick_lib.Decided:
    seeds = [0 if s is None else s.seed for s in self._sessions]
    tick = tick_lib.compiled[self.config.numerics]
    decided, self._cache = tick(
      self._variables,
      cache=self._cache,
      chunk=chunk,
      seeds_B=np.array(seeds, np.int32),
      quiet_B=np.array([session in quiet for session in self._sessions]),
      text_pieces=self._text_pieces,
      model=self._model,
      config=self.config,
    )
    return decided


def empty_cache(config: Config, size: int) -> cache_lib.Cache:
  """Room for so many sessions."""
  return cache_lib.init_cache(
    config.model,
    batch_size=size,
    horizon=config.sample.horizon,
    sinks=config.sample.sinks,
    # The same for pools of any size, so that sessions may change pools.
    chunk=empty_chunk(config, Senses.ALL, slots=1).inputs.tokens.shape[1],
    dtype=str(config.train.dtype),
  )


def empty_chunk(config: Config, senses: Senses, *, slots: int) -> Chunk:
  """Room for the largest window of a kind."""
  audio = 2 * clock.of(config.streams).audio_tokens  # of both sides
  size, patches = 1 + audio, 0
  if senses is Senses.ALL:
    patches = config.streams.patches_per_frame
    size += patches + config.streams.max_text_in
  return tick_lib.empty_chunk(
    config,
    batch_size=slots,
    size=size,
    audio=audio,
    patches=patches,
  )
