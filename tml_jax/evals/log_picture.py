"""A tick log as a picture: who sounded when, what was due, what was said.

For: the HTML report of `evaluate`. Not for: a session with its sound (`sample`
draws that, `logs.picture`). Start reading at `draw`.
"""

import base64
import io
import warnings

import numpy as np

from tml_jax.evals.metrics import heard as heard_lib
from tml_jax.evals.metrics import speech, statistics
from tml_jax.logs import transcript
from tml_jax.logs.ticks import Log
from tml_jax.streams import clock
from tml_jax.streams.annotation import Kind

# Okabe and Ito's colours, told apart by colour-blind eyes too.
_USER, _AGENT, _DUE = "#0072b2", "#d55e00", "#009e73"
_UNASKED, _ASKED, _GRID = "#cc79a7", "0.85", "0.85"
_WIDTHS, _INCHES_PER_SECOND = (8.0, 20.0), 0.55
_LETTER_INCHES = 0.062
_ROWS = {"asked": 3.0, "user": 2.0, "agent": 1.0, "recorded": 0.0}
_HEIGHT = 0.62
_DPI = 110


def base64_png(canvas) -> str:
  """A matplotlib figure for an <img> of HTML."""
  file = io.BytesIO()
  with warnings.catch_warnings():
    # Letters that the font lacks are drawn as boxes.
    warnings.filterwarnings("ignore", message="Glyph .* missing from font")
    canvas.savefig(file, dpi=_DPI, format="png")
  return base64.b64encode(file.getvalue()).decode()


def transfers(counts: dict[str, np.ndarray]):
  """A matplotlib figure of floor transfers.

  Args:
    counts: [bins] of the model and of the recorded agent, by name; see
      `statistics.histogram`.
  """
  from matplotlib import figure

  canvas = figure.Figure(figsize=(8.0, 2.4), layout="constrained")
  axes = canvas.subplots()
  width = 0.8 / len(counts)
  for i, (name, count) in enumerate(counts.items()):
    share = 100 * count / max(count.sum(), 1)
    axes.bar(
      statistics.BINS + (i - (len(counts) - 1) / 2) * width,
      share,
      width=width,
      color=(_AGENT, _DUE)[i],
      label=f"{name}: {int(count.sum())}",
    )
  first, last = statistics.BINS[[0, -1]]
  ticks = np.arange(first, last + 1, 5)
  ends = {first: "≤", last: "≥"}
  axes.set_xticks(
    ticks, [f"{ends.get(t, '')}{t * clock.TICKS.seconds:.0f}" for t in ticks]
  )
  axes.set_xlabel(
    "seconds from the user's end to the agent's onset; overlaps are negative",
    fontsize=8,
  )
  axes.set_ylabel("% of floor transfers", fontsize=8)
  axes.tick_params(labelsize=8)
  axes.spines[["top", "right"]].set_visible(False)
  axes.legend(frameon=False, fontsize=8)
  return canvas


def draw(log: Log):
  """A matplotlib figure of the log."""
  from matplotlib import figure

  found = heard_lib.listen(log)
  duration = max(log.duration, len(log.ticks) * clock.TICKS.seconds)
  width = float(np.clip(_INCHES_PER_SECOND * duration + 1, *_WIDTHS))
  canvas = figure.Figure(figsize=(width, 2.5), layout="constrained")
  axes = canvas.subplots()
  letters = duration / (width * 0.92) * _LETTER_INCHES  # seconds of one
  _asked(axes, log, letters=letters, duration=duration)
  for first, stop in speech.runs_of(log.user):
    _bar(axes, "user", first, stop, _USER)
  words = [(k, tick.user_text) for k, tick in enumerate(log.ticks)]
  _texts(axes, "user", _phrases(words), letters=letters)
  unasked = found.unasked
  for run in found.runs:
    colour = _UNASKED if run in unasked else _AGENT
    _bar(axes, "agent", run.first, run.stop, colour)
  spoken = [(run.onset, run.text) for run in found.runs]
  _texts(axes, "agent", spoken, letters=letters)
  for start, end in log.recorded:
    axes.barh(
      _ROWS["recorded"], end - start, left=start, height=0.3, color=_DUE
    )
  for reply in found.replies:
    axes.plot(
      [reply.at] * 2,
      [_ROWS["recorded"] - 0.3, _ROWS["agent"] + 0.5],
      color=_DUE,
      linewidth=1.3,
      linestyle=(0, (3, 1.5)),
    )
  axes.set_xlim(0, duration)
  axes.set_ylim(-0.5, 3.6)
  axes.set_yticks(list(_ROWS.values()), list(_ROWS), fontsize=8)
  axes.set_xticks(np.arange(0, duration + 1e-6, 1 if duration <= 40 else 5))
  axes.tick_params(labelsize=7, length=2, color=_GRID)
  axes.grid(axis="x", color=_GRID, linewidth=0.5)
  axes.set_axisbelow(True)
  axes.spines[:].set_visible(False)
  axes.set_xlabel(
    "seconds; dashed: due or asked for; agent in pink: nobody asked",
    fontsize=7.5,
  )
  return canvas


def _asked(axes, log: Log, *, letters: float, duration: float) -> None:
  """Annotations as bars with their kinds, stacked where they overlap."""
  free = [0.0] * 3
  for a in log.annotations:
    label = str(a.kind).replace("_", " ")
    if a.kind == Kind.REPETITION and a.text:
      label = a.text
    room = max(a.end, a.start + letters * (len(label) + 1))
    row = next((r for r in range(3) if free[r] <= a.start + 1e-6), None)
    row = int(np.argmin(free)) if row is None else row
    free[row] = room
    y = _ROWS["asked"] - 0.3 + 0.28 * row
    axes.barh(
      y, max(a.end - a.start, 0.05), left=a.start, height=0.24, color=_ASKED
    )
    axes.text(
      min(a.start, duration - letters * len(label)) + letters / 3,
      y,
      label,
      fontsize=6.5,
      va="center",
      clip_on=True,
      parse_math=False,  # dollars in speech are dollars
    )


def _bar(axes, row: str, first: int, stop: int, colour: str) -> None:
  start = first * clock.TICKS.seconds
  axes.barh(
    _ROWS[row] + 0.1,
    (stop - first) * clock.TICKS.seconds,
    left=start,
    height=_HEIGHT - 0.25,
    color=colour,
  )


def _phrases(words: list[tuple[int, str]]) -> list[tuple[float, str]]:
  """Words of neighbouring ticks together, with the time of the first."""
  result: list[tuple[int, int, str]] = []
  for tick, text in words:
    if not text:
      continue
    if result and tick - result[-1][1] <= 4:
      first, _, before = result.pop()
      result.append((first, tick, f"{before} {text}"))
    else:
      result.append((tick, tick, text))
  return [(first * clock.TICKS.seconds, text) for first, _, text in result]


def _texts(
  axes, row: str, texts: list[tuple[float, str]], *, letters: float
) -> None:
  """Each cut where the next one begins."""
  for i, (start, text) in enumerate(texts):
    room = len(text)
    if i + 1 < len(texts):
      room = max(1, int((texts[i + 1][0] - start) / letters))
    shown = text if len(text) <= room else text[: room - 1] + "…"
    axes.text(
      start,
      _ROWS[row] - 0.26,
      transcript.printable(shown),
      fontsize=6.5,
      va="center",
      clip_on=True,
      parse_math=False,
    )
