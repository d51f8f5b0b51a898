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


@functools.partial(jax.jit, static_argnames="network", donate_argnames="state")
def speak(
  state: State,
  mel_BNM: jax.Array,
  sounds_B: jax.Array,
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
  return State(phases=phases, histories=histories), jnp.clip(sound_BS, -1, 1)


def magnitudes(
  mel_BNM: jax.Array,
  sounds_BN: jax.Array,
  histories: network_lib.Histories,
  *,
  network: network_lib.Vocoder | None,
  variables: dict[str, Any],
) -> tuple[jax.Array, network_lib.Histories]:
  """Magnitudes [B, N, F] of the next frames, zero in silence; histories.

  Session by session: a matmul of other height rounds differently, and phases
  turn the rounding of a faint bin into another sound of it, at -50 dB.
  """
  mel_BNM = jnp.where(sounds_BN[..., None], mel_BNM, dmel.LOG_MIN)

  def one(session):
    mel_1NM, sounds_1N, histories = jax.tree.map(lambda x: x[None], session)
    if network is not None:
      found_1NF, histories = network.apply(
        variables, mel_1NM, sounds_1N, histories
      )
    else:
      found_1NF = network_lib.interpolate(mel_1NM)
    found_1NF = network_lib.fit(found_1NF, mel=mel_1NM)
    found_1NF = jnp.where(sounds_1N[..., None], found_1NF, 0.0)
    return jax.tree.map(lambda x: x[0], (found_1NF, histories))

  return jax.lax.map(one, (mel_BNM, sounds_BN, histories))


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
      network=network,
      variables=variables,
    )
    parts.append(np.asarray(sound_1S[0]))
  sound = np.concatenate(parts)
  return sound[DELAY : DELAY + len(mels) * grid.samples]
