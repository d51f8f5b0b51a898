"""The tokenizer of prepared data: trained once on all that is said in it.

For: `prepare`. Not for: tokens (`streams.tokenizer`). Start reading at `train`.
"""

import dataclasses
import pathlib

from absl import logging

from tml_jax import errors, files
from tml_jax.config import StreamsConfig
from tml_jax.data import corpus
from tml_jax.streams import timeline, tokenizer

RECORD = "tokenizer.json"


@dataclasses.dataclass(frozen=True)
class Record:
  """The corpora and the number of transcripts that it was trained on."""

  corpora: tuple[str, ...]
  transcripts: int


def check(root: pathlib.Path, *, streams: StreamsConfig) -> None:
  """Before any work: a tokenizer that is there can be used.

  Raises:
    errors.UserError: it, or its record, is broken or does not fit.
  """
  if _is_there(root):
    tokenizer.load(str(root / tokenizer.FILENAME), config=streams)
    _read(root)


def train(
  root: pathlib.Path, *, folders: list[str], streams: StreamsConfig
) -> Record:
  """Trains it on the corpora in `folders` unless it is there.

  One that is there stays, as models may have been trained with it. It spells
  whatever text other corpora have; a warning names those.

  Raises:
    errors.UserError: there is no text.
  """
  path = root / tokenizer.FILENAME
  if _is_there(root):
    record = _read(root)
    others = sorted({*folders} - {*record.corpora})
    if others:
      logging.warning(
        "%s stays as it was trained, on %s; it spells %s with the same pieces."
        " Delete it and run this again to train one on all (models trained with"
        " the old one will not fit it)",
        *(path, ", ".join(record.corpora), ", ".join(others)),
      )
    return record
  texts = set()
  for folder in folders:
    recordings = corpus.RecordSource(root / folder)
    for i in range(len(recordings)):
      texts.update(texts_of(recordings[i]))
  tokenizer.train(sorted(texts), path=str(path), config=streams)
  record = Record(tuple(folders), len(texts))
  corpus.write_json(dataclasses.asdict(record), root / RECORD)
  return record


def texts_of(item: timeline.Timeline) -> set[str]:
  """What is said, typed and shown in a recording."""
  said = {" ".join(word.text for word in track.words) for track in item.tracks}
  return said | {event.text for event in item.events}


def _is_there(root: pathlib.Path) -> bool:
  """Whether one is finished: its record is written last."""
  return all((root / name).exists() for name in (tokenizer.FILENAME, RECORD))


def _read(root: pathlib.Path) -> Record:
  path = root / RECORD
  try:
    content = files.load_json(path)
    corpora, transcripts = content["corpora"], content["transcripts"]
    if type(transcripts) is not int or not all(
      isinstance(name, str) for name in corpora
    ):
      raise ValueError(f"corpora {corpora!r}, transcripts {transcripts!r}")
    return Record(tuple(corpora), transcripts)
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise errors.UserError(
      f"{path} is broken ({error!r}); delete it and run this again: the same"
      " corpora give the same tokenizer"
    ) from error
