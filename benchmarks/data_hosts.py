"""Whether hosts that come and go lose or repeat anything of a mixture.

For: benchmarks.data, and a test with fewer corpora. Not for: speed. Start
reading at `count`. Everything that loaders yield while one host becomes two and
then four is counted by its content: every frame with its sound, pictures and
text, every target of a document after the token before it. The same is counted
of the elements that the loaders' state says were used, read one by one. Sound,
pictures and words are random, so that what is the same is the same thing.
"""

import collections
import dataclasses
import itertools
import os
import pathlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments import pretrain
from tml_jax.config import Config
from tml_jax.data import corpus, groups, loader, mixture, splits
from tml_jax.data.splits import Split
from tml_jax.streams import clock, framing, packing, tokenizer
from tml_jax.streams.document import Document
from tml_jax.streams.frame import Frame
from tml_jax.streams.timeline import (
  Event,
  EventKind,
  Role,
  Span,
  Timeline,
  Track,
  VideoFrame,
  Word,
)

KINDS = ("documents", "pairs", "calls", "video")
_WORDS = tuple(map("".join, itertools.product("bdgklmnprst", "aeiou", "lnrst")))


@dataclasses.dataclass(frozen=True)
class Counted:
  """What was used, and what of it went wrong.

  Attributes:
    elements: of the mixture.
    things: frames, and targets of documents.
    lost: things of the elements that no host yielded.
    repeated: things that were yielded once more than the elements have them.
    again: recordings that came twice in an epoch of their corpus.
    used: elements over what an epoch has, of the corpora the least and largest.
  """

  elements: int
  things: int
  lost: int
  repeated: int
  again: int
  used: tuple[float, float]


def config(corpora: int) -> Config:
  """Reads what `write` has written."""
  names = [f"{KINDS[i % len(KINDS)]}-{i}" for i in range(corpora)]
  tiny = pretrain.tiny_pretrain()
  return dataclasses.replace(
    tiny,
    streams=dataclasses.replace(
      tiny.streams, video_height=40, video_width=80, max_patches=288
    ),
    data=dataclasses.replace(
      tiny.data,
      voices=tuple(name.replace("-", ":") for name in names),
      mixture=tuple(f"{name}:1" for name in names),
      logical_shards=4,
      group_size=8,
      workers=0,
    ),
  )


def write(config: Config, *, root: pathlib.Path) -> None:
  """The corpora of `config`, and a tokenizer."""
  for name in mixture.weights(config):
    random = np.random.default_rng(zlib.crc32(name.encode()))
    kind = name.partition("-")[0]
    many = kind in ("documents", "pairs")
    items = (
      _made(kind, f"{name}/{i}", random, config=config)
      for i in range(60 if many else 8)
    )
    corpus.write(items, path=root / name)
  tokenizer.train(_WORDS, path=tokenizer.path(root), config=config.streams)


def _made(
  kind: str, name: str, random: np.random.Generator, *, config: Config
) -> corpus.Item:
  if kind == "documents":
    words = random.choice(_WORDS, size=random.integers(20, 100))
    return Document(name, " ".join(words))
  if kind == "pairs":
    seconds = random.uniform(1.0, 4.0)
    heard = _track(Role.USER, random, seconds=seconds)
    text = " ".join(random.choice(_WORDS, size=6))
    shown = Event(seconds - 0.2, EventKind.SHOW, text)
    return Timeline(name, seconds, (heard,), events=(shown,))
  seconds = random.uniform(4.0, 32.0)  # a sequence has about 20
  height, width = config.streams.video_height, config.streams.video_width
  pictures = tuple(
    VideoFrame(
      float(time), random.integers(0, 256, (height, width, 3), np.uint8)
    )
    for time in range(int(seconds) if kind == "video" else 0)
  )
  tracks = tuple(
    _track(role, random, seconds=seconds) for role in (Role.USER, Role.AGENT)
  )
  return Timeline(name, seconds, tracks, video=pictures)


def _track(role: Role, random: np.random.Generator, *, seconds: float) -> Track:
  """Noise for a second in two, with a word in it."""
  audio = random.normal(0, 0.1, round(seconds * clock.SAMPLE_RATE))
  starts = np.arange(float(role == Role.AGENT), seconds - 1, 2.0)
  spans = tuple(Span(start, start + 0.9) for start in starts.tolist())
  words = tuple(
    Word(span.start, span.end, str(random.choice(_WORDS))) for span in spans
  )
  audio = audio.clip(-1, 1).astype(np.float32)
  return Track(role, audio, words, spans, voice="made")


def count(
  config: Config,
  *,
  data_dir: str | os.PathLike[str],
  steps: int,
  hosts_in_turn: Sequence[int] = (1, 2, 4),
) -> Counted:
  """Reads so many batches on one host, then as many on two, then on four."""
  state, sequences = None, []
  for hosts in hosts_in_turn:
    state, found = _read(
      config, data_dir=data_dir, hosts=hosts, steps=steps, state=state
    )
    sequences += found
  mixed = mixture.open_mixture(config, data_dir=data_dir, split=Split.TRAIN)
  rest, elements = _rest(config, mixed, state=state, data_dir=data_dir)
  found = _things(sequences + rest, config=config)
  items = [mixed.items[element] for element in elements]
  want = _things_of(items, config=config, data_dir=data_dir)
  sizes = {
    entry: len(
      splits.members(
        Split.TRAIN,
        corpus.RecordSource(pathlib.Path(data_dir) / entry).split_hash,
        share=config.data.heldout_share,
      )
    )
    for entry in mixed.entries
  }
  names = collections.Counter(mixed.names[element] for element in elements)
  shares = [names[entry] / size for entry, size in sizes.items()]
  epochs = _epochs(mixed, stop=max(elements) + 1, sizes=sizes)
  seen = {
    (epochs[element], item.id)
    for element, item in zip(elements, items, strict=True)
  }
  return Counted(
    elements=len(elements),
    things=want.total(),
    lost=(want - found).total(),
    repeated=(found - want).total(),
    again=len(items) - len(seen),
    used=(min(shares), max(shares)),
  )


def _epochs(
  mixed: mixture.Mixture, *, stop: int, sizes: Mapping[str, int]
) -> list[int]:
  """Of its corpus, by element."""
  drawn: collections.Counter[str] = collections.Counter()
  epochs = []
  for element in range(stop):
    name = mixed.names[element]
    epochs.append(drawn[name] // sizes[name])
    drawn[name] += 1
  return epochs


def _read(
  config: Config,
  *,
  data_dir: str | os.PathLike[str],
  hosts: int,
  steps: int,
  state: dict[str, Any] | None,
) -> tuple[dict[str, Any], list[Any]]:
  """Goes on from a state; the state after it, and all sequences."""
  size = config.train.global_batch_size // hosts
  readers = [
    loader.Loader(
      config,
      data_dir=data_dir,
      split=Split.TRAIN,
      rows=range(host * size, (host + 1) * size),
    )
    for host in range(hosts)
  ]
  sequences = []
  for each in readers:
    if state is not None:
      each.set_state(state)
    for _ in range(steps):
      batch = next(each)
      sequences += [
        jax.tree.map(lambda x, row=row: x[row], batch) for row in range(size)
      ]
  merged = loader.merge_states(each.get_state() for each in readers)
  for each in readers:
    each.close()
  return merged, sequences


def _rest(
  config: Config,
  mixed: mixture.Mixture,
  *,
  state: dict[str, Any],
  data_dir: str | os.PathLike[str],
) -> tuple[list[Any], list[int]]:
  """What is left of the groups under way, and all elements of groups so far."""
  size, shards = config.data.group_size, config.data.logical_shards
  sequences, elements = [], []
  for name, at in state["shards"].items():
    shard, stop, offset = int(name), at["group"], at["offset"]
    if at["first"] or offset:
      stop += 1
    made = groups.Groups(
      mixed,
      shards=(shard,),
      first=((at["group"], at["first"]),),
      num_shards=shards,
      group_size=size,
      tokenizer_path=tokenizer.path(data_dir),
      config=config,
    )
    for part in itertools.count():
      group = made[part]
      if group["at"][0] == stop:
        break
      sequences += group["sequences"][offset:]
      offset = 0
    elements += [
      (group * shards + shard) * size + i
      for group in range(stop)
      for i in range(size)
    ]
  return sequences, elements


def _things(sequences: Iterable[Any], *, config: Config) -> collections.Counter:
  """Frames and targets of documents in packed sequences."""
  found: collections.Counter = collections.Counter()
  for sequence in sequences:
    for segment in packing.unpack(sequence, config=config.streams):
      if isinstance(segment, packing.Text):
        found.update(itertools.pairwise(segment.tokens.tolist()))
      else:
        found.update(map(_content, segment))
  return found


def _things_of(
  items: Sequence[corpus.Item],
  *,
  config: Config,
  data_dir: str | os.PathLike[str],
) -> collections.Counter:
  """Frames and targets of items that are read alone."""
  pieces = tokenizer.load(tokenizer.path(data_dir), config=config.streams)
  found: collections.Counter = collections.Counter()
  for item in items:
    if isinstance(item, Document):
      text = packing.Text.of(pieces.encode(item.text), config=config.streams)
      found.update(itertools.pairwise(text.tokens.tolist()))
    else:
      frames = framing.frames(item, config=config.streams, tokenizer=pieces)
      found.update(map(_content, frames))
  return found


def _content(frame: Frame) -> int:
  values = (getattr(frame, field.name) for field in dataclasses.fields(frame))
  return hash(
    tuple(
      value.tobytes() if isinstance(value, np.ndarray) else value
      for value in values
    )
  )
