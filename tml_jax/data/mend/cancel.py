"""Takes what is heard of one channel out of another, by a linear filter.

For: echo of the agent in the user's channel. Not for: finding it (`bleed`), or
echo that is not linear: of a loudspeaker that is too loud. Start reading at
`cancelled`.

The filter is the least-squares FIR (of Wiener), one for each two minutes,
between which it changes gradually. Frames in which the user
speaks, too, weigh less: weights are one over the power that is left of a frame,
as in iteratively reweighted least squares.
"""

from collections.abc import Sequence

import numpy as np
import scipy.fft

from tml_jax.streams import clock

TAPS = 4096  # 256 ms, of which an eighth before the delay
_LEAD = TAPS // 8
_FRAME = 4096
_SIZE = scipy.fft.next_fast_len(_FRAME + TAPS, real=True)
_SECTION = 120 * clock.SAMPLE_RATE
_ROUNDS = 3
_STEPS = 8
_LOAD = 1e-4  # of the mean power, on the diagonal


def cancelled(
  user: np.ndarray, agent: np.ndarray, *, delay: float
) -> np.ndarray:
  """[n] float32: the user's channel without what is heard of the agent.

  Args:
    user: [n] float32 at 16 kHz.
    agent: [m] of the same.
    delay: seconds by which it is heard later, of its strongest part.
  """
  shift = round(delay * clock.SAMPLE_RATE) - _LEAD
  source = _delayed(agent, shift=shift, samples=len(user))
  count = max(1, round(len(user) / _SECTION))
  edges = np.linspace(0, len(user), count + 1).astype(int)
  filters = [
    _fitted(source, user, span=(int(first), int(last)))
    for first, last in zip(edges[:-1], edges[1:], strict=True)
  ]
  middles = (edges[:-1] + edges[1:]) / 2
  result = user.copy()
  for first in range(0, len(user), _FRAME):
    last = min(first + _FRAME, len(user))
    taps = _between(filters, middles, at=(first + last) / 2)
    part = _history(source, first)
    if part.any():
      heard = scipy.fft.irfft(
        scipy.fft.rfft(part, _SIZE) * scipy.fft.rfft(taps, _SIZE), _SIZE
      )
      result[first:last] -= heard[TAPS - 1 : TAPS - 1 + last - first]
  return result


def _delayed(agent: np.ndarray, *, shift: int, samples: int) -> np.ndarray:
  """[samples] of the agent's channel that is later by so many samples."""
  found = np.zeros(samples, np.float32)
  part = agent[max(0, -shift) : max(0, samples - shift)]
  at = max(0, shift)
  found[at : at + len(part)] = part
  return found


def _history(source: np.ndarray, first: int) -> np.ndarray:
  """[frame + taps - 1] of a frame and what is before it."""
  found = np.zeros(_FRAME + TAPS - 1, np.float32)
  part = source[max(0, first - TAPS + 1) : first + _FRAME]
  at = max(0, TAPS - 1 - first)
  found[at : at + len(part)] = part
  return found


def _fitted(
  source: np.ndarray, user: np.ndarray, *, span: tuple[int, int]
) -> np.ndarray:
  """[taps] float32 of the filter of a stretch."""
  frames = []
  for first in range(span[0], span[1] - _FRAME, _FRAME):
    x = _history(source, first)
    if float(np.square(x).mean()) > 1e-9:  # -90 dBFS
      frames.append((x, user[first : first + _FRAME]))
  taps = np.zeros(TAPS, np.float32)
  if not frames:
    return taps
  inputs = scipy.fft.rfft(np.stack([x for x, _ in frames]), _SIZE, axis=1)
  heard = np.stack([y for _, y in frames])
  left = heard
  for _ in range(_ROUNDS):
    power = np.square(left).mean(axis=1, dtype=np.float64)
    weights = 1 / (power + 0.1 * np.median(power) + 1e-12)
    weights = (weights / weights.mean()).astype(np.float32)
    taps = taps + _steps(inputs, left, weights=weights)
    left = heard - _made(inputs, taps)
  return taps


def _made(inputs: np.ndarray, taps: np.ndarray) -> np.ndarray:
  """[frames, samples] that the filter makes of the inputs."""
  made = scipy.fft.irfft(inputs * scipy.fft.rfft(taps, _SIZE), _SIZE, axis=1)
  return made[:, TAPS - 1 : TAPS - 1 + _FRAME]


def _back(
  inputs: np.ndarray, left: np.ndarray, *, weights: np.ndarray
) -> np.ndarray:
  """[taps]: the adjoint of `_made`."""
  padded = np.pad(left * weights[:, None], ((0, 0), (TAPS - 1, 0)))
  cross = np.conj(inputs) * scipy.fft.rfft(padded, _SIZE, axis=1)
  return scipy.fft.irfft(cross.sum(axis=0), _SIZE)[:TAPS]


def _steps(
  inputs: np.ndarray, left: np.ndarray, *, weights: np.ndarray
) -> np.ndarray:
  """[taps] float32 that lessen what is left: conjugate gradients.

  The preconditioner is the spectrum of the inputs (T. Chan, SIAM J. Sci. Stat.
  Comput. 9, 1988).
  """
  auto = np.einsum("f,fk->k", weights, np.square(np.abs(inputs)))
  auto = auto * (_FRAME / (_FRAME + TAPS))
  load = _LOAD * float(auto.mean()) + 1e-12

  def conditioned(residual: np.ndarray) -> np.ndarray:
    spectrum = scipy.fft.rfft(residual, _SIZE) / (auto + load)
    return scipy.fft.irfft(spectrum, _SIZE)[:TAPS]

  taps: np.ndarray = np.zeros(TAPS, np.float32)
  residual = _back(inputs, left, weights=weights)
  direction = ready = conditioned(residual)
  height = float(residual @ ready)
  for _ in range(_STEPS):
    if height <= 1e-20:
      break
    made = _back(inputs, _made(inputs, direction), weights=weights)
    made = made + load * direction
    rate = height / max(float(direction @ made), 1e-30)
    taps = taps + np.float32(rate) * direction
    residual = residual - np.float32(rate) * made
    ready = conditioned(residual)
    height, before = float(residual @ ready), height
    direction = ready + np.float32(height / before) * direction
  return taps.astype(np.float32)


def _between(
  filters: Sequence[np.ndarray], middles: np.ndarray, *, at: float
) -> np.ndarray:
  """The filter at a sample."""
  place = float(np.interp(at, middles, np.arange(len(filters))))
  first = min(int(place), len(filters) - 1)
  second = min(first + 1, len(filters) - 1)
  part = np.float32(place - first)
  return filters[first] * (1 - part) + filters[second] * part
