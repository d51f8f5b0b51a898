"""Many sessions in step: they join and leave between ticks.

For: `SessionPool`, N slots that one compiled call advances by a window. Not
for: the compiled tick (`tick`, `program`), the host side of a session
(`session`), or what brings its windows (`conversation`). Start at
`SessionPool.tick`. Nothing has a size that depends on what arrives or for how
long: after `warm_up` nothing compiles.
"""

import dataclasses
import functools
import hashlib
import os
import time
from collections.abc import Collection
from typing import Any

import jax
import numpy as np

from tml_jax import errors
from tml_jax.live import program as program_lib
from tml_jax.live import saved
from tml_jax.live import tick as tick_lib
from tml_jax.live.session import Senses, Session
from tml_jax.streams.batch import Chunk
from tml_jax.streams.frame import Frame
from tml_jax.vocoder import stream


@dataclasses.dataclass(frozen=True)
class Ticked:
  """One window of a pool.

  Attributes:
    frames: the finished frame of each session that was ticked.
    hidden: [slots, N, D] on the device, the states that output tokens were
      drawn from.
    counts: [slots] output tokens of each.
    drafted: [slots] of these, those that took no step of their own.
    seconds: wall-clock time from perceived windows to decisions and sound.
    sounds: [samples] of each session that was ticked, of its next window,
      `stream.DELAY` late; empty in a pool without a voice.
  """

  frames: dict[Session, Frame]
  hidden: jax.Array
  counts: np.ndarray
  drafted: np.ndarray
  seconds: float
  sounds: dict[Session, np.ndarray]


class SessionPool:
  """N slots for sessions. A session does not depend on who shares them."""

  def __init__(
    self,
    program: program_lib.Program,
    *,
    variables: dict[str, Any],
    voice: stream.Voice | None = None,
  ):
    """Starts empty.

    Args:
      program: the tick of so many sessions as there are slots.
      variables: parameters and router biases of its model.
      voice: makes the sessions' sound; None makes none.
    """
    self.config = program.config
    self._program = program
    self._variables = program.put_variables(variables)
    self._sessions: list[Session | None] = [None] * program.sessions
    self._cache = program.empty_cache()
    self._voice = voice
    self._voices = self._silence(program.sessions)

  def _silence(self, size: int) -> stream.State | tuple[()]:
    """State of so many voices before their first window."""
    return self._voice.start(batch_size=size) if self._voice else ()

  @property
  def sessions(self) -> list[Session]:
    """Those in the pool."""
    return [session for session in self._sessions if session is not None]

  @property
  def is_full(self) -> bool:
    return None not in self._sessions

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
    return self._enter(Session(self.config, seed=seed), self._empty_row())

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
    return self._enter(twin, self._row(self.slot(session)))

  def snapshot(self, session: Session) -> saved.Snapshot:
    """All of a live session, on the host."""
    row = jax.device_get(self._row(self.slot(session)))
    return saved.Snapshot(
      arrays=jax.tree.leaves(row),
      state=session.state(),
      fingerprint=self.fingerprint,
    )

  def revive(self, snapshot: saved.Snapshot) -> Session:
    """The session of a snapshot, bit for bit, in a free slot.

    Raises:
      errors.UserError: no slot is free, or no session has this state.
    """
    session = Session.of_state(self.config, state=snapshot.state)
    tree = jax.tree.structure(self._empty_row())
    return self._enter(session, jax.tree.unflatten(tree, snapshot.arrays))

  def save(self, session: Session, directory: str | os.PathLike[str]) -> None:
    """Writes a live session to a directory: all of it or nothing.

    Raises:
      errors.UserError: the directory cannot be written.
    """
    saved.write(directory, snapshot=self.snapshot(session))

  def read(self, directory: str | os.PathLike[str]) -> saved.Snapshot:
    """What `save` wrote; any thread may ask while the pool ticks.

    Raises:
      errors.UserError: there is nothing to read or it is broken; or it is of
        another model.
    """
    return saved.read(
      directory,
      like=jax.tree.leaves(self._empty_row()),
      fingerprint=self.fingerprint,
    )

  def restore(self, directory: str | os.PathLike[str]) -> Session:
    """The session that `save` wrote, bit for bit, in a free slot.

    Raises:
      errors.UserError: no slot is free; there is nothing to read or it is
        broken; or it is of another model.
    """
    return self.revive(self.read(directory))

  @functools.cached_property
  def fingerprint(self) -> str:
    """Names the model, its weights, its voice and the options of sampling."""
    config = self.config
    parts = (config.model, config.streams, config.sample, config.numerics)
    digest = hashlib.sha256(repr((parts, config.train.dtype)).encode())
    digest.update(str(self._program.text_pieces).encode())
    weights = [self._variables]
    if self._voice:
      digest.update(repr(self._voice.network).encode())
      weights.append(self._voice.variables)
    for path, leaf in jax.tree_util.tree_leaves_with_path(weights):
      digest.update(jax.tree_util.keystr(path).encode())
      digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]

  def _empty_row(self) -> tuple[Any, Any]:
    """Cache and voice of a new session."""
    return program_lib.empty_cache(self.config, 1), self._silence(1)

  def _row(self, slot: int) -> tuple[Any, Any]:
    """Cache and voice of the session in a slot."""
    cache = self._program.take(self._cache, slot)
    return cache, stream.take(self._voices, slot)

  def _put(self, row: tuple[Any, Any], slot: int) -> None:
    cache, voice = row
    self._cache = self._program.put(self._cache, cache, slot)
    self._voices = stream.put(self._voices, voice, slot)

  def _enter(self, session: Session, row: tuple[Any, Any]) -> Session:
    if self.is_full:
      raise errors.UserError(
        f"all {len(self._sessions)} slots of the pool are taken: let a session"
        " leave, or make the pool with more"
      )
    slot = self._sessions.index(None)
    self._put(row, slot)
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
    chunk = self._program.empty_chunk(senses)
    for slot, session in slots.items():
      tick_lib.write_inputs(
        chunk, inputs[session], row=slot, config=self.config
      )
    decided = self._run(chunk, quiet=quiet)
    # Made while the host reads what was decided.
    sound_BS = self._speak(decided, ticked=slots)
    tokens, counts, mel, drafted = jax.device_get(
      (
        decided.tokens_BN,
        decided.counts_B,
        decided.mel_BFM,
        decided.drafted_B,
      )
    )
    frames = {
      session: session.play(
        inputs[session],
        tokens=tokens[slot, : counts[slot]].tolist(),
        mel=mel[slot].copy(),
      )
      for slot, session in slots.items()
    }
    sounds = {}
    if self._voice:
      heard = np.asarray(sound_BS)
      sounds = {session: heard[slot] for slot, session in slots.items()}
    return Ticked(
      frames=frames,
      hidden=decided.hidden_BND,
      counts=counts,
      drafted=drafted,
      sounds=sounds,
      seconds=time.perf_counter() - start,
    )

  def warm_up(self, senses: set[Senses]) -> None:
    """Compiles all that windows of these kinds need; nobody notices."""
    for kind in senses:
      decided = self._run(self._program.empty_chunk(kind))
      jax.block_until_ready(self._speak(decided, ticked=()))
    # A row put back where it was, as those who join and leave need it.
    self._put(self._row(0), 0)
    jax.block_until_ready(self._empty_row())

  def _run(
    self, chunk: Chunk, *, quiet: Collection[Session] = ()
  ) -> tick_lib.Decided:
    seeds = [0 if s is None else s.seed for s in self._sessions]
    decided, self._cache = self._program.tick(
      self._variables,
      cache=self._cache,
      chunk=chunk,
      seeds_B=np.array(seeds, np.int32),
      quiet_B=np.array([session in quiet for session in self._sessions]),
    )
    return decided

  def _speak(
    self, decided: tick_lib.Decided, *, ticked: Collection[int]
  ) -> jax.Array | None:
    """[slots, samples]; the voices of the slots `ticked` go on."""
    if not self._voice:
      return None
    ticked_B = np.zeros(len(self._sessions), bool)
    ticked_B[list(ticked)] = True
    assert isinstance(self._voices, stream.State)  # there is a voice
    self._voices, sound_BS = self._voice.speak(
      self._voices,
      decided.mel_BFM,
      decided.speaks_B,
      ticked_B=ticked_B,
    )
    return sound_BS
