"""Prepares the data of an experiment: voices to shards, transcripts to tokens.

For: `python -m tml_jax.prepare --config=experiments/interaction.py:tiny
--data_dir=DIR`. Not for: mixing (that is the loader's). Start reading at
`prepare`. Decodes each voice of config.data.voices in several processes,
skips and counts what cannot be used, writes one corpus a voice and trains the
tokenizer on all transcripts. It may be killed at any time: a second run keeps
what is finished and does the rest.
"""

import contextlib
import dataclasses
import fcntl
import functools
import json
import multiprocessing
import os
import pathlib
from collections.abc import Iterator
from concurrent import futures
from concurrent.futures import process
from typing import Any

import tqdm
from absl import flags, logging

from tml_jax import errors, files, plugins
from tml_jax.config import Config, StreamsConfig
from tml_jax.config import flags as config_flags
from tml_jax.data import corpus as corpus_lib
from tml_jax.data import source, workers
from tml_jax.streams import timeline, tokenizer

REPORT = "prepare_report.json"
TOKENIZER_RECORD = "tokenizer.json"
_EXAMPLES = 5  # of every reason to skip, in the report

_SOUNDS_ROOT = flags.DEFINE_string(
  "sounds_root",
  "/",
  "Where sources look for files: / for installed packages, or a folder that"
  " holds unpacked ones (FOLDER/usr/share/asterisk/sounds/...).",
)
_PROCESSES = flags.DEFINE_integer(
  "processes", os.cpu_count(), "Decoding processes.", lower_bound=1
)


def main(config: Config) -> None:
  prepare(
    config,
    data_dir=config_flags.data_dir(),
    sounds_root=_SOUNDS_ROOT.value,
    processes=_PROCESSES.value,
  )


def prepare(
  config: Config, *, data_dir: str, sounds_root: str, processes: int
) -> dict[str, Any]:
  """Makes `data_dir` ready for training; returns the report.

  Raises:
    errors.UserError: before any work, what is missing; or a voice without a
      single usable recording.
  """
  root = pathlib.Path(data_dir)
  files.make(root, what=f"--data_dir={root}")
  settings = source.Settings(root=pathlib.Path(sounds_root))
  corpora = _open_corpora(config, settings=settings)
  with _lock(root):
    todo = [corpus for corpus in corpora if not _is_finished(corpus, root=root)]
    _check_tokenizer(corpora, root=root, streams=config.streams)
    with _pool(processes, needed=bool(todo)) as pool:
      for corpus in todo:
        _prepare_corpus(corpus, root=root, pool=pool)
    transcripts = _train_tokenizer(corpora, root=root, config=config)
    report = {
      "corpora": {
        corpus.folder: _report_of(corpus_lib.read_index(root / corpus.folder))
        for corpus in corpora
      },
      "transcripts": transcripts,
    }
    corpus_lib.write_json(report, root / REPORT)
  print(_table(report))
  return report


@dataclasses.dataclass(frozen=True)
class _Corpus:
  folder: str
  recordings: source.Source


def _open_corpora(
  config: Config, *, settings: source.Settings
) -> list[_Corpus]:
  """Opens every source, so that whatever is missing is said at once."""
  corpora = []
  for entry in config.data.voices:
    spec = source.parse(entry)
    recordings = source.SOURCES[spec.source](spec.variant, settings=settings)
    corpora.append(_Corpus(spec.folder, recordings))
  return corpora


@contextlib.contextmanager
def _lock(root: pathlib.Path) -> Iterator[None]:
  """One `prepare` at a time; the lock of a killed one is gone with it."""
  with open(root / ".prepare.lock", "w") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise errors.UserError(
        f"another prepare is writing to {root}; wait for it"
      ) from error
    except OSError as error:  # network file systems, as they are mounted
      logging.warning(
        "%s has no locks (%s): see to it that no other prepare writes there",
        root,
        error.strerror,
      )
    yield


def _is_finished(corpus: _Corpus, *, root: pathlib.Path) -> bool:
  path = root / corpus.folder
  if not path.exists():
    return False
  if not path.is_dir():
    raise errors.UserError(f"{path} must be a folder: move that file away")
  try:
    corpus_lib.verify(path)
  except errors.UserError as error:
    logging.warning("rebuilding %s: %s", path, error)
    return False
  logging.info("%s is complete: kept", path)
  return True


@contextlib.contextmanager
def _pool(processes: int, *, needed: bool) -> Iterator[Any]:
  if not needed:
    yield None
    return
  # Spawned, not forked: a fork would copy the locks of FFmpeg's threads. An
  # executor, not a Pool: that would wait for ever for a killed process.
  pool = futures.ProcessPoolExecutor(
    processes,
    mp_context=multiprocessing.get_context("spawn"),
    initializer=workers.begin,
    initargs=(plugins.files(),),
  )
  try:
    yield pool
  except process.BrokenProcessPool as error:
    raise errors.UserError(
      "a decoding process was killed, perhaps for want of memory; run this"
      f" again with fewer than --processes={processes}: finished corpora stay"
    ) from error
  finally:
    pool.shutdown(cancel_futures=True)


def _prepare_corpus(corpus: _Corpus, *, root: pathlib.Path, pool: Any) -> None:
  count = len(corpus.recordings)
  skipped: dict[str, dict[str, Any]] = {}
  results = pool.map(
    functools.partial(_convert, corpus.recordings), range(count), chunksize=8
  )

  def usable() -> Iterator[corpus_lib.Record]:
    kept = 0
    for result in tqdm.tqdm(
      results, total=count, desc=corpus.folder, mininterval=1.0
    ):
      if isinstance(result, _Skipped):
        entry = skipped.setdefault(result.reason, {"count": 0, "examples": []})
        entry["count"] += 1
        if len(entry["examples"]) < _EXAMPLES:
          entry["examples"].append(result.detail)
      else:
        kept += 1
        yield result
    if not kept:  # raised here, so that no corpus is put in place
      raise errors.UserError(
        f"{corpus.folder}: none of {count} recordings can be used: {skipped}"
      )

  path = root / corpus.folder
  try:
    # Closed at once when this is interrupted, and the progress bar with it.
    with contextlib.closing(usable()) as records:
      corpus_lib.write(records, path=path, report={"skipped": skipped})
  except OSError as error:
    raise errors.UserError(
      f"cannot write {path}: {error}; mend that and run this again: finished"
      " corpora stay"
    ) from error


@dataclasses.dataclass(frozen=True)
class _Skipped:
  reason: str
  detail: str


def _convert(
  recordings: source.Source, index: int
) -> corpus_lib.Record | _Skipped:
  """Runs in a worker: one recording as it is written, or why not."""
  try:
    item = recordings[index]
  except source.BadRecording as error:
    return _Skipped(str(error.reason), error.detail)
  except MemoryError:
    return _Skipped(str(source.Reason.TOO_LARGE), f"number {index}: no memory")
  try:
    timeline.validate(item)
  except ValueError as error:
    return _Skipped(str(source.Reason.INVALID), str(error))
  return corpus_lib.Record.of(item)


def _has_tokenizer(root: pathlib.Path) -> bool:
  """Whether one is finished: its record is written last."""
  names = (tokenizer.FILENAME, TOKENIZER_RECORD)
  return all((root / name).exists() for name in names)


def _read_tokenizer_record(root: pathlib.Path) -> dict[str, Any]:
  """The corpora and the number of transcripts that it was trained on."""
  path = root / TOKENIZER_RECORD
  try:
    record = json.loads(path.read_text(encoding="utf-8"))
    return {name: record[name] for name in ("corpora", "transcripts")}
  except (ValueError, KeyError, TypeError) as error:
    raise errors.UserError(
      f"{path} is broken ({error!r}); delete it and run this again: the same"
      " corpora give the same tokenizer"
    ) from error


def _check_tokenizer(
  corpora: list[_Corpus], *, root: pathlib.Path, streams: StreamsConfig
) -> None:
  """Refuses to change the tokenizer under a model that was trained with it."""
  if not _has_tokenizer(root):
    return
  tokenizer.Tokenizer.load(str(root / tokenizer.FILENAME), config=streams)
  trained_on = _read_tokenizer_record(root)["corpora"]
  wanted = [corpus.folder for corpus in corpora]
  if sorted(trained_on) != sorted(wanted):
    raise errors.UserError(
      f"{root / tokenizer.FILENAME} was trained on {', '.join(trained_on)}, "
      f"not on {', '.join(wanted)}; use another --data_dir, or delete it to "
      "train a new one (models trained with the old one will not fit it)"
    )


def _train_tokenizer(
  corpora: list[_Corpus], *, root: pathlib.Path, config: Config
) -> int:
  """Trains the tokenizer unless it is there; returns the transcripts used."""
  if _has_tokenizer(root):
    return _read_tokenizer_record(root)["transcripts"]
  path = root / tokenizer.FILENAME
  texts = set()
  for corpus in corpora:
    recordings = corpus_lib.RecordSource(root / corpus.folder)
    for i in range(len(recordings)):
      texts.update(texts_of(recordings[i]))
  tokenizer.train(sorted(texts), path=str(path), config=config.streams)
  corpus_lib.write_json(
    {
      "corpora": [corpus.folder for corpus in corpora],
      "transcripts": len(texts),
    },
    root / TOKENIZER_RECORD,
  )
  return len(texts)


def texts_of(item: timeline.Timeline) -> set[str]:
  """What is said, typed and shown in a recording, for the tokenizer."""
  said = {" ".join(word.text for word in track.words) for track in item.tracks}
  return said | {event.text for event in item.events}


def _report_of(index: corpus_lib.Index) -> dict[str, Any]:
  return {
    "kept": index.records,
    "seconds": round(index.seconds, 3),
    "skipped": index.report.get("skipped", {}),
  }


def _table(report: dict[str, Any]) -> str:
  """The report as text: one line a corpus, one more for each reason."""
  lines = [f"{'corpus':<28}{'kept':>7}{'minutes':>9}  skipped"]
  for name, entry in report["corpora"].items():
    reasons = [
      f"{skipped['count']} {reason}"
      for reason, skipped in sorted(entry["skipped"].items())
    ]
    lines.append(
      f"{name:<28}{entry['kept']:>7}{entry['seconds'] / 60:>9.1f}  "
      + (", ".join(reasons) or "-")
    )
  lines.append(f"tokenizer trained on {report['transcripts']} transcripts")
  return "\n".join(lines)


if __name__ == "__main__":
  config_flags.run(main)
