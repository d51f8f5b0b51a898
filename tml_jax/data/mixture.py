"""The stream of items that an experiment trains or is tested on.

For: turning config.data.mixture and the prepared corpora into one endless,
shuffled, weighted and randomly accessible sequence. Not for: packing and
batches (`loader`). Start reading at `open_mixture`. An entry of the mixture is
a scenario family ("reply:1.0"), every family ("all:1.0", each with that weight)
or the folder of a prepared corpus of recorded conversations or documents
("calls:0.5"), which are split by a hash of their id. A weight is a
share of the positions that a model is trained on. Recordings of the training
split are changed as `data.augment` has it (`augment.chain`).
"""

import dataclasses
import functools
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from absl import logging

from tml_jax import errors, registry
from tml_jax.config import Config, Damaged, Layout
from tml_jax.data import corpus as corpus_lib
from tml_jax.data import scenarios, shares, source, subset, unheard
from tml_jax.data import stages as stages_lib
from tml_jax.data.augment import chain
from tml_jax.data.scenarios import family
from tml_jax.data.scenarios import shift as shift_lib
from tml_jax.data.splits import Split
from tml_jax.streams import clock, framing, tokenizer
from tml_jax.streams.document import Document
from tml_jax.streams.timeline import Timeline

Item = Timeline | Document | framing.Excerpt

# Items of a scenario family in one epoch: far more than a run reads.
SCENARIO_LENGTH = 1 << 24
_FAMILY_SAMPLES = 8  # their lengths differ little


def entries(config: Config) -> tuple[str, ...]:
  """config.data.mixture with an entry for each family in place of `all`.

  Families come in alphabetical order; those of plugins are among them.

  Raises:
    errors.UserError: a name is there twice.
  """
  result: dict[str, str] = {}
  for entry in config.data.mixture:
    name, _, weight = entry.rpartition(":")
    for each in scenarios.FAMILIES if name == scenarios.ALL else (name,):
      if each in result:
        raise errors.UserError(
          f"data.mixture = {','.join(config.data.mixture)} names {each!r}"
          f" twice, as {scenarios.ALL} means every scenario family: leave out"
          " one"
        )
      result[each] = f"{each}:{weight}"
  return tuple(result.values())


def weights(config: Config) -> dict[str, float]:
  """Weight by family or corpus, of `entries`."""
  parts = (entry.rpartition(":") for entry in entries(config))
  return {name: float(weight) for name, _, weight in parts}


def speaks(config: Config) -> bool:
  """Whether scenarios are in the mixture, which need voices."""
  return any(entry in scenarios.FAMILIES for entry in weights(config))


@dataclasses.dataclass(frozen=True)
class Mixture:
  """The endless mixture, and what is known of its elements without reading.

  Attributes:
    items: element i is an `Item` and depends on i alone.
    names: the entry that element i is of.
    seconds: its duration before `data.augment`, or more; 0 of a document.
    letters: of its text, where it is a document, else 0.
    longest: the most that `seconds` has.
    largest: the most that `letters` has.
    stages: what is drawn when.
    entries: all of them, in order.
    sources: of each entry.
  """

  items: stages_lib.Joined
  names: stages_lib.Joined
  seconds: stages_lib.Joined
  letters: stages_lib.Joined
  longest: float
  largest: int
  stages: tuple[stages_lib.Stage, ...]
  entries: tuple[str, ...]
  sources: Mapping[str, source.Source]


def build(
  config: Config,
  *,
  data_dir: str | os.PathLike[str],
  split: Split,
  tokenizer_file: str = "",
) -> stages_lib.Joined:
  """The items of `open_mixture`, recordings whole."""
  return open_mixture(
    config, data_dir=data_dir, split=split, tokenizer_file=tokenizer_file
  ).items


def open_mixture(
  config: Config,
  *,
  data_dir: str | os.PathLike[str],
  split: Split,
  tokenizer_file: str = "",
  begin: stages_lib.Begin = stages_lib.BEGIN,
  in_stretches: bool = False,
) -> Mixture:
  """The endless mixture.

  Each source is shuffled anew in every epoch, deterministically from
  config.data.seed. Weights are shares of the positions that a model is trained
  on (`shares`), and hold at any stretch of the sequence.

  Args:
    config: the experiment.
    data_dir: prepared data.
    split: which part of it.
    tokenizer_file: that positions are counted with; of the data if not given.
    begin: where it begins, after a change of the mixture.
    in_stretches: long recordings come in stretches, as a loader wants them.

  Raises:
    errors.UserError: an unknown entry, or a corpus that is missing or broken.
  """
  unheard.check(config)
  wanted = weights(config)
  # One for all families; where there is none, nobody speaks with voices.
  voices = open_voices(config, data_dir=data_dir) if speaks(config) else {}
  steps = transforms(config) if split == Split.TRAIN else ()
  sources = {
    entry: open_entry(
      entry,
      config=config,
      data_dir=data_dir,
      split=split,
      voices=voices,
      grid=clock.of(config.streams),
      in_stretches=in_stretches,
      margin=chain.reach(chain.of_entry(steps, entry)),
    )
    for entry in wanted
  }
  sizes = _measure(
    sources,
    config=config,
    tokenizer_file=tokenizer.path(data_dir, given=tokenizer_file),
  )
  lengths = {entry: len(found) for entry, found in sources.items()}
  positions = {
    entry: sizes[entry].positions * lengths[entry]
    for entry, found in sources.items()
    if sizes and isinstance(found, subset.Subset)
  }
  temper = functools.partial(
    shares.tempered, positions=positions, power=config.data.inverse_temperature
  )
  stages = stages_lib.plan(
    config,
    weights=wanted,
    temper=temper,
    sizes=sizes,
    lengths=lengths,
    begin=begin,
  )
  if len(wanted) > 1:
    shares.log(temper(wanted), sizes=sizes, drawn=stages[0].draws)
  seconds = {entry: _seconds(found) for entry, found in sources.items()}
  letters = {entry: _letters(found) for entry, found in sources.items()}

  def order(entry: str, of: Any) -> grain.MapDataset:
    # Another entry in the mixture must not change the order of this one.
    seed = (config.data.seed + zlib.crc32(entry.encode())) % 2**32
    return grain.MapDataset.source(of).shuffle(seed=seed).repeat()

  def read(entry: str) -> grain.MapDataset:
    found = sources[entry]
    chosen = chain.of_entry(steps, entry)
    if not chosen or not isinstance(found, subset.Subset):
      return order(entry, found)
    changed = chain.Augmented(
      found,
      steps=chosen,
      entry=entry,
      seed=config.data.seed,
      grid=clock.of(config.streams),
    )
    return order(entry, range(len(found))).map_with_index(changed)

  def joined(endless: Mapping[str, grain.MapDataset]) -> stages_lib.Joined:
    return stages_lib.Joined(
      stages, make=functools.partial(stages_lib.mix, of=endless)
    )

  def mixed(of: Mapping[str, Any]) -> stages_lib.Joined:
    return joined({entry: order(entry, of[entry]) for entry in wanted})

  return Mixture(
    items=joined({entry: read(entry) for entry in wanted}),
    names=mixed({e: Same(e, len(found)) for e, found in sources.items()}),
    seconds=mixed(seconds),
    letters=mixed(letters),
    longest=_most(seconds),
    largest=_most(letters),
    stages=stages,
    entries=tuple(wanted),
    sources=sources,
  )


def transforms(config: Config) -> tuple[chain.Step, ...]:
  """What `data.augment` asks for, with its files opened.

  Raises:
    errors.UserError: see `chain.steps`.
  """
  corpora = [e for e in weights(config) if e not in scenarios.FAMILIES]
  return chain.steps(config, corpora=corpora)


@dataclasses.dataclass(frozen=True)
class Same(Sequence[Any]):
  """`number` times the same value."""

  value: Any
  number: int

  def __len__(self) -> int:
    return self.number

  def __getitem__(self, index: Any) -> Any:
    return self.value


def _most(values: Mapping[str, Sequence[Any]]) -> Any:
  """The largest value of any entry."""
  return max(
    each.value if isinstance(each, Same) else np.max(each).item()
    for each in values.values()
  )


def _letters(found: source.Source) -> Sequence[int]:
  """Letters of each document; 0 of a recording."""
  return (
    found.letters if isinstance(found, subset.Subset) else Same(0, len(found))
  )


def conversations(found: source.Source) -> Iterator[int]:
  """Indices of the items that are no documents."""
  sizes = _letters(found)
  return (i for i in range(len(found)) if not sizes[i])


def _seconds(found: source.Source) -> Sequence[float]:
  """Duration of each recording, or more; 0 of a document."""
  if isinstance(found, subset.Subset):
    return found.seconds
  assert isinstance(found, family.Family)  # there is nothing else
  return Same(found.duration[1], len(found))


def _measure(
  sources: Mapping[str, source.Source],
  *,
  config: Config,
  tokenizer_file: str,
) -> dict[str, shares.Size]:
  """The size of each entry, of a family only where it is one of several."""
  sizes: dict[str, shares.Size] = {}
  if len(sources) == 1 and not any(
    isinstance(found, subset.Subset) for found in sources.values()
  ):
    return sizes
  pieces = tokenizer.load(tokenizer_file, config=config.streams)
  for entry, found in sources.items():
    if not isinstance(found, subset.Subset):
      sizes[entry] = shares.measure(
        _readable(
          entry, found.__getitem__, range(_FAMILY_SAMPLES), config=config
        ),
        mean=None,
        config=config,
        tokenizer=pieces,
      )
      continue
    # Positions are counted without sound, but for who makes turns of it.
    is_duplex = config.data.layout is Layout.DUPLEX
    get = found.outline if is_duplex else found.__getitem__
    sizes[entry] = shares.measure(
      _readable(entry, get, shares.sample(len(found)), config=config),
      mean=shares.Mean(
        float(np.mean(found.seconds)), float(np.mean(found.letters))
      ),
      config=config,
      tokenizer=pieces,
    )
    shares.log_long(
      entry,
      seconds=found.seconds,
      size=sizes[entry],
      seq_len=config.streams.seq_len,
      past=config.data.past_seconds,
    )
  return sizes


def _readable(
  entry: str,
  get: Callable[[int], Item],
  places: Sequence[int],
  *,
  config: Config,
) -> Iterator[Item]:
  """Some items of a source; damaged ones as `data.damaged` has it.

  Raises:
    errors.UserError: one is damaged and may not be left out, or all are.
  """
  count = 0
  for i in places:
    try:
      item = get(i)
    except corpus_lib.DamagedRecord as error:
      if config.data.damaged is Damaged.REFUSE:
        raise
      logging.warning("left out: %s", error)
      continue
    count += 1
    yield item
  if not count:
    raise errors.UserError(
      f"{entry}: every recording that was looked at is damaged; prepare it"
      " again"
    )


def check(
  config: Config,
  *,
  data_dir: str | os.PathLike[str],
  tokenizer_file: str = "",
) -> None:
  """Finds what is missing without reading recordings, at once.

  Raises:
    errors.UserError: no tokenizer that fits (`tokenizer_file`, else that of
      `data_dir`), a corpus that is missing or cut short, an unknown entry of
      the mixture, an unheard voice, or an entry of `data.augment` that cannot
      work.
  """
  unheard.check(config)
  transforms(config)
  if speaks(config):
    open_voices(config, data_dir=data_dir)
  for entry in weights(config):
    if entry not in scenarios.FAMILIES:
      _open_corpus(entry, config=config, data_dir=data_dir)
  file = tokenizer.path(data_dir, given=tokenizer_file)
  tokenizer.load(file, config=config.streams)


def pick(
  config: Config,
  *,
  argument: str,
  flag: str,
  data_dir: str | os.PathLike[str],
  tokenizer_file: str = "",
) -> Timeline:
  """The timeline at SPLIT:INDEX, which `flag` was given.

  Raises:
    errors.UserError: not such an argument, or no such data.
  """
  name, _, index = argument.partition(":")
  if name not in [str(split) for split in Split] or not index.isdecimal():
    raise errors.UserError(
      f"--{flag}={argument!r}: write SPLIT:INDEX with a split of "
      f"{', '.join(Split)}, for instance heldout:3"
    )
  dataset = build(
    config,
    data_dir=data_dir,
    split=Split(name),
    tokenizer_file=tokenizer_file,
  )
  timeline = dataset[int(index)]
  if isinstance(timeline, Document):
    raise errors.UserError(
      f"--{flag}={argument}: this is the document {timeline.id!r}, and no"
      " conversation; give another index"
    )
  return dataclasses.replace(timeline, id=f"{argument} ({timeline.id})")


def open_entry(
  entry: str,
  *,
  config: Config,
  data_dir: str | os.PathLike[str],
  split: Split,
  voices: dict[str, corpus_lib.RecordSource],
  grid: clock.Grid,
  in_stretches: bool = False,
  margin: float = 0.0,
  shift: shift_lib.Shift | None = None,
) -> source.Source:
  """The source of one name in the mixture; families speak with `voices`.

  Their agents act at the boundaries of `grid`, and users are as `shift` has it,
  where one is given. Long recordings of a corpus come
  in stretches where that is asked for, with the sound `margin` seconds around.

  Raises:
    errors.UserError: neither a family nor a prepared corpus.
  """
  share, dev = config.data.heldout_share, config.data.dev_share
  if split == Split.DEV and not dev:
    raise errors.UserError(
      "split dev: data.dev_share = 0, so training had all that is not held out;"
      " train with --config.data.dev_share=0.05, or take another split"
    )
  if entry in scenarios.FAMILIES:
    return scenarios.FAMILIES[entry](
      voices,
      split=split,
      seed=config.data.seed,
      heldout_share=share,
      dev_share=dev,
      length=SCENARIO_LENGTH,
      video_size=family.VideoSize(
        config.streams.video_height, config.streams.video_width
      ),
      grid=grid,
      shift=shift,
    )
  corpus = _open_corpus(entry, config=config, data_dir=data_dir)
  cut = None
  # Alternating turns are made of whole recordings.
  if in_stretches and config.data.layout is Layout.DUPLEX:
    cut = subset.Cut(
      windows=max(1, _windows(config.data.stretch_seconds, grid=grid)),
      past=past_windows(config),
      grid=grid,
      margin=margin,
    )
  return subset.Subset(corpus, split=split, share=share, dev=dev, cut=cut)


def past_windows(config: Config) -> int:
  """Windows in front of a later stretch or piece of a recording."""
  grid = clock.of(config.streams)
  return _windows(config.data.past_seconds, grid=grid)


def _windows(seconds: float, *, grid: clock.Grid) -> int:
  return round(1000 * seconds / grid.ms)


def _open_corpus(
  entry: str, *, config: Config, data_dir: str | os.PathLike[str]
) -> corpus_lib.RecordSource:
  root = pathlib.Path(data_dir)
  if (root / entry / corpus_lib.INDEX).is_file():
    corpus = corpus_lib.RecordSource(root / entry)
    check_video(corpus, config=config)
    return corpus
  prepared = [path.parent.name for path in root.glob(f"*/{corpus_lib.INDEX}")]
  raise errors.UserError(
    f"data.mixture names {entry!r}, which is neither a scenario family nor a "
    f"corpus in {root}; "
    + registry.nearest(entry, names=[*scenarios.FAMILIES, *sorted(prepared)])
    + f" {registry.HINT}"
  )


def check_video(corpus: corpus_lib.RecordSource, *, config: Config) -> None:
  """Refuses video that `prepare` has checked for another size.

  Raises:
    errors.UserError: it has another size than that of the config.
  """
  size = corpus.index.report.get("video")
  want = [config.streams.video_height, config.streams.video_width]
  if size is not None and size != want:
    raise errors.UserError(
      f"{corpus!r} has video of {size[0]} x {size[1]} pixels and the config's"
      f" streams.video_height and video_width are {want[0]} x {want[1]}: change"
      " them, or run `python -m tml_jax.prepare` with this config"
    )


def open_voices(
  config: Config, *, data_dir: str | os.PathLike[str]
) -> dict[str, corpus_lib.RecordSource]:
  """Voices by their entry in config.data.voices.

  Corpora of conversations, whose recordings are no prompts, are left out.

  Raises:
    errors.UserError: a corpus is missing or broken.
  """
  corpora = {
    entry: corpus_lib.RecordSource(
      pathlib.Path(data_dir) / source.parse(entry).folder
    )
    for entry in config.data.voices
  }
  return {
    entry: corpus
    for entry, corpus in corpora.items()
    if corpus.columns("prompt")["prompt"][0] is not None
  }
