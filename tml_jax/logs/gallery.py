"""One conversation of every scenario family, to look at.

For: `python -m tml_jax.inspect --gallery`, which writes gallery.html, NAME.png
of each family and the overview gallery.png. Not for: conversations that a
model had (`report`). Start reading at `write`.
"""

import dataclasses
import html
import pathlib
from collections.abc import Mapping

from tml_jax.config import StreamsConfig
from tml_jax.logs import picture, transcript
from tml_jax.streams import annotation, clock, framing, microphone
from tml_jax.streams.timeline import EventKind, Role, Timeline
from tml_jax.streams.tokenizer import Tokenizer

_COLOURS = {
  Role.USER: "#0072b2",
  Role.ENVIRONMENT: "0.55",
  Role.AGENT: "#d55e00",
}
_DUE, _TYPED = "#009e73", "#cc79a7"
_LANES = {Role.USER: 2.0, Role.ENVIRONMENT: 2.0, Role.AGENT: 0.0}
_SECONDS = 18.0  # of the overview
_LETTERS_PER_SECOND = 14
_ROUNDING = 1e-6  # seconds by which ends may miss beginnings


@dataclasses.dataclass(frozen=True)
class Exhibit:
  """One family.

  Attributes:
    item: a conversation of it.
    title: what it is, in a line.
    paragraphs: its rule; those that begin with two spaces stay as they are.
  """

  item: Timeline
  title: str
  paragraphs: tuple[str, ...]


def write(
  exhibits: Mapping[str, Exhibit],
  *,
  config: StreamsConfig,
  tokenizer: Tokenizer,
  out: pathlib.Path,
) -> None:
  """Writes the pictures and the page of families, by name, into `out`."""
  grid = clock.of(config)
  for name, exhibit in exhibits.items():
    item = exhibit.item
    frames = framing.frames(item, config=config, tokenizer=tokenizer)
    picture.draw(
      frames,
      timeline=item,
      microphone=microphone.hear(item, grid=grid).reshape(-1),
      lines=transcript.lines(
        frames, timeline=item, tokenizer=tokenizer, grid=grid
      ),
      title=f"{item.id}   as recorded",
      grid=grid,
      path=out / f"{name}.png",
    )
  overview(
    {name: exhibit.item for name, exhibit in exhibits.items()},
    path=out / "gallery.png",
  )
  body = "\n".join(_section(*named) for named in exhibits.items())
  (out / "gallery.html").write_text(
    "<!doctype html><meta charset='utf-8'><title>Scenario families</title>\n"
    "<style>body{font:15px/1.5 sans-serif;max-width:1200px;margin:2em auto}"
    "img{max-width:100%}pre{font-size:13px}</style>\n"
    f"<h1>Scenario families</h1>\n{body}\n",
    encoding="utf-8",
  )


def _section(name: str, exhibit: Exhibit) -> str:
  text = "\n".join(
    f"<pre>{html.escape(p)}</pre>"
    if p.startswith("  ")
    else f"<p>{html.escape(p)}</p>"
    for p in exhibit.paragraphs
  )
  return (
    f"<h2>{name}: {html.escape(exhibit.title)}</h2>\n{text}\n"
    f"<img src='{name}.png' alt='a conversation of the family {name}'>"
  )


def overview(items: dict[str, Timeline], *, path: pathlib.Path) -> None:
  """Who speaks when in one item of each family, in one small picture."""
  from matplotlib import figure

  canvas = figure.Figure(
    figsize=(15, 0.95 * len(items) + 0.6), layout="constrained"
  )
  rows = canvas.subplots(len(items), 1, sharex=True, squeeze=False)[:, 0]
  canvas.get_layout_engine().set(h_pad=0.02, hspace=0.0)
  for axes, (name, item) in zip(rows, items.items(), strict=True):
    _row(axes, name=name, item=item)
  rows[-1].set_xlabel(
    "seconds; above the user (blue), others (grey), typed text (purple); below"
    " the agent (orange); green: what is asked, and when speech is due",
    fontsize=9,
  )
  canvas.savefig(path, dpi=72, format="png")


def _row(axes, *, name: str, item: Timeline) -> None:
  for track in item.tracks:
    base, colour = _LANES[track.role], _COLOURS[track.role]
    for span in track.spans:
      length = span.end - span.start
      axes.broken_barh([(span.start, length)], (base, 0.9), color=colour)
      said = " ".join(
        w.text
        for w in track.words
        if span.start <= w.start + _ROUNDING < span.end
      )
      room = max(1, int(length * _LETTERS_PER_SECOND))
      style = dict(fontsize=6, color="white", va="center")
      axes.text(span.start + 0.02, base + 0.42, said[:room], **style)
  for event in item.events:
    if event.kind in (EventKind.USER_TEXT, EventKind.RESULT):
      axes.text(event.time, 3.0, event.text, fontsize=7, color=_TYPED)
  for frame in item.video[::2] if len(item.video) > item.duration else ():
    extent = (frame.time, frame.time + 0.36, 2.95, 3.6)
    axes.imshow(frame.image, extent=extent, aspect="auto")
  for a in annotation.of(item):
    axes.broken_barh(
      [(a.start, max(a.end - a.start, 0.05))], (1.45, 0.35), color=_DUE
    )
    if a.due is not None:
      axes.plot([a.due, a.due], [-0.2, 1.0], color=_DUE, linewidth=1.4)
  for start, kinds in annotation.names(annotation.of(item)).items():
    axes.text(start, 1.1, kinds, fontsize=6.5, color=_DUE, va="center")
  axes.set_xlim(0, _SECONDS)
  axes.set_ylim(-0.25, 3.7)
  axes.set_yticks([])
  axes.tick_params(labelsize=7, length=2)
  axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
  for spine in axes.spines.values():
    spine.set_visible(False)
