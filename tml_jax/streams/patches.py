"""Video frames as 40 x 40 x 2 patches.

For: cutting the frames of one window into the patches that the hMLP embeds.
Not for: decoding or resizing video (that is the source's work).
"""

import numpy as np

from tml_jax.config import streams as streams_config

PATCH = streams_config.PATCH
PAIR = 2  # frames a patch spans in time


def cut(images: list[np.ndarray], *, height: int, width: int) -> np.ndarray:
  """Cuts the video of one window into patches.

  Args:
    images: frames captured in the window, in order, [height, width, 3] uint8.
      The last two make the pair; a single frame is its own pair, as Inkling
      does with stills. Empty where no frame landed.
    height: pixels, a multiple of 40.
    width: pixels, a multiple of 40.

  Returns:
    [rows * cols, 2, 40, 40, 3] uint8, row by row; no rows without images.

  Raises:
    ValueError: a frame of another shape.
  """
  if not images:
    return np.zeros((0, PAIR, PATCH, PATCH, 3), np.uint8)
  for image in images:
    if image.shape != (height, width, 3):
      raise ValueError(
        f"a video frame has shape {image.shape}; resize it to "
        f"({height}, {width}, 3), the config's streams.video_height/width"
      )
  pair = np.stack(images[-PAIR:] if len(images) > 1 else images * PAIR)
  rows, cols = height // PATCH, width // PATCH
  grid = pair.reshape(PAIR, rows, PATCH, cols, PATCH, 3)
  return grid.transpose(1, 3, 0, 2, 4, 5).reshape(-1, PAIR, PATCH, PATCH, 3)
