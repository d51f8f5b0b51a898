"""Pictures of a square on a plain ground, for the families that show video.

For: video whose meaning is known exactly. Not for: how it is seen
(`streams.patches`). Start reading at `Painter`.
"""

import dataclasses

import numpy as np

from tml_jax.streams import clock
from tml_jax.streams.timeline import VideoFrame

_CONTRAST = 120  # of 765: two colours are at least so far apart


def paint(
  size: tuple[int, int],
  *,
  ground: np.ndarray,
  colour: np.ndarray,
  side: int,
  at: np.ndarray,
) -> np.ndarray:
  """[height, width, 3] uint8, a square at `at`, down and right in [0, 1]."""
  image = np.empty((*size, 3), np.uint8)
  image[:] = ground
  top, left = (int(at[i] * (size[i] - side)) for i in (0, 1))
  image[top : top + side, left : left + side] = colour
  return image


@dataclasses.dataclass(frozen=True)
class Painter:
  """A square of one colour, one frame a window, in the middle of it."""

  size: tuple[int, int]  # height and width
  ground: np.ndarray  # [3] uint8
  colour: np.ndarray  # [3] uint8

  def frame(self, window: int, *, at: tuple[float, float] | None) -> VideoFrame:
    """The square at `at`, down and right in [0, 1]; None: the ground alone."""
    image = paint(
      self.size,
      ground=self.ground,
      colour=self.ground if at is None else self.colour,
      side=2 * min(self.size) // 5,
      at=np.array(at or (0.0, 0.0)),
    )
    return VideoFrame((window + 0.5) * clock.TICKS.seconds, image)


def painter(size: tuple[int, int], *, random: np.random.Generator) -> Painter:
  """One with two colours that can be told apart."""
  while True:
    ground, colour = random.integers(0, 256, size=(2, 3), dtype=np.uint8)
    if np.abs(ground.astype(int) - colour).sum() >= _CONTRAST:
      return Painter(size, ground, colour)
