"""A picture of the experts' load: rows are layers, columns experts.

For: seeing which experts a kind of token uses, and which nobody does. Not
for: the same as numbers (`metrics.summarise`). Start reading at `draw`.

Legend: K kinds of token, L MoE layers, E experts.
"""

import io
import pathlib

import numpy as np

from tml_jax import files
from tml_jax import workdir as workdir_lib
from tml_jax.models import embed
from tml_jax.training import metrics

_OCTAVES = 3  # the colours end at 1/8 and 8 times the equal share
_DEAD = "#009e73"  # neither end of the colours
_ROW, _COLUMN = 0.09, 0.05  # inches of a cell, at least
_WIDTH = (5.0, 16.0)  # inches


def draw(load_KLE: np.ndarray, *, title: str) -> np.ndarray:
  """RGB picture [height, width, 3], uint8; one panel for each kind of token.

  Colour is an expert's share of a layer's choices over the equal share, on a
  log scale; an expert without any is green.

  Args:
    load_KLE: choices, K as `embed.Kind`.
    title: first line.
  """
  from matplotlib import colors, figure
  from matplotlib.backends import backend_agg

  panels = [("all", load_KLE.sum(axis=0))]
  panels += [
    (kind.name.lower(), load_KLE[kind])
    for kind in embed.Kind
    if load_KLE[kind].any()
  ]
  _, layers, experts = load_KLE.shape
  width = float(np.clip(_COLUMN * experts + 2.0, *_WIDTH))
  height = max(0.9, _ROW * layers + 0.5)
  canvas = figure.Figure(
    figsize=(width, height * len(panels) + 0.5), layout="constrained", dpi=100
  )
  backend = backend_agg.FigureCanvasAgg(canvas)
  canvas.suptitle(title, x=0.01, ha="left", fontsize=10)
  axes = canvas.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
  scale = colors.TwoSlopeNorm(vcenter=0.0, vmin=-_OCTAVES, vmax=_OCTAVES)
  for axis, (name, load_LE) in zip(axes, panels, strict=True):
    mean_L1 = np.maximum(load_LE.mean(axis=1, keepdims=True), 1e-9)
    share_LE = np.ma.masked_equal(load_LE / mean_L1, 0.0)
    image = axis.imshow(
      np.ma.log2(share_LE),
      aspect="auto",
      interpolation="nearest",
      cmap=_colours(),
      norm=scale,
    )
    axis.set_title(
      f"{name}: most loaded {(load_LE / mean_L1).max():.2f} x the equal share,"
      f" {(load_LE == 0).mean():.1%} unused",
      loc="left",
      fontsize=8,
    )
    axis.set_ylabel("layer", fontsize=8)
    axis.tick_params(labelsize=7)
    for direction in (axis.xaxis, axis.yaxis):
      direction.get_major_locator().set_params(integer=True)
  axes[-1].set_xlabel("expert", fontsize=8)
  bar = canvas.colorbar(image, ax=list(axes), fraction=0.04, pad=0.01)
  ticks = np.arange(-_OCTAVES, _OCTAVES + 1)
  bar.set_ticks(ticks, labels=[f"{2.0**t:g}x" for t in ticks])
  bar.ax.tick_params(labelsize=7)
  backend.draw()
  return np.asarray(backend.buffer_rgba())[..., :3].copy()


class Pictures:
  """Draws at every `every`-th step, or the first logged one after it."""

  def __init__(self, *, workdir: str, writer: metrics.Writer, every: int):
    self._workdir, self._writer, self._every = workdir, writer, every
    self._sum: np.ndarray | None = None
    self._first = self._drawn = 0

  def add(self, step: int, load_KLE: np.ndarray | None) -> None:
    """Takes the choices of a logged step; they add up between pictures.

    Of a model without a router there are none, and no pictures.
    """
    if not self._every or load_KLE is None or not load_KLE.shape[1]:
      return
    if self._sum is None:
      self._sum, self._first = np.zeros_like(load_KLE), step
    self._sum += load_KLE
    if step // self._every == self._drawn // self._every:
      return
    image = draw(
      self._sum, title=f"Router load, logged steps {self._first} to {step}"
    )
    write(image, workdir=self._workdir, step=step)
    self._writer.image(step, name="router/load", image=image)
    self._sum, self._drawn = None, step


def _colours():
  import matplotlib

  return matplotlib.colormaps["RdBu_r"].with_extremes(bad=_DEAD)


def write(image: np.ndarray, *, workdir: str, step: int) -> pathlib.Path:
  """Writes WORKDIR/plots/router_STEP.png."""
  from matplotlib import image as image_lib

  path = files.path(workdir) / workdir_lib.PLOTS / f"router_{step:08d}.png"
  content = io.BytesIO()
  image_lib.imsave(content, image, format="png")
  files.make_parents(path)
  files.write_atomically(path, content=content.getvalue())
  return path
