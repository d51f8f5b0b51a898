"""What a model sees of a recording, window by window, as it is packed.

For: the grid of a recording on a page. Not for: how it looks (`grid`). Start
at `of`.
"""

import dataclasses

import numpy as np

from tml_jax import errors
from tml_jax.config import Config
from tml_jax.data import turns
from tml_jax.streams import clock, framing, microphone, packing
from tml_jax.streams.batch import Batch
from tml_jax.streams.frame import Frame, Kind
from tml_jax.streams.timeline import Role, Timeline
from tml_jax.streams.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Target:
  """A token with a loss."""

  token: int
  kind: Kind
  weight: float


@dataclasses.dataclass(frozen=True)
class Seen:
  """The beginning of a recording on the grid.

  Attributes:
    timeline: as the config's layout has it.
    frames: one per window.
    targets: of each window, as they are packed.
    speech: [windows] float64, weight of the sound that is decided in each.
    microphone: [samples] float32, what is heard.
    agent: [samples] float32, what the agent says.
    grid: of the windows.
    sequences: into which the frames are packed.
  """

  timeline: Timeline
  frames: list[Frame]
  targets: list[list[Target]]
  speech: np.ndarray
  microphone: np.ndarray
  agent: np.ndarray
  grid: clock.Grid
  sequences: int

  @property
  def seconds(self) -> float:
    return len(self.frames) * self.grid.seconds


def of(
  timeline: Timeline, *, config: Config, tokenizer: Tokenizer, seconds: float
) -> Seen:
  """The first `seconds` of a recording.

  Args:
    timeline: with sound and pictures up to there, and a window more.
    config: the experiment.
    tokenizer: of the text.
    seconds: the most that is shown.

  Raises:
    errors.UserError: it cannot be laid out with this config.
  """
  grid = clock.of(config.streams)
  timeline = turns.lay_out(timeline, config=config, tokenizer=tokenizer)
  count = max(1, grid.num_windows(seconds))
  try:
    frames = framing.frames(
      timeline,
      config=config.streams,
      tokenizer=tokenizer,
      stretch=framing.Stretch(0, count, past=0),
    )
    sequences = packing.pack([frames], config=config.streams)
  except ValueError as error:
    raise errors.UserError(
      f"{timeline.id!r} cannot be laid out with the config {config.name}:"
      f" {error}"
    ) from error
  shown = range(len(frames))
  heard = microphone.hear(timeline, grid=grid, windows=shown).reshape(-1)
  agent, track = np.zeros_like(heard), timeline.track(Role.AGENT)
  if track is not None:
    part = track.audio[: len(agent)]
    agent[: len(part)] = part
  targets: list[list[Target]] = [[] for _ in frames]
  speech = np.zeros(len(frames))
  for sequence in sequences:
    _read(sequence, targets=targets, speech=speech)
  return Seen(
    timeline=timeline,
    frames=frames,
    targets=targets,
    speech=speech,
    microphone=heard,
    agent=agent,
    grid=grid,
    sequences=len(sequences),
  )


def _read(
  sequence: Batch, *, targets: list[list[Target]], speech: np.ndarray
) -> None:
  """Adds the targets of a sequence to those of its windows."""
  windows = sequence.packed.inputs.windows
  found = sequence.targets
  for i in np.flatnonzero(found.positions < len(windows)):
    # What is decided at a position is the token of the next one.
    window = int(windows[found.positions[i]])
    targets[window].append(
      Target(
        int(found.tokens[i]), Kind(int(found.kinds[i])), float(found.weights[i])
      )
    )
  spoken = sequence.speech.positions
  for i in np.flatnonzero(spoken < len(windows)):
    speech[int(windows[spoken[i]])] += float(sequence.speech.weights[i])
