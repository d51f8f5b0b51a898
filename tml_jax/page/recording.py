"""One recording or document on a page, as a model sees it.

For: the second part of `data.html`. Not for: which ones (`choose`). Start at
`section`.
"""

import json
from typing import Any

import numpy as np

from tml_jax.config import Config, Layout
from tml_jax.data import corpus, splits
from tml_jax.data.splits import Split
from tml_jax.page import grid as grid_lib
from tml_jax.page import html, media, positions, spelling
from tml_jax.page import windows as windows_lib
from tml_jax.page.choose import Chosen
from tml_jax.page.windows import Seen
from tml_jax.streams import clock, framing, packing
from tml_jax.streams import frame as frame_lib
from tml_jax.streams.document import Document
from tml_jax.streams.frame import Kind
from tml_jax.streams.timeline import Timeline
from tml_jax.streams.tokenizer import Tokenizer

_TOKENS = 2000  # of a document that are shown
_DECISION_KEYS = (
  ("c-none", "quiet, after quiet"),
  ("c-red", "begins to speak"),
  ("c-orange", "goes on speaking"),
  ("c-black", "stops"),
)


def section(
  chosen: Chosen,
  *,
  source: corpus.RecordSource,
  config: Config,
  tokenizer: Tokenizer,
  seconds: float,
) -> html.Section:
  """What a model sees of it, for so many seconds.

  Raises:
    errors.UserError: it is damaged, or does not fit the config.
  """
  item = _read(chosen, source=source, config=config, seconds=seconds)
  hashes = source.split_hash[chosen.number : chosen.number + 1]
  shares = dict(share=config.data.heldout_share, dev=config.data.dev_share)
  (split,) = (
    each
    for each in (Split.TRAIN, Split.DEV, Split.HELDOUT)
    if len(splits.members(each, hashes, **shares))
  )
  name = f"{chosen.corpus}: {item.id}"
  facts: list[tuple[str, object]] = [
    ("number", chosen.number),
    ("shown because it is", chosen.why),
    ("split", str(split)),
  ]
  if isinstance(item, Document):
    body = _document(item, facts, config=config, tokenizer=tokenizer)
  else:
    seen = windows_lib.of(
      item, config=config, tokenizer=tokenizer, seconds=seconds
    )
    body = _timeline(seen, facts, config=config, tokenizer=tokenizer)
  metadata = json.dumps(item.metadata, ensure_ascii=False, indent=1)
  lines = "\n".join(map(html.text, metadata.split("\n")))
  return html.Section(
    name, body + html.details("Metadata", body=f"<pre>{lines}</pre>")
  )


def _read(
  chosen: Chosen,
  *,
  source: corpus.RecordSource,
  config: Config,
  seconds: float,
) -> Timeline | Document:
  """The recording, of a long one the sound that is shown."""
  lasts = float(source.seconds[chosen.number])
  grid = clock.of(config.streams)
  # One more window, whose sound the last one decides.
  stop = framing.Stretch(0, grid.num_windows(seconds), 0).seconds(grid)[1]
  if lasts <= stop or config.data.layout is Layout.TURNS:
    return source[chosen.number]
  return source.stretch(chosen.number, start=0.0, stop=stop)


def _timeline(
  seen: Seen,
  facts: list[tuple[str, object]],
  *,
  config: Config,
  tokenizer: Tokenizer,
) -> str:
  timeline = seen.timeline
  shown = min(seen.seconds, timeline.duration)
  facts = [
    *facts,
    ("seconds", float(timeline.duration)),
    ("seconds shown", float(shown)),
    ("windows shown", len(seen.frames)),
    ("sequences that these fill", seen.sequences),
    *((f"voice of the {track.role}", track.voice) for track in timeline.tracks),
  ]
  length = round(shown * clock.SAMPLE_RATE)
  user, agent = seen.microphone[:length], seen.agent[:length]
  players = "".join(
    f"<label>{title}<audio controls preload=metadata"
    f" src='{media.sound(channels)}'></audio></label>"
    for title, channels in (
      ("User, as the microphone hears", [user]),
      ("Agent", [agent]),
      ("Both: user left, agent right", [user, agent]),
    )
  )
  lines = [
    line(seen, k, config=config, tokenizer=tokenizer)
    for k in range(len(seen.frames))
  ]
  keys = "".join(
    f"<li><span class='key {colour}'></span>{name}"
    for colour, name in _DECISION_KEYS
  )
  wide = grid_lib.PER_SECOND * seen.grid.seconds
  return (
    f"{html.facts(facts)}"
    f"<div data-windows data-wide='{wide:g}'"
    f" data-seconds='{seen.grid.seconds:g}'>"
    f"<div class=players>{players}</div>"
    f"{grid_lib.draw(seen, tokenizer=tokenizer)}"
    "<p class=window role=status aria-live=polite>A click or the arrow keys"
    " choose a window.</p>"
    f"{html.data(lines)}</div>"
    f"<ul class=legend>{keys}</ul>{_weights(seen)}"
  )


def line(
  seen: Seen, window: int, *, config: Config, tokenizer: Tokenizer
) -> str:
  """What a window holds, in two lines of plain text."""
  frame, streams = seen.frames[window], config.streams

  def spell(tokens: list[int]) -> str:
    return spelling.spell(tokens, config=streams, tokenizer=tokenizer)

  perceived = frame_lib.layout_inputs(frame, config=streams)
  decided = [
    f"{spell([target.token])} ({positions.KINDS[target.kind].split(':')[0]},"
    f" weight {target.weight:g})"
    for target in seen.targets[window]
  ]
  sound = " and the sound of the next window" if seen.speech[window] else ""
  at = window * seen.grid.seconds
  return (
    f"window {frame.window}, {at:.2f} s\nperceives {spell(perceived)}\n"
    f"decides {' '.join(decided)}{sound}"
  )


def _weights(seen: Seen) -> str:
  """Targets by kind, with their weights."""
  targets = [target for each in seen.targets for target in each]
  rows: list[tuple[object, ...]] = []
  for kind in Kind:
    weights = [target.weight for target in targets if target.kind == kind]
    if weights:
      rows.append((positions.KINDS[kind], len(weights), float(sum(weights))))
  rows.append(
    (
      "sound: windows to make",
      int(np.count_nonzero(seen.speech)),
      float(seen.speech.sum()),
    )
  )
  head = ("", "targets", "sum of weights")
  return html.table(head, rows, caption="Loss of what is shown")


def _document(
  item: Document,
  facts: list[tuple[str, object]],
  *,
  config: Config,
  tokenizer: Tokenizer,
) -> str:
  """A document by its tokens."""
  streams = config.streams
  whole = packing.Text.of(tokenizer.encode(item.text), config=streams)
  sequences = packing.pack([whole], config=streams)
  weights: list[Any] = [
    sequence.targets.weights[sequence.targets.positions < streams.seq_len]
    for sequence in sequences
  ]
  facts = [
    *facts,
    ("letters", len(item.text)),
    ("tokens", len(whole.tokens)),
    ("sequences that these fill", len(sequences)),
    ("tokens with a loss", sum(map(len, weights))),
    ("sum of weights", float(sum(each.sum() for each in weights))),
  ]
  tokens = whole.tokens[:_TOKENS].tolist()
  spans = "".join(
    f"<span class=t title='token {token}'>"
    f"{html.text(piece(token, config=config, tokenizer=tokenizer))}</span>"
    for token in tokens
  )
  more = len(whole.tokens) - len(tokens)
  note = f"<p class=note>and {more:,} tokens more</p>" if more else ""
  return f"{html.facts(facts)}<p class=tokens>{spans}</p>{note}"


def piece(token: int, *, config: Config, tokenizer: Tokenizer) -> str:
  """One token, with a mark between it and the next."""
  if token >= config.streams.text_vocab_size:
    return spelling.name(token, config=config.streams)
  return spelling.decode([token], tokenizer=tokenizer) + "·"
