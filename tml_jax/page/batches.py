"""The next batches of a run on a page, segment by segment.

For: `inspect --batch=N`. Not for: shares of a long mixture (`data.contents`).
Start at `page`. The batches are those of the loader, with what it says of
where they come from.
"""

import itertools
import pathlib
from typing import Any

import numpy as np

from tml_jax import errors, files
from tml_jax.config import Config, StreamsConfig
from tml_jax.config import streams as streams_config
from tml_jax.data import loader
from tml_jax.data.groups import Origin
from tml_jax.data.splits import Split
from tml_jax.page import charts, html, media, positions, spelling
from tml_jax.page import segments as segments_lib
from tml_jax.page.charts import Bar
from tml_jax.page.segments import Segment
from tml_jax.streams import frame as frame_lib
from tml_jax.streams import tokenizer as tokenizer_lib
from tml_jax.streams.batch import Batch
from tml_jax.streams.tokenizer import Tokenizer

FILE = "batches.html"
_SPELLED_ROWS = 16  # of a batch: the tokens of more are not shown
_SPELLED = 4000  # positions of a segment
_MAP_WIDTH = 256  # positions in a line of the picture


def page(
  config: Config,
  *,
  data_dir: str,
  tokenizer_file: str,
  count: int,
  state: dict[str, Any] | None,
  step: int,
  out: pathlib.Path,
) -> pathlib.Path:
  """Writes `batches.html`: all that the next batches of a run hold.

  Args:
    config: of the run.
    data_dir: prepared data.
    tokenizer_file: of the run.
    count: of batches.
    state: of the loader after `step`; None for the beginning.
    step: steps before the first batch.
    out: a directory that can be written.

  Returns:
    The file.

  Raises:
    errors.UserError: data that are missing or broken, or another state.
  """
  pieces = tokenizer_lib.load(tokenizer_file, config=config.streams)
  batches = loader.Loader(
    config,
    data_dir=data_dir,
    split=Split.TRAIN,
    tokenizer_file=tokenizer_file,
  )
  try:
    if state is not None:
      batches.set_state(state)
    sections = []
    for number in range(step + 1, step + count + 1):
      for _ in range(config.train.skip_batches.count(number)):
        next(batches)
      sections.append(
        _batch(
          next(batches),
          origins=batches.origins,
          number=number,
          config=config,
          tokenizer=pieces,
        )
      )
  finally:
    batches.close()
  mixture = ", ".join(batches.identity["mixture"])
  lead = (
    f"<p>What the steps {step + 1:,} to {step + count:,} of"
    f" <b>{html.text(config.name)}</b> are trained on:"
    f" {config.train.global_batch_size:,} sequences of"
    f" {config.streams.seq_len:,} positions each, of"
    f" {html.text(mixture)}.</p>"
  )
  content = html.page(f"Batches of {config.name}", lead=lead, sections=sections)
  file = out / FILE
  files.write_atomically(file, content=content)
  return file


def newest_state(checkpoints: pathlib.Path, *, step: int, name: str) -> Any:
  """The loader's state in a checkpoint, of `workdir.LOADER_STATE`.

  Raises:
    errors.UserError: there is none, as of imported weights, or it is broken.
  """
  file = checkpoints / str(step) / name
  try:
    return files.load_json(file)
  except (OSError, ValueError) as error:
    raise errors.UserError(
      f"{file} does not say where the run stands in the data ({error}): leave"
      " --workdir out to see its first batches"
    ) from error


def _batch(
  batch: Batch,
  *,
  origins: list[tuple[Origin, ...]],
  number: int,
  config: Config,
  tokenizer: Tokenizer,
) -> html.Section:
  streams = config.streams
  rows, parts = [], np.zeros(len(positions.Part), np.int64)
  for row, of_row in enumerate(origins):
    sequence = segments_lib.row_of(batch, row)
    of_each = positions.parts(sequence, config=streams)
    parts += np.bincount(of_each, minlength=len(parts))
    rows.append(
      _row(
        sequence,
        segments_lib.read(sequence, origins=of_row, config=streams),
        parts=of_each,
        title=f"Sequence {row}",
        config=streams,
        tokenizer=tokenizer if row < _SPELLED_ROWS else None,
      )
    )
  summary = charts.stacked(
    [
      Bar(
        positions.NAMES[part],
        float(parts[part]),
        f"{int(parts[part]):,}",
        positions.COLOURS[part][0],
      )
      for part in positions.Part
    ],
    caption=f"{int(parts.sum()):,} positions",
  )
  weights = batch.targets.weights[batch.targets.positions < streams.seq_len]
  spoken = np.count_nonzero(batch.speech.positions < streams.seq_len)
  note = (
    f"<p>{len(weights):,} tokens have a loss, with a weight of"
    f" {weights.sum():,.1f} together; {spoken:,} windows of sound are to be"
    " made.</p>"
  )
  return html.Section(f"Step {number}", "\n".join([summary, note, *rows]))


def _row(
  sequence: Batch,
  segments: list[Segment],
  *,
  parts: np.ndarray,
  title: str,
  config: StreamsConfig,
  tokenizer: Tokenizer | None,
) -> str:
  """One sequence: a map, its segments, and their tokens."""
  used = sum(segment.positions for segment in segments)
  lines: list[tuple[object, ...]] = [
    (
      i,
      segment.origin.entry,
      segment.origin.id,
      segment.origin.element,
      f"{segment.first}–{segment.stop - 1}",
      segment.positions,
      _windows(segment),
      segment.targets,
      segment.weight,
      segment.speech,
      segment.past,
    )
    for i, segment in enumerate(segments, start=1)
  ]
  empty = config.seq_len - used
  lines.append(
    ("", "padding", "", "", f"{used}–{config.seq_len - 1}" if empty else "")
    + (empty, "", 0, 0.0, 0, 0)
  )
  head = ("", "entry", "recording or document", "element", "positions", "count")
  head += ("windows", "targets", "weight", "sound", "past")
  body = [
    f"<h3>{html.text(title)}</h3>",
    f"<img class=map alt='{html.text(title)}, a dot a position, by what it is'"
    f" src='{_map(parts)}'>",
    html.table(head, lines),
    _slots(sequence, config=config),
  ]
  if tokenizer is not None:
    body += [
      html.details(
        f"Tokens of {i}: {segment.origin.id}",
        body=_tokens(sequence, segment, config=config, tokenizer=tokenizer),
      )
      for i, segment in enumerate(segments, start=1)
    ]
  return "\n".join(body)


def _windows(segment: Segment) -> str:
  first, last = segment.windows
  return "a document" if segment.is_document else f"{first}–{last}"


def _slots(sequence: Batch, *, config: StreamsConfig) -> str:
  """How much of each budget is taken."""
  places = (
    np.flatnonzero(sequence.packed.segment_ids),
    *(sequence.packed.inputs.audio_positions,),
    *(sequence.packed.inputs.patch_positions,),
    *(sequence.speech.positions, sequence.targets.positions),
  )
  parts = [
    f"{name} {np.count_nonzero(each < config.seq_len):,} of"
    f" {getattr(config, name):,}"
    for name, each in zip(streams_config.LIMITS, places, strict=True)
  ]
  return f"<p class=note>{'; '.join(parts)}</p>"


def _map(parts: np.ndarray) -> str:
  """A picture with a dot a position, coloured by its part."""
  lines = -(-len(parts) // _MAP_WIDTH)
  picture = np.zeros(lines * _MAP_WIDTH, np.uint8)
  picture[: len(parts)] = parts
  palette = np.array([positions.COLOURS[part][1] for part in positions.Part])
  big = picture.reshape(lines, _MAP_WIDTH).repeat(4, axis=0).repeat(4, axis=1)
  return media.indexed(big, palette=palette, clear=positions.Part.PADDING)


def _tokens(
  sequence: Batch,
  segment: Segment,
  *,
  config: StreamsConfig,
  tokenizer: Tokenizer,
) -> str:
  """The tokens of a segment, a line a window; those with a loss are marked."""
  stop = min(segment.stop, segment.first + _SPELLED)
  here = range(segment.first, stop)
  tokens, windows = (
    sequence.packed.inputs.tokens,
    sequence.packed.inputs.windows,
  )
  loss = {
    int(place) + 1: (int(kind), float(weight))
    for place, kind, weight in zip(
      sequence.targets.positions,
      sequence.targets.kinds,
      sequence.targets.weights,
      strict=True,
    )
    if place < len(tokens)
  }
  lines = []
  by_window = itertools.groupby(
    here, key=lambda p: 0 if segment.is_document else int(windows[p])
  )
  for window, places in by_window:
    spans = []
    for weighed, run in itertools.groupby(places, key=loss.get):
      run = list(run)
      spelled = spelling.spell(
        [int(tokens[p]) for p in run], config=config, tokenizer=tokenizer
      )
      where = f"{run[0]}–{run[-1]}" if len(run) > 1 else f"{run[0]}"
      if weighed is None:
        spans.append(
          f"<span title='positions {where}'>{html.text(spelled)}</span>"
        )
        continue
      kind = positions.KINDS[frame_lib.Kind(weighed[0])]
      spans.append(
        f"<span class=t title='positions {where}: {html.text(kind)}, weight"
        f" {weighed[1]:g}'>{html.text(spelled)}</span>"
        f"<sub class=soft>{weighed[1]:g}</sub>"
      )
    name = "" if segment.is_document else f"<span class=soft>{window}</span> "
    lines.append(f"<span class=line>{name}{' '.join(spans)}</span>")
  more = segment.stop - stop
  note = f"<p class=note>and {more:,} positions more</p>" if more else ""
  return f"<p class=tokens>{''.join(lines)}</p>{note}"
