"""A picture of a session on the grid of its windows.

For: seeing who spoke when, what was decided and what was written. Not for:
numbers (`evals`). Start reading at `draw`.
"""

import pathlib
import warnings

import numpy as np

from tml_jax.logs import transcript
from tml_jax.logs.transcript import Line
from tml_jax.streams import annotation, clock, dmel, framing
from tml_jax.streams.frame import Frame
from tml_jax.streams.timeline import Role, Timeline

# Okabe and Ito's colours, told apart by colour-blind eyes too.
_USER, _AGENT, _DUE, _TYPED = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
_QUIET, _NOTHING, _INK, _GRID = "0.88", "0.96", "0.15", "0.75"
_INCHES_PER_SECOND = 0.85
_WIDTHS = (11.0, 40.0)  # inches
_FINE_GRID_SECONDS = 30.0  # longer sessions get lines by the second alone
_FLOOR, _TOP = -4.5, 0.5  # log10 of mel magnitude
_LETTER_INCHES = 0.075  # of the text above the agent
_TEXT_ROWS = 3
_THUMBNAIL_SECONDS = 0.6  # one picture of a video; at most so many
_THUMBNAIL_CHANNELS = 14  # its height


def draw(
  frames: list[Frame],
  *,
  timeline: Timeline,
  microphone: np.ndarray,
  lines: list[Line],
  title: str,
  grid: clock.Grid,
  path: pathlib.Path,
) -> None:
  """Writes a PNG.

  Args:
    frames: of the session, one per window.
    timeline: whose user was talked to.
    microphone: [samples] of what was heard.
    lines: of `transcript.lines`.
    title: first line of the picture.
    grid: of the windows.
    path: where to.
  """
  from matplotlib import figure

  seconds = len(frames) * grid.seconds
  width = float(np.clip(_INCHES_PER_SECOND * seconds + 2, *_WIDTHS))
  canvas = figure.Figure(figsize=(width, 6.4), layout="constrained")
  panels = canvas.subplots(
    5, 1, sharex=True, height_ratios=[0.6, 2.0, 0.6, 2.0, 0.36]
  )
  canvas.get_layout_engine().set(h_pad=0.03, hspace=0.0)
  canvas.suptitle(
    transcript.printable(title),
    x=0.01,
    ha="left",
    fontsize=11,
    color=_INK,
    parse_math=False,  # dollars in names and speech are dollars
  )
  _legend(canvas, timeline)
  user_text, user_mel, agent_text, agent_mel, decisions = panels

  heard = dmel.fine_mel(microphone, grid=grid)
  _mel(user_mel, heard[: len(frames) * grid.fine_frames], seconds)
  _mel(agent_mel, _agent_mel(frames, grid=grid), seconds)
  room = width * 0.93 / seconds / _LETTER_INCHES  # letters a second
  by_agent = [line for line in lines if line.who.startswith("agent")]
  _write(
    user_text,
    [line for line in lines if line not in by_agent],
    letters_per_second=room,
    seconds=seconds,
  )
  _write(agent_text, by_agent, letters_per_second=room, seconds=seconds)
  _marks(user_mel, timeline)
  _annotations(user_mel, timeline)
  _expected(agent_mel, timeline, grid=grid)
  _decisions(decisions, frames, grid=grid)
  for axes, name, colour in (
    (user_text, "", _USER),
    (user_mel, "user", _USER),
    (agent_text, "", _AGENT),
    (agent_mel, "agent", _AGENT),
    (decisions, "decision", _INK),
  ):
    _frame(axes, name=name, colour=colour, seconds=seconds, grid=grid)
  label = f"seconds; a cell is a window of {grid.ms} ms"
  decisions.set_xlabel(label, fontsize=9)
  with warnings.catch_warnings():
    # Letters that the font lacks are drawn as boxes; transcript.txt has them.
    warnings.filterwarnings("ignore", message="Glyph .* missing from font")
    canvas.savefig(path, dpi=110, format="png")


def _agent_mel(frames: list[Frame], *, grid: clock.Grid) -> np.ndarray:
  """[windows * F, 80] of what sounds; NaN where nothing does."""
  shape = (grid.fine_frames, clock.MEL_CHANNELS)
  silence = np.full(shape, np.nan, np.float32)
  decided = [
    silence if frame.target_mel is None else frame.target_mel
    for frame in frames[:-1]
  ]
  return np.concatenate([silence, *decided])  # heard one window later


def _mel(axes, mel: np.ndarray, seconds: float) -> None:
  axes.set_facecolor(_NOTHING)
  axes.imshow(
    mel.T,
    origin="lower",
    aspect="auto",
    extent=(0, seconds, 0, clock.MEL_CHANNELS),
    cmap="magma",
    vmin=_FLOOR,
    vmax=_TOP,
    interpolation="nearest",
  )
  # Channel of 1 kHz and 4 kHz on Slaney's scale of 80 channels to 8 kHz.
  centres = dmel.mel_filters(dmel.FINE_WINDOW).argmax(axis=0)
  hertz = centres * clock.SAMPLE_RATE / dmel.FINE_WINDOW
  ticks = [int(np.abs(hertz - f).argmin()) for f in (1000, 4000)]
  axes.set_yticks(ticks, ["1 kHz", "4 kHz"])
  axes.set_ylim(0, clock.MEL_CHANNELS)


def _write(
  axes, lines: list[Line], *, letters_per_second: float, seconds: float
) -> None:
  """Texts at their times, in the lowest row that is free."""
  axes.set_ylim(0, _TEXT_ROWS)
  axes.set_yticks([])
  free = [0.0] * _TEXT_ROWS
  for line in lines:
    text = line.text if len(line.text) <= 60 else line.text[:59] + "…"
    if line.who not in ("agent", "user"):
      text = f"[{line.who}] {text}"
    length = (len(text) + 2) / letters_per_second
    late = line.start + length > seconds
    left = min(line.end, seconds) - length if late else line.start
    row = next((r for r in range(_TEXT_ROWS) if free[r] <= left), None)
    if row is None:
      row = int(np.argmin(free))
    free[row] = left + length
    colour = _AGENT if line.who.startswith("agent") else _USER
    if line.who in ("user types", "result"):
      colour = _TYPED
    axes.text(
      min(line.end, seconds) if late else line.start,
      row + 0.45,
      text,
      fontsize=8.5,
      color=colour,
      ha="right" if late else "left",
      va="center",
      clip_on=True,
      parse_math=False,
    )


def _marks(axes, timeline: Timeline) -> None:
  """Where video frames landed on the user's panel; dense video itself."""
  if len(timeline.video) > timeline.duration:
    _film(axes, timeline)
    return
  for image in timeline.video:
    axes.plot(
      image.time,
      clock.MEL_CHANNELS - 5,
      marker="s",
      markersize=6,
      color=_TYPED,
      markeredgecolor="white",
      clip_on=False,
    )


def _film(axes, timeline: Timeline) -> None:
  """Every few frames of a video, small, where they were captured."""
  last = -_THUMBNAIL_SECONDS
  for frame in timeline.video:
    if frame.time - last < _THUMBNAIL_SECONDS - 1e-6:
      continue
    last = frame.time
    axes.imshow(
      frame.image,
      aspect="auto",
      extent=(
        frame.time,
        frame.time + 0.95 * _THUMBNAIL_SECONDS,
        clock.MEL_CHANNELS - _THUMBNAIL_CHANNELS,
        clock.MEL_CHANNELS,
      ),
      zorder=2,
    )
  axes.set_xlim(0, timeline.duration)
  axes.set_ylim(0, clock.MEL_CHANNELS)


def _annotations(axes, timeline: Timeline) -> None:
  """What is asked of the agent, as named bars; instants as triangles."""
  for a in annotation.of(timeline):
    length = a.end - a.start
    if length:
      axes.add_patch(_rectangle(a.start, 0, length, 3.5, _DUE))
    else:
      axes.plot(a.start, 3, marker="^", markersize=7, color=_DUE)
  for start, name in annotation.names(annotation.of(timeline)).items():
    style = dict(fontsize=7.5, color="white", va="bottom", clip_on=True)
    axes.text(start + 0.04, 5, name, **style)


def _expected(axes, timeline: Timeline, *, grid: clock.Grid) -> None:
  """Where a scenario's reply was due and where it was recorded."""
  for a in annotation.of(timeline):
    if a.due is not None:
      axes.axvline(a.due, color=_DUE, linewidth=1.6, linestyle=(0, (3, 1.5)))
  agent = timeline.track(Role.AGENT)
  for window in framing.speech_windows(agent, grid=grid):
    axes.add_patch(
      _rectangle(window * grid.seconds, 0, grid.seconds, 3.5, _DUE)
    )


def _legend(canvas, timeline: Timeline) -> None:
  """One line at the top right, of what this picture has."""
  from matplotlib import lines, patches

  marks = [
    patches.Patch(color=_AGENT, label="decides to speak"),
    patches.Patch(color=_QUIET, label="quiet"),
  ]
  if annotation.of(timeline):
    due = dict(color=_DUE, linestyle=(0, (3, 1.5)), linewidth=1.6)
    marks += [
      lines.Line2D([], [], label="reply due", **due),
      lines.Line2D(
        [], [], color=_DUE, linewidth=5, label="recorded agent speaks"
      ),
    ]
  if timeline.video:
    marks.append(
      lines.Line2D(
        [], [], color=_TYPED, marker="s", linestyle="", label="video frame"
      )
    )
  canvas.legend(
    handles=marks,
    loc="upper right",
    ncols=len(marks),
    fontsize=9,
    frameon=False,
    borderaxespad=0.1,
  )


def _decisions(axes, frames: list[Frame], *, grid: clock.Grid) -> None:
  """A cell a window; a triangle where the agent begins."""
  before = False
  for frame in frames:
    start = frame.window * grid.seconds
    colour = _AGENT if frame.speak else _QUIET
    axes.add_patch(_rectangle(start, 0, grid.seconds, 1, colour, "white"))
    if frame.speak and not before:
      middle = start + grid.seconds / 2
      axes.plot(middle, 0.5, marker="v", markersize=6, color="white")
    before = frame.speak
  axes.set_ylim(0, 1)
  axes.set_yticks([])


def _rectangle(x, y, width, height, colour, edge="none"):
  from matplotlib import patches

  return patches.Rectangle(
    (x, y), width, height, facecolor=colour, edgecolor=edge, linewidth=0.6
  )


def _frame(
  axes, *, name: str, colour: str, seconds: float, grid: clock.Grid
) -> None:
  """Ticks, grid and name of one panel."""
  axes.set_xlim(0, seconds)
  axes.set_xticks(np.arange(0, seconds + 1e-6, 1 if seconds <= 60 else 10))
  axes.tick_params(labelsize=8, length=2, color=_GRID)
  rotation = dict(rotation=0, ha="right", va="center")
  axes.set_ylabel(name, color=colour, fontsize=10, **rotation)
  for spine in axes.spines.values():
    spine.set_visible(False)
  if seconds <= _FINE_GRID_SECONDS:
    axes.vlines(
      np.arange(0, seconds + 1e-6, grid.seconds),
      *axes.get_ylim(),
      color=_GRID,
      linewidth=0.3,
      alpha=0.35,
    )
  axes.vlines(
    np.arange(0, seconds + 1e-6, 1.0),
    *axes.get_ylim(),
    color=_GRID,
    linewidth=0.6,
    alpha=0.6,
  )
