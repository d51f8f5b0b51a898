"""Prepares the data of an experiment: voices to shards, transcripts to tokens.

For: `python -m tml_jax.prepare --config=experiments/interaction.py:tiny
--data_dir=DIR`. Not for: mixing (that is the loader's). Start reading at
`prepare`. Decodes each voice of config.data.voices in several processes,
skips and counts what cannot be used, writes one corpus a voice and trains the
tokenizer on all transcripts, unless one is there or --tokenizer names one. It
may be killed at any time: a second run keeps what is finished and does the
rest. It says of every corpus whether it was kept, and if not, why: damaged, or
other recordings or code than it was made of.
"""

import contextlib
import dataclasses
import fcntl
import functools
import multiprocessing
import os
import pathlib
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import process
from typing import Any

import tqdm
from absl import flags, logging

from tml_jax import errors, files, plugins
from tml_jax.config import Config
from tml_jax.config import flags as config_flags
from tml_jax.data import convert as convert_lib
from tml_jax.data import corpus as corpus_lib
from tml_jax.data import origin as origin_lib
from tml_jax.data import source, transcripts, workers
from tml_jax.streams import tokenizer

REPORT = "prepare_report.json"
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
    tokenizer_file=config_flags.TOKENIZER.value,
  )


def prepare(
  config: Config,
  *,
  data_dir: str,
  sounds_root: str,
  processes: int,
  tokenizer_file: str = "",
) -> dict[str, Any]:
  """Makes `data_dir` ready for training; returns the report.

  With a `tokenizer_file` none is trained: the commands that read the data are
  given the same one.

  Raises:
    errors.UserError: before any work, what is missing; or a voice without a
      single usable recording.
  """
  root = pathlib.Path(data_dir)
  files.make(root, what=f"--data_dir={root}")
  settings = source.Settings(root=pathlib.Path(sounds_root))
  corpora = _open_corpora(config, settings=settings)
  with _lock(root):
    plans = {corpus.folder: _plan(corpus, root=root) for corpus in corpora}
    transcripts.check(root, streams=config.streams, given=tokenizer_file)
    todo = [c for c in corpora if not plans[c.folder].is_kept]
    with _pool(processes, needed=bool(todo)) as pool:
      for corpus in todo:
        plan = plans[corpus.folder]
        logging.info("%s: %s", root / corpus.folder, plan.done)
        _prepare_corpus(corpus, plan=plan, root=root, pool=pool)
    record = None
    if not tokenizer_file:
      record = transcripts.train(
        root,
        folders=[corpus.folder for corpus in corpora],
        streams=config.streams,
      )
    report = {
      "corpora": {
        corpus.folder: {"done": plans[corpus.folder].done}
        | _report_of(corpus_lib.read_index(root / corpus.folder))
        for corpus in corpora
      },
      "tokenizer": tokenizer.described(
        tokenizer.path(root, given=tokenizer_file)
      ),
      "transcripts": record.transcripts if record else 0,
      "tokenizer_of": list(record.corpora) if record else [],
    }
    corpus_lib.write_json(report, root / REPORT)
  print(_table(report))
  return report


@dataclasses.dataclass(frozen=True)
class _Corpus:
  """A corpus to be prepared.

  Attributes:
    folder: in the data directory.
    recordings: of its source.
    origin: what it would be made of now.
  """

  folder: str
  recordings: source.Source
  origin: origin_lib.Origin


def _open_corpora(
  config: Config, *, settings: source.Settings
) -> list[_Corpus]:
  """Opens every source, so that whatever is missing is said at once."""
  corpora = []
  size = (config.streams.video_height, config.streams.video_width)
  for entry in config.data.voices:
    spec = source.parse(entry)
    factory = source.SOURCES[spec.source]
    recordings = factory(spec.variant, settings=settings)
    code = origin_lib.code_of(factory)
    origin = origin_lib.of(recordings, code=code, size=size)
    corpora.append(_Corpus(spec.folder, recordings, origin))
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


@dataclasses.dataclass(frozen=True)
class _Plan:
  """What is done about a corpus.

  Attributes:
    is_kept: nothing.
    done: in words, for the report.
    old: the corpus as it stands, if something of it is used again.
    same: see `origin.Comparison`.
  """

  is_kept: bool
  done: str
  old: pathlib.Path | None = None
  same: dict[int, int] = dataclasses.field(default_factory=dict)


def _plan(corpus: _Corpus, *, root: pathlib.Path) -> _Plan:
  """Compares a corpus on disk with what its source is now."""
  path = root / corpus.folder
  if not path.exists():
    return _Plan(False, "new")
  if not path.is_dir():
    raise errors.UserError(f"{path} must be a folder: move that file away")
  try:
    corpus_lib.verify(path)
  except errors.UserError as error:
    logging.warning("rebuilding %s: %s", path, error)
    return _Plan(False, "rebuilt: it was damaged")
  found = origin_lib.compare(corpus.origin, then=origin_lib.read(path))
  if found.why:
    done = "brought up to date" if found.same else "rebuilt"
    return _Plan(False, f"{done}: {found.why}", path, found.same)
  if isinstance(corpus.recordings, source.Stamped):
    return _Plan(True, "kept")
  return _Plan(
    True,
    "kept: as many recordings as before, and its source has no stamp() that"
    " would tell whether one has changed",
  )


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


def _prepare_corpus(
  corpus: _Corpus, *, plan: _Plan, root: pathlib.Path, pool: Any
) -> None:
  """Writes a corpus; reads only those recordings that are not as before."""
  count, origin = len(corpus.recordings), corpus.origin
  again = _again(plan)
  todo = [i for i in range(count) if plan.same.get(i) not in again]
  convert = functools.partial(
    convert_lib.convert, corpus.recordings, size=origin.size
  )
  report: dict[str, Any] = {"skipped": {}, source.NOTES: {}}
  beside: dict[str, Any] = {}

  def usable() -> Iterator[corpus_lib.Record]:
    kept = 0
    results = iter(
      tqdm.tqdm(
        pool.map(convert, todo, chunksize=8),
        total=len(todo),
        desc=corpus.folder,
        mininterval=1.0,
      )
    )
    for index, recording in enumerate(origin.recordings):
      old = again.get(plan.same.get(index))
      result = old() if old else next(results)
      origin.recordings[index] = _origin_of(result, stamp=recording.stamp)
      if isinstance(result, convert_lib.Skipped):
        _count(report["skipped"], result.reason, example=result.detail)
        continue
      for note, number in result.notes.items():
        _count(report[source.NOTES], note, example=result.id, number=number)
      if result.has_video:
        report[origin_lib.SIZE] = list(origin.size)
      kept += 1
      yield result.record
    if not kept:  # raised here, so that no corpus is put in place
      raise errors.UserError(
        f"{corpus.folder}: none of {count} recordings can be used:"
        f" {report['skipped']}"
      )
    beside[origin_lib.FILE] = origin.to_json()

  path = root / corpus.folder
  try:
    # Closed at once when this is interrupted, and the progress bar with it.
    with contextlib.closing(usable()) as records:
      corpus_lib.write(records, path=path, report=report, beside=beside)
  except OSError as error:
    raise errors.UserError(
      f"cannot write {path}: {error}; mend that and run this again: finished"
      " corpora stay"
    ) from error
  for note, entry in report[source.NOTES].items():
    logging.warning(
      "%s: left out %d %s, for instance of %s",
      *(corpus.folder, entry["count"], note, ", ".join(entry["examples"])),
    )


def _again(
  plan: _Plan,
) -> dict[int | None, Callable[[], convert_lib.Kept | convert_lib.Skipped]]:
  """By number in the source of then: what need not be read again."""
  if plan.old is None or not plan.same:
    return {}
  then = origin_lib.read(plan.old)
  assert then is not None  # something was compared with it
  written, wanted = corpus_lib.RecordSource(plan.old), {*plan.same.values()}
  found: dict[int | None, Callable[[], Any]] = {}
  position = 0
  for number, recording in enumerate(then.recordings):
    if recording.skipped is None:
      if number in wanted:
        found[number] = functools.partial(_kept, written, position)
      position += 1
    elif number in wanted:
      found[number] = functools.partial(convert_lib.Skipped, *recording.skipped)
  return found


def _origin_of(
  result: convert_lib.Kept | convert_lib.Skipped, *, stamp: str
) -> origin_lib.Recording:
  if isinstance(result, convert_lib.Kept):
    return origin_lib.Recording(stamp, None, result.has_video)
  return origin_lib.Recording(
    stamp,
    (result.reason, result.detail),
    result.reason == source.Reason.OTHER_SIZE,
  )


def _kept(written: corpus_lib.RecordSource, position: int) -> convert_lib.Kept:
  return convert_lib.keep(written[position])


def _count(
  counts: dict[str, Any], reason: str, *, example: str, number: int = 1
) -> None:
  entry = counts.setdefault(reason, {"count": 0, "examples": []})
  entry["count"] += number
  if len(entry["examples"]) < _EXAMPLES:
    entry["examples"].append(example)


def _report_of(index: corpus_lib.Index) -> dict[str, Any]:
  return {
    "kept": index.records,
    "seconds": round(index.seconds, 3),
    "skipped": index.report.get("skipped", {}),
    source.NOTES: index.report.get(source.NOTES, {}),
  }


def _table(report: dict[str, Any]) -> str:
  """The report as text: one line a corpus, more for what is not as usual."""
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
    lines.append(f"  {entry['done']}")
    lines += [
      f"  left out: {left['count']} {note}"
      for note, left in sorted(entry[source.NOTES].items())
    ]
  line = f"tokenizer {report['tokenizer']}"
  if report["tokenizer_of"]:
    line = (
      f"tokenizer trained on {report['transcripts']} transcripts of"
      f" {', '.join(report['tokenizer_of'])}"
    )
  lines.append(line)
  return "\n".join(lines)


if __name__ == "__main__":
  config_flags.run(main)
