"""Sound of B sessions, window by window, from fine mel.

For: the loudspeaker of a live session, and the same for a whole track. Not
for: the best that can be had afterwards without weights (`vocoder`,
Griffin-Lim). Start at `speak`. Magnitudes come from a trained network
(`vocoder.network`) or without weights; phases, from past frames and two ahead,
in both cases (`vocoder.phases`).

What comes out lags `DELAY` samples, 62.5 ms, behind the mel: 37.5 ms until the
last window over a sample is known, and two frames that the phases wait for.

Legend: B sessions, W windows, N frames, M mel channels, F bins of the
spectrum, S samples of a window.
"""

import dataclasses
import functools
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from tml_jax.streams import clock, dmel
from tml_jax.vocoder import network as network_lib
from tml_jax.vocoder import phases as phases_lib

DELAY = phases_lib.DELAY
TILE = 64  # frames whose magnitudes are found at once, of several sessions


@flax.struct.dataclass
class State:
  """Between two windows.

  Attributes:
    phases: of the frames that still sound or wait.
    histories: of the network; empty without one.
  """

  phases: phases_lib.State
  histories: network_lib.Histories


def start(network: network_lib.Vocoder | None, *, batch_size: int) -> State:
  """Silence before the first window."""
  return State(
    phases=phases_lib.start(batch_size=batch_size),
    histories=network.start(batch_size=batch_size) if network else {},
  )


@dataclasses.dataclass(frozen=True)
class Voice:
  """What makes sound of mel.

  Attributes:
    network: finds magnitudes; None does without weights.
    variables: of the network; {} without one.
  """

  network: network_lib.Vocoder | None
  variables: dict[str, Any]

  def start(self, *, batch_size: int) -> State:
    """As `start`."""
    return start(self.network, batch_size=batch_size)

  def speak(
    self,
    state: State,
    mel_BNM: jax.Array,
    speaks_B: jax.Array,
    *,
    ticked_B: np.ndarray,
  ) -> tuple[State, jax.Array]:
    """As `speak`, of mel that may lie on a mesh."""
    (device,) = state.phases.sum_BW.devices()
    mel_BNM, speaks_B = jax.device_put((mel_BNM, speaks_B), device)
    return speak(
      state,
      mel_BNM,
      speaks_B,
      ticked_B,
      network=self.network,
      variables=self.variables,
    )


@jax.jit
def take(state: Any, row: jax.Array) -> Any:
  """The session in `row` alone, B = 1."""
  return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, row, 1), state)


@functools.partial(jax.jit, donate_argnums=0)
def put(state: Any, session: Any, row: jax.Array) -> Any:
  """All sessions, that of `take` in `row`; `state` is donated."""
  return jax.tree.map(
    lambda x, one: jax.lax.dynamic_update_slice_in_dim(x, one, row, 0),
    state,
    session,
  )


@functools.partial(jax.jit, static_argnames="network", donate_argnames="state")
def speak(
  state: State,
  mel_BNM: jax.Array,
  sounds_B: jax.Array,
  ticked_B: jax.Array,
  *,
  network: network_lib.Vocoder | None,
  variables: dict[str, Any],
) -> tuple[State, jax.Array]:
  """The next window of every session; compiles once for each B.

  Args:
    state: donated.
    mel_BNM: log10 fine mel [B, N, 80]; anything where there is silence.
    sounds_B: false where the agent is quiet. What has begun fades out in
      `DELAY` samples, then there are zeros.
    ticked_B: false where no window passes: that state stays as it is.
    network: finds magnitudes; None does without weights. Static.
    variables: of the network; {} without one.

  Returns:
    The state after, and samples [B, S], `DELAY` behind the mel.
  """
  count = mel_BNM.shape[1]
  sounds_BN = jnp.repeat(sounds_B[:, None], count, axis=1)
  magnitudes_BNF, histories = magnitudes(
    mel_BNM, sounds_BN, state.histories, network=network, variables=variables
  )
  phases, hops_NBH = jax.lax.scan(
    phases_lib.step, state.phases, jnp.moveaxis(magnitudes_BNF, 1, 0)
  )
  sound_BS = jnp.moveaxis(hops_NBH, 0, 1).reshape(len(mel_BNM), -1)

  def go_on(after, before):
    return jnp.where(
      ticked_B.reshape(-1, *[1] * (after.ndim - 1)), after, before
    )

  after = State(phases=phases, histories=histories)
  return jax.tree.map(go_on, after, state), jnp.clip(sound_BS, -1, 1)


def magnitudes(
  mel_BNM: jax.Array,
  sounds_BN: jax.Array,
  histories: network_lib.Histories,
  *,
  network: network_lib.Vocoder | None,
  variables: dict[str, Any],
) -> tuple[jax.Array, network_lib.Histories]:
  """Magnitudes [B, N, F] of the next frames, zero in silence; histories.

  In tiles of `TILE` frames: a matmul of other height rounds differently, and
  phases turn the rounding of a faint bin into another sound of it, at -50 dB.
  """
  size, count = sounds_BN.shape
  sessions = max(1, TILE // count)  # of a tile
  padding = -size % sessions

  def cut(x_B):
    x_B = jnp.pad(x_B, [(0, padding)] + [(0, 0)] * (x_B.ndim - 1))
    return x_B.reshape(-1, sessions, *x_B.shape[1:])

  def find(tile):
    mel_TNM, sounds_TN, histories = tile
    mel_TNM = jnp.where(sounds_TN[..., None], mel_TNM, dmel.LOG_MIN)
    if network is not None:
      found_TNF, histories = network.apply(
        variables, mel_TNM, sounds_TN, histories
      )
    else:
      found_TNF = network_lib.interpolate(mel_TNM)
    found_TNF = network_lib.fit(found_TNF, mel=mel_TNM)
    return jnp.where(sounds_TN[..., None], found_TNF, 0.0), histories

  def silence(tile):
    _, sounds_TN, histories = tile
    return jnp.zeros((*sounds_TN.shape, phases_lib.BINS)), jax.tree.map(
      lambda x: jnp.pad(x, ((0, 0), (0, count), (0, 0)))[:, count:], histories
    )

  # A branch is compiled by itself, so that a loop of one turn, which XLA
  # dissolves, computes what any other does.
  found = jax.lax.map(
    lambda tile: jax.lax.cond(tile[1].any(), find, silence, tile),
    jax.tree.map(cut, (mel_BNM, sounds_BN, histories)),
  )
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:size], found)


def render(
  mels: list[np.ndarray | None],
  *,
  grid: clock.Grid,
  network: network_lib.Vocoder | None,
  variables: dict[str, Any],
) -> np.ndarray:
  """The agent's track of a session, in time with its mel.

  Args:
    mels: log10 fine mel [N, 80] that sounds in each window, None where
      quiet.
    grid: of the windows.
    network: as in `speak`.
    variables: as in `speak`.

  Returns:
    [windows * S] float32.
  """
  state = start(network, batch_size=1)
  quiet = np.full((grid.fine_frames, clock.MEL_CHANNELS), dmel.LOG_MIN)
  parts = []
  lag = -(-DELAY // grid.samples)  # windows that let out what lags
  for mel in [*mels, *[None] * lag]:
    state, sound_1S = speak(
      state,
      jnp.asarray(quiet if mel is None else mel, jnp.float32)[None],
      jnp.array([mel is not None]),
      jnp.array([True]),
      network=network,
      variables=variables,
    )
    parts.append(np.asarray(sound_1S[0]))
  sound = np.concatenate(parts)
  return sound[DELAY : DELAY + len(mels) * grid.samples]
